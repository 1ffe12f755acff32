"""One turn of an ACP agent: a process, a session in it, a prompt, and what comes of it.

Invariant: when the turn is left nothing of it goes on: the agent was told to cancel and did, or its process has ended.

Omitted on purpose: which process and which session, which is `acp_sessions.py`'s; time limits, which are the watchdog's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coder.backends.acp_leftovers import Leftovers
from coder.backends.acp_process import AcpProcess, Held, sentence
from coder.backends.confine import Confined
from coder.backends.feed import Feed
from coder.backends.turn_log import TurnLog
from coder.errors import AgentUnavailable, ProviderError, TurnError
from coder.events import AgentEvent, Commands, Notice
from coder.permission import Answer
from coder.ports import Turn
from coder.protocols.acp import Translation
from coder.task import AgentSession

CANCEL_SECONDS = 1.0
AUTH_REQUIRED = -32000
TITLE_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Entered:
    """A session that is ready for the turn's prompt.

    Attributes:
        prompt: what to send: the turn's prompt, with the conversation so far where the agent does not remember it.
        notices: what a watcher must know of how it came to be.
        session: how to come back to it.
    """

    process: AcpProcess
    held: Held
    prompt: str
    notices: tuple[str, ...]
    session: AgentSession


class AcpTurn:
    """One turn, as the port `LiveTurn`, and as its process and the agent's requests see it.

    Args:
        enter: gets a process and a session; raises a `TurnError`. Cancelling it leaves nothing behind.
    """

    def __init__(self, agent: str, turn: Turn, secret: str | None, enter: Callable[[AcpTurn], Awaitable[Entered]]) -> None:
        self.turn = turn
        self.log = TurnLog(turn.log, secret)
        self.files = Confined(turn.worktree, turn.cwd)
        self.agent_session: AgentSession | None = None
        self.model_history: str | None = None
        self._agent = agent
        self._enter = enter
        self._feed = Feed()
        self._translation = Translation(str(turn.cwd))
        self._asking: dict[str, asyncio.Future[Answer | None]] = {}
        self._asked = 0
        self._denied = ""
        self.entered: Entered | None = None
        self._left = False
        self._leftovers: Leftovers | None = None
        self._task = asyncio.create_task(self._run(), name=f"acp turn {turn.task_id}")

    @property
    def events(self) -> AsyncIterator[AgentEvent]:
        return self._feed

    def busy_with_tool(self) -> bool:
        return self._translation.running and not self._asking

    async def answer(self, request_id: str, answer: Answer) -> None:
        waiting = self._asking.pop(request_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    async def reconcile(self) -> bool:
        """The protocol has no question for how far an agent is."""
        return False

    async def hear(self, update: Mapping[str, Any]) -> None:
        for event in self._translation.update(update):
            self._feed.put(event)
        await self._feed.room()

    async def ask(self, tool_call: dict[str, Any]) -> Answer | None:
        if self._left:
            return None
        self._asked += 1
        name = f"permission-{self._asked}"
        waiting: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._asking[name] = waiting
        for event in self._translation.asked(name, tool_call):
            self._feed.put(event)
        try:
            answer = await waiting
        finally:
            self._asking.pop(name, None)
        if answer is not None and not answer.allow:
            self._denied = str(tool_call.get("title") or "that")[:TITLE_CHARACTERS]
        return answer

    async def leave(self) -> None:
        """End what still runs of the turn; returns when it has ended."""
        self._left = True
        entered = self.entered
        try:
            if not self._task.done() and entered is not None and not await self._cancelled(entered):
                entered.process.end("a turn in it could not be stopped otherwise")
        finally:
            self._feed.end()
            self._task.cancel()
            await asyncio.wait([self._task])
            if entered is not None:
                entered.process.leave(entered.held, self)
                if entered.process.over:
                    self.agent_session = None
                    await entered.process.gone()
                elif self._leftovers is not None:
                    await self._leftovers.end()

    async def _cancelled(self, entered: Entered) -> bool:
        """Ask the agent to stop; whether it did so in time."""
        for waiting in self._asking.values():
            if not waiting.done():
                waiting.set_result(None)
        try:
            async with asyncio.timeout(CANCEL_SECONDS):
                await entered.process.connection.cancel(session_id=entered.held.id)
                await asyncio.wait([self._task])
        except (TimeoutError, ConnectionError):
            return False
        return True

    async def _run(self) -> None:
        try:
            self.entered = entered = await self._enter(self)
            await self._prompt(entered)
        except TurnError as error:
            self._feed.end(error)
        except Exception as error:  # noqa: BLE001 - told to whoever reads the events, who knows what to do with it
            self._feed.end(error)
        else:
            self._feed.end()

    async def _prompt(self, entered: Entered) -> None:
        from coder.backends.acp_client import RequestError, say

        process, held = entered.process, entered.held
        for text in entered.notices:
            self._feed.put(Notice(text))
        self.agent_session = entered.session
        process.enter(held, self)
        if held.commands:
            self._feed.put(Commands(held.commands))
        self._leftovers = await Leftovers.before(process, self.turn.worktree)
        if self._left:
            return
        try:
            result = await say(process.connection, held.id, entered.prompt)
        except ConnectionError as error:
            self.agent_session = None
            if self._left:
                return
            detail = await process.epitaph()
            raise ProviderError(f"Agent {self._agent} broke off in the middle of the turn: {detail}; retry the task.") from error
        except RequestError as error:
            if error.code == AUTH_REQUIRED:
                raise AgentUnavailable(agent=self._agent, detail=f"it wants to be logged in: {sentence(error)}") from error
            raise ProviderError(f"Agent {self._agent} ended the turn with an error: {sentence(error)}.") from error
        except ValueError as error:
            raise ProviderError(f"Agent {self._agent} ended the turn in a way that the protocol does not know: {error}.") from error
        for event in self._translation.ended(result):
            self._feed.put(event)
        self._judge(str(result.get("stopReason")))

    def _judge(self, reason: str) -> None:
        """How the agent says that it stopped; raises a `TurnError` where that is no good end."""
        if self._left:
            return
        if reason == "refusal":
            raise ProviderError(f"The model of agent {self._agent} refused to go on; ask for something else, or say more of why.")
        if reason == "cancelled" and self._denied:
            self._feed.put(Notice(f"Agent {self._agent} ended the turn, since it was not allowed to: {self._denied}."))
            return
        if reason == "cancelled":
            raise ProviderError(f"Agent {self._agent} called the turn off by itself; retry the task.")
        if reason in ("max_tokens", "max_turn_requests"):
            what = "its output limit" if reason == "max_tokens" else "its limit of requests in one turn"
            self._feed.put(Notice(f"Agent {self._agent} stopped at {what}; say `go on` to let it continue."))
        elif not self._translation.said:
            raise ProviderError(f"Agent {self._agent} ended the turn without a word and without doing anything; retry the task.")
