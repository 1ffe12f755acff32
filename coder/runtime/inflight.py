"""The turns that run on this node: handles for cancelling and draining. Not a lock; the claim is.

Each turn is one asyncio task that this module owns. `Running.stop` ends only its cancellable part: what
follows (snapshot, finish) is never cancelled, so that every ending leaves by the same door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, TypeVar

from coder.ports import Claimed

T = TypeVar("T")


class Stop(StrEnum):
    """Why a turn is stopped from outside."""

    USER = "user"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"
    TIMEOUT = "timeout"
    SILENT = "silent"
    SLOW_TOOL = "slow_tool"


class Stopped(Exception):
    """The cancellable part of a turn was stopped."""

    def __init__(self, why: Stop) -> None:
        super().__init__(why)
        self.why = why


class Running:
    """One turn: what was claimed, and the way to stop it."""

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.why: Stop | None = None
        self._part: asyncio.Task[Any] | None = None

    def stop(self, why: Stop) -> None:
        """Stop the turn; the first reason counts."""
        if self.why is None:
            self.why = why
            if self._part is not None:
                self._part.cancel()

    async def stoppable(self, part: Coroutine[Any, Any, T]) -> T:
        """Run a part of the turn that `stop` may end; raises `Stopped` when it did."""
        if self.why is not None:
            part.close()
            raise Stopped(self.why)
        self._part = asyncio.ensure_future(part)
        try:
            return await asyncio.shield(self._part)
        except asyncio.CancelledError:
            if self._part.cancelled() and self.why is not None:
                raise Stopped(self.why) from None
            # This node's task itself was cancelled: take the part along and wait until it let go.
            self._part.cancel()
            await asyncio.gather(self._part, return_exceptions=True)
            raise
        except Exception as error:
            # What fails while it is being stopped fails of that: its agent was ended.
            if self.why is not None:
                raise Stopped(self.why) from error
            raise
        finally:
            self._part = None


class Inflight:
    """Owns the asyncio tasks of the turns."""

    def __init__(self) -> None:
        self._running: dict[int, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def on_ended(self, ring: Callable[[], None]) -> None:
        """Ring whenever a turn has ended and its slot is free."""
        self._ended.append(ring)

    def start(self, claimed: Claimed, execute: Callable[[Running], Coroutine[Any, Any, None]]) -> None:
        running = Running(claimed)
        self._running[claimed.task.epoch] = running
        task = asyncio.create_task(execute(running), name=f"task-{claimed.task.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(claimed.task.epoch, done))

    def _done(self, epoch: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._running.pop(epoch, None)
        for ring in self._ended:
            ring()

    def stop(self, why: Stop, task_ids: set[int] | None = None) -> None:
        """Stop the named turns, or all."""
        for running in list(self._running.values()):
            if task_ids is None or running.claimed.task.id in task_ids:
                running.stop(why)

    def epochs(self) -> set[int]:
        """Of the turns that run here."""
        return set(self._running)

    def ids(self) -> set[int]:
        return {running.claimed.task.id for running in self._running.values()}

    async def empty(self) -> None:
        """Wait until no turn runs."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
