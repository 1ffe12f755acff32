"""F7, F8, F10 and the claim itself: lost bells, a crowd at one session, a producer that does not commit, a node that is over."""

from __future__ import annotations

import asyncio
import os
import time
from uuid import uuid4

import asyncpg
import pytest
from oracles import o4_recovered, survived
from stage import Stage, boottime, until

from coder.postgres.pool import open_pool
from coder.postgres.tasks import PostgresTasks
from coder.task import Ending, Outcome, Task

POLL = 0.5
CLAIMERS = 50


async def test_without_notifications_the_poll_finds_everything(stage: Stage) -> None:
    await stage.furnish(projects=2, sessions=6)
    await asyncio.gather(*(stage.node(listen=None, lease=15, beat=5, poll=POLL, slots=3) for _ in range(2)))
    first = await stage.add(0, "5")
    await until(lambda: stage.said("start", first), POLL + 2, "the poll finds a task")
    ids = [first, *[await stage.add(session, "5") for _ in range(4) for session in range(6)]]
    await stage.all_rest(20)
    await survived(stage, ids)


async def test_fifty_claimers_at_one_session(stage: Stage) -> None:
    """However many ask at once, a session's next task goes to one of them, in order."""
    await stage.furnish(projects=1, sessions=1)
    ids = await stage.copy([(0, "work")] * 20)
    host = uuid4()
    pool = await open_pool(stage.dsn, size=CLAIMERS, least=CLAIMERS)
    store = PostgresTasks(pool, pool)
    await store.register_host(host, "crowd")
    witness = os.open(stage.folder / "witness", os.O_WRONLY | os.O_APPEND)
    left = set(ids)

    def say(what: str, task: Task) -> None:
        os.write(witness, f"{what} {task.id} {task.session_id} {task.epoch} 0 {boottime()}\n".encode())

    async def claimer() -> int:
        node, won = uuid4(), 0
        await store.register(node, host, 60)
        while left:
            for claimed in await store.claim(node, host, 3):
                say("start", claimed.task)
                assert await store.mark_seen([claimed.task]) == {claimed.task.id}
                say("end", claimed.task)
                await store.finish([Ending(claimed.task, Outcome.COMPLETED)], [])
                left.discard(claimed.task.id)
                won += 1
        return won

    won = await asyncio.wait_for(asyncio.gather(*(claimer() for _ in range(CLAIMERS))), 30)
    os.close(witness)
    await pool.close()
    assert sum(won) == 20
    assert sum(count > 0 for count in won) > 1, "more than one took part"
    await survived(stage, ids)


@pytest.mark.parametrize(("ends", "seconds"), [("commit", 4), ("rollback", 1), pytest.param("commit", 60, marks=pytest.mark.long)])
async def test_a_producer_that_stays_open(stage: Stage, ends: str, seconds: float) -> None:
    """It holds its session's row while that session's turn ends: the ending is stored, other sessions go on, nothing is lost."""
    await stage.furnish(projects=1, sessions=6)
    await stage.node(lease=3, beat=1, poll=POLL)
    running = await stage.add(0, "gate")
    waiting = [await stage.add(0, "5") for _ in range(2)]
    await stage.seen(running)
    producer = await asyncpg.connect(stage.dsn)
    try:
        transaction = producer.transaction()
        await transaction.start()
        insert = "insert into tasks (session_id, project_id, input) values ($1, $2, '5') returning id"
        late = await producer.fetchval(insert, *stage.sessions[0])
        opened = time.monotonic()
        stage.open_gate()
        await until(lambda: stage.value("select state = 'completed' from tasks where id = $1", running), 3, "its ending is stored")
        others: list[int] = []
        while time.monotonic() < opened + seconds:
            more = [await stage.add(session, "5") for session in range(1, 6)]
            await until(lambda more=more: stage.said_all("end", more), 5, "other sessions go on")
            others += more
        assert not any(stage.said("start", task) for task in waiting), "what waits behind the producer waits"
        if ends == "commit":
            await transaction.commit()
            waiting.append(late)
        else:
            await transaction.rollback()
        await until(lambda: all(stage.said("start", task) for task in waiting), 3, "what waited goes on at once")
        await stage.all_rest(10)
        await survived(stage, [running, *waiting, *others])
        assert await stage.value("select count(*) from tasks where attempts <> 1") == 0
    finally:
        await producer.close()


@pytest.mark.parametrize("reaped", [False, True], ids=["its lease is over", "it was reaped"])
async def test_a_node_that_is_over_takes_nothing(stage: Stage, reaped: bool) -> None:
    """A task claimed under a dead id would run without an owner, and cost an attempt."""
    await stage.furnish(projects=1, sessions=1)
    task, host, node = await stage.add(0, "5"), uuid4(), uuid4()
    pool = await open_pool(stage.dsn, size=2)
    store = PostgresTasks(pool, pool)
    await store.register_host(host, "late")
    await store.register(node, host, -1)
    if reaped:
        assert await store.reap() == 0
    assert await store.claim(node, host, 5) == []
    await o4_recovered(stage, 0)
    await store.register(alive := uuid4(), host, 60)
    (claimed,) = await store.claim(alive, host, 5)
    assert (claimed.task.id, claimed.task.attempt) == (task, 1)
    await pool.close()


async def test_the_order_of_one_session_survives_many_producers(stage: Stage) -> None:
    """Each producer sends its next task after the one before was acknowledged; across them the acknowledgements order too."""
    await stage.furnish(projects=1, sessions=3)
    await asyncio.gather(*(stage.node(lease=15, beat=5, poll=POLL, slots=2) for _ in range(2)))

    async def producer() -> None:
        connection = await asyncpg.connect(stage.dsn)
        insert = "insert into tasks (session_id, project_id, input) values ($1, $2, '1') returning id"
        for _ in range(12):
            begun = boottime()
            stage.acknowledged([await connection.fetchval(insert, *stage.rng.choice(stage.sessions))], begun)
        await connection.close()

    await asyncio.gather(*(producer() for _ in range(4)))
    await stage.all_rest(20)
    await survived(stage, list(stage.sent))


async def test_what_a_node_does_not_know_of_is_given_up(stage: Stage) -> None:
    """Recorded as running on a live node, but no turn of it: soon it runs again, or is interrupted if it was seen."""
    await stage.furnish(projects=1, sessions=3)
    node = await stage.node(lease=60, beat=20, poll=POLL, slots=1)
    busy = await stage.add(0, "gate")
    await stage.seen(busy)
    ids = [await stage.add(session, "5") for session in (1, 2)]
    host = await stage.value("select host_id from nodes")
    rows = await stage.rows("select id, epoch from coder.claim($1, $2, 5) order by id", node.ids[0], host)
    assert [row["id"] for row in rows] == ids
    assert await stage.rows("select coder.mark_seen($1, $2)", [ids[1]], [rows[1]["epoch"]]) != []
    given_up = "select state = 'interrupted' and reason = 'internal' from tasks where id = $1"
    await until(lambda: stage.value(given_up, ids[1]), POLL + 2, "the one that was seen is interrupted")
    assert await stage.state(ids[0]) == "pending"
    assert await stage.state(busy) == "running", "what it knows of goes on"
    stage.open_gate()
    await stage.all_rest(10)
    await survived(stage, [busy, *ids])
    assert await stage.value("select array_agg(attempts order by id) from tasks") == [1, 2, 1, 1]
