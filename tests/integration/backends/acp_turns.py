"""Turns of the ACP backend for the tests: an agent of the registry, its backend, chats in worktrees, and what a turn said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from native_turns import make_worktree, settings

from coder.agents import AgentSpec, Endpoint
from coder.backends.acp import AcpBackend
from coder.backends.acp_process import AcpProcess
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.warm import Warm
from coder.config import Settings
from coder.errors import TurnError
from coder.events import AgentEvent, PermissionRequest
from coder.permission import Answer
from coder.ports import LiveTurn, Turn
from coder.task import AgentSession
from coder.transcript import Transcript

Kind = TypeVar("Kind")
SECONDS = 150.0
ALLOWED = Answer(True)


@dataclass
class Played:
    """A turn that is over: its events in order, what they fold to, how it ended, how to come back, its log."""

    events: list[AgentEvent] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    error: TurnError | None = None
    session: AgentSession | None = None
    log: str = ""

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def text(self) -> str:
        return self.transcript.text


@dataclass
class Chat:
    """Turns of one chat in one worktree, one after the other; each gets the session that the one before left.

    Attributes:
        earlier: what was said so far, from the second turn on.
    """

    backend: AcpBackend
    worktree: Path
    folder: Path
    session: AgentSession | None = None
    earlier: str = ""
    begun: bool = False
    id: UUID = field(default_factory=uuid4)

    def turn(self, prompt: str, **values: Any) -> Turn:
        async def earlier() -> str:
            return self.earlier if self.begun else ""

        made: dict[str, Any] = {
            "task_id": 1,
            "epoch": 1,
            "session_id": self.id,
            "chat_id": self.id,
            "prompt": prompt,
            "worktree": self.worktree,
            "cwd": self.worktree,
            "model": None,
            "mode_id": None,
            "thinking_option_id": None,
            "model_history": None,
            "log": self.folder / f"{self.worktree.name}.log",
            "agent_session": self.session,
            "earlier": earlier,
        }
        return Turn(**{**made, **values})

    async def play(
        self,
        prompt: str,
        *,
        until: Callable[[LiveTurn, AgentEvent], bool] | None = None,
        answer: Answer | None = ALLOWED,
        seconds: float = SECONDS,
        **values: Any,
    ) -> Played:
        """Run a turn to its end, answering what it asks, or leave it at the first event for which `until` says so."""
        turn = self.turn(prompt, **values)
        played = Played()
        async with asyncio.timeout(seconds), self.backend.run_turn(turn) as live:
            try:
                async for event in live.events:
                    played.events.append(event)
                    played.transcript.apply(event)
                    played.transcript.take_spills()
                    if until is not None and until(live, event):
                        break
                    if isinstance(event, PermissionRequest) and answer is not None:
                        await live.answer(event.id, answer)
            except TurnError as error:
                played.error = error
        self.session = played.session = live.agent_session
        self.begun = True
        played.log = turn.log.read_text("utf-8", "replace") if turn.log.is_file() else ""
        return played


@dataclass
class Bench:
    """One agent and what belongs to it."""

    backend: AcpBackend
    launcher: Launcher
    warm: Warm
    folder: Path

    def chat(self, name: str = "worktree", **values: Any) -> Chat:
        """A chat in a worktree of that name, made when it is not there."""
        path = self.folder / name
        return Chat(self.backend, path if path.is_dir() else make_worktree(path), self.folder, **values)

    @property
    def processes(self) -> list[AcpProcess]:
        return list(self.backend.processes)


@asynccontextmanager
async def bench(folder: Path, name: str, spec: AgentSpec, endpoint: Endpoint | None = None, **values: Any) -> AsyncIterator[Bench]:
    """An agent's backend below a folder.

    Args:
        values: settings.
    """
    chosen: Settings = settings(**values)
    guardians = Guardians()
    launcher = Launcher(name, spec, guardians, folder / "homes" / "1", endpoint)
    warm = Warm(most=chosen.warm_agents, memory=chosen.warm_memory_bytes, idle=chosen.agent_idle_seconds)
    backend = AcpBackend(launcher, chosen, warm)
    await backend.start()
    try:
        yield Bench(backend, launcher, warm, folder)
    finally:
        await backend.stop()
        await guardians.stop_all()
