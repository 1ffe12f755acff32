"""Removes worktrees that nobody needs any more. Nothing unsaved goes: the port saves it under a ref first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import structlog

from coder.change import Gone, Worktree
from coder.change_ports import ChangeStore, Worktrees
from coder.errors import CoderError, Held, Unavailable
from coder.ports import Clock
from coder.runtime.background import Background

EVERY_SECONDS = 3600.0
ORPHAN = "no session of its project has it"
STRAY = "nobody knows its project"

log = structlog.get_logger(__name__)


class Janitor(Background):
    """Args: retention: seconds that a worktree stays after its session was closed, or began to rest with nothing to decide."""

    def __init__(self, store: ChangeStore, worktrees: Worktrees, clock: Clock, *, host: UUID, retention: float) -> None:
        self._store = store
        self._worktrees = worktrees
        self._clock = clock
        self._host = host
        self._retention = retention

    async def collect(self, dry_run: bool) -> list[Gone]:
        """Remove what is due; answers what went, or would go. Whatever is in use, or cannot be saved, stays."""
        gone = []
        for worktree, why in await self._store.expired(self._host, self._retention):
            gone += await self._tried(dry_run, worktree.path, why, partial(self._remove, worktree))
        for project, sessions in await self._store.known(self._host):
            try:
                orphans = await self._worktrees.orphans(project, sessions)
            except CoderError as error:
                log.warning("a project's worktrees could not be looked through", project=project.name, why=error.message)
                continue
            for path in orphans:
                gone += await self._tried(dry_run, str(path), ORPHAN, partial(self._worktrees.remove_orphan, project, path))
        for path in await self._worktrees.strays(await self._store.projects(), self._retention):
            gone += await self._tried(dry_run, str(path), STRAY, partial(self._worktrees.remove_orphan, None, path))
        return gone

    async def _remove(self, worktree: Worktree) -> str | None:
        async with self._worktrees.hold(worktree.session_id):
            # Somebody may have gone on with the session since it was found.
            if not await self._store.expired(self._host, self._retention, worktree.session_id):
                raise Held(session=worktree.session_id)
            saved = await self._worktrees.remove(worktree)
            await self._store.removed(worktree)
        return saved

    async def _tried(self, dry_run: bool, path: str, why: str, remove: Callable[[], Awaitable[str | None]]) -> list[Gone]:
        """What went, if it did; one that is in use or whose repository is gone does not stop the others."""
        try:
            return [Gone(path, why, None if dry_run else await remove())]
        except Unavailable:
            raise
        except CoderError as error:
            log.warning("a worktree could not be removed; it stays", path=path, why=error.message)
            return []

    async def _run(self) -> None:
        while True:
            await self._clock.sleep(EVERY_SECONDS)
            try:
                for gone in await self.collect(dry_run=False):
                    log.info("a worktree was removed", path=gone.path, why=gone.why, saved=gone.saved)
            except CoderError as error:
                log.warning("worktrees could not be looked through; tried again in an hour", why=error.message)
            except Exception:
                log.exception("the janitor met an error it does not know; it goes on in an hour")
