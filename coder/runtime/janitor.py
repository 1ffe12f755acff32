"""Removes worktrees that nobody needs any more. Nothing unsaved goes: the port saves it under a ref first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import structlog

from coder.change import Worktree
from coder.change_ports import ChangeStore, Worktrees
from coder.errors import CoderError, Unavailable
from coder.ports import Clock

EVERY_SECONDS = 3600.0

log = structlog.get_logger(__name__)


class Janitor:
    """Args: retention: seconds that the worktree of a closed session stays."""

    def __init__(self, store: ChangeStore, worktrees: Worktrees, clock: Clock, *, host: UUID, retention: float) -> None:
        self._store = store
        self._worktrees = worktrees
        self._clock = clock
        self._host = host
        self._retention = retention
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="janitor")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def collect(self, dry_run: bool) -> list[str]:
        """Remove what is due; answers the paths that went, or would go."""
        gone = []
        for worktree in await self._store.expired(self._host, self._retention):
            if dry_run or await self._tried(self._remove(worktree), worktree.path):
                gone.append(worktree.path)
        for project, sessions in await self._store.known(self._host):
            try:
                orphans = await self._worktrees.orphans(project, sessions)
            except CoderError as error:
                log.warning("a project's worktrees could not be looked through", project=project.name, why=error.message)
                continue
            for path in orphans:
                if dry_run or await self._tried(self._worktrees.remove_orphan(project, path), str(path)):
                    gone.append(str(path))
        return gone

    async def _remove(self, worktree: Worktree) -> None:
        async with self._worktrees.hold(worktree.session_id):
            await self._worktrees.remove(worktree)
            await self._store.removed(worktree)

    async def _tried(self, removal: Coroutine[Any, Any, None], path: str) -> bool:
        """Whether it went; one that is in use or whose repository is gone does not stop the others."""
        try:
            await removal
        except Unavailable:
            raise
        except CoderError as error:
            log.warning("a worktree could not be removed; it stays", path=path, why=error.message)
            return False
        return True

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                for path in await self.collect(dry_run=False):
                    log.info("a worktree was removed", path=path)
            except CoderError as error:
                log.warning("worktrees could not be looked through; tried again in an hour", why=error.message)
            except Exception:
                log.exception("the janitor met an error it does not know; it goes on in an hour")
