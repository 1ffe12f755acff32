"""A node's slots: how many turns may work at once. A turn that waits for a person or a provider gives its slot back.

Who wants a slot back comes before new claims: while somebody waits for one, none is free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from coder.runtime.watchdog import Pulse


class Slots:
    """So many, never more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0
        self._wanted: deque[asyncio.Future[None]] = deque()
        self._freed: list[Callable[[], None]] = []

    @property
    def free(self) -> int:
        """How many a claim may fill."""
        return 0 if self._wanted else self._count - self._taken

    def on_freed(self, ring: Callable[[], None]) -> None:
        """Ring whenever a claim may fill one more."""
        self._freed.append(ring)

    def take(self, count: int) -> None:
        """Take slots that are free, for a claim that is about to be made."""
        self._taken += count

    def give(self, count: int = 1, ring: bool = True) -> None:
        """Give slots back: first to whoever wants one to go on.

        Args:
            ring: whether a claim may find more than it just did; not when it gives back what it did not need.
        """
        self._taken -= count
        while self._wanted and self._taken < self._count:
            waiting = self._wanted.popleft()
            if not waiting.done():
                self._taken += 1
                waiting.set_result(None)
        if ring and self.free > 0:
            for each in self._freed:
                each()

    async def want(self) -> None:
        """Take a slot as soon as there is one, in the order of asking."""
        if self.free > 0:
            self._taken += 1
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted.append(waiting)
        try:
            await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled():
                self.give()
            else:
                self._wanted.remove(waiting)
                self.give(0)
            raise


class Seat:
    """One turn's slot, taken for it by the claim."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._held = True
        self._waits = 0
        self._turnstile = asyncio.Lock()

    @asynccontextmanager
    async def given_back(self, pulse: Pulse) -> AsyncIterator[None]:
        """Wait without a slot, the turn's clocks standing still; the last of several waits takes one to go on."""
        self._waits += 1
        if self._waits == 1:
            pulse.stand()
        self._release()
        try:
            yield
        finally:
            self._waits -= 1
        async with self._turnstile:
            if self._waits == 0 and not self._held:
                await self._slots.want()
                self._held = True
                if self._waits:  # the next wait began while this one stood in line
                    self._release()
                else:
                    pulse.go()

    def leave(self) -> None:
        """The turn has ended."""
        self._release()

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._slots.give()
