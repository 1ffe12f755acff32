"""Decisions and owed worktrees over asyncpg: types the statements of `changes.sql`."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg

from coder.change import (
    Approval,
    ChangeState,
    Claim,
    ConflictFile,
    DecidedFile,
    FileChange,
    Hunk,
    Plan,
    PlannedFile,
    Rest,
    Shift,
    Snapshot,
    Worktree,
    display_path,
)
from coder.checks import Check, CheckState, Ran, shown
from coder.comments import Owed, Place, Written
from coder.postgres.pool import fetch
from coder.postgres.statements import load
from coder.postgres.tasks import project_from, snapshot_json, worktree_from
from coder.task import Project

STATEMENTS = load("changes.sql")


def plan_json(plan: Plan) -> dict[str, Any]:
    return {
        "target": plan.target,
        "repository": plan.repository,
        "keep_ref": plan.keep_ref,
        "branch": plan.branch,
        "old_commit": plan.old_commit,
        "new_commit": plan.new_commit,
        "files": [[file.path.hex(), file.old_blob, file.old_mode, file.new_blob, file.new_mode] for file in plan.files],
    }


def plan_from(row: dict[str, Any]) -> Plan:
    files = tuple(PlannedFile(bytes.fromhex(path), *rest) for path, *rest in row["files"])
    return Plan(**{**row, "files": files})


def conflict_json(conflict: ConflictFile) -> dict[str, Any]:
    hunks = [{"line": hunk.line, "ours": hunk.ours, "theirs": hunk.theirs} for hunk in conflict.hunks]
    return {"path": display_path(conflict.path), "detail": conflict.detail, "hunks": hunks}


def rest_json(rest: Rest, task: str | None) -> dict[str, Any]:
    """A rest as `coder.settle_decision` reads it; its diff goes beside it, as bytes."""
    shift = rest.shift and {
        "decision": str(rest.shift.decision_id),
        "old": rest.shift.old,
        "new": rest.shift.new,
        "markers": rest.shift.markers,
    }
    return {"base": rest.base, "snapshot": snapshot_json(rest.snapshot, 0), "shift": shift, "task": task}


def file_from(row: dict[str, Any]) -> FileChange:
    return FileChange(
        path=bytes.fromhex(row["path"]),
        operation=row["operation"],
        additions=row["additions"],
        deletions=row["deletions"],
        old_mode=row["old_mode"],
        new_mode=row["new_mode"],
        old_path=bytes.fromhex(row["old_path"]) if row["old_path"] else None,
        hunks=tuple(Hunk(*hunk) for hunk in row["hunks"]),
    )


def parts_from(parts: list[dict[str, Any]], files: dict[str, dict[str, Any]]) -> tuple[DecidedFile, ...]:
    """What was decided, file by file; a part without a hunk is all of its file."""
    chosen: dict[tuple[str, str], set[int | None]] = defaultdict(set)
    for part in parts:
        chosen[str(part["file"]), part["verdict"]].add(part["hunk"])
    decided = []
    for ordinal, row in files.items():
        file = DecidedFile(file_from(row), frozenset(), frozenset())
        own = [chosen[ordinal, verdict] for verdict in ("approve", "reject")]
        approved, rejected = (file.parts if None in hunks else frozenset(filter(None, hunks)) for hunks in own)
        decided.append(replace(file, approved=approved, rejected=rejected))
    return tuple(decided)


def claim_from(row: asyncpg.Record) -> Claim:
    decision, change = json.loads(row["decision"]), json.loads(row["change"])
    written = {bytes.fromhex(path): (blob, mode) for path, (blob, mode) in json.loads(row["written"]).items()}
    worktree, undo = worktree_from(json.loads(row["worktree"])), decision["kind"] == "undo"
    approval = Approval(
        decision_id=row["id"],
        worktree=replace(worktree, base_commit=decision["old_base"]) if undo else worktree,
        snapshot_commit=decision["new_base"] if undo else change["snapshot_commit"],
        paths=() if undo else tuple(bytes.fromhex(path) for path in row["paths"]),
        target=decision["target"],
        branch=decision["branch"],
        commit=decision["commit"],
        message=f"{'Undo: ' * undo}{change['title']}\n\nAgent: {change['agent']}\nTask: {change['task_id']}\nChange: {change['id']}\n",
        written=written,
        parts=parts_from(decision["parts"], json.loads(row["files"])),
        author=decision["actor"],
        push=decision["push"],
        rebase=decision["kind"] == "rebase",
        resolve=decision["resolve"],
    )
    return Claim(
        decision_id=row["id"],
        epoch=row["epoch"],
        project_id=UUID(decision["project_id"]),
        change_id=UUID(change["id"]),
        change_state=ChangeState(change["state"]),
        fingerprint=change["fingerprint"],
        approval=approval,
        plan=plan_from(decision["plan"]) if decision["plan"] else None,
        undoes=row["content"] if undo else None,
    )


def owed_from(row: asyncpg.Record) -> Owed:
    worktree = worktree_from(json.loads(row["worktree"]))
    comments = tuple(
        Written(UUID(each["id"]), each["side"], each["commit"], bytes.fromhex(each["path"]), each["line"], each["end_line"])
        for each in json.loads(row["comments"] or "[]")
    )
    return Owed(
        session_id=worktree.session_id,
        project_id=worktree.project_id,
        repository=worktree.repository,
        change_id=row["change_id"],
        snapshot_commit=row["snapshot_commit"],
        base_commit=row["base_commit"],
        comments=comments,
    )


def place_json(place: Place) -> dict[str, Any]:
    path = place.path.hex() if place.path is not None else None
    return {"id": str(place.id), "path": path, "line": place.line, "end_line": place.end_line}


class PostgresChanges:
    """Implements `change_ports.ChangeStore`."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._pool = pool

    async def _fetch(self, statement: str, **parameters: Any) -> list[asyncpg.Record]:
        found = STATEMENTS[statement]
        return await fetch(self._pool, found.sql, found.arguments(parameters))

    async def claim_decision(self, node: UUID, host: UUID) -> Claim | None:
        rows = await self._fetch("claim_decision", node=node, host=host)
        return claim_from(rows[0]) if rows else None

    async def begin_applying(self, claim: Claim, plan: Plan) -> str:
        rows = await self._fetch(
            "begin_applying", decision=claim.decision_id, epoch=claim.epoch, plan=json.dumps(plan_json(plan)), content=claim.undoes
        )
        return str(rows[0][0])

    async def settle_decision(
        self,
        claim: Claim,
        *,
        outcome: str,
        error: str | None = None,
        facts: dict[str, Any] | None = None,
        state: ChangeState | None = None,
        conflicts: tuple[ConflictFile, ...] = (),
        written: tuple[PlannedFile, ...] = (),
        rest: Rest | None = None,
        task: str | None = None,
    ) -> bool:
        rows = await self._fetch(
            "settle_decision",
            decision=claim.decision_id,
            epoch=claim.epoch,
            outcome=outcome,
            error=error,
            facts=json.dumps(facts or {}),
            state=state,
            conflicts=json.dumps([conflict_json(each) for each in conflicts]),
            written=json.dumps([{"path": file.path.hex(), "blob": file.new_blob, "mode": file.new_mode} for file in written]),
            rest=json.dumps(rest_json(rest, task)) if rest else None,
            diff=rest.snapshot.diff if rest else None,
        )
        return bool(rows[0][0])

    async def unfinished(self, host: UUID) -> list[tuple[Worktree, bool]]:
        rows = await self._fetch("unfinished_worktrees", host=host)
        return [(worktree_from(json.loads(row["worktree"])), row["busy"]) for row in rows]

    async def rescue_change(self, worktree: Worktree, snapshot: Snapshot, number: int) -> str:
        rows = await self._fetch(
            "rescue_change",
            session_id=worktree.session_id,
            task=worktree.unsnapshotted_task,
            snapshot=json.dumps(snapshot_json(snapshot, number)),
            diff=snapshot.diff,
        )
        return str(rows[0][0])

    async def shifted(self, worktree: Worktree, shift: Shift, kept: tuple[bytes, ...]) -> None:
        paths = [display_path(path) for path in kept]
        await self._fetch("shifted", session_id=worktree.session_id, decision=shift.decision_id, kept=paths)

    async def discarded(self, worktree: Worktree) -> None:
        await self._fetch("discarded", session_id=worktree.session_id, decision=worktree.discard_decision)

    async def comments_owed(self, host: UUID) -> list[Owed]:
        return [owed_from(row) for row in await self._fetch("comments_owed", host=host)]

    async def carry_comments(self, owed: Owed, places: Sequence[Place]) -> bool:
        rows = await self._fetch(
            "carry_comments",
            session_id=owed.session_id,
            change_id=owed.change_id,
            snapshot_commit=owed.snapshot_commit,
            base_commit=owed.base_commit,
            places=json.dumps([place_json(place) for place in places]),
        )
        return bool(rows[0][0])

    async def claim_checks(self, node: UUID, host: UUID, count: int) -> list[Check]:
        rows = await self._fetch("claim_checks", node=node, host=host, count=count)
        return [Check(**{**row, "worktree": Path(row["worktree"])}) for row in map(dict, rows)]

    async def unwanted_checks(self, node: UUID) -> set[UUID]:
        return {row[0] for row in await self._fetch("unwanted_checks", node=node)}

    async def settle_check(self, check: Check, state: CheckState, ran: Ran | None, *, detail: str | None, fixable: bool) -> bool:
        rows = await self._fetch(
            "settle_check",
            check=check.id,
            epoch=check.epoch,
            state=state,
            exit_code=ran.exit_code if ran else None,
            detail=detail,
            output=shown(ran.output) if ran else None,
            fixable=fixable,
        )
        return bool(rows[0][0])

    async def expired(self, host: UUID, retention: float, session_id: UUID | None = None) -> list[tuple[Worktree, str]]:
        rows = await self._fetch("expired_worktrees", host=host, retention=timedelta(seconds=retention), session_id=session_id)
        return [
            (
                worktree_from(json.loads(row["worktree"])),
                f"its session {'is closed' if row['closed'] else 'rests'} since {row['since']:%Y-%m-%d %H:%M} UTC",
            )
            for row in rows
        ]

    async def projects(self) -> set[UUID]:
        return {row["id"] for row in await self._fetch("every_project")}

    async def removed(self, worktree: Worktree) -> None:
        await self._fetch("worktree_removed", session_id=worktree.session_id)

    async def known(self, host: UUID) -> list[tuple[Project, frozenset[UUID]]]:
        rows = await self._fetch("known_worktrees", host=host)
        return [(project_from(json.loads(row["project"])), frozenset(row["sessions"])) for row in rows]
