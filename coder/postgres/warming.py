"""Cache warming over asyncpg: types the statements of `warming.sql`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

import asyncpg

from coder.events import Usage
from coder.postgres.pool import fetch
from coder.postgres.statements import load
from coder.warming import Due, Stopped, Warming

STATEMENTS = load("warming.sql")
TOKENS = ("input_tokens", "cached_tokens", "output_tokens")


class PostgresWarming:
    """Implements `warming.WarmingStore` and `warming.WarmingLog`."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def _fetch(self, statement: str, **parameters: Any) -> list[asyncpg.Record]:
        found = STATEMENTS[statement]
        return await fetch(self._pool, found.sql, found.arguments(parameters))

    async def claim(self, node: UUID, host: UUID) -> Due | None:
        rows = await self._fetch("claim", node=node, host=host)
        return Due(**rows[0]) if rows else None

    async def on(self, due: Collection[Due]) -> set[UUID]:
        rows = await self._fetch("on", sessions=[each.session_id for each in due], epochs=[each.epoch for each in due])
        return {row["session_id"] for row in rows}

    async def settle(self, due: Due, *, usage: Usage | None = None, stopped: Stopped | None = None, error: str | None = None) -> None:
        given = {} if usage is None else {name: getattr(usage, name) for name in TOKENS}
        await self._fetch("settle", session=due.session_id, epoch=due.epoch, stopped=stopped, error=error, **given)

    async def warming(self, sessions: Collection[str]) -> dict[str, Warming]:
        rows = await self._fetch("shown", sessions=[UUID(session) for session in sessions])
        return {str(row["session_id"]): Warming(**{name: value for name, value in row.items() if name != "session_id"}) for row in rows}
