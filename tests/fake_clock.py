"""A clock that a test moves by hand; implements `ports.Clock`."""

from __future__ import annotations

import asyncio
import heapq
from datetime import UTC, datetime, timedelta
from itertools import count

START = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_SECONDS = 20.0


class FakeClock:
    """Time stands still until `advance`; who sleeps then wakes at the moment it asked for, in that order."""

    def __init__(self) -> None:
        self._time = 1000.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._numbers = count()
        self._changed = asyncio.Event()

    def monotonic(self) -> float:
        return self._time

    def now(self) -> datetime:
        return START + timedelta(seconds=self._time - 1000.0)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._time + seconds, next(self._numbers), future))
        self._changed.set()
        await future

    def due(self) -> list[float]:
        """In how many seconds each sleeper wants to wake, soonest first."""
        return [when - self._time for when, _, future in sorted(self._sleepers) if not future.done()]

    async def asleep(self, seconds: float) -> None:
        """Wait until somebody sleeps who wants to wake in exactly so many seconds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any(abs(left - seconds) < 1e-6 for left in self.due()):
                self._changed.clear()
                await self._changed.wait()

    async def advance(self, seconds: float) -> None:
        """Let so much time pass; each sleeper runs, and may sleep again, before the next one wakes."""
        target = self._time + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            when, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._time = max(self._time, when)
            future.set_result(None)
            await self.settle()
        self._time = target
        await self.settle()

    async def settle(self) -> None:
        """Let everything run that can run without time or the outside world."""
        for _ in range(20):
            await asyncio.sleep(0)
