"""F2: PostgreSQL itself is restarted under the dispatchers, politely, by a crash, or for longer than a lease."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import pytest
from oracles import o4_recovered, survived
from servers import AWAY, crash
from stage import Stage, at_most, boottime, until

from coder.postgres.embedded import EmbeddedServer

LEASE, BEAT, POLL = 3.0, 1.0, 0.5


async def producer(stage: Stage, acknowledged: list[int], enough: asyncio.Event) -> None:
    """Queue tasks without a pause, through every restart; what was not acknowledged may be there or not."""
    connection: asyncpg.Connection | None = None
    while not enough.is_set():
        try:
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(stage.dsn, timeout=5)
            insert = "insert into tasks (session_id, project_id, input) values ($1, $2, $3) returning id"
            words = stage.rng.choice(["5", "20", "mute 10", "family 10"])
            begun = boottime()
            acknowledged.append(await connection.fetchval(insert, *stage.rng.choice(stage.sessions), words, timeout=5))
            stage.acknowledged(acknowledged[-1:], begun)
        except AWAY:
            await at_most(enough, 0.05)
        await at_most(enough, 0.03)
    if connection is not None:
        connection.terminate()


async def work_goes_on(stage: Stage, acknowledged: list[int], when: str) -> None:
    said, sent = len(stage.witness()), len(acknowledged)
    await until(lambda: len(stage.witness()) > said + 10 and len(acknowledged) > sent + 10, 15, f"work goes on {when}")


@pytest.mark.parametrize("how", ["fast", "immediate", "immediate, away for longer than the lease"])
async def test_postgres_is_restarted(durable: Stage, server: EmbeddedServer, how: str) -> None:
    """What was acknowledged before, between and after is there and comes to rest once."""
    stage = durable
    await stage.furnish(projects=2, sessions=8)
    await asyncio.gather(*(stage.node(lease=LEASE, beat=BEAT, poll=POLL, slots=3) for _ in range(2)))
    acknowledged: list[int] = []
    enough = asyncio.Event()
    producing = asyncio.create_task(producer(stage, acknowledged, enough))
    try:
        for round in range(1 if "away" in how else 2):
            await work_goes_on(stage, acknowledged, f"in round {round}")
            if how == "fast":
                server.stop()
            else:
                crash(server)
                await server.wait()
            if "away" in how:
                over = time.monotonic() + LEASE + 1
                await until(lambda: not any(node.family() for node in stage.nodes), LEASE + 2, "every agent has ended")
                await at_most(asyncio.Event(), over - time.monotonic())
            server.start()
        back = time.monotonic()
        await stage.db()
        await o4_recovered(stage, LEASE + POLL + 2 - (time.monotonic() - back))
        await work_goes_on(stage, acknowledged, "after all")
    finally:
        enough.set()
        await producing
    await stage.all_rest(30)
    everything = [row["id"] for row in await stage.rows("select id from tasks where retry_of is null")]
    print(f"{len(acknowledged)} acknowledged, {len(everything)} stored")
    assert set(acknowledged) <= set(everything)
    await survived(stage, acknowledged)
    assert all(node.returncode is None for node in stage.nodes)
