"""The ports of worktrees, changes and decisions: what the clockwork in `runtime/` needs of git and of what is stored of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from coder.change import (
    Approval,
    ChangeState,
    Claim,
    ConflictFile,
    Found,
    Plan,
    PlannedFile,
    Rest,
    Shift,
    Snapshot,
    Worktree,
)
from coder.checks import Check, CheckState, Ran
from coder.comments import Owed, Place
from coder.task import Project


class Worktrees(Protocol):
    """Directories keyed by session, their snapshots, and what decisions do with them.

    Every call may raise a `TurnError` of the project's kind (`NoProjectPath`, `NotARepository`, `NoCommit`, `DiskFull`).
    """

    def hold(self, session_id: UUID) -> AbstractAsyncContextManager[None]:
        """Own the session's worktree on this host; raises `Held` at once when somebody else does."""
        ...

    async def ensure(self, project: Project, session_id: UUID, known: Worktree | None) -> Worktree:
        """Make the worktree, or find it, or make it again as of its last snapshot when it was deleted."""
        ...

    async def guard_state(self, worktree: Worktree) -> str:
        """A digest of the repository's config, hooks and refs outside ours."""
        ...

    async def snapshot(self, worktree: Worktree) -> Snapshot:
        """Record the worktree's content under `refs/coder/<session>/<n>` and diff it against the base."""
        ...

    async def diff(self, worktree: Worktree, commit: str) -> Snapshot:
        """The same snapshot against the worktree's present base, when the base moved meanwhile."""
        ...

    async def reset(self, worktree: Worktree, to_commit: str) -> str:
        """Save the present content under a ref, put the worktree back to a commit, answer the ref."""
        ...

    async def shift(self, worktree: Worktree, shift: Shift) -> tuple[bytes, ...]:
        """Bring the worktree's files along with a shift; answers the paths where both say something else."""
        ...

    async def divide(self, approval: Approval) -> Rest:
        """Work out what a decision on parts leaves, touching nothing; raises `Conflict` for parts that only go together."""
        ...

    async def rebase(self, approval: Approval) -> Rest:
        """Work out what a change is on its target as it is by now, touching nothing; raises as `plan` does."""
        ...

    async def plan(self, approval: Approval) -> Plan:
        """Merge without touching anything; raises `MergeConflict`, `CheckoutDirty` or `WrongBranch`."""
        ...

    async def push(self, plan: Plan) -> tuple[str, str | None]:
        """Bring the plan's branch to the project's remote; answers the remote, and why it did not work, None when it did."""
        ...

    async def carry_out(self, plan: Plan) -> None:
        """Do what the plan says; doing it twice or going on after a crash ends the same."""
        ...

    async def examine(self, plan: Plan) -> tuple[Found, tuple[bytes, ...]]:
        """Compare the target with the plan; the paths are those with a third content."""
        ...

    async def forget(self, plan: Plan) -> None:
        """Drop the ref that kept the plan's objects."""
        ...

    async def remove(self, worktree: Worktree) -> str | None:
        """Save what is unsaved under a ref, then delete the worktree and git's record of it; answers the ref, if one was made."""
        ...

    async def orphans(self, project: Project, known_sessions: Collection[UUID]) -> list[Path]:
        """Directories and git records of worktrees that belong to no known session."""
        ...

    async def strays(self, known_projects: Collection[UUID], retention: float) -> list[Path]:
        """Worktrees of projects that nobody knows, untouched for longer than `retention` seconds."""
        ...

    async def remove_orphan(self, project: Project | None, path: Path) -> str | None:
        """Save what an orphan, or a stray (no project), holds under a ref, then delete it; answers the ref, if one was made.

        Raises `Held` when it is in use, and `InternalError` when git cannot read it; then it stays.
        """
        ...

    async def places(self, owed: Owed) -> tuple[Place, ...]:
        """Where each of a session's comments stands in its present change."""
        ...


class ChangeStore(Protocol):
    """Decisions, and worktrees that something is owed to."""

    async def claim_decision(self, node: UUID, host: UUID) -> Claim | None: ...

    async def begin_applying(self, claim: Claim, plan: Plan) -> str:
        """Store the plan before anything is touched; answers `applying` or why not (`fenced`, `stale`, `moved`, a change's state)."""
        ...

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
        """End a decision with what became of it; `task` is queued for the session's agent. False when it is another node's by now."""
        ...

    async def unfinished(self, host: UUID) -> list[tuple[Worktree, bool]]:
        """Worktrees with unsnapshotted work, or with a discard or a shift to do, and whether a turn runs there."""
        ...

    async def rescue_change(self, worktree: Worktree, snapshot: Snapshot, number: int) -> str:
        """Store the change of a turn whose node died; answers `stored`, `moved`, `applying` or `gone`."""
        ...

    async def shifted(self, worktree: Worktree, shift: Shift, kept: tuple[bytes, ...]) -> None:
        """A shift was done, but for the paths that were kept."""
        ...

    async def discarded(self, worktree: Worktree) -> None: ...

    async def comments_owed(self, host: UUID) -> list[Owed]:
        """Sessions of this host whose change is another than their comments were carried to."""
        ...

    async def carry_comments(self, owed: Owed, places: Sequence[Place]) -> bool:
        """Record where comments stand now; False when the change is another by now, or not all could be written: they are owed on."""
        ...

    async def claim_checks(self, node: UUID, host: UUID, count: int) -> list[Check]:
        """Checks this node has to run: of sessions of this host that rest."""
        ...

    async def unwanted_checks(self, node: UUID) -> set[UUID]:
        """Of this node's checks those to be ended: their session's next turn wants the worktree, or the change is no more."""
        ...

    async def settle_check(self, check: Check, state: CheckState, ran: Ran | None, *, detail: str | None, fixable: bool) -> bool:
        """End a check, or with `queued` put it back. One that failed of the agent's doing may become its next task. False = fenced."""
        ...

    async def expired(self, host: UUID, retention: float, session_id: UUID | None = None) -> list[tuple[Worktree, str]]:
        """Worktrees of sessions that are closed, or rest, for longer than `retention` seconds, with nothing left to decide, and since when.

        Args:
            session_id: look at this session alone.
        """
        ...

    async def projects(self) -> set[UUID]:
        """Every project there is, on whatever host."""
        ...

    async def removed(self, worktree: Worktree) -> None: ...

    async def known(self, host: UUID) -> list[tuple[Project, frozenset[UUID]]]:
        """Every project this host may have, with the sessions that have a worktree here."""
        ...


class ProjectCommands(Protocol):
    """Runs what a project says is to be run in its worktrees: its setup command, its check command."""

    async def run(self, command: str, worktree: Path, seconds: float, log: Path, *, network: bool = True) -> Ran:
        """Run a command, at most so long; what it prints goes to a log file. Cancelling this ends it, with all its descendants."""
        ...
