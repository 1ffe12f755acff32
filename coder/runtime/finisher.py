"""Groups writes of turns: whoever comes while one group commits shares the next.

Alone, an ending goes at once; under load one commit carries many. When a group fails, each of its members
is tried alone, so that one bad row harms nobody, and one that somebody holds is tried again behind the
others. While the database is away, endings wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from uuid import UUID

import structlog

from coder.change import Worktree
from coder.errors import Contended, Fenced, Unavailable
from coder.ports import Clock, TaskStore
from coder.runtime.background import Background
from coder.task import Ending, Left, Task, Verdict

GROUP = 100
LEFT_SECONDS = 0.005
LEFT_MOST_SECONDS = 0.1
AWAY_SECONDS = 0.5
STOPPED = "This node stopped before it could store the ending; another node recovers the task."

log = structlog.get_logger(__name__)

I = TypeVar("I")  # noqa: E741
R = TypeVar("R")


class Group(Background, Generic[I, R]):
    """One queue, one writer: items that wait are written together, in order."""

    def __init__(self, write: Callable[[list[I]], Awaitable[list[R]]], clock: Clock) -> None:
        self._write = write
        self._clock = clock
        self._queue: asyncio.Queue[tuple[I, asyncio.Future[R]]] = asyncio.Queue()

    async def put(self, item: I) -> R:
        """Write the item; answers its own result once its group is committed."""
        if self._task is None:
            raise Unavailable(STOPPED)
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((item, future))
        return await future

    async def stop(self) -> None:
        """End the writer; items still waiting are refused as `Unavailable`."""
        await super().stop()
        while not self._queue.empty():
            _, future = self._queue.get_nowait()
            if not future.done():
                future.set_exception(Unavailable(STOPPED))

    async def _run(self) -> None:
        while True:
            group = [await self._queue.get()]
            while len(group) < GROUP and not self._queue.empty():
                group.append(self._queue.get_nowait())
            try:
                await self._commit(group)
            except asyncio.CancelledError:
                for entry in group:
                    self._queue.put_nowait(entry)
                raise

    async def _commit(self, group: list[tuple[I, asyncio.Future[R]]]) -> None:
        while True:
            try:
                results = await self._write([item for item, _ in group])
            except Contended as error:
                if len(group) == 1:
                    await self._later(group[0], error)
                for entry in group if len(group) > 1 else ():
                    await self._commit([entry])
                return
            except Unavailable as error:
                log.warning("the database is away; endings wait", waiting=len(group), error=error.message)
                await self._clock.sleep(AWAY_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001 - whatever the group suffers from, only its owner may suffer
                if len(group) == 1:
                    if not group[0][1].done():
                        group[0][1].set_exception(error)
                    return
                for entry in group:
                    await self._commit([entry])
                return
            for (_, future), result in zip(group, results, strict=True):
                if not future.done():
                    future.set_result(result)
            return

    async def _later(self, entry: tuple[I, asyncio.Future[R]], error: Contended) -> None:
        """Somebody holds what this one needs, perhaps for long: all that come meanwhile go before it."""
        log.info("a write waits for rows that somebody holds", why=error.message)
        if self._queue.empty():
            await self._clock.sleep(LEFT_MOST_SECONDS)
        self._queue.put_nowait(entry)


class Finisher:
    """The grouped writes of a turn: where it works, that it was seen, and how it ended."""

    def __init__(self, store: TaskStore, clock: Clock, host: UUID) -> None:
        self._store = store
        self._host = host
        self._clock = clock
        self._left: list[Left] = []
        self._left_task: asyncio.Task[None] | None = None
        self._places: Group[tuple[Task, Worktree], bool] = Group(self._write_places, clock)
        self._seen: Group[Task, bool] = Group(self._write_seen, clock)
        self._endings: Group[Ending | None, Verdict] = Group(self._write_endings, clock)

    def start(self) -> None:
        self._places.start()
        self._seen.start()
        self._endings.start()

    async def stop(self) -> None:
        if self._left_task is not None:  # what stays locked is healed by the sweep of any node
            self._left_task.cancel()
            await asyncio.gather(self._left_task, return_exceptions=True)
        await self._places.stop()
        await self._seen.stop()
        await self._endings.stop()

    async def works_in(self, task: Task, worktree: Worktree) -> None:
        """Record the session's worktree and bind the session to this host; raises `Fenced`."""
        if not await self._places.put((task, worktree)):
            raise Fenced(task=task.id, epoch=task.epoch)

    async def seen(self, task: Task) -> None:
        """Commit that the turn's first event is about to be seen; raises `Fenced`."""
        if not await self._seen.put(task):
            raise Fenced(task=task.id, epoch=task.epoch)

    async def finish(self, ending: Ending) -> Verdict:
        """Store an ending, with whatever else ends at the moment."""
        return await self._endings.put(ending)

    async def _write_places(self, places: list[tuple[Task, Worktree]]) -> list[bool]:
        mine = await self._store.record_worktrees(self._host, places)
        return [task.id in mine for task, _ in places]

    async def _write_seen(self, tasks: list[Task]) -> list[bool]:
        mine = await self._store.mark_seen(tasks)
        return [task.id in mine for task in tasks]

    async def _write_endings(self, endings: list[Ending | None]) -> list[Verdict]:
        left, self._left = self._left, []
        given = [ending for ending in endings if ending is not None]
        try:
            stored = await self._store.finish(given, left)
        except BaseException:
            self._left = left + self._left
            raise
        self._left += stored.left
        if self._left and (self._left_task is None or self._left_task.done()):
            self._left_task = asyncio.create_task(self._later(), name="left-sessions")
        return [stored.verdicts.get(ending.task.id, Verdict.FENCED) if ending is not None else Verdict.ENDED for ending in endings]

    async def _later(self) -> None:
        """Try the sessions that were locked again, even if no other turn ends."""
        wait = LEFT_SECONDS
        while self._left:
            await self._clock.sleep(wait)
            wait = min(wait * 1.5, LEFT_MOST_SECONDS)
            if self._left:
                await self._endings.put(None)
