"""Stand-ins for tests and measurements: a backend that answers at once, and worktrees that are no directories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from coder.change import Snapshot, Worktree
from coder.checks import Ran
from coder.events import AgentEvent, TextDelta, Usage
from coder.permission import Answer
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import ExecutionPath, Project

COMMIT = "0" * 40


async def answer(turn: Turn) -> AsyncIterator[AgentEvent]:
    yield TextDelta("done")
    yield Usage(10, 0, 2)


@dataclass
class NullLive:
    events: AsyncIterator[AgentEvent]
    model_history: str | None = None

    def busy_with_tool(self) -> bool:
        return False

    @property
    def agent_session(self) -> None: ...

    async def answer(self, request_id: str, answer: Answer) -> None: ...

    async def reconcile(self) -> bool:
        return False


@dataclass
class NullBackend:
    """Answers what `script` yields; `turns` keeps what was asked."""

    script: Callable[[Turn], AsyncIterator[AgentEvent]] = answer
    execution_path: ExecutionPath = ExecutionPath.NATIVE
    agent: str = "native"
    turns: list[Turn] = field(default_factory=list)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def probe(self) -> tuple[AgentFacts, ...]:
        return (AgentFacts(self.agent, self.execution_path, True),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        self.turns.append(turn)
        yield NullLive(self.script(turn))


class NullWorktrees:
    """Every worktree is there and unchanged."""

    @asynccontextmanager
    async def hold(self, session_id: UUID) -> AsyncIterator[None]:
        yield

    async def ensure(self, project: Project, session_id: UUID, known: Worktree | None) -> Worktree:
        return known or Worktree(session_id, project.id, project.path, "/", COMMIT, None)

    async def guard_state(self, worktree: Worktree) -> str:
        return ""

    async def snapshot(self, worktree: Worktree) -> Snapshot:
        return Snapshot(worktree.base_commit, COMMIT, worktree.base_version, worktree.base_commit, COMMIT, b"", ())

    async def diff(self, worktree: Worktree, commit: str) -> Snapshot:
        return await self.snapshot(worktree)


class NullGuards:
    def renew(self, deadline: float) -> None: ...

    def kill_all_now(self) -> None: ...

    async def stop_all(self) -> None: ...


class NullCommands:
    async def run(self, command: str, worktree: Path, seconds: float, log: Path, *, network: bool = True) -> Ran:
        return Ran(0, "ended with exit code 0")
