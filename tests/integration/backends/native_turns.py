"""Turns of the native backend for the tests: a worktree, its backend, and what a turn said until it ended."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pydantic import SecretStr

from coder.backends.guardian import Guardians
from coder.backends.native import NativeBackend
from coder.config import Settings
from coder.errors import TurnError
from coder.events import AgentEvent
from coder.ports import Clock, LiveTurn, Turn
from coder.runtime.clock import SystemClock
from coder.transcript import Transcript

KEY = "sk-secret-of-the-endpoint"
Kind = TypeVar("Kind")


def make_worktree(path: Path) -> Path:
    """A git repository with one empty commit."""
    path.mkdir()
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q", "-b", "main"), (*author, "commit", "-q", "--allow-empty", "-m", "start")):
        subprocess.run(("git", *command), cwd=path, check=True, stdin=subprocess.DEVNULL)
    return path


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **{"default_model": "m1", "model_api_key": SecretStr(KEY), "retry_seconds": 0, **values})


@dataclass
class Played:
    """A turn that is over: its events in order, what they fold to, how it ended, what the chat remembers, its log."""

    events: list[AgentEvent] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    error: TurnError | None = None
    history: str | None = None
    log: str = ""

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Chat:
    """Turns of one chat in one worktree, one after the other; each gets what the one before left."""

    backend: NativeBackend
    worktree: Path
    folder: Path
    cwd: Path
    history: str | None = None

    def turn(self, prompt: str, **values: Any) -> Turn:
        made: dict[str, Any] = {
            "task_id": 1,
            "epoch": 1,
            "session_id": uuid4(),
            "chat_id": uuid4(),
            "prompt": prompt,
            "worktree": self.worktree,
            "cwd": self.cwd,
            "model": None,
            "mode_id": None,
            "thinking_option_id": None,
            "model_history": self.history,
            "log": self.folder / "turn.log",
        }
        return Turn(**{**made, **values})

    async def play(self, prompt: str, *, until: Callable[[LiveTurn, AgentEvent], bool] | None = None, **values: Any) -> Played:
        """Run a turn to its end, or leave it at the first event for which `until` says so."""
        turn = self.turn(prompt, **values)
        played = Played()
        async with self.backend.run_turn(turn) as live:
            try:
                async for event in live.events:
                    played.events.append(event)
                    played.transcript.apply(event)
                    if until is not None and until(live, event):
                        break
            except TurnError as error:
                played.error = error
        self.history = played.history = live.model_history
        played.log = turn.log.read_text() if turn.log.is_file() else ""
        return played


@asynccontextmanager
async def chat(folder: Path, cwd: str = "", clock: Clock | None = None, **values: Any) -> AsyncIterator[Chat]:
    """A chat in a new worktree below a folder.

    Args:
        values: settings of the backend; requests are not retried unless they say so.
    """
    guardians = Guardians()
    backend = NativeBackend(settings(**values), guardians, clock or SystemClock())
    worktree = make_worktree(folder / "worktree")
    (worktree / cwd).mkdir(exist_ok=True)
    await backend.start()
    try:
        yield Chat(backend, worktree, folder, worktree / cwd)
    finally:
        await backend.stop()
        await guardians.stop_all()
