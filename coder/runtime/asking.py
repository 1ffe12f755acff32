"""What agents ask while their turns run: answered by a rule, the policy, a person or the deadline, whichever is first.

`Asking` is one per node: it knows every request that waits for a person here, and looks for answers when the bell
rings and with every poll. `Interview` is one per turn: each request is a small task of its own, since an agent may ask
several things at once and say more meanwhile. Every request is a row before it is answered, those that a rule or the
policy answers too: one statement more for a call that costs an agent a whole model request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

import structlog

from coder.errors import Unavailable
from coder.events import PermissionRequest, Question, RetryScheduled
from coder.frames import PermissionRequested, SessionFrame
from coder.permission import Answer, Policy, Ruling, decide, decide_question, too_late
from coder.ports import Clock, LiveTurn, PermissionStore
from coder.runtime.background import Background
from coder.runtime.inflight import Running
from coder.runtime.wake import Wake
from coder.runtime.watchdog import Pulse
from coder.task import Task
from coder.transcript import cleaned

T = TypeVar("T")

AGAIN_SECONDS = 0.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for a person."""

    id: UUID
    task: Task
    asked: PermissionRequest | Question
    worktree: Path
    deadline: float
    answer: asyncio.Future[Answer]


class Asking(Background):
    """The requests of this node's turns.

    Args:
        seconds: how long a person has to answer.
    """

    def __init__(self, store: PermissionStore, clock: Clock, *, seconds: float, poll: float) -> None:
        self.store = store
        self._clock = clock
        self._seconds = seconds
        self._poll = poll
        self._open: dict[UUID, Waiting] = {}
        self._bell = Wake(clock)

    def wake(self) -> None:
        self._bell.wake()

    async def ruling(self, task: Task, asked: PermissionRequest | Question, worktree: Path) -> Ruling | None:
        """The answer of a rule or the policy; None when a person has to give one."""
        policy = Policy(task.project.permission_policy)
        if isinstance(asked, Question):
            return decide_question(policy)
        rules = await self.patiently(lambda: self.store.rules(task.project.id, task.session_id))
        return decide(asked, policy, rules, str(worktree), task.project.network)

    async def asked(self, task: Task, agent: str, asked: PermissionRequest | Question, ruling: Ruling | None) -> tuple[UUID, Answer | None]:
        """Record a request; answers its id, and its answer if there is one already."""
        stored = await self.patiently(lambda: self.store.ask(task, agent, asked, self._seconds, ruling))
        return stored.id, stored.answer

    async def answered(self, request: UUID, task: Task, asked: PermissionRequest | Question, worktree: Path) -> Answer:
        """Wait for a person, a new rule or the deadline."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[request] = Waiting(request, task, asked, worktree, self._clock.monotonic() + self._seconds, answer)
        self._bell.wake()  # whatever came while the request was being stored
        try:
            return await answer
        finally:
            del self._open[request]

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the database can be reached; who waits too long is stopped by the end of the lease."""
        while True:
            try:
                return await call()
            except Unavailable as error:
                log.warning("what an agent asks waits for the database", why=error.message)
                await self._clock.sleep(AGAIN_SECONDS)

    async def _run(self) -> None:
        while True:
            try:
                if self._open:
                    await self._look()
            except Unavailable as error:
                log.warning("answers cannot be read while the database is away", why=error.message)
            except Exception:
                log.exception("looking for answers met an error it does not know; it goes on with the next poll")
            now = self._clock.monotonic()
            due = min((waiting.deadline - now for waiting in self._open.values()), default=self._poll)
            # One that is over and still open is just being answered by somebody.
            await self._bell.wait(min(self._poll, due) if due > 0 else min(self._poll, AGAIN_SECONDS))

    async def _look(self) -> None:
        found = await self.store.answers(list(self._open))
        for waiting in list(self._open.values()):
            answer = found.get(waiting.id) or await self._without_a_person(waiting)
            if answer is not None and not waiting.answer.done():
                waiting.answer.set_result(answer)

    async def _without_a_person(self, waiting: Waiting) -> Answer | None:
        """The answer of a rule that was made meanwhile, or of the deadline."""
        ruling = await self.ruling(waiting.task, waiting.asked, waiting.worktree)
        if ruling is None and self._clock.monotonic() >= waiting.deadline:
            ruling = too_late(self._seconds)
        return None if ruling is None else await self.store.settle(waiting.id, waiting.task, ruling)


class Interview:
    """What the agent of one turn asks. Used as a context around the turn's events; at its end nothing waits any more.

    Attributes:
        asked: whether the agent asked anything.

    Args:
        publish: tells the turn's watchers.
    """

    def __init__(
        self,
        asking: Asking,
        running: Running,
        agent: str,
        worktree: Path,
        live: LiveTurn,
        pulse: Pulse,
        clock: Clock,
        publish: Callable[[SessionFrame], None],
    ) -> None:
        self._publish = publish
        self._asking = asking
        self._running = running
        self._agent = agent
        self._worktree = worktree
        self._live = live
        self._pulse = pulse
        self._clock = clock
        self._heard = Wake(clock)
        self._turn = asyncio.current_task()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: BaseException | None = None
        self.asked = False

    def hear(self, event: Any) -> None:
        """Take up what an event asks for; any event ends the waiting for a provider's retry."""
        self._heard.wake()
        if isinstance(event, RetryScheduled):
            self._heard = self._running.patience = Wake(self._clock)
            self._start(self._retry(event.delay, self._heard))
        elif isinstance(event, PermissionRequest | Question):
            self.asked = True
            self._start(self._answer(event))

    async def _answer(self, asked: PermissionRequest | Question) -> None:
        task, asking = self._running.claimed.task, self._asking
        ruling = await asking.ruling(task, asked, self._worktree)
        request, answer = await asking.asked(task, self._agent, asked, ruling)
        if answer is None:
            log.info("an agent waits for a person", task=task.id, permission=str(request))
            self._tell(request, "requested", asked)
            with self._running.asking():
                async with self._running.seat.given_back(self._pulse):
                    answer = await asking.answered(request, task, asked, self._worktree)
            self._tell(request, "answered", asked)
        if ruling is None:
            await asking.patiently(lambda: asking.store.told(request, task))
        await self._live.answer(asked.id, answer)

    def _tell(self, request: UUID, state: str, asked: PermissionRequest | Question) -> None:
        """Let watchers know that a person is waited for, or no longer."""
        task = self._running.claimed.task
        self._publish(PermissionRequested(str(task.session_id), task.epoch, str(request), state, asdict(cleaned(asked))))

    async def _retry(self, delay: float, heard: Wake) -> None:
        async with self._running.seat.given_back(self._pulse):
            await heard.wait(delay)

    def _start(self, work: Any) -> None:
        task = asyncio.create_task(work, name=f"asked-{self._running.claimed.task.id}")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        """An answer that could not be given ends the turn: its agent would wait for ever."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failed is None and self._turn is not None:
            self._failed = error
            self._turn.cancel()

    async def __aenter__(self) -> Interview:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        turn, self._turn = self._turn, None
        for task in list(self._tasks):
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        except asyncio.CancelledError:
            if self._failed is None:
                raise
        if self._failed is not None:
            assert turn is not None, "a turn runs in a task"
            turn.uncancel()
            raise self._failed from None
