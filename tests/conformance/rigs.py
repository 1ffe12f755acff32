"""What the conformance suite runs on: for each kind of agent, how to make its backend and how to have the agent do what a case needs.

A new kind of agent: a class with the members of `Rig`, added to `RIGS`; a stand-in program that obeys the lines of `directives`
needs no `prompt` of its own. What a kind cannot do by its nature stands in `cannot` with the reason, and its case leaves it out.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from turns import Played, settings

from coder.agents import AgentSpec
from coder.backends.acp import AcpBackend
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.limits import Limits
from coder.backends.native import NativeBackend
from coder.backends.opencode import OpencodeBackend
from coder.backends.pty import PtyBackend
from coder.backends.warm import Warm
from coder.ports import Backend
from coder.runtime.clock import SystemClock

if TYPE_CHECKING:
    from model_server import ModelServer

NO_LIMITS = Limits()
STANDINS = Path(__file__).resolve().parents[1] / "agents"


@dataclass(frozen=True)
class Say:
    """The agent answers this."""

    text: str


@dataclass(frozen=True)
class Think:
    """The agent reasons this."""

    text: str


@dataclass(frozen=True)
class Write:
    """The agent writes a file with a tool."""

    path: str
    text: str


@dataclass(frozen=True)
class Run:
    """The agent runs a shell command with a tool."""

    command: str


@dataclass(frozen=True)
class Ask:
    """The agent asks for permission to run a command, runs it when it may, and says `denied: <message>` when it may not."""

    command: str


@dataclass(frozen=True)
class Recall:
    """The agent says what it remembers of the conversation."""


@dataclass(frozen=True)
class Huge:
    """The agent brings forth that many bytes, in one answer or one tool output."""

    size: int


@dataclass(frozen=True)
class Invalid:
    """The agent brings forth bytes that are no UTF-8, between the words `fine` and `fine`."""


@dataclass(frozen=True)
class Flood:
    """The agent writes that many bytes beside its answer, to standard error."""

    size: int


@dataclass(frozen=True)
class Silent:
    """The agent never answers."""


@dataclass(frozen=True)
class Nothing:
    """The agent ends its turn without a word."""


@dataclass(frozen=True)
class Crash:
    """The agent dies in mid-answer."""


Step = Say | Think | Write | Run | Ask | Recall | Huge | Invalid | Flood | Silent | Nothing | Crash


def directives(*steps: Step) -> str:
    """Steps as the lines that stand-in programs obey."""
    return "\n".join(_directive(step) for step in steps)


def _directive(step: Step) -> str:
    match step:
        case Say(text) | Think(text):
            return f"{type(step).__name__.lower()}: {_in_a_line(text)}"
        case Write(path, text):
            return f"write {path}: {_in_a_line(text)}"
        case Run(command):
            return f"run: {command}"
        case Ask(command):
            return f"ask: {command}"
        case Huge(size):
            return f"say-huge {size}"
        case Flood(size):
            return f"flood {size}"
        case _:
            return type(step).__name__.lower()


def _in_a_line(text: str) -> str:
    return text.replace("\n", "\\n")


class Rig(Protocol):
    """One kind of agent.

    Attributes:
        name: of the kind.
        cannot: what it cannot do by its nature, by the case's name (`test_` left out), with the reason.
    """

    name: str
    cannot: Mapping[str, str]

    def make(self, folder: Path, model_server: ModelServer, limits: Limits = NO_LIMITS) -> AbstractAsyncContextManager[Backend]:
        """A started backend; when its context ends, nothing of it lives.

        Args:
            folder: where it may keep its home; the worktrees lie elsewhere.
            limits: what one agent may take of the machine.
        """
        ...

    def prompt(self, *steps: Step) -> str:
        """What to say to the agent so that it takes these steps."""
        ...

    def remembers(self, played: Played, marker: str, model_server: ModelServer) -> bool:
        """Whether a turn of `Recall` shows that the agent itself remembers a prompt with a marker in it."""
        ...


class NativeRig:
    """Our own agent, in front of the scripted model."""

    name = "native"
    cannot: Mapping[str, str] = {
        "permissions": "The native agent asks for nothing: its file tools are confined to the worktree.",
        "an_agent_that_takes_too_much": "It is no process; its commands are ended one by one, see test_agent_limits.py.",
    }

    @asynccontextmanager
    async def make(self, folder: Path, model_server: ModelServer, limits: Limits = NO_LIMITS) -> AsyncIterator[Backend]:
        guardians = Guardians(limits=limits)
        backend = NativeBackend(settings(model_base_url=model_server.openai), guardians, SystemClock())
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()
            await guardians.stop_all()

    def prompt(self, *steps: Step) -> str:
        return "\n".join(self._directive(step) for step in steps)

    def remembers(self, played: Played, marker: str, model_server: ModelServer) -> bool:
        """The model is sent the whole chat: look there."""
        recalling = model_server.requests(_RECALLING)[-1]["messages"]
        return any(marker in str(message["content"]) for message in recalling[:-1])

    def _directive(self, step: Step) -> str:
        match step:
            case Recall():
                return f"say: {_RECALLING}"
            case Huge(size):
                return f"run: head -c {size} /dev/zero | tr '\\\\0' x"
            case Invalid():
                return "run: printf 'fine \\\\377\\\\376\\\\303 fine'"
            case Flood(size):
                return f"run: head -c {size} /dev/zero | tr '\\\\0' x >&2"
            case Silent():
                return "hang"
            case Nothing():
                return "empty"
            case Crash():
                return "cut"
            case Run(command):
                # The model's lines know escapes, which commands bring along.
                return "run: " + command.replace("\\", "\\\\")
            case _:
                return _directive(step)


_RECALLING = "recalling-what-was-said"


class PtyRig:
    """An agent that is a command: a program that writes claude's records."""

    name = "pty"
    cannot: Mapping[str, str] = {"permissions": "Nobody sits at the terminal of a one-shot command, so it has nobody to ask."}

    @asynccontextmanager
    async def make(self, folder: Path, model_server: ModelServer, limits: Limits = NO_LIMITS) -> AsyncIterator[Backend]:
        program = (sys.executable, str(STANDINS / "pty_standin.py"))
        spec = AgentSpec(protocol="pty", stream="claude", command=program, continue_command=(*program, "--resume", "{session}"))
        guardians = Guardians(limits=limits)
        backend = PtyBackend(Launcher("standin", spec, guardians, folder / "homes", None), settings())
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()
            await guardians.stop_all()

    def prompt(self, *steps: Step) -> str:
        return directives(*steps)

    def remembers(self, played: Played, marker: str, model_server: ModelServer) -> bool:
        return marker in played.transcript.text


