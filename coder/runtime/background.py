"""Work that goes on beside everything else, from a start to a stop."""

from __future__ import annotations

import asyncio


class Background:
    """The base of what does its work in one task of its own: `_run`, which is written to go on until it is cancelled."""

    _task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, in the event loop that runs; what has begun goes on."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=type(self).__name__.lower())

    async def stop(self) -> None:
        """Cancel the task and wait for its end; it can be started again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        raise NotImplementedError
