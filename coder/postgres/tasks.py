"""The queue over asyncpg: types the statements of `tasks.sql`. The rules are in the functions of schema.sql."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from coder import __version__
from coder.change import Shift, Snapshot, Worktree, display_path
from coder.ports import AgentFacts, Claimed, Wanted
from coder.postgres.pool import fetch
from coder.postgres.statements import load
from coder.routing import Said
from coder.task import AgentSession, Ending, ExecutionPath, Left, Part, Project, Remark, Stored, Task, Verdict
from coder.transcript import clean_value

STATEMENTS = load("tasks.sql")


def interval(text: str) -> timedelta:
    """An interval as PostgreSQL prints it in JSON (`[n days ]hh:mm:ss[.ffffff]`)."""
    days, _, clock = text.rpartition(" day")
    hours, minutes, seconds = clock.removeprefix("s").strip().split(":")
    return timedelta(days=int(days or 0), hours=int(hours), minutes=int(minutes), seconds=float(seconds))


def project_from(row: dict[str, Any]) -> Project:
    return Project(
        id=UUID(row["id"]),
        name=row["name"],
        path=row["path"],
        agent_fallback=row["agent_fallback"],
        permission_policy=row["permission_policy"],
        network=row["network"] == "on",
        copy_globs=tuple(row["copy_globs"]),
        setup_command=row["setup_command"],
        setup_timeout=interval(row["setup_timeout"]),
    )


@lru_cache(256)
def project_of(text: str) -> Project:
    """The project of a claim; every task of a project comes with the same text."""
    return project_from(orjson.loads(text))


def worktree_from(row: dict[str, Any]) -> Worktree:
    """A worktree from `to_jsonb(session_worktrees)`, where bytea reads `\\xHEX`."""
    return Worktree(
        session_id=UUID(row["session_id"]),
        project_id=UUID(row["project_id"]),
        repository=row["repository"],
        path=row["path"],
        base_commit=row["base_commit"],
        base_branch=row["base_branch"],
        base_version=row["base_version"],
        last_snapshot=row["last_snapshot"],
        snapshots=row["snapshots"],
        copied=tuple(bytes.fromhex(path[2:]) for path in row["copied"]),
        unsnapshotted_task=row["unsnapshotted_task"],
        discard_decision=UUID(row["discard_decision"]) if row["discard_decision"] else None,
        shifts=tuple(Shift(UUID(shift["decision"]), shift["old"], shift["new"], shift["markers"]) for shift in row["shifts"]),
    )


def snapshot_json(snapshot: Snapshot, number: int) -> dict[str, Any]:
    """A snapshot as `coder.store_change` reads it; paths in hex, since JSON has no bytes."""
    return {
        "number": number,
        "base_commit": snapshot.base_commit,
        "base_tree": snapshot.base_tree,
        "base_version": snapshot.base_version,
        "commit": snapshot.commit,
        "tree": snapshot.tree,
        "fingerprint": snapshot.fingerprint,
        "empty": snapshot.empty,
        "warnings": list(snapshot.warnings),
        "files": [
            {
                "path": file.path.hex(),
                "display": display_path(file.path),
                "old_path": file.old_path.hex() if file.old_path is not None else None,
                "operation": file.operation,
                "additions": file.additions,
                "deletions": file.deletions,
                "old_mode": file.old_mode,
                "new_mode": file.new_mode,
                "hunks": [[h.old_start, h.old_lines, h.new_start, h.new_lines, h.diff_line, h.diff_lines] for h in file.hunks],
            }
            for file in snapshot.files
        ],
    }


def ending_json(ending: Ending, diff: int | None) -> dict[str, Any]:
    """An ending as `coder.finish` reads it, without what is empty; `diff` is its place (from 1) in the array of diffs."""
    task = ending.task
    row: dict[str, Any] = {
        "task_id": task.id,
        "epoch": task.epoch,
        "session_id": str(task.session_id),
        "chat_id": str(task.chat_id),
        "state": ending.state,
        "input_tokens": ending.input_tokens,
        "output_tokens": ending.output_tokens,
        "output_summary": ending.summary,
        "text": ending.text,
        "execution_path": ending.execution_path,
        "agent_used": ending.agent_used,
    }
    if ending.tool_calls != "[]":
        row["tool_calls"] = orjson.Fragment(ending.tool_calls)
    if task.remarks:
        row["remark_ids"] = [str(remark.decision_id) for remark in task.remarks]
    if ending.snapshot:
        row["snapshot"] = snapshot_json(ending.snapshot, ending.snapshot_number)
    if ending.context_tokens is not None:
        row["context_tokens"] = ending.context_tokens
        row["context_limit"] = ending.context_limit
    if task.compacts:
        row["compacts"] = True
    rest = {
        "reason": ending.reason,
        "error": ending.error,
        "notices": ending.notices,
        "cached_tokens": ending.cached_tokens,
        "reasoning": ending.reasoning,
        "model_history": ending.model_history,
        "diff": diff,
        "unsnapshotted": ending.unsnapshotted,
    }
    row.update((name, value) for name, value in rest.items() if value)
    row.update(of_agents(ending))
    return row


def of_agents(ending: Ending) -> dict[str, Any]:
    """What only turns of agents other than the native one store: what the agent keeps (no id: not to be resumed), and that it asked."""
    found: dict[str, Any] = {"asked": True} if ending.asked else {}
    if ending.agent_started and ending.execution_path is not ExecutionPath.NATIVE:
        kept = ending.agent_session
        found["agent_session"] = (
            {} if kept is None else {"id": kept.id, "config_hash": kept.config_hash, "home": kept.home, "status": kept.status}
        )
    return found


def remark_from(row: dict[str, Any]) -> Remark:
    """A remark as `coder.claim` answers it."""
    return Remark(
        decision_id=UUID(row["id"]),
        task_id=row["task"],
        reason=row["reason"],
        work=row["work"],
        parts=tuple(Part(part["path"], part["verdict"], part["line"], part["lines"]) for part in row["parts"]),
        kept=tuple(row["kept"] or ()),
        target=row["target"],
    )


def claimed_from(row: asyncpg.Record) -> Claimed:
    worktree = orjson.loads(row["worktree"]) if row["worktree"] else None
    task = Task(
        id=row["id"],
        epoch=row["epoch"],
        attempt=row["attempts"],
        max_attempts=row["max_attempts"],
        session_id=row["session_id"],
        chat_id=row["chat_id"],
        project=project_of(row["project"]),
        input=row["input"],
        agent=row["agent"],
        model=row["model"],
        mode_id=row["mode_id"],
        thinking_option_id=row["thinking_option_id"],
        timeout=row["timeout"],
        cwd=row["cwd"],
        # Told to whoever works next, not to who only summarises.
        remarks=() if row["compacts"] else tuple(remark_from(remark) for remark in orjson.loads(row["remarks"])),
        model_history=row["model_history"],
        compacts=row["compacts"],
    )
    return Claimed(task, worktree_from(worktree) if worktree else None)


class PostgresTasks:
    """Implements `ports.TaskStore`: a pool for the queue, and one connection of its own for the lease.

    The lease must not wait behind the queue's statements, so its connection is never shared.
    """

    def __init__(self, pool: asyncpg.Pool[Any], lease_pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool
        self._lease = lease_pool

    async def _fetch(self, statement: str, **parameters: Any) -> list[asyncpg.Record]:
        found = STATEMENTS[statement]
        return await fetch(self._pool, found.sql, found.arguments(parameters))

    async def _value(self, statement: str, **parameters: Any) -> Any:
        rows = await self._fetch(statement, **parameters)
        return rows[0][0] if rows else None

    async def register(self, node: UUID, host: UUID, lease: float) -> None:
        await self._fetch("register_node", node=node, host=host, version=__version__, lease=timedelta(seconds=lease))

    async def register_host(self, host: UUID, name: str) -> None:
        await self._fetch("register_host", host=host, name=name)

    async def claim(self, node: UUID, host: UUID, count: int) -> list[Claimed]:
        rows = await self._fetch("claim", node=node, host=host, count=count)
        return [claimed_from(row) for row in rows]

    async def mark_seen(self, tasks: list[Task]) -> set[int]:
        rows = await self._fetch("mark_seen", tasks=[task.id for task in tasks], epochs=[task.epoch for task in tasks])
        return {row["id"] for row in rows}

    async def record_worktrees(self, host: UUID, worktrees: list[tuple[Task, Worktree]]) -> set[int]:
        rows = [
            {
                "task": task.id,
                "epoch": task.epoch,
                "repository": worktree.repository,
                "path": worktree.path,
                "base_commit": worktree.base_commit,
                "base_branch": worktree.base_branch,
                "copied": [path.hex() for path in worktree.copied],
            }
            for task, worktree in worktrees
        ]
        return {row["id"] for row in await self._fetch("record_worktrees", host=host, rows=orjson.dumps(rows).decode())}

    async def worktree_of(self, session_id: UUID) -> Worktree | None:
        row = await self._value("worktree_of", session_id=session_id)
        return worktree_from(orjson.loads(row)) if row else None

    async def finish(self, endings: list[Ending], left: list[Left]) -> Stored:
        diffs: list[bytes] = []
        rows = []
        for ending in endings:
            place = None
            if ending.snapshot is not None and not ending.snapshot.empty:
                diffs.append(ending.snapshot.diff)
                place = len(diffs)
            rows.append(ending_json(ending, place))
        answer = await self._fetch(
            "finish",
            endings=orjson.dumps(rows).decode(),
            diffs=diffs,
            left_sessions=[each.session_id for each in left],
            left_epochs=[each.epoch for each in left],
        )
        return Stored(
            {row["task_id"]: Verdict(row["verdict"]) for row in answer if row["task_id"] is not None},
            tuple(Left(row["session_id"], row["epoch"]) for row in answer if row["task_id"] is None),
        )

    async def wanted(self, node: UUID) -> Wanted:
        rows = await self._fetch("wanted", node=node)
        return Wanted(*({row["task_id"] for row in rows if row["want"] == want} for want in ("cancel", "retry")))

    async def beat(self, node: UUID, lease: float) -> bool:
        found = STATEMENTS["beat"]
        rows = await fetch(self._lease, found.sql, found.arguments({"node": node, "lease": timedelta(seconds=lease)}), lease / 3)
        return rows[0][0] is not None

    async def leave(self, node: UUID) -> None:
        await self._fetch("leave", node=node)

    async def crashed(self, node: UUID, host: UUID) -> None:
        await self._fetch("crashed", node=node, host=host)

    async def reap(self, node: UUID | None = None, epochs: Collection[int] = ()) -> int:
        return len(await self._fetch("reap", node=node, epochs=list(epochs)))

    async def sweep(self, deep: bool) -> int:
        return int(await self._value("sweep", deep=deep))

    async def next_due(self) -> float | None:
        value = await self._value("next_due")
        return None if value is None else float(value)

    async def record_agents(self, host: UUID, facts: tuple[AgentFacts, ...]) -> None:
        rows = [
            {
                "agent": each.agent,
                "execution_path": each.execution_path,
                "available": each.available,
                "version": each.version,
                "path": each.path,
                "detail": each.detail,
                "install": each.install,
                "models": list(each.models),
                "modes": list(each.modes),
                "thinking_options": list(each.thinking_options),
                "commands": [{"name": c.name, "description": c.description, "hint": c.hint} for c in each.commands],
            }
            for each in facts
        ]
        await self._fetch("record_agents", host=host, agents=orjson.dumps(clean_value(rows)).decode())

    async def forget_agents(self, host: UUID, others_than: Collection[str]) -> None:
        await self._fetch("forget_agents", host=host, known=list(others_than))

    async def probe_wanted(self, host: UUID) -> datetime | None:
        wanted: datetime | None = await self._value("probe_wanted", host=host)
        return wanted

    async def agent_session_of(self, task: Task, agent: str) -> AgentSession | None:
        rows = await self._fetch("agent_session_of", task=task.id, chat=task.chat_id, agent=agent)
        return AgentSession(**rows[0]) if rows else None

    async def agents_stopped(self, node: UUID, agents: Collection[str]) -> None:
        await self._fetch("agents_stopped", node=node, agents=list(agents))

    async def said_before(self, task: Task, most: int) -> list[Said]:
        rows = await self._fetch("said_before", session=task.session_id, chat=task.chat_id, task=task.id, most=most)
        return [Said(row["role"], row["text"], row["state"]) for row in rows]
