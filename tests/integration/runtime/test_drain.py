"""Stopping a node: what can finish finishes, what was seen is interrupted, what was not goes back whole; nothing is left behind."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from nodebench import QUICK, House

SHORT = replace(QUICK, drain=0.3)


async def test_a_turn_that_ends_within_the_drain_is_stored_as_it_ended(house: House) -> None:
    node = await house.node()
    task = await house.add("wait x")
    await house.agent.until("spoke wait x")
    stopping = asyncio.create_task(node.stop())
    late = await house.add("say late")
    await house.until("select pg_sleep(0.3) is not null")
    assert not stopping.done()
    house.agent.let_go("wait x")
    await stopping
    assert (await house.task(task))["state"] == "completed"
    assert (await house.task(late))["state"] == "pending", "a node that stops claims nothing more"
    assert house.agent.stopped == 1


async def test_what_was_seen_is_interrupted_and_what_was_not_goes_back_with_its_attempt(house: House) -> None:
    node = await house.node(SHORT)
    seen, unseen = await house.add("wait seen"), await house.add("mute unseen")
    await house.agent.until("spoke wait seen", "start mute unseen")
    await house.until("select first_event_at from tasks where id = $1", seen)
    await node.stop()
    row, said = await house.task(seen), await house.message(seen)
    assert (row["state"], row["reason"], said["state"], said["text"]) == ("interrupted", "shutdown", "interrupted", "working on it; ")
    assert row["error"] == "coder was stopped while this task ran; resume, retry or dismiss it."
    row = await house.task(unseen)
    assert (row["state"], row["attempts"], row["node_id"], row["reason"]) == ("pending", 0, None, None)
    queue = {row["session_id"]: row["state"] for row in await house.sql.fetch("select session_id, state from session_queue")}
    assert (queue[await house.session_of(seen)], queue[await house.session_of(unseen)]) == ("held", "ready")
    assert sorted(house.agent.order[-2:]) == ["end mute unseen", "end wait seen"]
    house.agent.let_go("mute unseen")
    await house.node()
    assert await house.ended(unseen) == ["completed"]
    assert (await house.task(unseen))["attempts"] == 1


async def test_an_interrupted_turn_s_work_becomes_a_change(house: House) -> None:
    node = await house.node(SHORT)
    task = await house.add("wait x")
    house.notebook.trees[await house.session_of(task)] = "1" * 40
    await house.agent.until("spoke wait x")
    await house.until("select first_event_at from tasks where id = $1", task)
    await node.stop()
    change = await house.sql.fetchrow("select state, turn_outcome, task_id from pending_changes")
    assert tuple(change) == ("pending", "interrupted", task)


async def test_a_task_cancelled_while_the_node_drains_does_not_come_back(house: House) -> None:
    node = await house.node(SHORT)
    task = await house.add("stubborn x")
    await house.agent.until("start stubborn x")
    stopping = asyncio.create_task(node.stop())
    await house.until("select pg_sleep(0.6) is not null")  # the drain is over, the agent still ends
    assert await house.sql.fetchval("select coder.cancel($1)", task) == "running"
    house.agent.let_go("stubborn x")
    await stopping
    row = await house.task(task)
    assert (row["state"], row["reason"]) == ("cancelled", "user")


async def test_stopping_an_idle_node_signs_it_off_at_once(house: House) -> None:
    node = await house.node()
    assert await house.sql.fetchval("select count(*) from nodes") == 1
    async with asyncio.timeout(3):
        await node.stop()
    assert await house.sql.fetchval("select count(*) from nodes") == 0
    await node.stop()


async def test_a_node_that_stops_while_the_queue_is_full_leaves_no_task_to_a_lease(house: House) -> None:
    """Whatever the claim on its way brings is either run or given back at once."""
    for number in range(40):
        await house.add(f"say {number}")
    node = await house.node(replace(QUICK, slots=2))
    await house.agent.until("start say 3")
    await node.stop()
    assert await house.sql.fetchval("select count(*) from tasks where state = 'running'") == 0
    assert await house.sql.fetchval("select count(*) from nodes") == 0
    states = {row["state"] for row in await house.sql.fetch("select distinct state from tasks")}
    assert states <= {"completed", "pending"}


async def test_nothing_of_a_stopped_node_goes_on(house: House) -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    node = await house.node()
    await house.ended(await house.add("say x"))
    await node.stop()
    await house.until("select pg_sleep(0.05) is not null")
    ours = {
        "dispatcher",
        "cancels",
        "lease",
        "lease-deadline",
        "rescuer",
        "reviewer",
        "janitor",
        "checker",
        "group",
        "listener",
        "left-sessions",
    }
    assert not ours & ({task.get_name() for task in asyncio.all_tasks()} - before)
