"""Runs the check commands of projects on what turns left, in their worktrees, while their sessions rest.

A check holds the worktree, so it gives way to the session's next turn: it is then skipped, since that turn leaves another change.
Whatever becomes of this node, a check that has not ended is run again by the next one of its host.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from coder.change_ports import ChangeStore, ProjectCommands, Worktrees
from coder.checks import Check, CheckState, Ran
from coder.errors import CoderError, Held, InternalError, Unavailable
from coder.ports import Clock, Logbook
from coder.runtime.background import Background
from coder.runtime.lease import Lease
from coder.runtime.wake import Wake

GAVE_WAY = "it gave way to the session's next turn, or its change was decided on"

log = structlog.get_logger(__name__)


class Checker(Background):
    """Args: most: how many checks run at once."""

    def __init__(
        self,
        store: ChangeStore,
        worktrees: Worktrees,
        commands: ProjectCommands,
        logbook: Logbook,
        lease: Lease,
        clock: Clock,
        *,
        host: UUID,
        poll: float,
        most: int,
    ) -> None:
        self._store = store
        self._worktrees = worktrees
        self._commands = commands
        self._logbook = logbook
        self._lease = lease
        self._clock = clock
        self._host = host
        self._poll = poll
        self._most = most
        self._bell = Wake(clock)
        self._running: dict[UUID, asyncio.Task[None]] = {}
        self._called_off: dict[UUID, CheckState] = {}

    def wake(self) -> None:
        self._bell.wake()

    def make_way(self) -> None:
        """A task may want a worktree: wake only when a check has one."""
        if self._running:
            self._bell.wake()

    async def stop(self) -> None:
        """End the checks that run; they are put back for another node."""
        await super().stop()
        for check in self._running:
            self._call_off(check, CheckState.QUEUED)
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if (node := self._lease.node) is not None:
                    await self._look(node)
            except Unavailable as error:
                log.warning("checks wait for the database", why=error.message)
            except Exception:
                log.exception("the checker met an error it does not know; it goes on with the next poll")
            await self._bell.wait(self._poll)

    async def _look(self, node: UUID) -> None:
        if self._running:
            for unwanted in await self._store.unwanted_checks(node) & self._running.keys():
                self._call_off(unwanted, CheckState.SKIPPED)
        if (free := self._most - len(self._running)) > 0:
            for check in await self._store.claim_checks(node, self._host, free):
                self._running[check.id] = task = asyncio.create_task(self._check(check), name=f"check-{check.task_id}")
                task.add_done_callback(lambda _, id=check.id: self._done(id))  # type: ignore[misc]

    def _call_off(self, check: UUID, state: CheckState) -> None:
        """End a check that runs; the first reason counts."""
        if check not in self._called_off:
            self._called_off[check] = state
            self._running[check].cancel()

    def _done(self, check: UUID) -> None:
        del self._running[check]
        self._called_off.pop(check, None)
        self._bell.wake()

    async def _check(self, check: Check) -> None:
        """Run one check to its end, and store that, unless the node loses it meanwhile."""
        state, ran, detail, fixable = CheckState.FAILED, None, None, False
        try:
            ran = await self._ran(check)
            state = CheckState.PASSED if ran.exit_code == 0 else CheckState.FAILED
            detail, fixable = ran.ended, ran.exit_code != 0
        except asyncio.CancelledError:
            state = self._called_off[check.id]
            detail = GAVE_WAY if state is CheckState.SKIPPED else None
        except Held:
            state = CheckState.QUEUED  # a turn, or what is owed to the worktree, was faster
        except CoderError as error:
            detail = f"could not be run: {error.message}"
        except Exception as error:
            log.exception("a check failed in a way nobody foresaw", change=str(check.change_id))
            detail = f"could not be run: {type(error).__name__}: {error}"
        await self._settle(check, state, ran, detail, fixable)

    async def _ran(self, check: Check) -> Ran:
        async with self._worktrees.hold(check.session_id):
            if not check.worktree.is_dir():
                raise InternalError(f"the worktree {check.worktree} is gone; the session's next turn makes it again.")
            place = self._logbook.path(check.task_id).with_name("check.log")
            return await self._commands.run(check.command, check.worktree, check.seconds, place, network=check.network)

    async def _settle(self, check: Check, state: CheckState, ran: Ran | None, detail: str | None, fixable: bool) -> None:
        """While the database is away, or somebody holds the session's row, the end waits."""
        while True:
            try:
                stored = await self._store.settle_check(check, state, ran, detail=detail, fixable=fixable)
            except Unavailable as error:
                log.warning("the end of a check waits for the database", change=str(check.change_id), why=error.message)
                await self._clock.sleep(self._poll)
                continue
            log.info("a check ended", change=str(check.change_id), state=state, stored=stored)
            return
