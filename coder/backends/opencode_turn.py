"""One turn with an opencode server: its session, the prompt, what is heard until it is settled, and its end.

Invariant: when `close` returns nothing of the turn runs: its session is idle or the server has gone, and no process of its tools
is left. A session that was not seen to become idle is not gone back to.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

from coder.backends import strays
from coder.backends.opencode_bus import Gone, Inbox, Lost, Nudge, Oversized
from coder.backends.opencode_place import Place
from coder.backends.opencode_server import Refused, Server, TooMuch, listed
from coder.backends.opencode_session import Opening, open_session
from coder.backends.opencode_settings import Wishes, message_id
from coder.backends.turn_log import TurnLog
from coder.errors import AgentUnavailable, InternalError, ProviderError, TurnError
from coder.events import AgentEvent, Command, Commands, Notice, RetryScheduled
from coder.permission import Answer
from coder.ports import Turn
from coder.protocols.opencode import TurnReading
from coder.protocols.opencode_answers import Waiting
from coder.protocols.opencode_words import commands, models
from coder.task import AgentSession

DOUBT_SECONDS = 1.0
IDLE_SECONDS = 5.0
"""How long a session may do nothing while its answer has no end; a busy machine needs a moment to begin with a prompt."""
ABORT_SECONDS = 4.0
SETTLE_SECONDS = 1.0
RECENT_MESSAGES = "100"
RETRY_SECONDS = 27_105.0  # as long as native inference waits for its endpoint in one request


class OpencodeTurn:
    """One turn, as the port `LiveTurn`; it is its own iterator of events and begins with the first one asked for.

    Args:
        stack: holds the server for as long as the turn needs it.
        retry_seconds: how long one model request may wait for its endpoint in all.
    """

    def __init__(
        self, turn: Turn, place: Place, wishes: Wishes, stack: AsyncExitStack, log: TurnLog, retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._turn = turn
        self._place = place
        self._wishes = wishes
        self._stack = stack
        self._log = log
        self._retry_seconds = retry_seconds
        self._inbox = Inbox()
        self._ready: deque[AgentEvent] = deque()
        self._server: Server | None = None
        self._opening: Opening | None = None
        self._reading: TurnReading | None = None
        self._prompted = self._over = self._stopped = self._unread = False
        self._idle_since: float | None = None
        self._waiting = Waiting()
        self._commands: tuple[Command, ...] | None = None
        self._telling: asyncio.Task[None] | None = None

    @property
    def events(self) -> AsyncIterator[AgentEvent]:
        return self

    @property
    def model_history(self) -> str | None:
        return self._turn.model_history

    @property
    def agent_session(self) -> AgentSession | None:
        """The session, unless its server has gone or it was not seen to become idle."""
        server, opening = self._server, self._opening
        settled = self._over or self._stopped or not self._prompted
        if server is None or opening is None or not server.alive or not settled:
            return None
        return AgentSession(opening.session, self._wishes.config_hash, self._place.launcher.home_name)

    def busy_with_tool(self) -> bool:
        return self._reading is not None and bool(self._reading.running_tools)

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self

    async def __anext__(self) -> AgentEvent:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            await (self._begin() if self._reading is None else self._step(self._reading))
        return self._ready.popleft()

    async def answer(self, request_id: str, answer: Answer) -> None:
        """Tell opencode; a question of several parts is answered when all of them are."""
        reply = self._waiting.answer(request_id, answer)
        if reply is None or self._server is None:
            return
        try:
            await self._server.ask("POST", reply.path, body=reply.body, directory=self._wishes.directory)
        except Refused as refused:
            self._log.line(f"opencode no longer waits for an answer to {request_id} ({refused})")
        except TurnError as error:
            self._log.line(error.message)  # the turn itself hears of it

    async def reconcile(self) -> bool:
        """Ask the server what became of the turn, before it is given up as silent."""
        if self._reading is None or self._over:
            return False
        before = len(self._ready)
        try:
            await self._look(self._reading)
        except TurnError as error:
            self._log.line(error.message)
            return False
        self._inbox.put(Nudge())
        return len(self._ready) > before or self._reading.settled or self._over

    async def close(self) -> None:
        """End the turn's work, and let go of the server."""
        server = self._server
        if self._telling is not None:
            self._telling.cancel()
        if server is None:
            return
        try:
            if self._prompted and not (self._over or self._stopped) and server.alive:
                await self._abort(server)
            elif server.alive and not await strays.end(server.process.pid, self._turn.worktree):
                await server.give_up("was ended, since a tool of another turn could not be ended otherwise,")
        finally:
            server.printed.discard(self._log.raw)
            server.bus.detach(self._inbox)

    async def _begin(self) -> None:
        """Find or make the session and give it the prompt."""
        directory = self._turn.cwd
        if not await asyncio.to_thread(directory.is_dir):
            raise InternalError(f"The session's directory {directory} is not there; retry the task, its worktree is made again then.")
        server = self._server = await self._stack.enter_async_context(self._place.use(self._wishes.model))
        server.printed.add(self._log.raw)
        opening = self._opening = await open_session(server, self._place, self._wishes, self._turn)
        self._place.used(opening.session)
        await self._check_mode(server)
        await self._check_thinking(server)
        prompt = message_id()
        reading = TurnReading(opening.session, prompt, self._wishes.directory)
        server.bus.attach(opening.session, self._inbox)
        self._ready.extend(Notice(notice) for notice in opening.notices)
        command = await self._command(server)
        self._prompted = True
        try:
            await self._prompt(server, opening, prompt, command)
        except Refused as refused:
            self._place.refused(opening.session)
            raise AgentUnavailable(f"opencode did not take the prompt ({refused}); see the turn's log, then retry.") from refused
        self._reading = reading
        self._log.line(f"opencode session {opening.session}, model {self._wishes.model or 'its own choice'}, prompt {prompt}")
        self._telling = asyncio.create_task(self._tell_commands(server), name="opencode commands")

    async def _check_mode(self, server: Server) -> None:
        """The server takes a prompt for an agent that it does not have, and then says nothing."""
        mode = self._wishes.mode
        if not mode:
            return
        offered = [str(agent.get("name")) for agent in listed(await server.ask("GET", "/agent", directory=self._wishes.directory))]
        if mode not in offered:
            raise ProviderError(f"opencode has no mode {mode}; it offers {', '.join(offered)}: name one of these, or none.")

    async def _check_thinking(self, server: Server) -> None:
        """The server drops without a word what the model does not have."""
        wanted, model = self._wishes.variant, self._wishes.model
        if not wanted or model is None:
            return
        offered = models(await server.ask("GET", "/config/providers", directory=self._wishes.directory)).get(model, ())
        if wanted not in offered:
            offers = f"it offers {', '.join(offered)}" if offered else "it offers none"
            self._ready.append(Notice(f"opencode's model {model} has no thinking option {wanted} ({offers}); the model's own way is used."))

    async def _prompt(self, server: Server, opening: Opening, prompt: str, command: tuple[str, str] | None) -> None:
        session, wishes = opening.session, self._wishes
        texts = [*([opening.earlier] if opening.earlier else []), self._turn.prompt]
        parts = [{"type": "text", "text": text} for text in texts]
        if command is None:
            body = {"messageID": prompt, "parts": parts, **wishes.body()}
            await server.ask("POST", f"/session/{session}/prompt_async", body=body)
            return
        if opening.earlier:
            told = {"noReply": True, "parts": parts[:1], **wishes.body()}
            await server.ask("POST", f"/session/{session}/message", body=told)
        wanted = {"agent": wishes.mode, "model": wishes.model, "variant": wishes.variant}
        body = {"messageID": prompt, "command": command[0], "arguments": command[1], **{k: v for k, v in wanted.items() if v}}
        asking = asyncio.create_task(server.ask("POST", f"/session/{session}/command", body=body, seconds=86400.0), name="opencode command")

        def answered(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._log.line(f"the command /{command[0]} was answered with {type(error).__name__}: {error}")
                self._inbox.lose()

        asking.add_done_callback(answered)
        self._stack.callback(asking.cancel)

    async def _command(self, server: Server) -> tuple[str, str] | None:
        """The slash command and its arguments when the prompt is one that opencode has."""
        if not self._turn.prompt.startswith("/"):
            return None
        name, _, arguments = self._turn.prompt[1:].partition(" ")
        self._commands = await self._known_commands(server)
        return (name, arguments) if any(name == command.name for command in self._commands) else None

    async def _known_commands(self, server: Server) -> tuple[Command, ...]:
        directory = self._wishes.directory
        if (known := server.commands.get(directory)) is not None:
            return known
        try:
            found = server.commands[directory] = commands(await server.ask("GET", "/command", directory=directory))
            return found
        except (Refused, TooMuch) as error:
            self._log.line(f"opencode does not tell its commands ({type(error).__name__} {error})")
            return ()

    async def _tell_commands(self, server: Server) -> None:
        """Announce the commands, beside the turn: asking takes as long as its start in this directory."""
        try:
            found = await self._known_commands(server) if self._commands is None else self._commands
        except TurnError as error:
            self._log.line(error.message)  # the turn itself hears of it
            return
        if found and not self._over:
            self._ready.append(Commands(found))
            self._inbox.put(Nudge())

    async def _step(self, reading: TurnReading) -> None:
        """Take the next thing that is heard, or look for oneself where something should have been heard."""
        item = await self._inbox.get(DOUBT_SECONDS if reading.doubtful or self._idle_since is not None else None)
        server = self._server
        assert server is not None, "a turn that reads has one"
        if isinstance(item, Gone):
            raise server.obituary()
        if item is None or isinstance(item, Lost):
            if item is not None:
                reading.interrupted()
            await self._look(reading)
        elif isinstance(item, Oversized):
            self._ready.append(Notice("opencode sent a message of more than 16 MB, which was left out; its session still has it."))
        elif not isinstance(item, Nudge):
            if self._idle_since is not None:
                self._idle_since = time.monotonic()
            self._tell(reading.hear(item, time.time()))
        if reading.settled:
            if reading.failed is not None:
                self._stopped = True
                self._log.line(reading.failed)
                raise ProviderError(reading.failed)
            self._over = True
        elif reading.waited > self._retry_seconds and (last := self._last_retry()) is not None:
            raise ProviderError(
                f"The model's endpoint kept failing for {reading.waited:,.0f} s of waiting, which is the limit; "
                f"at last it said: {last.message}. See the endpoint, then retry."
            )

    def _last_retry(self) -> RetryScheduled | None:
        return next((event for event in reversed(self._ready) if isinstance(event, RetryScheduled)), None)

    def _tell(self, events: list[AgentEvent]) -> None:
        """Hand events out; from here on what they ask can be answered, and all parts of a question are known."""
        self._waiting.hear(events)
        self._ready.extend(events)

    async def _look(self, reading: TurnReading) -> None:
        """Ask the server itself: status, messages, what it asks. Raises a TurnError when it did nothing and never will."""
        server, directory = self._server, self._wishes.directory
        assert server is not None, "a turn that reads has one"
        try:
            status = await server.ask("GET", "/session/status", directory=directory)
            idle = not isinstance(status, dict) or status.get(reading.session, {}).get("type", "idle") == "idle"
            for child in listed(await server.ask("GET", f"/session/{reading.session}/children")):
                reading.children.add(str(child.get("id")))
            await self._read_again(server, reading, idle)
            self._tell(reading.permissions(listed(await server.ask("GET", "/permission", directory=directory))))
            self._tell(reading.questions(listed(await server.ask("GET", "/question", directory=directory))))
        except (Refused, TooMuch) as error:
            why = str(error) or "its answer is too long"
            raise AgentUnavailable(f"opencode does not tell what became of the turn ({why}); retry the task.") from error
        if not idle or reading.settled:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()  # a prompt that was just taken is not at work yet: it is looked at again
        elif time.monotonic() - self._idle_since >= IDLE_SECONDS:
            if self._unread:  # its end is in what could not be read
                self._over = True
                return
            self._stopped = True
            raise ProviderError("opencode has nothing to do any more, but did not end its answer; see the turn's log, then retry the task.")

    async def _read_again(self, server: Server, reading: TurnReading, idle: bool) -> None:
        """Read the messages of the turn's sessions; once they were too long, not before it is idle."""
        if self._unread and not idle:
            return
        for session in (*sorted(reading.children), reading.session):
            try:
                found = await server.ask("GET", f"/session/{session}/message", limit=RECENT_MESSAGES)
            except TooMuch:
                if not self._unread:
                    self._unread = True
                    said = "What opencode said meanwhile is longer than 16 MB and cannot be read again; its session still has it."
                    self._ready.append(Notice(said))
            else:
                self._tell(reading.read(listed(found), idle))

    async def _abort(self, server: Server) -> None:
        """Call the turn off: by the protocol first, its tools' processes by hand, the whole server where neither helps."""
        assert self._opening is not None, "a turn that was prompted has a session"
        path = f"/session/{self._opening.session}/abort"
        asking = asyncio.create_task(server.ask("POST", path, seconds=ABORT_SECONDS), name="opencode abort")
        try:
            await asyncio.wait({asking}, timeout=SETTLE_SECONDS)
            ended = await strays.end(server.process.pid, self._turn.worktree)
            await asking
            self._stopped = await self._becomes_idle(server)
            ended = await strays.end(server.process.pid, self._turn.worktree)
        except (Refused, TooMuch, TurnError) as error:
            self._log.line(f"opencode could not be told to stop ({error})")
            ended = False
        if server.alive and not (self._stopped and ended):
            self._log.line("the opencode server is ended, since the turn did not end otherwise")
            await server.give_up("was ended, since another turn could not be stopped otherwise,")

    async def _becomes_idle(self, server: Server) -> bool:
        """Whether the session has nothing to do any more, soon after the abort."""
        assert self._opening is not None, "a turn that was prompted has a session"
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            status = await server.ask("GET", "/session/status", directory=self._wishes.directory, seconds=ABORT_SECONDS)
            if isinstance(status, dict) and status.get(self._opening.session, {}).get("type", "idle") == "idle":
                return True
            if time.monotonic() >= deadline:
                return False
            await self._inbox.get(0.1)
