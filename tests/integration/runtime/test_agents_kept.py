"""What agents keep between turns, what they are told of a conversation they do not remember, and how they are found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from askbench import Asker, with_asker
from fake_clock import FakeClock
from nodebench import QUICK, House

from coder.errors import InvalidInput
from coder.events import Command
from coder.ports import AgentFacts
from coder.runtime.roster import LOOK_SECONDS, PROBE_SECONDS
from coder.task import AgentSession, ExecutionPath

KEPT = AgentSession("ses_1", "hash", "one-0")
STATUS = "select status from agent_sessions"


async def turn(house: House, **columns: object) -> int:
    task = await house.add("say hello", agent="goose", **columns)
    assert await house.ended(task) == ["completed"]
    return task


async def test_what_an_agent_keeps_comes_with_the_next_turn_of_its_chat_and_of_no_other(house: House) -> None:
    asker = with_asker(house)
    asker.keeps = KEPT
    await house.node()
    session = await house.session_of(await turn(house))
    await turn(house, session_id=session)
    assert [talk.turn.agent_session for talk in asker.talks] == [None, KEPT]
    await house.sql.execute("select coder.open_chat($1)", session)
    await turn(house, session_id=session)
    await turn(house)
    assert [talk.turn.agent_session for talk in asker.talks[2:]] == [None, None]
    asker.keeps = None
    await turn(house, session_id=session)
    await turn(house, session_id=session)
    assert asker.talks[-1].turn.agent_session == replace(KEPT, status="lost"), "the turn before left nothing to come back to"


@pytest.mark.parametrize(("how", "status"), [("clean", "stopped"), ("unclean", "lost"), ("killed", "lost"), ("elsewhere", "lost")])
async def test_whether_a_session_may_be_resumed_depends_on_how_its_process_ended(house: House, how: str, status: str) -> None:
    asker = with_asker(house)
    asker.keeps, asker.stop_fails = KEPT, how == "unclean"
    node = await house.node()
    session = await house.session_of(await turn(house))
    assert await house.sql.fetchval(STATUS) == "active"
    if how in ("clean", "unclean"):
        await node.stop()
        assert await house.sql.fetchval(STATUS) == ("stopped" if how == "clean" else "active")
        await house.node()
    elif how == "killed":
        await house.sql.execute("update nodes set lease_until = '-infinity'")
        await house.sql.fetch("select * from coder.reap()")
        assert await house.sql.fetchval(STATUS) == "lost"
    else:
        other = (
            "insert into nodes (id, host_id, version, lease_until) "
            "select gen_random_uuid(), host_id, '1', '2100-01-01' from nodes returning id"
        )
        await house.sql.execute("update agent_sessions set node_id = $1", await house.sql.fetchval(other))
    await turn(house, session_id=session)
    assert asker.talks[-1].turn.agent_session == replace(KEPT, status=status)
    assert await house.sql.fetchval(STATUS) == "active"


async def test_a_turn_that_never_reached_its_agent_changes_nothing_of_what_it_keeps(house: House) -> None:
    asker = with_asker(house)
    asker.keeps = KEPT
    await house.node()
    session = await house.session_of(await turn(house))
    house.notebook.faults["guard_state"] = InvalidInput("not today.")
    failed = await house.add("say x", agent="goose", session_id=session)
    assert await house.ended(failed) == ["failed"]
    assert await house.sql.fetchval(STATUS) == "active"


async def test_an_agent_that_is_new_to_a_chat_can_read_what_was_said(house: House) -> None:
    with_asker(house)
    await house.node()
    first = await house.add("say hello")
    session = await house.session_of(first)
    task = await house.add("earlier", agent="goose", session_id=session)
    assert await house.ended(task) == ["completed"]
    said = (await house.message(task))["text"]
    assert said == "User:\nsay hello\n\nAssistant:\nworking on it; done: say hello."
    await house.sql.execute("select coder.open_chat($1)", session)
    fresh = await house.add("earlier", agent="goose", session_id=session)
    assert await house.ended(fresh) == ["completed"]
    assert (await house.message(fresh))["text"] == "."


async def test_a_long_conversation_is_read_from_its_end(house: House) -> None:
    with_asker(house)
    await house.node()
    first = await house.add(f"say {'é' * 300_000}end", agent="goose")
    assert await house.ended(first) == ["completed"]
    task = await house.add("earlier", agent="goose", session_id=await house.session_of(first))
    assert await house.ended(task) == ["completed"]
    said = (await house.message(task))["text"]
    assert said.startswith("[… what was said before this is left out]")
    assert said.endswith("éend..")
    assert len(said.encode()) < 201_000


async def test_a_node_starts_without_waiting_for_its_agents_and_tasks_wait_for_theirs_alone(house: House) -> None:
    asker = with_asker(house)
    asker.probing = asyncio.Event()
    async with asyncio.timeout(3):
        await house.node()
    named = await house.add("say x", agent="goose")
    assert await house.ended(await house.add("say y")) == ["completed"]
    unknown = await house.add("say z", agent="nobody")
    assert await house.ended(unknown) == ["completed"]
    assert (await house.task(unknown))["notices"][0].startswith("Agent nobody is not available")
    assert (await house.task(named))["state"] == "running"
    asker.probing.set()
    assert await house.ended(named) == ["completed"]
    assert ((await house.task(named))["agent_used"], len(asker.talks)) == ("goose", 1)


async def test_a_task_that_waits_for_a_probe_can_be_cancelled(house: House) -> None:
    with_asker(house).probing = asyncio.Event()
    await house.node()
    task = await house.add("say x", agent="goose")
    await house.until("select state = 'running' from tasks where id = $1", task)
    await house.sql.execute("select coder.cancel($1)", task)
    assert await house.ended(task) == ["cancelled"]


async def test_everything_a_probe_finds_is_recorded(house: House) -> None:
    asker = with_asker(house)
    asker.found = AgentFacts(
        "goose", ExecutionPath.ACP, False, "1.2\0", "not there", ("m1", "m2"), "/opt/goose", ("auto",), ("high",),
        (Command("init", "Write it", "[file]"),), "curl | sh",
    )  # fmt: skip
    await house.node()
    query = (
        "select version, path, detail, install, models, modes, thinking_options, commands from available_agents "
        "where agent = 'goose' and host_id = $1"
    )
    await house.until("select exists (select from available_agents where agent = 'goose')")
    row = await house.sql.fetchrow(query, house.host)
    assert tuple(row) == (
        "1.2\ufffd", "/opt/goose", "not there", "curl | sh", ["m1", "m2"], ["auto"], ["high"],
        '[{"hint": "[file]", "name": "init", "description": "Write it"}]',
    )  # fmt: skip


@pytest.mark.parametrize("wrong", [InvalidInput("Its configuration is broken."), ValueError("nobody foresaw this")])
async def test_a_probe_that_goes_wrong_is_a_fact_about_its_agent_alone(house: House, wrong: Exception) -> None:
    with_asker(house).found = wrong
    await house.node()
    detail = await house.until("select detail from available_agents where agent = 'goose' and not available")
    assert str(wrong).rstrip(".") in detail
    assert await house.until("select available from available_agents where agent = 'native'")


async def test_a_probe_that_takes_too_long_is_given_up(house: House) -> None:
    clock = house.clock = FakeClock()
    with_asker(house).probing = asyncio.Event()
    await house.node(replace(QUICK, poll=1e6, lease=1e7, beat=1e6))
    task = await house.add("say x", agent="goose")
    await clock.asleep(PROBE_SECONDS)
    await clock.advance(PROBE_SECONDS)
    assert "30 s" in await house.until("select detail from available_agents where agent = 'goose'")
    assert await house.ended(task) == ["completed"]
    assert (await house.task(task))["agent_used"] == "native"


async def test_agents_are_looked_for_again_when_somebody_asks(house: House) -> None:
    asker: Asker = with_asker(house)
    asker.found = AgentFacts("goose", ExecutionPath.ACP, False)
    await house.sql.execute(
        "with h as (insert into hosts (id, name) values ($1, 'here') returning id) "
        "insert into available_agents (host_id, agent, execution_path, available) select id, 'gone', 'pty', true from h",
        house.host,
    )
    await house.node()
    await house.until("select count(*) = 2 and bool_and(agent <> 'gone') from available_agents")
    asker.found = None
    before = datetime.now(UTC)
    assert await house.sql.fetchval("select coder.probe_agents()") == 1
    await house.until("select bool_and(probed_at > $1) and bool_and(available) from available_agents", before)
    assert asker.probes == 2
    task = await house.add("say x", agent="goose")
    assert await house.ended(task) == ["completed"]
    assert ((await house.task(task))["agent_used"], asker.probes) == ("goose", 2)


async def test_what_an_agent_tells_later_is_recorded_without_anybody_asking(house: House) -> None:
    clock = house.clock = FakeClock()
    asker = with_asker(house)
    asker.found = AgentFacts("goose", ExecutionPath.ACP, True, unfinished=True)
    await house.node(replace(QUICK, poll=1e6, lease=1e7, beat=1e6))
    first = await house.until("select probed_at from available_agents where agent = 'goose'")
    asker.found = AgentFacts("goose", ExecutionPath.ACP, True, modes=("auto",))
    await clock.asleep(LOOK_SECONDS)
    await clock.advance(LOOK_SECONDS)
    assert await house.until("select probed_at from available_agents where agent = 'goose' and modes::text like '%auto%'") > first
