"""Recovers what others left: dead nodes' tasks, sessions nobody advanced, worktrees that something is owed to.

Every node does it; there is no leader. All of it is idempotent and skips what somebody else is at.
"""

from __future__ import annotations

from uuid import UUID

import structlog

from coder.change_ports import ChangeStore, Worktrees
from coder.errors import CoderError, Held, Unavailable
from coder.ports import Clock, TaskStore
from coder.runtime.background import Background
from coder.runtime.boundary import Boundary
from coder.runtime.wake import Wake

DEEP_EVERY = 30  # polls between two looks at every idle session

log = structlog.get_logger(__name__)


class Rescuer(Background):
    def __init__(
        self, tasks: TaskStore, changes: ChangeStore, worktrees: Worktrees, boundary: Boundary, clock: Clock, *, host: UUID, poll: float
    ) -> None:
        self._tasks = tasks
        self._changes = changes
        self._worktrees = worktrees
        self._boundary = boundary
        self._clock = clock
        self._host = host
        self._poll = poll
        self._bell = Wake(clock)
        self._waits_for_turn = False

    def wake(self) -> None:
        self._bell.wake()

    def turn_ended(self) -> None:
        """Wake only when something is owed to a worktree in which a turn was running."""
        if self._waits_for_turn:
            self._bell.wake()

    async def _run(self) -> None:
        turn = 0
        while True:
            wait = self._poll
            try:
                if reaped := await self._tasks.reap():
                    log.warning("recovered the tasks of a dead node", tasks=reaped)
                await self._tasks.sweep(turn % DEEP_EVERY == 0)
                await self._owed()
                await self._carry_comments()
                due = await self._tasks.next_due()
                wait = self._poll if due is None else max(0.01, min(self._poll, due))
                turn += 1
            except Unavailable as error:
                log.warning("nothing can be recovered while the database is away", why=error.message)
            except Exception:
                log.exception("the rescuer met an error it does not know; it goes on with the next poll")
            await self._bell.wait(wait)

    async def _owed(self) -> None:
        """Settle worktrees of sessions that rest; a running turn settles its own before it starts."""
        unfinished = await self._changes.unfinished(self._host)
        self._waits_for_turn = any(busy for _, busy in unfinished)
        for worktree, busy in unfinished:
            if busy:
                continue
            try:
                async with self._worktrees.hold(worktree.session_id):
                    current = await self._tasks.worktree_of(worktree.session_id)
                    if current is not None:
                        await self._boundary.settle(current)
            except Held:
                continue
            except Unavailable:
                raise
            except CoderError as error:
                log.warning("a worktree could not be settled; it is tried again", session=str(worktree.session_id), why=error.message)
            except Exception:
                log.exception(
                    "a worktree could not be settled in a way nobody foresaw; it is tried again", session=str(worktree.session_id)
                )

    async def _carry_comments(self) -> None:
        """Bring the comments of sessions to the changes that took the place of those they were written on."""
        for owed in await self._changes.comments_owed(self._host):
            try:
                await self._changes.carry_comments(owed, await self._worktrees.places(owed))
            except Unavailable:
                raise
            except CoderError as error:
                log.warning("comments could not be carried to a change; it is tried again", change=str(owed.change_id), why=error.message)
            except Exception:
                log.exception("comments could not be carried in a way nobody foresaw; it is tried again", change=str(owed.change_id))
