"""What a node makes of tasks: order, concurrency, every way a turn ends, and that its agent is really left."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from nodebench import QUICK, Agent, House

from coder.errors import DiskFull, NoProjectPath
from coder.task import ExecutionPath


async def test_a_turn_from_insert_to_stored_answer(house: House) -> None:
    await house.node()
    task = await house.add("say hello")
    assert await house.ended(task) == ["completed"]
    row, said = await house.task(task), await house.message(task)
    assert (row["output_summary"], row["notices"]) == ("working on it; done: say hello", ["an agent's notice"])
    assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["cost_tokens"]) == (10, 4, 2, 12)
    assert (row["agent_used"], row["execution_path"], row["attempts"]) == ("native", ExecutionPath.NATIVE, 1)
    assert row["claimed_at"] <= row["first_event_at"] <= row["ended_at"]
    assert (said["state"], said["text"]) == ("complete", "working on it; done: say hello")
    assert await house.sql.fetchval("select context_size from chats") == 12
    (turn,) = house.agent.turns
    assert (turn.prompt, str(turn.worktree)) == ("say hello", f"/srv/worktrees/{row['session_id']}")
    assert await house.sql.fetchval("select host_id from session_queue") == house.host


async def test_tasks_of_a_session_run_in_order_and_one_at_a_time(house: House) -> None:
    first = await house.add("say 0")
    session = await house.session_of(first)
    rest = [await house.add(f"say {number}", session_id=session, priority=number) for number in range(1, 8)]
    await house.node()
    await house.ended(first, *rest)
    assert [line for line in house.agent.order if line.startswith("start")] == [f"start say {number}" for number in range(8)]
    assert house.agent.most_of_a_session == 1


async def test_sessions_run_at_the_same_time_up_to_the_slots(house: House) -> None:
    await house.node(replace(QUICK, slots=3))
    tasks = [await house.add(f"wait {number}") for number in range(5)]
    await house.agent.until("spoke wait 0", "spoke wait 1", "spoke wait 2")
    assert await house.sql.fetchval("select count(*) from tasks where state = 'running'") == 3
    house.agent.let_go("wait 1")
    await house.agent.until("spoke wait 3")
    for number in range(5):
        house.agent.let_go(f"wait {number}")
    assert await house.ended(*tasks) == ["completed"] * 5
    assert house.agent.most == 3


async def test_a_busy_session_delays_no_other(house: House) -> None:
    await house.node(replace(QUICK, slots=2))
    busy = await house.add("wait busy")
    session = await house.session_of(busy)
    for number in range(50):
        await house.add(f"say behind {number}", session_id=session)
    await house.agent.until("spoke wait busy")
    other = await house.add("say other")
    assert await house.ended(other) == ["completed"]
    assert (await house.task(busy))["state"] == "running"


async def test_the_more_urgent_session_goes_first(house: House) -> None:
    tasks = [await house.add(f"say {priority}", priority=priority) for priority in (0, 5, -1, 3)]
    await house.node(replace(QUICK, slots=1))
    await house.ended(*tasks)
    assert [line for line in house.agent.order if line.startswith("start")] == ["start say 5", "start say 3", "start say 0", "start say -1"]


async def test_a_task_starts_when_its_time_has_come(house: House) -> None:
    await house.node()
    due = await house.sql.fetchval("select clock_timestamp() + interval '400 ms'")
    task = await house.add("say later", run_at=due)
    assert await house.ended(task) == ["completed"]
    assert (await house.task(task))["claimed_at"] >= due


async def test_two_nodes_share_the_work(house: House) -> None:
    await house.node(replace(QUICK, slots=2))
    await house.node(replace(QUICK, slots=2))
    tasks = [await house.add(f"wait {number}") for number in range(4)]
    await house.agent.until(*[f"spoke wait {number}" for number in range(4)])
    assert await house.sql.fetchval("select count(distinct owner) from session_queue where state = 'running'") == 2
    for number in range(4):
        house.agent.let_go(f"wait {number}")
    assert await house.ended(*tasks) == ["completed"] * 4


@pytest.mark.parametrize("verb", ["wait", "mute", "tool"])
async def test_cancelling_a_running_task_leaves_its_agent(house: House, verb: str) -> None:
    await house.node()
    task = await house.add(f"{verb} long")
    await house.agent.until(f"start {verb} long")
    if verb != "mute":
        await house.until("select first_event_at from tasks where id = $1", task)
    assert await house.sql.fetchval("select coder.cancel($1)", task) == "running"
    assert await house.ended(task) == ["cancelled"]
    assert house.agent.order[-1] == f"end {verb} long"
    row, said = await house.task(task), await house.message(task)
    assert (row["reason"], said["state"]) == ("user", "cancelled")
    if verb == "tool":
        assert [call["status"] for call in json.loads(said["tool_calls"])] == ["failed"]
    assert await house.ended(await house.add("say next", session_id=row["session_id"])) == ["completed"]


async def test_a_cancelled_agent_that_needs_its_time_holds_the_session_so_long(house: House) -> None:
    await house.node()
    task = await house.add("stubborn one")
    later = await house.add("say next", session_id=await house.session_of(task))
    await house.agent.until("start stubborn one")
    await house.sql.fetchval("select coder.cancel($1)", task)
    for _ in range(3):
        await house.until("select pg_sleep(0.1) is not null")
    assert (await house.task(later))["state"] == "pending"
    house.agent.let_go("stubborn one")
    assert await house.ended(task, later) == ["cancelled", "completed"]
    assert house.agent.most_of_a_session == 1


async def test_a_cancel_while_the_worktree_is_in_use_elsewhere_does_not_wait_for_it(house: House) -> None:
    task = await house.add("say x")
    house.notebook.held.add(await house.session_of(task))
    await house.node()
    await house.until("select state = 'running' from tasks where id = $1", task)
    await house.sql.fetchval("select coder.cancel($1)", task)
    async with asyncio.timeout(5):
        assert await house.ended(task) == ["cancelled"]
    assert house.agent.turns == []


async def test_a_worktree_that_becomes_free_is_waited_for(house: House) -> None:
    task = await house.add("say x")
    house.notebook.held.add(await house.session_of(task))
    await house.node()
    await house.until("select state = 'running' from tasks where id = $1", task)
    house.notebook.held.clear()
    assert await house.ended(task) == ["completed"]


async def test_a_provider_that_fails_ends_the_turn_with_its_sentence_and_lets_the_session_go_on(house: House) -> None:
    await house.node()
    task = await house.add("fail now")
    later = await house.add("say next", session_id=await house.session_of(task))
    assert await house.ended(task, later) == ["failed", "completed"]
    row, said = await house.task(task), await house.message(task)
    assert (row["reason"], row["error"]) == ("provider", "The provider answered 500 (overloaded); try again later.")
    assert (said["state"], row["first_event_at"]) == ("failed", None)


async def test_a_fault_nobody_foresaw_ends_the_turn_too(house: House) -> None:
    await house.node()
    task = await house.add("bug here")
    assert await house.ended(task) == ["failed"]
    row = await house.task(task)
    assert row["reason"] == "internal"
    assert "ValueError: nobody foresaw this" in row["error"]
    assert await house.ended(await house.add("say x")) == ["completed"]


@pytest.mark.parametrize(("fallback", "state", "reason"), [("native", "completed", None), ("fail", "failed", "agent_unavailable")])
async def test_an_agent_that_is_not_there(house: House, fallback: str, state: str, reason: str | None) -> None:
    house.agents["opencode"] = Agent("opencode", available=False)
    await house.sql.execute("update projects set agent_fallback = $1", fallback)
    await house.node()
    task = await house.add("say x", agent="opencode")
    assert await house.ended(task) == [state]
    row = await house.task(task)
    assert (row["agent"], row["reason"]) == ("opencode", reason)
    if fallback == "native":
        assert row["agent_used"] == "native"
        assert row["notices"][0].startswith("Agent opencode is not available on this host")


async def test_the_agent_that_is_named_runs_and_what_was_probed_is_recorded(house: House) -> None:
    other = Agent("opencode")
    house.agents["opencode"] = other
    await house.node()
    task = await house.add("say x", agent="opencode")
    assert await house.ended(task) == ["completed"]
    assert (len(other.turns), len(house.agent.turns)) == (1, 0)
    row = await house.task(task)
    assert (row["agent_used"], row["execution_path"]) == ("opencode", "opencode")
    rows = await house.sql.fetch("select agent, available, execution_path from available_agents order by agent")
    assert [tuple(row) for row in rows] == [("native", True, "native"), ("opencode", True, "opencode")]


async def test_the_next_turn_of_a_chat_gets_what_the_last_one_left(house: House) -> None:
    await house.node()
    first = await house.add("remember this")
    second = await house.add("say again", session_id=await house.session_of(first))
    await house.ended(first, second)
    assert house.agent.turns[0].model_history is None
    assert house.agent.turns[1].model_history == '[{"role":"user","content":"remember"}]'
    assert house.agent.turns[0].chat_id == house.agent.turns[1].chat_id


async def test_a_worktree_that_cannot_be_made_fails_the_task_with_its_reason(house: House) -> None:
    house.notebook.faults["ensure"] = NoProjectPath(project="shop", path="/srv/shop")
    await house.node()
    task = await house.add("say x")
    assert await house.ended(task) == ["failed"]
    row = await house.task(task)
    assert (row["reason"], row["attempts"], house.agent.turns) == ("no_project_path", 1, [])
    assert "not a directory on this host" in row["error"]


async def test_work_that_cannot_be_recorded_is_not_called_completed(house: House) -> None:
    house.notebook.faults["snapshot"] = DiskFull(what="the snapshot", where="/srv")
    await house.node()
    task = await house.add("say x")
    assert await house.ended(task) == ["failed"]
    row = await house.task(task)
    assert (row["reason"], (await house.message(task))["text"]) == ("disk", "working on it; done: say x")
    assert "The work was done, but not recorded" in row["error"]
    assert await house.sql.fetchval("select unsnapshotted_task from session_worktrees") == task


async def test_a_turn_that_changed_the_repository_itself_warns_whoever_reviews_it(house: House) -> None:
    task = await house.add("wait x")
    house.notebook.trees[await house.session_of(task)] = "1" * 40
    await house.node()
    await house.agent.until("spoke wait x")
    house.notebook.guard = "another config"
    house.agent.let_go("wait x")
    assert await house.ended(task) == ["completed"]
    (warning,) = await house.sql.fetchval("select warnings from pending_changes")
    assert "hooks" in warning
    assert warning in (await house.task(task))["notices"]


async def test_retry_resume_and_dismiss_of_an_interrupted_task(house: House) -> None:
    node = await house.node(replace(QUICK, drain=0.0))
    task = await house.add("wait x")
    later = await house.add("say later", session_id=await house.session_of(task))
    await house.agent.until("spoke wait x")
    await house.until("select first_event_at from tasks where id = $1", task)
    await node.stop()
    assert (await house.task(task))["state"] == "interrupted"
    house.agent.let_go("wait x")
    await house.node()
    again = await house.sql.fetchval("select coder.resume($1)", task)
    assert await house.ended(again, later) == ["completed", "completed"]
    assert house.agent.turns[1].prompt.startswith("You were interrupted")
    starts = [line for line in house.agent.order if line.startswith("start")]
    assert starts == ["start wait x", "start wait x", "start say later"]


async def test_what_was_asked_of_the_queue_before_the_node_was_there_is_done(house: House) -> None:
    cancelled, done = await house.add("say a"), await house.add("say b")
    await house.sql.fetchval("select coder.cancel($1)", cancelled)
    later = await house.add("say c", run_at=datetime(2099, 1, 1, tzinfo=UTC))
    await house.node()
    assert await house.ended(cancelled, done) == ["cancelled", "completed"]
    assert (await house.task(later))["state"] == "pending"
    assert [turn.prompt for turn in house.agent.turns] == ["say b"]


async def test_a_turn_starts_in_its_session_s_directory_of_the_worktree(house: House, tmp_path: Path) -> None:
    worktree = tmp_path / "worktree"
    (worktree / "api").mkdir(parents=True)
    house.notebook.place = str(worktree)
    await house.node()
    first = await house.add("say 1")
    await house.ended(first)
    session = await house.session_of(first)
    turns = [(first, worktree, [])]
    for cwd, place, notices in (
        ("api", worktree / "api", []),
        ("/srv/shop/gone/deep", worktree, ["There is no directory gone/deep in this session's worktree, so the turn started at its root."]),
        (None, worktree, []),
    ):
        await house.sql.execute("select coder.set_cwd($1, $2)", session, cwd)
        turns.append((await house.add("say more", session_id=session), place, notices))
        await house.ended(turns[-1][0])
    assert [turn.cwd for turn in house.agent.turns] == [place for _, place, _ in turns]
    for task, _, notices in turns:
        assert (await house.task(task))["notices"] == [*notices, "an agent's notice"]
