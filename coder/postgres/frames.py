"""Frames and what watchers are shown, over asyncpg: types the statements of `frames.sql`."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from coder.errors import NotFound
from coder.frame_log import EndedTurn, FrameRow, History, Sight, Watch
from coder.frames import SessionFrame, SessionHistory, TaskStateFrame, TurnStarted, from_wire
from coder.live import StoredAnswer
from coder.postgres.pool import fetch
from coder.postgres.statements import load

STATEMENTS = load("frames.sql")
LOOK_FRAMES = 1000
LOOK_TURNS = 6
"""As many as `look` reads of each session at once, besides the one turn that has not ended; when as many ended since the last look,
others may have before them."""


def session_frame(content: dict[str, Any]) -> SessionFrame:
    frame = from_wire(content)
    assert isinstance(frame, SessionFrame), "what is stored of a turn is about its session"
    return frame


def started_from(session: str, row: dict[str, Any]) -> TurnStarted:
    return TurnStarted(session, row["turn_id"], row["task_id"], row["chat_id"], row["agent"], row["attempt"], row["started_at"])


def ended_from(session: str, row: dict[str, Any]) -> EndedTurn:
    return EndedTurn(
        started=started_from(session, row),
        prompt=row["prompt"],
        state=row["state"],
        reason=row["reason"],
        error=row["error"],
        answer=StoredAnswer(**row["answer"]),
        usage=(row["usage"][0], row["usage"][1], row["usage"][2]),
    )


def sight_from(row: dict[str, Any]) -> Sight:
    session, running = row["session"], row["running"]
    return Sight(
        session=session,
        running=(started_from(session, running), running["prompt"]) if running else None,
        frames=[(seq, session_frame(payload)) for seq, payload in row["frames"]],
        more=len(row["frames"]) == LOOK_FRAMES,
        ended=[ended_from(session, each) for each in row["ended"]],
        gap=len(row["ended"]) >= LOOK_TURNS,
        versions={each["task_id"]: each.pop("version") for each in row["states"]},
        states=[TaskStateFrame(session, **each) for each in row["states"]],
        change_id=row["change_id"],
    )


class PostgresFrames:
    """Implements `ports.FrameLog` and `ports.SessionLog` on a pool of its own, so that neither waits for the queue nor the other way."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def _fetch(self, statement: str, **parameters: Any) -> list[asyncpg.Record]:
        found = STATEMENTS[statement]
        return await fetch(self._pool, found.sql, found.arguments(parameters))

    async def append(self, rows: list[FrameRow], touched: set[str]) -> None:
        await self._fetch(
            "append",
            tasks=[row.task for row in rows],
            epochs=[row.epoch for row in rows],
            seqs=[row.seq for row in rows],
            payloads=[row.payload for row in rows],
            touched=sorted(touched),
        )

    async def prune(self) -> int:
        return int((await self._fetch("prune"))[0][0])

    async def history(self, session: str) -> History:
        rows = await self._fetch("history", session=UUID(session))
        if not rows:
            raise NotFound(kind="session", name=session, look="coder session list")
        row = orjson.loads(rows[0]["row"])
        states = {each["task_id"]: "pending" for each in row["queued"]}
        if row["running"] is not None:
            states[row["running"]] = "running"
        frame = SessionHistory(session, row["messages"], row["queued"], row["more"], row["change_id"])
        return History(frame, row["floor"], states, {int(task): version for task, version in row["versions"].items()})

    async def look(self, watches: list[Watch]) -> list[Sight]:
        asked = [
            {
                "session": w.session,
                "task": w.task,
                "epoch": w.epoch,
                "seq": w.seq,
                "floor": w.floor,
                "known": {str(task): version for task, version in w.known.items()},
            }
            for w in watches
        ]
        rows = await self._fetch("look", watches=orjson.dumps(asked).decode())
        return [sight_from(orjson.loads(row["row"])) for row in rows]

    async def calls(self, epoch: int, task: int, parts: Collection[int]) -> list[SessionFrame]:
        rows = await self._fetch("calls", epoch=epoch, task=task, parts=list(parts))
        return [session_frame(orjson.loads(row["payload"])) for row in rows]
