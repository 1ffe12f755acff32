"""Turns of the opencode backend for the tests: worktrees of one repository, chats in them, and what a turn said until it ended."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from coder.agents import AgentSpec, Endpoint
from coder.backends import guard
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.opencode import OpencodeBackend
from coder.config import Settings
from coder.errors import TurnError
from coder.events import AgentEvent, PermissionRequest, Question
from coder.permission import Answer
from coder.ports import LiveTurn, Turn
from coder.task import AgentSession
from coder.transcript import Transcript

Kind = TypeVar("Kind")
GIT = ("git", "-c", "user.name=t", "-c", "user.email=t@example.org")


@dataclass
class Played:
    """A turn that is over: its events in order, what they fold to, how it ended, the session it left, its log."""

    events: list[AgentEvent] = field(default_factory=list)
    transcript: Transcript = field(default_factory=Transcript)
    error: TurnError | None = None
    session: AgentSession | None = None
    log: str = ""

    def of(self, kind: type[Kind]) -> list[Kind]:
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Chat:
    """Turns of one chat in one worktree, one after the other; each gets what the one before left."""

    backend: OpencodeBackend
    worktree: Path
    log: Path
    session: AgentSession | None = None
    said: list[str] = field(default_factory=list)

    def turn(self, prompt: str, **values: Any) -> Turn:
        async def earlier() -> str:
            return "\n".join(self.said)

        made: dict[str, Any] = {
            "task_id": 1,
            "epoch": 1,
            "session_id": uuid4(),
            "chat_id": uuid4(),
            "prompt": prompt,
            "worktree": self.worktree,
            "cwd": self.worktree,
            "model": None,
            "mode_id": None,
            "thinking_option_id": None,
            "model_history": None,
            "log": self.log,
            "agent_session": self.session,
            "earlier": earlier,
        }
        return Turn(**{**made, **values})

    async def play(
        self,
        prompt: str,
        *,
        until: Callable[[LiveTurn, AgentEvent], bool] | None = None,
        answers: Callable[[PermissionRequest | Question], Answer] = lambda request: Answer(True),
        **values: Any,
    ) -> Played:
        """Run a turn to its end, or leave it at the first event for which `until` says so; whatever is asked is answered."""
        played = Played()
        turn = self.turn(prompt, **values)
        async with self.backend.run_turn(turn) as live:
            try:
                async for event in live.events:
                    played.events.append(event)
                    played.transcript.apply(event)
                    if until is not None and until(live, event):
                        break
                    if isinstance(event, PermissionRequest | Question):
                        await live.answer(event.id, answers(event))
            except TurnError as error:
                played.error = error
        self.session = played.session = live.agent_session
        self.said += [f"User: {prompt.splitlines()[0]}", f"Agent: {played.transcript.text}"]
        played.log = await asyncio.to_thread(lambda: turn.log.read_text() if turn.log.is_file() else "")
        return played


@dataclass
class House:
    """A backend, the repository its chats have worktrees of, and its guardians."""

    backend: OpencodeBackend
    launcher: Launcher
    guardians: Guardians
    folder: Path
    settings: Settings

    def chat(self, name: str) -> Chat:
        """A chat in a new worktree of the repository."""
        worktree = self.folder / "worktrees" / name
        subprocess.run((*GIT, "worktree", "add", "-q", "--detach", str(worktree)), cwd=self.folder / "project", check=True)
        return Chat(self.backend, worktree, self.folder / "logs" / name / "turn.log")

    def again(self) -> OpencodeBackend:
        """The backend as it is after the node was stopped and started again."""
        return OpencodeBackend(self.launcher, self.settings)

    @property
    def server(self) -> int:
        """The process id of the only server."""
        (guardian,) = [guarded.pid for guarded in self.guardians._living]
        (server,) = guard.children(guardian)
        return server


def make_project(project: Path) -> None:
    """A repository with one commit."""
    project.mkdir()
    (project / "README").write_text("a project\n")
    for line in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "start")):
        subprocess.run((*GIT, *line), cwd=project, check=True, stdin=subprocess.DEVNULL)


@asynccontextmanager
async def house(
    folder: Path,
    command: tuple[str, ...],
    endpoint: str | None,
    *,
    retry_seconds: float = 60.0,
    environment: dict[str, str] | None = None,
    **values: Any,
) -> AsyncIterator[House]:
    """A backend below a folder, with a repository of one commit.

    Args:
        command: the server's.
        endpoint: base URL of the model's endpoint.
        values: further settings.
    """
    await asyncio.to_thread(make_project, folder / "project")
    given: dict[str, Any] = {"default_model": "m1", "model_provider": "scripted", "model_base_url": endpoint, **values}
    settings = Settings(_env_file=None, **given)
    guardians = Guardians()
    spec = AgentSpec(protocol="opencode", command=command, use_endpoint=True, env=environment or {}, install="npm install -g opencode-ai")
    known = Endpoint(endpoint, "", settings.model_provider, "m1") if endpoint else None
    launcher = Launcher("opencode", spec, guardians, folder / "homes" / "0", known)
    backend = OpencodeBackend(launcher, settings, retry_seconds=retry_seconds)
    await backend.start()
    try:
        yield House(backend, launcher, guardians, folder, settings)
    finally:
        await backend.stop()
        await guardians.stop_all()
