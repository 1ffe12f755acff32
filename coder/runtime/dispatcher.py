"""Wake -> claim for the free slots -> start. Its own pace: notifications and ended turns only ring.

A poll stands behind every bell, so a lost notification costs time, never a task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from coder.errors import Unavailable
from coder.ports import Claimed, Clock, TaskStore
from coder.runtime.executor import Executor
from coder.runtime.inflight import Inflight, Stop
from coder.runtime.lease import Lease
from coder.runtime.slots import Slots
from coder.runtime.wake import Wake

STOP_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Dispatcher:
    def __init__(
        self, store: TaskStore, inflight: Inflight, executor: Executor, lease: Lease, clock: Clock, *, host: UUID, slots: Slots, poll: float
    ) -> None:
        self._store = store
        self._inflight = inflight
        self._executor = executor
        self._lease = lease
        self._clock = clock
        self._host = host
        self._slots = slots
        self._poll = poll
        self._work = Wake(clock)
        self._cancels = Wake(clock)
        self._next_look = 0.0
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []
        slots.on_freed(self._work.wake)

    def wake(self) -> None:
        self._work.wake()

    def wake_cancel(self) -> None:
        self._cancels.wake()

    def start(self) -> None:
        if not self._tasks:
            self._stopping = False
            self._tasks = [
                asyncio.create_task(self._run(self._work, self._claim, lambda: not self._stopping), name="dispatcher"),
                asyncio.create_task(self._run(self._cancels, self._cancel, lambda: True), name="cancels"),
            ]

    async def stop_claiming(self) -> None:
        """Claim nothing more; turns that run go on and can be cancelled.

        A claim that is on its way is heard out, or its tasks would wait for the lease.
        """
        self._stopping = True
        self._work.wake()
        if self._tasks:
            await asyncio.wait(self._tasks[:1], timeout=STOP_SECONDS)

    async def stop(self) -> None:
        await self.stop_claiming()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _run(self, bell: Wake, work: Callable[[], Awaitable[None]], going: Callable[[], bool]) -> None:
        while going():
            try:
                await work()
            except Unavailable as error:
                log.warning("the queue cannot be read; trying again with the next poll", why=error.message)
            except Exception:
                log.exception("the dispatcher met an error it does not know; it goes on with the next poll")
            await bell.wait(self._poll)

    async def _look(self) -> None:
        """Once a poll, let go of what is recorded as ours and does not run here: the answer to a claim was lost.

        Only between two claims, so that none is on its way.
        """
        now = self._clock.monotonic()
        if self._lease.node is not None and now >= self._next_look:
            self._next_look = now + self._poll
            if lost := await self._store.reap(self._lease.node, self._inflight.epochs()):
                log.warning("recovered tasks that nobody ran", tasks=lost)

    async def _claim(self) -> None:
        """Claim until no slot is free or nothing is ready."""
        await self._look()
        while not self._stopping and (free := self._slots.free) > 0 and (node := self._lease.node) is not None:
            self._slots.take(free)  # so that no turn that goes on takes one of them meanwhile
            claimed: list[Claimed] = []
            try:
                claimed = await self._store.claim(node, self._host, free)
            finally:
                unused = free if node != self._lease.node else free - len(claimed)
                if unused:
                    self._slots.give(unused, ring=False)
            if node != self._lease.node:
                # Lost between the claim and its answer: whoever reaped this node runs them again.
                log.warning("claims of a lost lease are dropped", tasks=[each.task.id for each in claimed])
                return
            for each in claimed:
                self._inflight.start(each, self._executor.execute)
            if not claimed:
                return

    async def _cancel(self) -> None:
        if self._lease.node is not None and len(self._inflight):
            wanted = await self._store.wanted(self._lease.node)
            self._inflight.stop(Stop.USER, wanted.cancel)
            self._inflight.hurry(wanted.retry)
