"""The turns that run on this node: handles for cancelling and draining. Not a lock; the claim is.

Each turn is one asyncio task that this module owns. `Running.stop` ends only its cancellable part: what
follows (snapshot, finish) is never cancelled, so that every ending leaves by the same door.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from coder.ports import Claimed
from coder.runtime.slots import Seat, Slots
from coder.runtime.stop import Stop
from coder.runtime.wake import Wake

T = TypeVar("T")

__all__ = ["Inflight", "Running", "Stop", "Stopped"]


class Stopped(Exception):
    """The cancellable part of a turn was stopped."""

    def __init__(self, why: Stop) -> None:
        super().__init__(why)
        self.why = why


class Running:
    """One turn: what was claimed, its slot, and the way to stop it."""

    def __init__(self, claimed: Claimed, seat: Seat) -> None:
        self.claimed = claimed
        self.seat = seat
        self.why: Stop | None = None
        self.hurry = asyncio.Event()
        self.patience: Wake | None = None  # of whoever holds the slot back while the endpoint is waited for
        self._part: asyncio.Task[Any] | None = None
        self._asking = 0
        self._draining = False

    def stop(self, why: Stop) -> None:
        """Stop the turn; the first reason counts."""
        if self.why is None:
            self.why = why
            if self._part is not None:
                self._part.cancel()

    def hurried(self) -> None:
        """Somebody wants no more waiting for the model's endpoint."""
        self.hurry.set()
        if self.patience is not None:
            self.patience.wake()

    @contextmanager
    def asking(self) -> Iterator[None]:
        """The agent waits for a person meanwhile: a drain does not."""
        self._asking += 1
        if self._draining:
            self.stop(Stop.SHUTDOWN)
        try:
            yield
        finally:
            self._asking -= 1

    def drain(self) -> None:
        """The node is about to stop: the turn may end by itself, but not wait for a person."""
        self._draining = True
        if self._asking:
            self.stop(Stop.SHUTDOWN)

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

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._running: dict[int, Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._running)

    def on_ended(self, ring: Callable[[], None]) -> None:
        """Ring whenever a turn has ended and its slot is free."""
        self._ended.append(ring)

    def start(self, claimed: Claimed, execute: Callable[[Running], Coroutine[Any, Any, None]]) -> None:
        """Run a claimed task in a slot that was taken for it."""
        running = Running(claimed, Seat(self._slots))
        self._running[claimed.task.epoch] = running
        task = asyncio.create_task(execute(running), name=f"task-{claimed.task.id}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(claimed.task.epoch, done))

    def _done(self, epoch: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if (running := self._running.pop(epoch, None)) is not None:
            running.seat.leave()
        for ring in self._ended:
            ring()

    def stop(self, why: Stop, task_ids: set[int] | None = None) -> None:
        """Stop the named turns, or all."""
        for running in list(self._running.values()):
            if task_ids is None or running.claimed.task.id in task_ids:
                running.stop(why)

    def hurry(self, task_ids: set[int]) -> None:
        """Let the named turns wait for their endpoints no longer."""
        for running in self._running.values():
            if running.claimed.task.id in task_ids:
                running.hurried()

    def drain(self) -> None:
        """Let turns end by themselves, but none wait for a person."""
        for running in list(self._running.values()):
            running.drain()

    def epochs(self) -> set[int]:
        """Of the turns that run here."""
        return set(self._running)

    def ids(self) -> set[int]:
        return {running.claimed.task.id for running in self._running.values()}

    async def empty(self) -> None:
        """Wait until no turn runs."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
