"""Keeps the provider's prompt caches of sessions warm: claims what is due, sends it, records what it took.

Invariants: a warm is sent for a session without a turn, and given up as soon as one is about to begin, or when warming is switched
off or its session closed; one node sends it, since a claim schedules the next. Omitted on purpose: when to stop (`coder/warming.py`).
"""

from __future__ import annotations

import asyncio
from functools import partial
from uuid import UUID

import structlog

from coder.errors import CoderError, Unavailable
from coder.ports import Clock
from coder.runtime.lease import Lease
from coder.runtime.wake import Wake
from coder.warming import Bounds, Due, PromptCache, WarmingStore, verdict

AT_ONCE = 4
WARM_SECONDS = 120.0

log = structlog.get_logger(__name__)


class Warmer:
    def __init__(
        self, store: WarmingStore, cache: PromptCache, lease: Lease, clock: Clock, *, host: UUID, poll: float, bounds: Bounds
    ) -> None:
        self._store = store
        self._cache = cache
        self._lease = lease
        self._clock = clock
        self._host = host
        self._poll = poll
        self._bounds = bounds
        self._bell = Wake(clock)
        self._sending: dict[Due, asyncio.Task[None]] = {}
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._bell.wake()

    def turn_near(self) -> None:
        """A task came: what is being sent may have to be given up."""
        if self._sending:
            self._bell.wake()

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="warmer")

    async def stop(self) -> None:
        if self._task is not None:
            tasks = [self._task, *self._sending.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._task = None
        await self._cache.close()

    async def _run(self) -> None:
        while True:
            try:
                await self._give_up()
                await self._claim()
            except Unavailable as error:
                log.warning("no cache is kept warm while the database is away", why=error.message)
            except Exception:
                log.exception("the warmer met an error it does not know; it goes on with the next poll")
            await self._bell.wait(self._poll)

    async def _give_up(self) -> None:
        if self._sending:
            going = await self._store.on(list(self._sending))
            for due, task in self._sending.items():
                if due.session_id not in going:
                    task.cancel()

    async def _claim(self) -> None:
        while len(self._sending) < AT_ONCE and (node := self._lease.node) is not None:
            due = await self._store.claim(node, self._host)
            if due is None:
                return
            if (stopped := verdict(due, self._bounds)) is not None:
                log.info("a session's cache is not kept warm any longer", session=str(due.session_id), why=stopped)
                await self._store.settle(due, stopped=stopped)
            elif due.model_history is None:
                await self._store.settle(due)
            else:
                task = asyncio.create_task(self._warm(due, due.model_history), name=f"warm-{due.session_id}")
                self._sending[due] = task
                task.add_done_callback(partial(self._sent, due))

    def _sent(self, due: Due, _: asyncio.Task[None]) -> None:
        del self._sending[due]
        self._bell.wake()

    async def _warm(self, due: Due, history: str) -> None:
        usage, failed = None, None
        try:
            async with asyncio.timeout(WARM_SECONDS):
                usage = await self._cache.warm(history, due.model, due.thinking)
        except CoderError as error:
            failed = error.message
        except TimeoutError:
            failed = f"The endpoint did not answer within {WARM_SECONDS:g} s."
        except Exception as error:
            log.exception("a cache could not be kept warm in a way nobody foresaw", session=str(due.session_id))
            failed = f"coder itself failed at this ({type(error).__name__}: {error}); see the service's log."
        try:
            await self._store.settle(due, usage=usage, error=failed)
        except Unavailable as error:
            log.warning("what a warm took cannot be recorded", session=str(due.session_id), why=error.message)
        log.info("a session's cache was kept warm", session=str(due.session_id), usage=usage, failed=failed)
