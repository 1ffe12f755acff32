"""One process of an ACP agent, and the sessions it holds.

Invariant: a process that is `over` is held by nobody and runs no longer than its guardian needs; whoever waits for an
answer of it gets a sentence that says how it ended.
"""

from __future__ import annotations

import asyncio
import importlib
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from coder.agents import command_line
from coder.backends.acp_wire import Wire
from coder.backends.guardian import Guarded
from coder.backends.launcher import Launcher
from coder.backends.turn_log import TurnLog
from coder.errors import AgentUnavailable
from coder.events import Command
from coder.protocols.acp import commands
from coder.protocols.acp_options import Options, updated

if TYPE_CHECKING:
    from coder.backends.acp_client import Connection, Listener

TAIL_BYTES = 4096
SAID_CHARACTERS = 300
END_GRACE = 2.0
"""Seconds an idle agent has to put its sessions away before it is killed."""


class Hearer(Protocol):
    """A turn as a process sees it."""

    log: TurnLog

    async def hear(self, update: Mapping[str, Any]) -> None:
        """Take an update; the process is not read on until this returns."""
        ...


@dataclass(slots=True)
class Held:
    """A session that a process holds.

    Attributes:
        options: what it lets one choose, and what is chosen.
        commands: its slash commands as of now.
        turn: the turn that runs in it.
        taken: whether it is a turn's, also while that turn still prepares its prompt.
    """

    id: str
    worktree: Path
    options: Options = field(default_factory=Options)
    commands: tuple[Command, ...] = ()
    turn: Hearer | None = None
    taken: bool = True


