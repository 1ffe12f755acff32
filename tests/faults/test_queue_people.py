"""F10 and its like: people who leave a transaction open on what a node is about to write, and a statement that is cancelled."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from oracles import survived
from stage import Stage, until

POLL = 0.5

HOLDS = {
    "a cancel of the running task": "select coder.cancel($1)",
    "the title of its session": "update sessions set title = 'mine' where id = (select session_id from tasks where id = $1)",
    "a lock on its worktree": "select from session_worktrees where session_id = (select session_id from tasks where id = $1) for update",
}


async def others_go_on(stage: Stage, sessions: range, rounds: int = 3) -> list[int]:
    """Tasks of these sessions end one after the other, each soon."""
    done = []
    for _ in range(rounds):
        ids = [await stage.add(session, "5") for session in sessions]
        await until(lambda ids=ids: all_completed(stage, ids), 5, "other sessions go on")
        done += ids
    return done


async def all_completed(stage: Stage, ids: list[int]) -> bool:
    return bool(await stage.value("select count(*) = $2 from tasks where id = any ($1) and state = 'completed'", ids, len(ids)))


@pytest.mark.parametrize("hold", HOLDS)
async def test_somebody_leaves_a_transaction_open(stage: Stage, hold: str) -> None:
    """The turn whose rows are held waits; no other turn of the node does, and no recovery."""
    await stage.furnish(projects=1, sessions=6)
    await stage.node(lease=15, beat=1, poll=POLL)
    held = await stage.add(0, "gate")
    ids = [held, await stage.add(0, "5")]
    await stage.seen(held)
    person = await asyncpg.connect(stage.dsn)
    try:
        transaction = person.transaction()
        await transaction.start()
        await person.fetch(HOLDS[hold], held)
        stage.open_gate()
        await until(lambda: stage.said("end", held), 5, "the turn itself ends")
        ids += await others_go_on(stage, range(1, 6))
        await transaction.commit()
    finally:
        await person.close()
    await stage.all_rest(10)
    await survived(stage, ids, work_done=False)
    rows = {row["id"]: row for row in await stage.rows("select id, state, attempts from tasks")}
    assert rows.pop(held)["state"] in (("completed", "cancelled") if "cancel" in hold else ("completed",))
    assert {(row["state"], row["attempts"]) for row in rows.values()} == {("completed", 1)}


async def test_recovery_goes_around_what_somebody_holds(stage: Stage) -> None:
    """A person holds a task of a dead node: its other tasks are recovered all the same, and that one as soon as it is free."""
    await stage.furnish(projects=1, sessions=4)
    doomed = await stage.node(lease=60, beat=20)
    ids = [await stage.add(session, "gate") for session in range(4)]
    await stage.seen(*ids)
    person = await asyncpg.connect(stage.dsn)
    try:
        transaction = person.transaction()
        await transaction.start()
        await person.fetch("select coder.cancel($1)", ids[0])
        await doomed.kill()
        await stage.node(lease=60, beat=20, poll=POLL)
        recovered = "select count(*) = 3 from tasks where state = 'interrupted'"
        await until(lambda: stage.value(recovered), 5, "the others are recovered")
        assert await stage.state(ids[0]) == "running"
        await transaction.commit()
        await until(lambda: stage.value("select state = 'cancelled' from tasks where id = $1", ids[0]), 5, "and this one")
    finally:
        await person.close()
    stage.open_gate()
    await stage.all_rest(10)
    await survived(stage, ids, work_done=False)


@pytest.mark.parametrize("statement", ["coder.finish(", "coder.mark_seen(", "coder.record_worktree("])
async def test_a_write_of_a_turn_is_cancelled(stage: Stage, statement: str) -> None:
    """An administrator's pg_cancel_backend, like a deadlock or a timeout, costs a moment, not the turn."""
    await stage.furnish(projects=1, sessions=2)
    words = {"coder.finish(": "gate", "coder.mark_seen(": "mute gate", "coder.record_worktree(": "5"}[statement]
    ids = [await stage.add(1, "5")]
    if statement != "coder.record_worktree(":
        ids.append(await stage.add(0, words))
    node = await stage.node(lease=15, beat=5, poll=POLL)
    await until(lambda: all_completed(stage, ids[:1]), 5, "the node works")
    if statement != "coder.record_worktree(":
        await stage.started(ids[1])
    person: asyncpg.Connection[Any] = await asyncpg.connect(stage.dsn)
    try:
        transaction = person.transaction()
        await transaction.start()
        if statement == "coder.record_worktree(":
            await person.execute("lock table session_worktrees in exclusive mode")
            ids.append(await stage.add(0, words))
        else:
            await person.execute("lock table tasks in exclusive mode")
            stage.open_gate()
        waits = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like $1"
        await until(lambda: stage.value(waits, f"%{statement}%"), 5, "the write waits")
        assert await stage.value(f"select bool_and(pg_cancel_backend(pid)) from ({waits}) w", f"%{statement}%")
        await transaction.rollback()
    finally:
        await person.close()
    await stage.all_rest(10)
    await survived(stage, ids)
    assert await stage.value("select count(*) from tasks where attempts <> 1 or error is not null or reason is not null") == 0
    assert node.returncode is None
