"""One turn of an agent that is a command in a pseudo-terminal.

Invariant: the command is read no faster than its events are asked for, and whoever leaves the turn leaves no process behind.

Omitted on purpose: whatever it may ask at the terminal. Nobody sits there; its standard input is at its end, and a question read from
`/dev/tty` is silence, which the watchdog ends.
"""

from __future__ import annotations

import asyncio
import errno
import json
import signal
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

from coder.agents import AgentSpec
from coder.backends import guard
from coder.backends.guardian import Guarded
from coder.backends.launcher import Launcher
from coder.backends.pty_command import Agent, Order, config_hash, order
from coder.backends.pty_device import Device, terminal
from coder.backends.turn_log import TurnLog
from coder.config import Settings
from coder.errors import AgentUnavailable, DiskFull, ProviderError, TurnError
from coder.events import AgentEvent, Notice, TextDelta, Usage
from coder.permission import Answer
from coder.ports import Turn
from coder.protocols.screened import Screened
from coder.protocols.streams.reader import Reader
from coder.protocols.terminal import COLUMNS
from coder.task import AgentSession

_CHUNK = 32_768
_MOMENT = 0.5
"""Seconds after which a line of the screen that has not changed is told."""
_LIFE = 10.0
"""Seconds after which what is written, but brings no event, is told as a sign of life; for no longer than a tool may run."""
_ALIVE = TextDelta("")
_WIDE = 4096
"""Columns where records are read: nothing that looks at the window's width is to break them."""
_NOT_RUN = (126, 127)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_TELL_OF_TOOLS = ("claude", "codex", "qwen", "goose")
"""Formats that tell when a tool begins."""
_SHELL = ("/bin/sh", "-c", 'exec "$@" <"$0"')
"""The terminal controls the program and takes its output; this puts something else at its standard input."""


