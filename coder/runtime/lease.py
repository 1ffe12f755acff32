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
        self._tasks: list[asyncio.Task[None]] = []
        self._deadline = 0.0
        self._held = asyncio.Event()
        self.node: UUID | None = None

    async def start(self) -> None:
        """Register; raises `Unavailable` when the database cannot be reached."""
        if not self._tasks:
            await self._register()
            self._tasks = [
                asyncio.create_task(self._renew(), name="lease"),
                asyncio.create_task(self._watch(), name="lease-deadline"),
            ]

    async def stop(self) -> None:
        """Stop beating and take the node out of the database, if it can be reached."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        if self.node is not None:
            try:
                await self._store.reap(self.node)  # sessions that could not be advanced; a claim nobody heard the answer to
                await self._store.leave(self.node)
            except Unavailable as error:
                log.warning("could not sign off; the lease runs out by itself", why=error.message)
            self.node = None

    async def _register(self) -> None:
        node = uuid4()
        self._remember(node)
        sent = self._clock.monotonic()
        await self._store.register(node, self._host, self._seconds)
        if self._clock.monotonic() >= sent + self._seconds - self._margin:
            raise Unavailable("The database answered so late that the lease was as good as over.")
        self._renewed(sent)
        self.node = node
        self._held.set()

    def _renewed(self, sent: float) -> None:
        self._deadline = sent + self._seconds - self._margin
        self._guards.renew(self._deadline)

    async def _renew(self) -> None:
        """Beat for ever; what is not answered is tried again soon."""
        answered = True
        while True:
            await self._clock.sleep(self._beat if answered else RETRY_SECONDS)
            answered = await self._once()

    async def _watch(self) -> None:
        """End the turns when the deadline passes, whatever the beat at hand still waits for."""
        while True:
            await self._held.wait()
            await self._clock.sleep(max(0.0, self._deadline - self._clock.monotonic()))
            self._check()

    def _check(self) -> None:
        """A deadline that has passed is never renewed: the guardians have ended the agents."""
        if self.node is not None and self._clock.monotonic() >= self._deadline:
            self._lose("it could not be renewed in time")

    async def _once(self) -> bool:
        """Beat, or register anew after a loss; whether that was answered and well."""
        self._check()
        sent, node = self._clock.monotonic(), self.node
        try:
            if node is None:
                await self._register()
                log.info("registered anew after the lease was lost", node=str(self.node))
                return True
            alive = await self._store.beat(node, self._seconds)
            self._check()  # the answer may be too late
            if node == self.node and not alive:
                self._lose("this node was reaped")
            if node == self.node:
                self._renewed(sent)
            return node == self.node
        except Unavailable as error:
            log.warning("the lease cannot be renewed while the database is away", why=error.message)
            return False
        except Exception:
            log.exception("the lease met an error it does not know; it tries again")
            return False

    def _lose(self, why: str) -> None:
        log.error("the lease was lost; ending every turn of this node", node=str(self.node), why=why)
        self.node = None
        self._held.clear()
        self._guards.kill_all_now()
        self._lost()
