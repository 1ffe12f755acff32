"""The door over asyncpg: named statements of `door.sql`, JSON rows out, errors in our words."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import asyncpg

from coder.errors import NotFound
from coder.ports import Clock
from coder.postgres.pool import our_words
from coder.postgres.statements import Statement, load

STATEMENTS = load("door.sql")
NOUNS = {
    "change": ("change", "coder change list"),
    "session": ("session", "coder session list"),
    "queue": ("task", "coder session queue SESSION"),
    "workspace": ("workspace", "coder workspace list"),
    "comment": ("comment", "coder comment list"),
    "decision": ("decision", "coder decision list"),
    "permission": ("permission", "coder permission list --all"),
    "rule": ("rule", "coder rule list PROJECT"),
}
SETTLED = ("done", "failed")


def missing(statement: Statement, parameters: dict[str, Any]) -> NotFound:
    """The sentence for a statement that found nothing."""
    kind, look = NOUNS.get(statement.name.split("_")[0], (statement.name.split("_")[0], "coder status"))
    given = next((value for value in parameters.values() if value is not None), "")
    return NotFound(kind=kind, name=given, look=look)


class PostgresDoor:
    """Implements `ports.Door` on a pool whose statements are planned anew."""

    def __init__(self, pool: asyncpg.Pool[Any], clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        found = STATEMENTS[statement]
        with our_words():
            rows = await self._pool.fetch(found.sql, *found.arguments(parameters))
        return [json.loads(row["row"]) for row in rows]

    async def row(self, statement: str, **parameters: Any) -> dict[str, Any]:
        rows = await self.rows(statement, **parameters)
        if not rows:
            raise missing(STATEMENTS[statement], parameters)
        return rows[0]

    async def blob(self, statement: str, **parameters: Any) -> bytes:
        found = STATEMENTS[statement]
        with our_words():
            value = await self._pool.fetchval(found.sql, *found.arguments(parameters))
        if value is None:
            raise missing(found, parameters)
        return bytes(value)

    async def settled(self, decision_id: UUID, seconds: float) -> dict[str, Any]:
        deadline = self._clock.monotonic() + seconds
        wait = 0.02
        while True:
            decision = await self.row("decision_get", decision_id=decision_id)
            left = deadline - self._clock.monotonic()
            if decision["state"] in SETTLED or left <= 0:
                return decision
            await self._clock.sleep(min(wait, left))
            wait = min(wait * 1.5, 0.5)
