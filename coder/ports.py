"""The ports: what the clockwork in `runtime/` needs of the worlds, as Protocols.

An adapter implements one of them; nothing else crosses between the worlds.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from coder.change import Approval, Found, Plan, Snapshot, Worktree
from coder.events import AgentEvent
from coder.task import ExecutionPath, Project


class Clock(Protocol):
    """Time, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, suspended time included."""
        ...

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt to a backend.

    Attributes:
        prompt: what the agent is told, remarks of reviewers included.
        worktree: absolute root of the session's worktree.
        cwd: absolute directory inside it where the agent starts.
        model: as the task names it; empty or None = the default.
        model_history: the chat's provider messages as JSON text, None for a fresh chat.
        log: file that collects what the agent prints beside its answer; the folder exists.
    """

    task_id: int
    epoch: int
    session_id: UUID
    chat_id: UUID
    prompt: str
    worktree: Path
    cwd: Path
    model: str | None
    mode_id: str | None
    thinking_option_id: str | None
    model_history: str | None
    log: Path


class LiveTurn(Protocol):
    """A turn that runs.

    `events` ends when the turn has ended well and raises a `TurnError` when it failed.
    `model_history` is the provider messages as JSON text as far as they are complete, None where
    the backend keeps its own. Both may be read after the context was left.
    """

    @property
    def events(self) -> AsyncIterator[AgentEvent]: ...

    @property
    def model_history(self) -> str | None: ...

    def busy_with_tool(self) -> bool:
        """Whether a tool runs at this moment: the inactivity clock stands still meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What a probe found of one agent."""

    agent: str
    execution_path: ExecutionPath
    available: bool
    version: str | None = None
    detail: str = ""
    models: tuple[str, ...] = ()


class Backend(Protocol):
    """A way to run a turn. Leaving the context of `run_turn` ends the agent's work, at once and for good."""

    @property
    def execution_path(self) -> ExecutionPath: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Close what is kept warm; tolerates never-started and stopped-twice."""
        ...

    async def probe(self) -> tuple[AgentFacts, ...]: ...

    def run_turn(self, turn: Turn) -> AbstractAsyncContextManager[LiveTurn]: ...


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

    async def plan(self, approval: Approval) -> Plan:
        """Merge without touching anything; raises `MergeConflict`, `CheckoutDirty` or `WrongBranch`."""
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

    async def remove(self, worktree: Worktree) -> None:
        """Save what is unsaved under a ref, then delete the worktree and git's record of it."""
        ...


class Door(Protocol):
    """What people ask and do, each a named statement of `postgres/door.sql` that answers JSON rows.

    Errors arrive as the `CoderError` whose code the database raised (`NotFound`, `InvalidInput`, `Conflict`, `Stale`,
    `Superseded`), or `Unavailable` when the database cannot be reached.
    """

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]: ...

    async def row(self, statement: str, **parameters: Any) -> dict[str, Any]:
        """The only row; raises `NotFound` when there is none."""
        ...

    async def blob(self, statement: str, **parameters: Any) -> bytes:
        """The only value of the only row, as bytes; raises `NotFound` when there is none."""
        ...

    async def settled(self, decision_id: UUID, seconds: float) -> dict[str, Any]:
        """The decision once it is done or failed, or as it is when the time is over."""
        ...


class SyncDoor(Protocol):
    """The same door for the command line, without an event loop."""

    def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]: ...

    def row(self, statement: str, **parameters: Any) -> dict[str, Any]: ...

    def blob(self, statement: str, **parameters: Any) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `coder doctor`: what was looked at, whether it is well, what was found, and the cure."""

    subject: str
    ok: bool
    found: str
    cure: str = ""
