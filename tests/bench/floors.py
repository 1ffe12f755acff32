"""Floors: the least that PostgreSQL needs for work of this kind, with the same driver, in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any

import asyncpg

CONNECTIONS = 10
CLAIM = """update raw_claims set state = 'done'
    where id = (select id from raw_claims where state = 'pending' order by id for update skip locked limit 1) returning id"""


class RawClaims:
    """The simplest queue there is: single claims from a plain table, on ten connections."""

    def __init__(self, connections: list[asyncpg.Connection[Any]], claims: list[Any]) -> None:
        self._connections = connections
        self._claims = claims

    async def rate(self, tasks: int) -> float:
        """Claims per second over a fresh table of so many rows."""
        first = self._connections[0]
        await first.execute("truncate raw_claims")
        await first.execute("insert into raw_claims select id, 'pending' from generate_series(1, $1::int) id", tasks)
        await first.execute("vacuum analyze raw_claims")
        started = perf_counter()
        done = sum(await asyncio.gather(*(self._drain(claim) for claim in self._claims)))
        return done / (perf_counter() - started)

    @staticmethod
    async def _drain(claim: Any) -> int:
        done = 0
        while await claim.fetchval():
            done += 1
        return done


@asynccontextmanager
async def raw_claims(dsn: str) -> AsyncIterator[RawClaims]:
    """Open the floor's ten connections."""
    async with AsyncExitStack() as stack:
        connections = []
        for _ in range(CONNECTIONS):
            connections.append(connection := await asyncpg.connect(dsn))
            stack.push_async_callback(connection.close)
        await connections[0].execute(
            "create table raw_claims (id bigint primary key, state text not null);create index on raw_claims (id) where state = 'pending'"
        )
        claims = [await connection.prepare(CLAIM) for connection in connections]
        for claim in claims:
            await claim.fetchval()  # a statement that was only prepared keeps its locks until the next one ran
        yield RawClaims(connections, claims)


class Doorbell:
    """A bare table whose trigger notifies: insert, commit, callback."""

    def __init__(self, writer: asyncpg.Connection[Any], insert: Any) -> None:
        self._writer = writer
        self._insert = insert
        self._heard: asyncio.Future[float] | None = None

    def ring(self, *_: object) -> None:
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(perf_counter())

    async def round_trip(self) -> float:
        """Seconds from sending an INSERT to its callback."""
        self._heard = asyncio.get_running_loop().create_future()
        started = perf_counter()
        await self._insert.fetchval()
        return await self._heard - started


@asynccontextmanager
async def doorbell(dsn: str) -> AsyncIterator[Doorbell]:
    """Open the floor's writer and its listener."""
    writer, listener = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        await writer.execute(
            "create table raw_bell (id bigint generated always as identity primary key, input text not null);"
            "create function raw_ring() returns trigger language plpgsql as"
            " $$ begin perform pg_notify('raw_bell', ''); return null; end $$;"
            "create trigger raw_ring after insert on raw_bell for each statement execute function raw_ring()"
        )
        bell = Doorbell(writer, await writer.prepare("insert into raw_bell (input) values ('x') returning id"))
        await listener.add_listener("raw_bell", bell.ring)
        yield bell
    finally:
        await listener.close()
        await writer.close()
