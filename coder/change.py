"""The words of worktrees, changes and decisions."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal
from uuid import UUID

Operation = Literal["added", "deleted", "modified", "renamed", "copied", "type_changed"]


class ChangeState(StrEnum):
    PENDING = "pending"
    APPLYING = "applying"
    CONFLICTED = "conflicted"
    APPROVED = "approved"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    UNDONE = "undone"


OPEN_CHANGE = frozenset({ChangeState.PENDING, ChangeState.APPLYING, ChangeState.CONFLICTED})


@dataclass(frozen=True, slots=True)
class Shift:
    """What a decision wants of a worktree's files: the difference from one commit to another one, merged into what they hold.

    Attributes:
        markers: what the other side is called in conflict markers where both clash; None leaves such files as they are.
    """

    decision_id: UUID
    old: str
    new: str
    markers: str | None = None


@dataclass(frozen=True, slots=True)
class Worktree:
    """A session's worktree as it is recorded.

    Attributes:
        repository: absolute path of the project's checkout.
        path: absolute path of the worktree's root.
        base_commit: what the change is measured against (40 or 64 hex digits).
        base_branch: branch the project's checkout was on when the worktree was made, None when detached.
        base_version: counts the moves of the base; starts at 1.
        last_snapshot: newest snapshot commit, None before the first.
        snapshots: how many snapshots were taken; numbers the refs.
        copied: paths copied in from the checkout's ignored files, never part of a change.
        unsnapshotted_task: task whose work is in the worktree but in no change, since its node died.
        discard_decision: rejection that wants the worktree back at its base.
        shifts: what its files are still to be brought along with, in this order.
        fresh: its directory was made just now; never stored.
        clashes: paths, as text, where shifts that were done just now clashed with the files, by decision; never stored.
    """

    session_id: UUID
    project_id: UUID
    repository: str
    path: str
    base_commit: str
    base_branch: str | None
    base_version: int = 1
    last_snapshot: str | None = None
    snapshots: int = 0
    copied: tuple[bytes, ...] = ()
    unsnapshotted_task: int | None = None
    discard_decision: UUID | None = None
    shifts: tuple[Shift, ...] = ()
    fresh: bool = False
    clashes: tuple[tuple[UUID, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Hunk:
    """One hunk of a file's diff.

    Attributes:
        old_start, new_start: its first line on either side, from 1; of an empty side the line before it.
        old_lines, new_lines: how many lines it spans there.
        diff_line: where its `@@` stands in the change's diff, as a line from 1.
        diff_lines: how many lines of the diff it takes, that one included.
    """

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    diff_line: int
    diff_lines: int


@dataclass(frozen=True, slots=True)
class Gone:
    """What the janitor removed, or would remove: why, and the ref that holds what nothing else held, None where there was nothing."""

    path: str
    why: str
    saved: str | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file of a change.

    Attributes:
        path: the new path's bytes (the old one's for a deletion).
        old_path: where a renamed or copied file came from, else None.
        additions, deletions: lines; None for a binary file.
        old_mode, new_mode: git modes as octal text, '000000' where there is no file.
        hunks: of its diff, numbered from 1 in this order; none where there is nothing to choose from (binary, mode alone,
            a file that became a link).
    """

    path: bytes
    operation: Operation
    additions: int | None
    deletions: int | None
    old_mode: str
    new_mode: str
    old_path: bytes | None = None
    hunks: tuple[Hunk, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The worktree's content at one moment, against a base.

    Attributes:
        commit: synthetic commit whose only parent is the base; the base itself when nothing changed.
        diff: `git diff --binary` from base to snapshot, bytes as git wrote them.
        warnings: sentences a reviewer must see.
    """

    base_commit: str
    base_tree: str
    base_version: int
    commit: str
    tree: str
    diff: bytes
    files: tuple[FileChange, ...]
    warnings: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        return self.base_tree == self.tree

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.base_tree, self.tree)


def fingerprint(base_tree: str, snapshot_tree: str) -> str:
    """What a reviewer decided on: sha256 of `base tree ':' snapshot tree`, in hex."""
    return hashlib.sha256(f"{base_tree}:{snapshot_tree}".encode()).hexdigest()


def display_path(path: bytes) -> str:
    """A path's bytes as text that any database and terminal takes; undecodable bytes and NUL become U+FFFD."""
    return path.decode("utf-8", "replace").replace("\x00", "\ufffd")


@dataclass(frozen=True, slots=True)
class DecidedFile:
    """A file of a change of which parts were approved or rejected; its other parts are left.

    Attributes:
        approved, rejected: numbers of its hunks; of a file without hunks, 1 stands for all of it.
    """

    file: FileChange
    approved: frozenset[int]
    rejected: frozenset[int]

    @property
    def parts(self) -> frozenset[int]:
        return frozenset(range(1, max(1, len(self.file.hunks)) + 1))


@dataclass(frozen=True, slots=True)
class Rest:
    """What a decision on parts leaves, an undo, or a rebase.

    Attributes:
        base: commit that is the session's base from then on: the old base with what was approved, the one before the approval,
            or the target's content.
        snapshot: what is left to decide on, against that base.
        shift: takes what was rejected out of the worktree, or brings the target's edits there; None when there is nothing to bring.
        conflicts: paths, as text, whose conflict markers the agent is to resolve.
    """

    base: str
    snapshot: Snapshot
    shift: Shift | None
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file that an approval writes into the checkout.

    A blob is None where there is no file; modes are octal text, '000000' likewise.
    """

    path: bytes
    old_blob: str | None
    old_mode: str
    new_blob: str | None
    new_mode: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All an approval will do, stored before it touches anything.

    Attributes:
        target: `checkout` or `branch`.
        branch: the branch to move (target `branch`), else None.
        old_commit: what HEAD or the branch must still point to; None for a branch to be made.
        new_commit: the commit to move to (target `branch`, or `checkout` with commit), else None.
        files: what to write (target `checkout`).
        keep_ref: ref that keeps every object named here alive.
        marks: what tells whether the file at a path, of the old content as the plan was made, was touched since; never stored.
    """

    target: Literal["checkout", "branch"]
    repository: str
    keep_ref: str
    branch: str | None = None
    old_commit: str | None = None
    new_commit: str | None = None
    files: tuple[PlannedFile, ...] = ()
    marks: Mapping[bytes, tuple[int, ...] | None] = field(default_factory=dict, compare=False, repr=False)


class Found(StrEnum):
    """What recovery finds of a plan on disk."""

    NEW = "new"
    OLD = "old"
    MIXED = "mixed"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class ConflictHunk:
    """One conflicting region: line in the merged file (from 1), and both sides' text."""

    line: int
    ours: str
    theirs: str


@dataclass(frozen=True, slots=True)
class ConflictFile:
    path: bytes
    detail: str
    hunks: tuple[ConflictHunk, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Approval:
    """What an approval was asked to do.

    Attributes:
        written: what coder last wrote in this checkout: path -> (blob, mode); None blob = deleted.
        message: the commit message, for a branch or a commit.
        author: who asked for it, the author of such a commit; None: whoever commits.
        push: the branch goes to the project's remote as well.
        parts: what was approved and rejected, when it was not all of the change.
        rebase: nothing goes to the target; its content comes to the session.
        resolve: where that clashes, the agent is to resolve it.
    """

    decision_id: UUID
    worktree: Worktree
    snapshot_commit: str
    paths: tuple[bytes, ...]
    target: Literal["checkout", "branch"]
    branch: str | None
    commit: bool
    message: str
    written: dict[bytes, tuple[str | None, str]] = field(default_factory=dict)
    parts: tuple[DecidedFile, ...] = ()
    author: str | None = None
    push: bool = False
    rebase: bool = False
    resolve: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A decision that this node carries out.

    Attributes:
        epoch: fences its writes.
        plan: what a dead node had begun.
        undoes: commit of the session's work that waits again once an approval is undone; None of any other decision. The
            approval then goes the other way: from the base as it is back to the one before.
        rest: what it leaves, once that was worked out; None when it is on all of the change.
    """

    decision_id: UUID
    epoch: int
    project_id: UUID
    change_id: UUID
    change_state: ChangeState
    fingerprint: str
    approval: Approval
    plan: Plan | None
    undoes: str | None = None
    rest: Rest | None = None
