"""Floors: the least that PostgreSQL needs for work of this kind, with the same driver, in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from time import perf_counter
from typing import Any
from uuid import uuid4

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


PROTOTYPE = """
create sequence bare_epoch;
create table bare_sessions(id int primary key, state text not null, ready_at timestamptz not null default clock_timestamp(),
    epoch bigint, owner uuid) with (fillfactor=60);
create index on bare_sessions(ready_at) where state = 'ready';
create index on bare_sessions(owner) where state = 'running';
create table bare_tasks(id bigint generated always as identity primary key, session_id int, input text,
    state text not null default 'pending', attempts int not null default 0, epoch bigint) with (fillfactor=80);
create index on bare_tasks(session_id, id) where state = 'pending';
create unique index on bare_tasks(session_id) where state = 'running';
create function bare_finish(p_tasks bigint[], p_epochs bigint[], p_left int[]) returns setof int language plpgsql as $$
declare v_sessions int[]; v_locked int[];
begin
    with ended as (
        update bare_tasks t set state = 'completed' from unnest(p_tasks, p_epochs) e(id, epoch)
        where t.id = e.id and t.epoch = e.epoch and t.state = 'running' returning t.session_id
    ) select array_agg(session_id) || p_left into v_sessions from ended;
    with mine as materialized (
        select id from bare_sessions where id = any (v_sessions) and state = 'running' for update skip locked
    ) select array_agg(id) into v_locked from mine;
    update bare_sessions s set owner = null, epoch = null, ready_at = clock_timestamp(),
        state = case when exists (select from bare_tasks t where t.session_id = s.id and t.state = 'pending') then 'ready' else 'idle' end
        where s.id = any (v_locked);
    return query select x from unnest(v_sessions) x where x <> all (coalesce(v_locked, '{}'));
end $$"""
PROTOTYPE_CLAIM = """
with ready as materialized (
    select id from bare_sessions where state = 'ready' order by ready_at limit $2 for update skip locked
), heads as (
    select h.id from ready r cross join lateral (
        select t.id from bare_tasks t where t.session_id = r.id and t.state = 'pending' order by t.id limit 1) h
), started as (
    update bare_tasks t set state = 'running', epoch = nextval('bare_epoch'), attempts = attempts + 1 from heads h where t.id = h.id
    returning t.id, t.epoch, t.session_id, t.input
), taken as (
    update bare_sessions s set state = 'running', owner = $1, epoch = t.epoch from started t where s.id = t.session_id
) select id, epoch, input from started"""
PLANS = "set enable_seqscan = off; set enable_hashjoin = off; set enable_mergejoin = off; set plan_cache_mode = force_generic_plan"


class Prototype:
    """Two bare tables claimed and ended in groups: what a cycle costs that says no word, keeps no turn and knows nothing but order."""

    def __init__(self, connections: list[asyncpg.Connection[Any]], group: int) -> None:
        self._connections = connections
        self._group = group

    async def rate(self, tasks: int) -> float:
        """Claim + finish + advance cycles per second over a fresh queue of so many tasks, five a session."""
        first = self._connections[0]
        await first.execute("truncate bare_tasks, bare_sessions")
        await first.execute("insert into bare_sessions (id, state) select id, 'ready' from generate_series(1, $1::int) id", tasks // 5)
        await first.execute("insert into bare_tasks (session_id, input) select id, 'x' from bare_sessions, generate_series(1, 5)")
        await first.execute("vacuum analyze bare_tasks, bare_sessions")
        started = perf_counter()
        done = sum(await asyncio.gather(*(self._drain(connection) for connection in self._connections)))
        return done / (perf_counter() - started)

    async def _drain(self, connection: asyncpg.Connection[Any]) -> int:
        done, left, node = 0, [], uuid4()
        while True:
            rows = await connection.fetch(PROTOTYPE_CLAIM, node, self._group)
            if not rows and not left:
                return done
            done += len(rows)
            ended = [row["id"] for row in rows], [row["epoch"] for row in rows], left
            left = [row[0] for row in await connection.fetch("select bare_finish($1, $2, $3)", *ended)]


@asynccontextmanager
async def prototype(dsn: str, connections: int, group: int) -> AsyncIterator[Prototype]:
    """Make the bare queue."""
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(connections):
            opened.append(connection := await asyncpg.connect(dsn))
            stack.push_async_callback(connection.close)
            await connection.execute(PLANS)
        await opened[0].execute(PROTOTYPE)
        yield Prototype(opened, group)


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
