"""The agent processes that this node keeps warm, of all agents together: how many, how long, and how much memory.

A process in use is never ended; of the idle ones the least recently used goes first. One object per node.

Invariant: as long as any process is idle, a look is taken every `LOOK_SECONDS` at least, so that an idle process that
grows is noticed as well.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol

from coder.backends.guard import children

LOOK_SECONDS = 30.0


class Kept(Protocol):
    """A process that may be kept warm."""

    @property
    def pid(self) -> int | None:
        """The process above all of it, None before it was started."""
        ...

    def retire(self) -> None:
        """End it, as idle; it is forgotten at once and gone soon."""
        ...


class Warm:
    """Bounds on what is kept warm.

    Args:
        most: how many processes at once, those in use included.
        memory: bytes the idle ones may hold together.
        idle: seconds after which an idle one is ended.
    """

    def __init__(self, *, most: int, memory: int, idle: float) -> None:
        self._most = most
        self._memory = memory
        self._idle_seconds = idle
        self._busy: dict[Kept, int] = {}
        self._idle: dict[Kept, float] = {}
        self._looking: asyncio.Task[None] | None = None

    def use(self, process: Kept) -> None:
        """A turn begins in it; call `release` as often."""
        self._idle.pop(process, None)
        self._busy[process] = self._busy.get(process, 0) + 1
        self._shrink()

    def release(self, process: Kept) -> None:
        """A turn has ended in it."""
        if process not in self._busy:
            return  # it is gone already
        self._busy[process] -= 1
        if self._busy[process] == 0:
            del self._busy[process]
            self._idle[process] = asyncio.get_running_loop().time()
            self._shrink()
            self._rest()
            self._looking = asyncio.create_task(self._look(), name="warm agents")

    def forget(self, process: Kept) -> None:
        """It has ended."""
        self._busy.pop(process, None)
        if self._idle.pop(process, None) is not None and not self._idle:
            self._rest()

    def _rest(self) -> None:
        if self._looking is not None and self._looking is not asyncio.current_task():
            self._looking.cancel()
            self._looking = None

    def _shrink(self) -> None:
        while self._idle and len(self._busy) + len(self._idle) > self._most:
            self._retire(next(iter(self._idle)))

    def _retire(self, process: Kept) -> None:
        self.forget(process)
        process.retire()

    async def _look(self) -> None:
        """End what is idle for too long or too large, until nothing is idle."""
        loop = asyncio.get_running_loop()
        while self._idle:
            for process in [each for each, since in self._idle.items() if loop.time() - since >= self._idle_seconds]:
                self._retire(process)
            sizes = await asyncio.to_thread(_sizes, [(each, each.pid) for each in self._idle])
            total = sum(sizes.values())
            for process, size in sizes.items():
                if total > self._memory and process in self._idle:
                    total -= size
                    self._retire(process)
            if self._idle:
                due = min(self._idle.values()) + self._idle_seconds
                await asyncio.sleep(max(0.0, min(LOOK_SECONDS, due - loop.time())))


def _sizes(processes: list[tuple[Kept, int | None]]) -> dict[Kept, int]:
    return {process: resident(pid) for process, pid in processes if pid is not None}


def resident(pid: int) -> int:
    """Bytes that a process and all its descendants hold in memory; shared pages count for each."""
    total, left = 0, [pid]
    while left:
        each = left.pop()
        left += children(each)
        try:
            total += int(Path(f"/proc/{each}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):  # it is gone, or was never Linux
            continue
    return total
