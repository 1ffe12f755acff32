"""Turns for the tests of backends: a worktree, a chat in it, and what a turn said until it ended."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

from coder.config import Settings
from coder.errors import TurnError
from coder.events import AgentEvent
from coder.ports import Backend, LiveTurn, Turn
from coder.task import AgentSession
from coder.transcript import Transcript

Kind = TypeVar("Kind")
_tasks = itertools.count(1)


def make_worktree(path: Path) -> Path:
    """A git repository with one empty commit."""
    path.mkdir()
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q", "-b", "main"), (*author, "commit", "-q", "--allow-empty", "-m", "start")):
        subprocess.run(("git", *command), cwd=path, check=True, stdin=subprocess.DEVNULL)
    return path


def settings(**values: Any) -> Settings:
    """Settings of a test: requests are not retried unless it says so."""
    return Settings(_env_file=None, **{"default_model": "m1", "retry_seconds": 0, **values})


@dataclass
class Played:
    """A turn that is over.

    Attributes:
        events: what it said, in order.
        transcript: what that folds to.
        error: how it failed, None when it ended well or was left.
        history: what the chat remembers.
        session: the agent's own session to go on with.
        log: what is in the turn's log file.
    """

    events: list[AgentEvent] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    error: TurnError | None = None
    history: str | None = None
    session: AgentSession | None = None
    log: str = ""

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Chat:
    """Turns of one chat in one worktree, one after the other; each gets what the ones before left."""

    backend: Backend
    worktree: Path
    folder: Path
    cwd: Path
    history: str | None = None
    session: AgentSession | None = None
    said: list[str] = field(default_factory=list)
    id: UUID = field(default_factory=uuid4)

    def turn(self, prompt: str, **values: Any) -> Turn:
        made: dict[str, Any] = {
            "task_id": next(_tasks),
            "epoch": 1,
            "session_id": self.id,
            "chat_id": self.id,
            "prompt": prompt,
            "worktree": self.worktree,
            "cwd": self.cwd,
            "model": None,
            "mode_id": None,
            "thinking_option_id": None,
            "model_history": self.history,
            "log": self.folder / "turn.log",
            "agent_session": self.session,
            "earlier": self.earlier,
        }
        return Turn(**{**made, **values})

    async def earlier(self) -> str:
        return "\n\n".join(self.said)

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
        self.session = played.session = live.agent_session
        # As JSON, since a scripted model would do again what stands alone in a line.
        self.said += [f"user: {json.dumps(prompt)}", f"agent: {json.dumps(played.transcript.text[:2000])}"]
        played.log = turn.log.read_text(errors="replace") if turn.log.is_file() else ""
        return played
