"""A doorbell for one loop: `wake()` from anywhere, `wait()` in the loop, rings in between count once."""

from __future__ import annotations

import asyncio

from coder.ports import Clock


class Wake:
    """Rings that came while the loop was busy are remembered as one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = asyncio.Event()

    def wake(self) -> None:
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Wait for a ring, at most so long; True when it rang."""
        if not self._rung.is_set():
            bell = asyncio.ensure_future(self._rung.wait())
            timer = asyncio.ensure_future(self._clock.sleep(seconds))
            try:
                await asyncio.wait({bell, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                bell.cancel()
                timer.cancel()
        rang = self._rung.is_set()
        self._rung.clear()
        return rang
