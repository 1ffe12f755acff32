"""One turn of the native agent: pydantic-ai's run, with our tools, read event by event.

Invariant: what the turn added to the chat is whole afterwards, however it ended; every failure of the endpoint is a
`TurnError` with a sentence; the run is never more than one event ahead of who reads.

Omitted on purpose: permissions (the file tools are confined instead, commands are not), time limits.
Loads pydantic-ai; see `native.py`.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

from pydantic_ai import Agent, AgentRunResultEvent, Tool, ToolFailed, ToolReturn
from pydantic_ai.agent import AgentRunEvents
from pydantic_ai.exceptions import AgentRunError, ModelRequestRejectedError, UserError
from pydantic_ai.messages import AgentStreamEvent, FunctionToolCallEvent, ModelMessage, ModelResponse
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import UsageLimits

from coder.backends.confine import Refused
from coder.backends.environment import agent_environment
from coder.backends.native_answers import Answers
from coder.backends.native_events import Translation, usage_of
from coder.backends.native_failures import explain
from coder.backends.native_history import complete, grown, load, summary, thinking_field
from coder.backends.native_model import EFFORTS, Models, thinking_effort
from coder.backends.native_tools import Answer, Tools, offered
from coder.backends.sandbox import Cell
from coder.backends.turn_log import TurnLog
from coder.config import Settings
from coder.errors import DiskFull, ProviderError, TurnError
from coder.events import AgentEvent, Notice, RetryScheduled
from coder.permission import Answer as Answered
from coder.ports import Clock, Turn
from coder.transcript import clean_value

# Else the first run prints an advertisement on a terminal's standard error.
os.environ.setdefault("PYDANTIC_AI_NO_BANNER", "1")

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NOBODY_THERE = {"PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}

INSTRUCTIONS = """\
You are a coding agent. You work on a task in a git worktree, with the tools you are given; nobody answers questions meanwhile.

The worktree is {worktree}. Your working directory, from which relative paths start and in which commands run, is {cwd}.