class PtyTurn:
    """One turn, as the port `LiveTurn`; it is its own iterator of events and begins with the first one asked for."""

    def __init__(self, turn: Turn, launcher: Launcher, settings: Settings) -> None:
        self._turn = turn
        self._launcher = launcher
        self._settings = settings
        self._agent = Agent(launcher.name, launcher.spec, launcher.home, launcher.home_name, launcher.environment())
        self._file = f"turns/{turn.task_id}-{turn.epoch}.txt"
        self._used = f"used/{turn.chat_id}.json"
        endpoint = launcher.endpoint if launcher.spec.use_endpoint else None
        self._log = TurnLog(turn.log, endpoint.key if endpoint else None)
        self._ready: deque[AgentEvent] = deque()
        self._output: Reader | Screened | None = None
        self._order: Order | None = None
        self._device: Device | None = None
        self._guarded: Guarded | None = None
        self._session: AgentSession | None = None
        self._failure: TurnError | None = None
        self._over = False
        self._heard = False
        self._life = min(_LIFE, settings.inactivity_seconds / 3)
        self._said_at = self._alive_at = self._settled_at = 0.0

    @property
    def events(self) -> AsyncIterator[AgentEvent]:
        return self

    @property
    def model_history(self) -> None:
        """None: the agent remembers, or is told."""

    @property
    def agent_session(self) -> AgentSession | None:
        return self._session

    def busy_with_tool(self) -> bool:
        """Whether a tool runs; where the output does not tell of that, whether the agent has a child."""
        if self._output is None or self._over or self._guarded is None:
            return False
        return self._output.busy if self._spec.stream in _TELL_OF_TOOLS else _works(self._guarded.pid)

    async def answer(self, request_id: str, answer: Answer) -> None:
        """Never called: a command asks for nothing."""

    async def reconcile(self) -> bool:
        """A command cannot be asked how far it is; that it writes at all is told as it comes."""
        return False

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self

    async def __anext__(self) -> AgentEvent:
        while not self._ready:
            if self._over:
                failure, self._failure = self._failure, None
                raise failure or StopAsyncIteration
            try:
                await self._go_on()
            except OSError as error:
                if error.errno in _NO_SPACE:
                    raise DiskFull(what="the turn's files", where=f"{self._launcher.home} or {self._turn.log.parent}") from error
                raise
        return self._ready.popleft()

    async def leave(self) -> None:
        """End the command with all its descendants, and clean up."""
        self._over = True
        try:
            if self._guarded is not None:
                await self._guarded.stop()
        finally:
            if self._device is not None:
                self._device.close()
            self._launcher.files.remove(self._file)

    @property
    def _spec(self) -> AgentSpec:
        return self._launcher.spec

    async def _go_on(self) -> None:
        if self._order is None:
            await self._prepare()
        elif self._guarded is None:
            await self._begin(self._order)
        else:
            await self._step()

    async def _prepare(self) -> None:
        """Work out what to run. An empty event is told first: what the command does is done by a turn that was seen."""
        if "/" not in self._spec.command[0] and self._launcher.program() is None:
            raise AgentUnavailable(agent=self._launcher.name, detail=f"there is no program {self._spec.command[0]} on its PATH")
        self._order = await order(self._agent, self._turn, self._settings, self._launcher.home / self._file)
        self._ready.append(_ALIVE)

    async def _begin(self, made: Order) -> None:
        """Start the command."""
        launcher, turn = self._launcher, self._turn
        if made.prompt is not None:
            launcher.files.write(self._file, made.prompt.encode("utf-8", "replace"))
        text = self._spec.stream == "text"
        self._output = Screened() if text else Reader(self._spec.stream, self._used_before(made))
        self._log.line(f"{'going on with' if made.resumed else 'starting'} {launcher.name}: {made.argv[0]}, {len(made.argv) - 1} arguments")
        with terminal(COLUMNS if text else _WIDE, lines_as_written=not text) as (device, slave):
            self._guarded = await launcher.spawn(
                [*_SHELL, str(made.stdin), *made.argv],
                cwd=turn.cwd,
                worktree=turn.worktree,
                network=turn.network,
                extra=made.env,
                stdin=slave,
                stdout=slave,
                stderr=slave,
                terminal=True,
            )
            self._device = device
        self._said_at = self._alive_at = asyncio.get_running_loop().time()
        self._ready.extend(Notice(notice) for notice in made.notices)

    async def _step(self) -> None:
        """Read what the command has written, or its end."""
        assert self._device is not None, "else it had not begun"
        assert self._output is not None
        content = await self._device.read(_CHUNK, _MOMENT)
        if content:
            self._heard = True
            self._ready.extend(self._output.feed(content))
            self._keep_strays()
        elif content is not None:
            await self._end()
        now = asyncio.get_running_loop().time()
        if isinstance(self._output, Screened) and now - self._settled_at >= _MOMENT and not self._over:
            self._settled_at = now
            self._ready.extend(self._output.settle())
        if self._ready:
            self._said_at = self._alive_at = now
        elif self._heard and now - self._alive_at >= self._life and now - self._said_at < self._settings.tool_seconds:
            self._heard, self._alive_at = False, now
            self._ready.append(_ALIVE)

    async def _end(self) -> None:
        """The command has ended, or does so soon: it has nothing any more to write to."""
        assert self._guarded is not None
        assert self._output is not None
        code = await self._guarded.wait()
        self._ready.extend(self._output.close())
        self._keep_strays()
        self._log.line(f"{self._launcher.name} ended with {_ending(code)}")
        self._failure = self._explain(code)
        if self._failure is None:
            self._remember()
        self._over = True

    def _explain(self, code: int) -> TurnError | None:
        """Why the turn failed, None when it did not."""
        assert self._output is not None
        if self._guarded is not None and self._guarded.ended_because is not None:
            return ProviderError(self._guarded.ended_because)
        name, words = self._launcher.name, self._output.failure or self._output.last_words
        if code in _NOT_RUN:
            return AgentUnavailable(agent=name, detail=words or f"its program could not be run, {_ending(code)}")
        if code == 0 and self._output.failure is None:
            return None
        said = f"and said: {words.rstrip('.')}" if words else "and said nothing"
        return ProviderError(f"{name} failed with {_ending(code)} {said}. Mend that and retry the task; the turn's log may tell more.")

    def _remember(self) -> None:
        """Keep what the next turn needs to go on with the agent's conversation."""
        assert self._output is not None
        assert self._order is not None
        told = self._output.session or self._order.session
        if not self._launcher.spec.continue_command or told is None:
            return
        self._session = AgentSession(told, config_hash(self._agent, self._turn, self._settings), self._launcher.home_name)
        if total := self._output.total:
            used = json.dumps([told, total.input_tokens, total.cached_tokens, total.output_tokens])
            self._launcher.files.write(self._used, used.encode())

    def _used_before(self, made: Order) -> Usage | None:
        """What the agent's conversation has used so far; None when that is not known any more."""
        if not made.resumed:
            return Usage(0, 0, 0)
        try:
            told, given, cached, written = json.loads(self._launcher.files.read(self._used))
        except (OSError, ValueError, AgentUnavailable) as error:
            self._log.line(f"what the conversation had used before is not known ({error}), so this turn's tokens are not counted")
            return None
        return Usage(int(given), int(cached), int(written)) if told == made.session else None

    def _keep_strays(self) -> None:
        assert self._output is not None
        for stray in self._output.take_strays():
            self._log.raw(stray.encode("utf-8", "replace") + b"\n")


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _works(guardian: int) -> bool:
    """Whether the agent below a guardian has a program running."""
    return any(_has_child(pid) for pid in guard.children(guardian))


def _has_child(pid: int) -> bool:
    started = list(guard.children(pid))
    if started and _program(pid) == "bwrap":  # which only stands before the agent
        return any(_has_child(each) for each in started)
    return bool(started)


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it is gone
        return ""
