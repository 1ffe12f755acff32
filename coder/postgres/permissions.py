"""Permissions over asyncpg: types the statements of `permissions.sql`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from coder.errors import Fenced
from coder.events import PermissionRequest, Question
from coder.permission import Answer, PermissionState, Rule, Ruling
from coder.ports import Asked
from coder.postgres.pool import fetch
from coder.postgres.statements import load
from coder.task import Task
from coder.transcript import clean, clean_json

STATEMENTS = load("permissions.sql")
TITLE_BYTES = 16_384
INPUT_BYTES = 65_536
MOST_PATHS = 1000
MOST_CHOICES = 100
ALLOWED = (PermissionState.ALLOWED_ONCE, PermissionState.ALLOWED_ALWAYS)


def cut(text: str, most: int) -> str:
    """Clean text of at most so many bytes; a mark says that there was more."""
    text = clean(text)
    raw = text.encode()
    if len(raw) <= most:
        return text
    mark = f" [… {len(raw):,} bytes in all]"
    return raw[: most - len(mark.encode())].decode("utf-8", "ignore") + mark


def request_json(agent: str, asked: PermissionRequest | Question) -> tuple[str, str]:
    """What is asked as `coder.ask` reads it, and the tool's arguments, which keep their own order and spelling."""
    row: dict[str, Any] = {"agent": agent, "request_id": clean(asked.id), "paths": [], "choices": [], "several": False}
    if isinstance(asked, Question):
        choices = [{"label": clean(c.label), "description": clean(c.description)} for c in asked.choices[:MOST_CHOICES]]
        row |= {"kind": "question", "title": cut(asked.text, TITLE_BYTES), "choices": choices, "several": asked.several}
        return orjson.dumps(row).decode(), "{}"
    row |= {"kind": "permission", "tool": cut(asked.tool, 200), "asked_for": asked.kind, "title": cut(asked.title, TITLE_BYTES)}
    row |= {"paths": [clean(path) for path in asked.paths[:MOST_PATHS]], "call_id": clean(asked.call_id) if asked.call_id else None}
    given = clean_json(asked.input)
    if len(given.encode()) > INPUT_BYTES:
        given = orjson.dumps(cut(given, INPUT_BYTES // 2)).decode()
    return orjson.dumps(row).decode(), given


def ruling_json(ruling: Ruling) -> str:
    return orjson.dumps({"state": ruling.state, "message": ruling.answer.message, "actor": ruling.by, "rule": ruling.rule}).decode()


def answer_from(row: asyncpg.Record) -> Answer | None:
    """The answer a row holds, None while it is open."""
    state = PermissionState(row["state"])
    if state is PermissionState.REQUESTED:
        return None
    if state in ALLOWED:
        return Answer(True, row["message"], tuple(row["answers"]))
    return Answer(False, row["message"] or "A person denied this without saying why; do without it, or say what is missing.")


class PostgresPermissions:
    """Implements `ports.PermissionStore` on the queue's pool."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def _fetch(self, statement: str, **parameters: Any) -> list[asyncpg.Record]:
        found = STATEMENTS[statement]
        return await fetch(self._pool, found.sql, found.arguments(parameters))

    async def rules(self, project: UUID, session: UUID) -> tuple[Rule, ...]:
        rows = await self._fetch("rules", project=project, session=session)
        return tuple(Rule(row["tool"], row["pattern"], row["id"]) for row in rows)

    async def ask(self, task: Task, agent: str, asked: PermissionRequest | Question, wait: float, ruling: Ruling | None) -> Asked:
        request, given = request_json(agent, asked)
        rows = await self._fetch(
            "ask",
            task=task.id,
            epoch=task.epoch,
            request=request,
            input=given,
            wait=timedelta(seconds=wait),
            answer=ruling and ruling_json(ruling),
        )
        if not rows:
            raise Fenced(task=task.id, epoch=task.epoch)
        return Asked(rows[0]["id"], answer_from(rows[0]))

    async def answers(self, asked: Collection[UUID]) -> dict[UUID, Answer]:
        found = {row["id"]: answer_from(row) for row in await self._fetch("answers", ids=list(asked))}
        return {each: answer for each, answer in found.items() if answer is not None}

    async def settle(self, asked: UUID, task: Task, ruling: Ruling) -> Answer | None:
        rows = await self._fetch("settle", id=asked, epoch=task.epoch, answer=ruling_json(ruling))
        return answer_from(rows[0]) if rows else None

    async def told(self, asked: UUID, task: Task) -> None:
        if not (await self._fetch("told", id=asked, epoch=task.epoch))[0][0]:
            raise Fenced(task=task.id, epoch=task.epoch)
