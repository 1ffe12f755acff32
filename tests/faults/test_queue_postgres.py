"""F2: PostgreSQL itself is restarted under the dispatchers, politely, by a crash, or for longer than a lease."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import psycopg
import pytest
from oracles import o4_recovered, survived
from stage import Stage, until

from coder.postgres.embedded import EmbeddedServer
from coder.postgres.schema import migrate

LEASE, BEAT, POLL = 3.0, 1.0, 0.5
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of these tests' own that keeps its promises: what it acknowledged is on disk."""
    with tempfile.TemporaryDirectory(prefix="c-") as directory:
        server = EmbeddedServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
async def durable(server: EmbeddedServer, tmp_path: Path, seed: int) -> AsyncIterator[Stage]:
    name = f"restarted_{uuid4().hex[:8]}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
    dsn = urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}"))
    migrate(dsn)
    async with AsyncExitStack() as nodes:
        stage = Stage(dsn, tmp_path, nodes, seed)
        yield stage
    await stage.close()


def crash(server: EmbeddedServer) -> None:
    """An immediate shutdown: no checkpoint, the next start replays the log."""
    os.kill(int((Path(server.log_path).parent / "cluster/postmaster.pid").read_text().split()[0]), signal.SIGQUIT)


async def producer(stage: Stage, acknowledged: list[int], enough: asyncio.Event) -> None:
    """Queue tasks without a pause, through every restart; what was not acknowledged may be there or not."""
    connection: asyncpg.Connection | None = None
    while not enough.is_set():
        try:
            if connection is None or connection.is_closed():
                connection = await asyncpg.connect(stage.dsn, timeout=5)
            insert = "insert into tasks (session_id, project_id, input) values ($1, $2, $3) returning id"
            words = stage.rng.choice(["5", "20", "mute 10", "family 10"])
            acknowledged.append(await connection.fetchval(insert, *stage.rng.choice(stage.sessions), words, timeout=5))
        except AWAY:
            await asyncio.wait({asyncio.ensure_future(enough.wait())}, timeout=0.05)
        await asyncio.wait({asyncio.ensure_future(enough.wait())}, timeout=0.03)
    if connection is not None:
        connection.terminate()


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
            ends, sent = len(stage.witness()), len(acknowledged)
            await until(lambda: len(stage.witness()) > ends + 10 and len(acknowledged) > sent + 10, 15, f"work goes on in round {round}")
            if how == "fast":
                server.stop()
            else:
                crash(server)
                await server.wait()
            if "away" in how:
                went = time.monotonic()
                await until(lambda: not any(node.family() for node in stage.nodes), LEASE + 2, "every agent has ended")
                await until(lambda: time.monotonic() > went + LEASE + 1, LEASE + 2, "the leases are over")
            server.start()
        back = time.monotonic()
        await stage.db()
        await o4_recovered(stage, LEASE + POLL + 2 - (time.monotonic() - back))
        sent = len(acknowledged)
        await until(lambda: len(acknowledged) > sent + 10, 5, "the producer goes on")
    finally:
        enough.set()
        await producing
    await stage.all_rest(30)
    everything = [row["id"] for row in await stage.rows("select id from tasks where retry_of is null")]
    print(f"{len(acknowledged)} acknowledged, {len(everything)} stored")
    assert set(acknowledged) <= set(everything)
    await survived(stage, acknowledged)
    assert all(node.returncode is None for node in stage.nodes)
