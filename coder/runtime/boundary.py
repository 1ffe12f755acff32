"""What is owed to a worktree between two turns: the change of a turn whose node died, and a discard.

The caller holds the worktree. Runs before a session's next turn, and for sessions that rest.
"""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import structlog

from coder.change import Worktree, display_path
from coder.change_ports import ChangeStore, Worktrees
from coder.errors import InternalError
from coder.ports import Clock, TaskStore

APPLYING_SECONDS = 0.05

log = structlog.get_logger(__name__)


class Boundary:
    def __init__(self, tasks: TaskStore, changes: ChangeStore, worktrees: Worktrees, clock: Clock) -> None:
        self._tasks = tasks
        self._changes = changes
        self._worktrees = worktrees
        self._clock = clock

    async def settle(self, worktree: Worktree) -> Worktree:
        """Do what is owed; answers the worktree as it is recorded afterwards."""
        # Before anything is recorded of it: what was rejected is part of no change any more.
        worktree = await self.bring_along(worktree)
        if worktree.unsnapshotted_task is not None:
            worktree = replace(await self._rescue(worktree), clashes=worktree.clashes)
        if worktree.discard_decision is not None:
            try:
                saved = await self._worktrees.reset(worktree, worktree.base_commit)
            except InternalError as error:
                if not error.facts.get("gone"):
                    raise
                saved = None  # somebody deleted it, so there is nothing to discard; the next turn makes it again
            await self._changes.discarded(worktree)
            log.info("the worktree went back to its base", session=str(worktree.session_id), saved=saved)
            worktree = replace(worktree, discard_decision=None, last_snapshot=None)
        return worktree

    async def bring_along(self, worktree: Worktree) -> Worktree:
        """Bring the worktree's files along with what was decided on parts of its change."""
        clashes: list[tuple[UUID, tuple[str, ...]]] = []
        for shift in worktree.shifts:
            try:
                kept = await self._worktrees.shift(worktree, shift)
            except InternalError as error:
                if not error.facts.get("gone"):
                    raise
                kept = ()  # somebody deleted it; the next turn makes it again as the decision left it
            await self._changes.shifted(worktree, shift, kept)
            clashes.append((shift.decision_id, tuple(display_path(path) for path in kept)))
            log.info("the worktree was brought along with a decision", session=str(worktree.session_id), decision=str(shift.decision_id))
        return replace(worktree, shifts=(), clashes=tuple(clashes))

    async def _rescue(self, worktree: Worktree) -> Worktree:
        number = worktree.snapshots + 1
        try:
            snapshot = await self._worktrees.snapshot(worktree)
        except InternalError as error:
            if not error.facts.get("gone"):
                raise
            # Somebody deleted it: what the last snapshot holds is all there is left.
            snapshot = await self._worktrees.diff(worktree, worktree.last_snapshot or worktree.base_commit)
        while True:
            verdict = await self._changes.rescue_change(worktree, snapshot, number)
            if verdict == "applying":
                await self._clock.sleep(APPLYING_SECONDS)
                continue
            current = await self._tasks.worktree_of(worktree.session_id)
            if current is None:
                return replace(worktree, unsnapshotted_task=None)
            if verdict == "moved":
                worktree = current
                snapshot = await self._worktrees.diff(worktree, snapshot.commit)
                continue
            log.info("the change of an interrupted turn was recorded", task=worktree.unsnapshotted_task, verdict=verdict)
            return current
