"""The node's life in the database: register, beat, notice the loss, register anew.

The database's clock decides when a lease ends; the node measures from BEFORE it sends a beat, on a clock
that goes on while the machine sleeps. `MARGIN` seconds before the end, unrenewed, it stops its turns and
ends its agents; their guardians do the same by themselves if this process cannot. A node that was reaped
never comes back: it goes on under a new id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID, uuid4

import structlog

from coder.errors import Unavailable
from coder.ports import Clock, Guards, TaskStore

MARGIN_SECONDS = 3.0
RETRY_SECONDS = 0.5

log = structlog.get_logger(__name__)


class Lease:
    """Keeps `node` alive.

    Args:
        lost: called when this node's tasks are no longer its own (or may no longer be).
        remember: called with each new node id before it is used, so that a successor of this process knows it.
    """

    def __init__(
        self,
        store: TaskStore,
        guards: Guards,
        clock: Clock,
        host: UUID,
        *,
        seconds: float,
        beat: float,
        lost: Callable[[], None],
        remember: Callable[[UUID], None],
    ) -> None:
        self._store = store
        self._guards = guards
        self._clock = clock
        self._host = host
        self._seconds = seconds
        self._beat = min(beat, seconds / 3)
        self._margin = min(MARGIN_SECONDS, seconds / 3)
        self._lost = lost
        self._remember = remember
        self._task: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self.node: UUID | None = None

    async def start(self) -> None:
        """Register; raises `Unavailable` when the database cannot be reached."""
        if self._task is None:
            await self._register()
            self._task = asyncio.create_task(self._run(), name="lease")

    async def stop(self) -> None:
        """Stop beating and take the node out of the database, if it can be reached."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self.node is not None:
            try:
                await self._store.leave(self.node)
            except Unavailable as error:
                log.warning("could not sign off; the lease runs out by itself", why=error.message)
            self.node = None

    async def _register(self) -> None:
        node = uuid4()
        self._remember(node)
        sent = self._clock.monotonic()
        await self._store.register(node, self._host, self._seconds)
        self._renewed(sent)
        self.node = node

    def _renewed(self, sent: float) -> None:
        self._deadline = sent + self._seconds - self._margin
        self._guards.renew(self._deadline)

    async def _run(self) -> None:
        while True:
            due = min(self._clock.monotonic() + self._beat, self._deadline)
            await self._clock.sleep(max(0.0, due - self._clock.monotonic()))
            await self._once()

    async def _once(self) -> None:
        """Beat, or register anew after a loss; what cannot be reached is tried again, until the deadline ends the turns."""
        sent = self._clock.monotonic()
        try:
            if self.node is None:
                await self._register()
                log.info("registered anew after the lease was lost", node=str(self.node))
                return
            if await self._store.beat(self.node, self._seconds):
                self._renewed(sent)
            else:
                self._lose("this node was reaped")
        except Unavailable as error:
            if self.node is not None and self._clock.monotonic() >= self._deadline:
                self._lose(error.message)
            await self._clock.sleep(RETRY_SECONDS)

    def _lose(self, why: str) -> None:
        log.error("the lease was lost; ending every turn of this node", node=str(self.node), why=why)
        self.node = None
        self._guards.kill_all_now()
        self._lost()