class AcpRig:
    """An agent of the Agent Client Protocol: the stand-in."""

    name = "acp"
    cannot: Mapping[str, str] = {}

    @asynccontextmanager
    async def make(self, folder: Path, model_server: ModelServer, limits: Limits = NO_LIMITS) -> AsyncIterator[Backend]:
        spec = AgentSpec(protocol="acp", command=(sys.executable, str(STANDINS / "acp_standin.py")), multiplex=True)
        guardians = Guardians(limits=limits)
        chosen = settings()
        warm = Warm(most=chosen.warm_agents, memory=chosen.warm_memory_bytes, idle=chosen.agent_idle_seconds)
        backend = AcpBackend(Launcher("standin", spec, guardians, folder / "homes", None), chosen, warm)
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()
            await guardians.stop_all()

    def prompt(self, *steps: Step) -> str:
        return "\n".join(self._directive(step) for step in steps)

    def remembers(self, played: Played, marker: str, model_server: ModelServer) -> bool:
        return marker in played.transcript.text

    def _directive(self, step: Step) -> str:
        match step:
            case Write(path, text):
                return f"put {path}: {text}"
            case Ask(command):
                return f"may: {command}"
            case Huge(size):
                return f"huge {size // 1_000_000}"
            case Flood(size):
                return f"stderr {size // 1_000_000}"
            case Silent():
                return "hang"
            case Crash():
                return "crash 3"
            case _:
                return _directive(step)


class OpencodeRig:
    """opencode's server: the stand-in."""

    name = "opencode"
    cannot: Mapping[str, str] = {}

    @asynccontextmanager
    async def make(self, folder: Path, model_server: ModelServer, limits: Limits = NO_LIMITS) -> AsyncIterator[Backend]:
        spec = AgentSpec(protocol="opencode", command=(sys.executable, str(STANDINS / "opencode_standin.py")))
        guardians = Guardians(limits=limits)
        backend = OpencodeBackend(Launcher("opencode", spec, guardians, folder / "homes", None), settings())
        await backend.start()
        try:
            yield backend
        finally:
            await backend.stop()
            await guardians.stop_all()

    def prompt(self, *steps: Step) -> str:
        return "\n".join(self._directive(step) for step in steps)

    def remembers(self, played: Played, marker: str, model_server: ModelServer) -> bool:
        return marker in played.transcript.text

    def _directive(self, step: Step) -> str:
        match step:
            case Huge(size):
                return f"huge {size + 65_536}"  # in whole pieces
            case Crash():
                return "say dying\ncrash 3"
            case _:
                return _directive(step)


RIGS: tuple[Rig, ...] = (NativeRig(), PtyRig(), AcpRig(), OpencodeRig())
