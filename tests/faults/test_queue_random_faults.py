"""F14: everything at random. A short round always; with --long many, each with another seed and with restarts of PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import pytest
from oracles import o4_recovered, survived
from proxy import TO_CLIENT, TO_SERVER, Proxy
from servers import AWAY, crash
from stage import NodeProcess, Stage, at_most, boottime, until

from coder.postgres.embedded import EmbeddedServer

LEASE, BEAT, POLL, ANSWER = 3.0, 1.0, 0.5, 2.0
SESSIONS = 10
WORDS = ("5", "30", "150", "mute 20", "family 20", "mute family 60")
STATEMENTS = ("coder.claim(", "coder.finish(", "coder.mark_seen(", "coder.record_worktree(", "coder.beat(", "coder.reap(", "coder.sweep(")


class Place:
    """One node after the other, all behind the same line."""

    def __init__(self, stage: Stage, proxy: Proxy) -> None:
        self.stage = stage
        self.proxy = proxy
        self.node: NodeProcess | None = None

    async def start(self) -> None:
        dsn, drain = self.proxy.dsn, self.stage.rng.choice([0, 0.2, 5])
        pace: dict[str, Any] = {"lease": LEASE, "beat": BEAT, "poll": POLL, "answer": ANSWER, "drain": drain, "slots": 4}
        self.node = await self.stage.launch(dsn=dsn, listen=self.stage.rng.choice([dsn, dsn, None]), probe=2, echo=1, **pace)

    @property
    def alive(self) -> bool:
        return self.node is not None and self.node.returncode is None


class Chaos:
    """Attributes: drains: how often a node was asked to stop."""

    def __init__(self, stage: Stage, places: list[Place], restart: Callable[[], None] | None) -> None:
        self.stage = stage
        self.places = places
        self.rng: random.Random = stage.rng
        self.drains = 0
        self.over = asyncio.Event()
        self._restart = restart

    async def pause(self, most: float) -> None:
        await at_most(self.over, self.rng.uniform(0, most))

    async def produce(self) -> None:
        """A client: inserts, some in transactions that stay open a while or are rolled back, a cancel now and then."""
        connection: asyncpg.Connection[Any] | None = None
        while not self.over.is_set():
            try:
                if connection is None or connection.is_closed():
                    connection = await asyncpg.connect(self.stage.dsn, timeout=5, command_timeout=5)
                await self._once(connection)
            except AWAY:
                await self.pause(0.2)
            await self.pause(0.15)
        if connection is not None:
            connection.terminate()

    async def _once(self, connection: asyncpg.Connection[Any]) -> None:
        insert = "insert into tasks (session_id, project_id, input) values ($1, $2, $3) returning id"
        arguments = (*self.rng.choice(self.stage.sessions), self.rng.choice(WORDS))
        kind, begun = self.rng.random(), boottime()
        if kind < 0.2:
            transaction = connection.transaction()
            await transaction.start()
            tasks = [await connection.fetchval(insert, *arguments) for _ in range(2)]
            await self.pause(0.5)
            if kind < 0.05:
                await transaction.rollback()
                return
            await transaction.commit()
            self.stage.acknowledged(tasks, begun)
        elif kind < 0.25 and self.stage.sent:
            cancel = "update tasks set cancel_requested_at = clock_timestamp() where id = $1"
            await connection.execute(cancel, self.rng.choice(list(self.stage.sent)[-20:]))
        else:
            self.stage.acknowledged([await connection.fetchval(insert, *arguments)], begun)

    async def resume(self) -> None:
        """A person who looks after what was interrupted."""
        while not self.over.is_set():
            try:
                await self.stage.take_care()
            except AWAY:
                await self.pause(0.2)
            await self.pause(0.5)

    async def hit(self, place: Place) -> None:
        """One fault at one node."""
        if not place.alive:
            await place.start()
            return
        node, proxy = place.node, place.proxy
        assert node is not None
        blow = self.rng.choice(["kill", "freeze", "stop", "partition", "swallow", "cut", "lose", "lose", "end", "cancel"])
        print(f"{time.monotonic():.2f} {blow} {node.name}")
        if blow == "kill":
            await node.kill()
        elif blow == "freeze":
            node.signal(signal.SIGSTOP)
            await self.pause(1.5 * LEASE)
            node.signal(signal.SIGCONT)
        elif blow == "stop":
            self.drains += 1
            node.signal(signal.SIGTERM)
        elif blow == "partition":
            proxy.partition(frozenset(self.rng.choice([{TO_CLIENT}, {TO_SERVER}, {TO_CLIENT, TO_SERVER}])))
            await self.pause(1.5 * LEASE)
            proxy.heal()
        elif blow == "swallow":
            proxy.swallow(frozenset(self.rng.choice([{TO_CLIENT}, {TO_SERVER}])))
        elif blow == "cut":
            proxy.cut(refuse=self.rng.random() < 0.5)
            await self.pause(LEASE)
            proxy.heal()
        elif blow == "lose":
            proxy.lose_answer_to(self.rng.choice(STATEMENTS))
        else:
            how = "pg_terminate_backend" if blow == "end" else "pg_cancel_backend"
            ours = "datname = current_database() and application_name ~ '^coder-(queue|lease|listen)$'"
            await self.stage.rows(f"select {how}(pid) from pg_stat_activity where {ours} and random() < 0.5")

    async def strike(self, place: Place, seconds: float) -> None:
        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            try:
                await self.hit(place)
            except AWAY:
                await self.pause(0.2)
            await self.pause(1.0)

    async def restarts(self, seconds: float) -> None:
        until_then = time.monotonic() + seconds
        while self._restart is not None and time.monotonic() < until_then:
            await self.pause(10)
            self._restart()

    async def rage(self, seconds: float) -> None:
        """Strike for so long, then mend everything."""
        peaceful = [asyncio.create_task(self.produce()) for _ in range(4)] + [asyncio.create_task(self.resume())]
        try:
            await asyncio.gather(self.restarts(seconds), *(self.strike(place, seconds) for place in self.places))
        finally:
            self.over.set()
            await asyncio.gather(*peaceful)
        for place in self.places:
            place.proxy.heal()
            if not place.alive:
                await place.start()


@asynccontextmanager
async def chaos(stage: Stage, restart: Callable[[], None] | None = None) -> AsyncIterator[Chaos]:
    await stage.furnish(projects=3, sessions=SESSIONS)
    async with AsyncExitStack() as lines:
        places = [Place(stage, await lines.enter_async_context(Proxy(stage.dsn).serving())) for _ in range(3)]
        for place in places:
            await place.start()
        yield Chaos(stage, places, restart)


async def settles(chaos: Chaos) -> None:
    """After the last fault everything is recovered in time, comes to rest, and was done once."""
    stage = chaos.stage
    begun = time.monotonic()
    # A node that was frozen, or asked to stop, at the very end may need its whole lease to let go.
    await o4_recovered(stage, 2 * LEASE + POLL + 2)
    print(f"recovered {time.monotonic() - begun:.2f} s after the last fault; {len(stage.sent)} tasks")
    for place in chaos.places:
        if not place.alive:
            await place.start()
    await stage.all_rest(60)
    await survived(stage, list(stage.sent), work_done=False, given_back=chaos.drains)
    failed = "select id, reason, error, attempts from tasks where state = 'failed' and (attempts < max_attempts or error !~ '(died|lost)')"
    assert [tuple(row) for row in await stage.rows(failed)] == [], "only who ran out of attempts may fail"
    refused = "select id from tasks where state = 'cancelled' and cancel_requested_at is null"
    assert await stage.rows(refused) == []
    for node in stage.nodes:
        if node.returncode is not None:
            await until(lambda node=node: not node.family(), 2, f"nothing of {node.name} lives")


async def test_a_little_of_everything(stage: Stage) -> None:
    async with chaos(stage) as raging:
        await raging.rage(4)
        await settles(raging)


@pytest.mark.long
@pytest.mark.parametrize("round", range(8))
async def test_much_of_everything(durable: Stage, server: EmbeddedServer, round: int) -> None:
    def restart() -> None:
        if durable.rng.random() < 0.5:
            server.stop()
        else:
            crash(server)
            assert server._ends_within(10)
        server.start()

    async with chaos(durable, restart) as raging:
        await raging.rage(30)
        await settles(raging)