- Look before you change: read what a change touches, and follow the conventions of the code around it and of AGENTS.md where there is one.
- Change files with edit and write. Change what the task asks for and nothing else.
- Check what you did with the project's own means (tests, linters, a build) where there are any and they do not take long.
- A failed tool tells you why; mend the call, do not repeat it.
- Do not commit, push, switch branches or change git's configuration: your changes are taken from the files, and reviewed.
- End with a short summary for the reviewer: what you changed and why, and what you could not do or check.
"""


class NativeTurn:
    """One turn, as the port `LiveTurn`; it is its own iterator of events and begins with the first one asked for.

    Args:
        cell: starts its commands.
        stack: the context of the turn; closing it ends the run.
    """

    def __init__(self, turn: Turn, settings: Settings, models: Models, cell: Cell, clock: Clock, stack: AsyncExitStack) -> None:
        self._turn = turn
        self._settings = settings
        self._models = models
        self._clock = clock
        self._stack = stack
        self._asked: asyncio.Task[AgentStreamEvent | AgentRunResultEvent[str]] | None = None
        self._announced = asyncio.Event()
        self._log = TurnLog(turn.log, models.endpoint.key if models.endpoint else None)
        self._tools = Tools(
            turn.worktree,
            turn.cwd,
            cell,
            self._log,
            environment=cell.environment(agent_environment(os.environ, _NOBODY_THERE)),
            command_seconds=settings.command_seconds,
            output_bytes=settings.command_output_bytes,
        )
        self._name = ""
        self._before = turn.model_history
        self._translation = Translation()
        self._stream: AgentRunEvents[str] | None = None
        self._ready: deque[AgentEvent] = deque()
        self._over = False
        self._requests = 0
        self._running_tools = 0
        self._forgotten = False
        self._limit: int | None = None

    @property
    def events(self) -> AsyncIterator[AgentEvent]:
        return self

    @property
    def model_history(self) -> str | None:
        if self._turn.compacts:
            return summary(complete(self._added()))
        return self._before if self._forgotten else grown(self._before, complete(self._added()))

    @property
    def agent_session(self) -> None:
        """None: the chat itself remembers."""

    def busy_with_tool(self) -> bool:
        return self._running_tools > 0

    async def answer(self, request_id: str, answer: Answered) -> None:
        """Never called: the native agent asks for nothing."""

    async def reconcile(self) -> bool:
        """An endpoint that answers nothing has nothing to tell."""
        return False

    def __aiter__(self) -> AsyncIterator[AgentEvent]:
        return self

    async def __anext__(self) -> AgentEvent:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            try:
                self._over = not await self._step()
            except Exception:
                self._over = True  # but not when only the asking was cancelled: whoever asks again goes on
                raise
        return self._ready.popleft()

    async def _step(self) -> bool:
        """Begin the run, or take its next event; whether there is more to come."""
        try:
            if self._stream is None:
                await self._begin()
            else:
                await self._next(self._stream)
        except StopAsyncIteration:
            return False
        except AgentRunError as error:
            raise self._failure(error) from error
        except OSError as error:
            if error.errno in _NO_SPACE:
                raise DiskFull(what="the turn's files", where=f"{self._turn.worktree} or {self._turn.log.parent}") from error
            raise
        return True

    async def _next(self, stream: AgentRunEvents[str]) -> None:
        """Take the run's next event, or what is announced while that is waited for."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(anext(stream))
        announced = asyncio.ensure_future(self._announced.wait())
        try:
            await asyncio.wait({self._asked, announced}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            announced.cancel()
        self._announced.clear()
        if self._asked.done():
            asked, self._asked = self._asked, None
            self._take(asked.result())

    async def _patiently(self, seconds: float) -> None:
        """Wait so long, or until somebody wants the request to be sent now."""
        waits = [asyncio.ensure_future(self._clock.sleep(seconds))]
        if (hurry := self._turn.hurry) is not None:
            hurry.clear()
            waits.append(asyncio.ensure_future(hurry.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _announce(self, retry: RetryScheduled) -> None:
        self._log.line(f"request failed ({retry.message}); sent again in {retry.delay:g} s")
        self._ready.append(retry)
        self._announced.set()

    async def _let_go(self) -> None:
        """A run that is being waited for cannot be closed."""
        if self._asked is not None:
            self._asked.cancel()
            await asyncio.gather(self._asked, return_exceptions=True)

    async def _begin(self) -> None:
        """Load what there is of the chat and prepare the run, which starts when its first event is asked for."""
        self._name = self._models.name(self._turn.model)
        messages = load(self._before)
        if messages is None:
            self._before, messages = None, []
            self._ready.append(Notice("What the model remembers of this chat cannot be read any more; it starts afresh."))
        assert self._models.endpoint is not None, "else there was no name"
        self._limit = await asyncio.to_thread(self._models.context_limit, self._name)
        limit = self._settings.max_requests
        agent = Agent(
            await self._models.model(self._name, thinking_field(messages, self._models.endpoint.host)),
            name="native",
            instructions=INSTRUCTIONS.format(worktree=self._turn.worktree, cwd=self._turn.cwd),
            model_settings=self._thinking(),
            tools=self._offered(),
            capabilities=[Answers(self._models.endpoint, self._announce, self._patiently, self._settings.retry_seconds)],
            # A model may mend a broken call as often as it may ask at all; an empty answer gets a second chance.
            retries={"tools": limit, "output": 1},
        )
        run = agent.run_stream_events(self._turn.prompt, message_history=messages, usage_limits=UsageLimits(request_limit=limit))
        self._stream = await self._stack.enter_async_context(run)
        self._stack.push_async_callback(self._let_go)

    def _thinking(self) -> ModelSettings:
        option = (self._turn.thinking_option_id or "").strip()
        settings = thinking_effort(option)
        if option and not settings:
            self._ready.append(
                Notice(f"Native inference has no thinking option {option} (but {', '.join(EFFORTS)}); the model's own is used.")
            )
        return settings

    def _take(self, event: AgentStreamEvent | AgentRunResultEvent[str]) -> None:
        if isinstance(event, AgentRunResultEvent):
            self._count_requests()
            if self._turn.compacts and self.model_history is None:
                raise ProviderError(f"Model {self._name} gave no summary, so the chat stays as it is; compact the session again.")
            return
        if isinstance(event, FunctionToolCallEvent):
            self._count_requests()
        self._ready.extend(self._translation.translate(event))

    def _count_requests(self) -> None:
        """Tell of the requests that were answered since the last time; the run has no event for that."""
        answers = [message for message in self._added() if isinstance(message, ModelResponse)]
        for answer in answers[self._requests :]:
            self._requests += 1
            usage = usage_of(answer, self._limit)
            tokens = (
                f"{usage.input_tokens} tokens in, {usage.cached_tokens} of them cached, {usage.output_tokens} out" if usage else "no usage"
            )
            self._log.line(f"request {self._requests}: model {self._name}, {tokens}, ended with {answer.finish_reason}")
            if usage:
                self._ready.append(usage)
            if answer.finish_reason == "length":
                cut = f"The endpoint cut an answer of model {self._name} at its output limit; ask for less at a time, or raise the limit."
                self._ready.append(Notice(cut))

    def _added(self) -> list[ModelMessage]:
        try:
            return self._stream.new_messages() if self._stream else []
        except UserError:
            return []  # prepared, but never begun

    def _failure(self, error: AgentRunError) -> TurnError:
        assert self._models.endpoint is not None, "a run has one"
        # What the endpoint rejects once it would reject in every later turn too, so the chat goes on from before.
        self._forgotten = isinstance(error, ModelRequestRejectedError)
        failure = explain(error, self._models.endpoint, self._name, self._settings.max_requests)
        self._log.line(failure.message)
        return failure

    def _offered(self) -> list[Tool[object]]:
        return [Tool(self._offer(tool), takes_ctx=False, sequential=True) for tool in offered(self._tools)]

    def _offer(self, tool: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[ToolReturn[str]]]:
        """A tool as the run calls it: with clean arguments, and with failures as sentences to the model."""

        @functools.wraps(tool)
        async def call(**arguments: Any) -> ToolReturn[str]:
            self._running_tools += 1
            try:
                if self._turn.compacts:
                    raise Refused("No tool can be used while the conversation is summarised; answer with the summary.")
                answer = await tool(**clean_value(arguments))
            except Refused as refusal:
                raise ToolFailed(str(refusal)) from refusal
            except OSError as error:
                if error.errno in _NO_SPACE:
                    raise
                raise ToolFailed(f"{arguments.get('path', 'That')} cannot be used: {error.strerror or error}.") from error
            finally:
                self._running_tools -= 1
            return ToolReturn(return_value=answer.text, metadata=None if answer.exit_code is None else {"exit_code": answer.exit_code})

        return call