class AcpProcess:
    """A process; `ready` starts it.

    Args:
        worktree: the only one it serves, None when it serves all.
        forget: called once when the process is over, before it has gone.

    Attributes:
        sessions: those it holds, the least recently used first.
        said: what it said of itself when it started.
        over: whether it is not to be used any more.
        clean: whether that was our doing, with no turn in it.
    """

    def __init__(self, launcher: Launcher, worktree: Path | None, network: bool, forget: Callable[[AcpProcess], None]) -> None:
        self.launcher = launcher
        self.worktree = worktree
        self.network = network
        self.sessions: dict[str, Held] = {}
        self.said: dict[str, Any] = {}
        self.over = False
        self.clean = False
        self._forget = forget
        self._early: dict[str, tuple[Command, ...]] = {}
        self._logs: list[TurnLog] = []
        self._tail = b""
        self._why: str | None = None
        self._ready = False
        self._starting = asyncio.Lock()
        self._guarded: Guarded | None = None
        self._wire: Wire | None = None
        self._connection: Connection | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def pid(self) -> int | None:
        """Its guardian's process id, None before the start."""
        return self._guarded.pid if self._guarded else None

    @property
    def connection(self) -> Connection:
        assert self._connection is not None, "only a process that is ready is spoken to"
        return self._connection

    def can(self, capability: str) -> bool:
        """Whether the agent offers something: `load`, or one of its session capabilities."""
        offered = self.said.get("agentCapabilities") or {}
        if capability == "load":
            return bool(offered.get("loadSession"))
        return (offered.get("sessionCapabilities") or {}).get(capability) is not None

    async def ready(self, log: TurnLog) -> bool:
        """Start it unless it runs; False when it has ended meanwhile.

        Raises:
            AgentUnavailable: it cannot be started, or ends or fails before it is ready.
        """
        async with self._starting:
            if not self._ready and not self.over:
                try:
                    await self._start(log)
                    self._ready = True
                except BaseException:
                    self.end("its start was given up")
                    raise
        return not self.over

    async def _start(self, log: TurnLog) -> None:
        launcher = self.launcher
        client = await asyncio.to_thread(importlib.import_module, "coder.backends.acp_client")
        await asyncio.to_thread(launcher.prepare)
        values = {
            "home": str(launcher.home),
            "worktree": str(self.worktree or ""),
            **(launcher.endpoint.values() if launcher.endpoint else {}),
        }
        self._guarded = guarded = await launcher.spawn(
            command_line(launcher.spec.command, values),
            cwd=self.worktree or launcher.home,
            worktree=self.worktree,
            network=self.network,
            stdin=PIPE,
        )
        assert guarded.stdout is not None
        assert guarded.stdin is not None
        self._logs.append(log)
        self._wire = Wire(guarded.stdout, guarded.stdin, self._hear, self._print)
        self._tasks += [asyncio.create_task(self._drain(guarded)), asyncio.create_task(self._watch(guarded, self._wire))]
        self._connection = client.connect(client.Client(self._listener), self._wire)
        try:
            self.said = await client.initialize(self._connection, files=launcher.spec.files_by_coder)
        except client.RequestError as error:
            detail = f"it refused to start: {sentence(error)}"
            raise AgentUnavailable(agent=launcher.name, detail=detail) from error
        except (ConnectionError, ValueError) as error:
            detail = await self.epitaph() if self._wire.over.is_set() else f"it does not speak the Agent Client Protocol: {error}"
            raise AgentUnavailable(agent=launcher.name, detail=detail) from error
        finally:
            self._remove(log)

    def enter(self, held: Held, turn: Hearer) -> None:
        """Give the session's updates, and what the process prints beside them, to a turn."""
        held.turn = turn
        self._logs.append(turn.log)
        self.sessions[held.id] = self.sessions.pop(held.id, held)

    def leave(self, held: Held, turn: Hearer) -> None:
        """Keep its updates from the turn."""
        held.turn, held.taken = None, False
        self._remove(turn.log)

    def _remove(self, log: TurnLog) -> None:
        if log in self._logs:
            self._logs.remove(log)

    def hold(self, session_id: str, worktree: Path, options: Options) -> Held:
        """Keep a session that was made or loaded for a turn."""
        held = Held(session_id, worktree, options, self._early.pop(session_id, ()))
        self._early.clear()
        self.sessions[session_id] = held
        return held

    def end(self, why: str, *, clean: bool = False) -> None:
        """End the process and all it has started, without waiting; the first reason counts.

        Args:
            clean: no turn is in it: its sessions may be resumed by another process.
        """
        if not self.over:
            self.over, self.clean, self._why = True, clean, self._why or why
            self._forget(self)
        if self._guarded is not None:
            self._guarded.end(END_GRACE) if clean else self._guarded.end()

    def retire(self) -> None:
        """End it because it is idle."""
        self.end("it was idle", clean=True)

    async def gone(self) -> None:
        """Wait until nothing of an ended process lives, and let go of its streams."""
        if self._guarded is not None:
            await self._guarded.wait()
        if self._connection is not None:
            await self._connection.close()
        for task in self._tasks:
            task.cancel()

    async def epitaph(self) -> str:
        """How it ended, once its output did: a clause about `it`."""
        assert self._guarded is not None
        assert self._wire is not None
        self.end(self._wire.complaint or "it ended in the middle of its work")
        code = await self._guarded.wait()
        if (limit := self._guarded.ended_because) is not None:
            return limit.rstrip(".")
        how = f", by signal {-code}" if code < 0 else f", exit code {code}"
        lines = self._tail.decode("utf-8", "replace").strip().splitlines()
        last = f"; the last it printed: {lines[-1].strip()[:SAID_CHARACTERS]}" if lines else ""
        return f"{self._why}{how}{last}"

    async def _hear(self, session_id: str, update: Mapping[str, Any]) -> None:
        held = self.sessions.get(session_id)
        kind = update.get("sessionUpdate")
        if held is None:
            if kind == "available_commands_update":
                self._early[session_id] = commands(update)  # told before the answer that names the session
            return
        if kind == "available_commands_update":
            held.commands = commands(update)
        held.options = updated(held.options, update)
        if held.turn is not None:
            await held.turn.hear(update)

    def _listener(self, session_id: str) -> Listener | None:
        held = self.sessions.get(session_id)
        return held.turn if held is not None else None  # type: ignore[return-value]

    def _print(self, chunk: bytes) -> None:
        """Keep what it prints beside its messages: standard error, and lines on standard output that are none, warnings of libraries."""
        self._tail = (self._tail + chunk)[-TAIL_BYTES:]
        for log in list(self._logs):
            try:
                log.raw(chunk)
            except OSError:
                # A full disk; the turn will notice. The agent must be read on, or it would stand still.
                self._remove(log)

    async def _drain(self, guarded: Guarded) -> None:
        assert guarded.stderr is not None
        while chunk := await guarded.stderr.read(65_536):
            self._print(chunk)

    async def _watch(self, guarded: Guarded, wire: Wire) -> None:
        """See the process end by itself, or what it says become unreadable."""
        await wire.over.wait()
        self.end(wire.complaint or "it ended by itself")
        await guarded.wait()


def sentence(error: Exception) -> str:
    """What a JSON-RPC error says, with the details that agents put into its data."""
    said = str(error).strip().rstrip(".")
    found = getattr(error, "data", None)
    details: Any = found
    if isinstance(found, Mapping):
        details = next((found[name] for name in ("details", "message", "error", "detail") if found.get(name)), None)
    if isinstance(details, Mapping):
        details = details.get("message")
    if isinstance(details, str) and details.strip() and details.strip().rstrip(".") not in said:
        said = f"{said}: {details.strip().rstrip('.')}"
    return said[:1000] or "an error without words"
