"""One dispatcher process: its loops, in the order they start, and back in the order they stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from coder.change_ports import ChangeStore, ProjectCommands, Worktrees
from coder.errors import Unavailable
from coder.frame_log import FrameLog
from coder.ports import Backend, Clock, Guards, Logbook, PermissionStore, TaskStore, Wakeups
from coder.runtime.asking import Asking
from coder.runtime.boundary import Boundary
from coder.runtime.checker import Checker
from coder.runtime.dispatcher import Dispatcher
from coder.runtime.executor import Executor
from coder.runtime.finisher import Finisher
from coder.runtime.inflight import Inflight, Stop
from coder.runtime.janitor import Janitor
from coder.runtime.lease import Lease
from coder.runtime.narration import Narrations
from coder.runtime.recorder import Recorder
from coder.runtime.rescuer import Rescuer
from coder.runtime.reviewer import Reviewer
from coder.runtime.roster import Roster
from coder.runtime.slots import Slots
from coder.runtime.warmer import Warmer
from coder.runtime.watchdog import Limits
from coder.runtime.watching import Watching
from coder.warming import Bounds, PromptCache, WarmingStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Worlds:
    """The adapters a node works with."""

    tasks: TaskStore
    changes: ChangeStore
    worktrees: Worktrees
    backends: Mapping[str, Backend]
    guards: Guards
    wakeups: Wakeups
    logbook: Logbook
    clock: Clock
    commands: ProjectCommands
    permissions: PermissionStore
    frames: FrameLog
    warming: WarmingStore | None = None
    cache: PromptCache | None = None


@dataclass(frozen=True, slots=True)
class Pace:
    """A node's numbers; times in seconds."""

    slots: int
    poll: float
    lease: float
    beat: float
    drain: float
    silent: float
    tool: float
    retention: float
    answer: float = 900.0
    checks: int = 2
    warming: Bounds = field(default_factory=Bounds)


class Node:
    """Start it, let it run, stop it.

    Args:
        remember: told every node id before it is used.
        watching: the live view of this process, None where it has no API.
    """

    def __init__(self, worlds: Worlds, pace: Pace, host: UUID, remember: Callable[[UUID], None], watching: Watching | None = None) -> None:
        self._worlds = worlds
        self._pace = pace
        self._host = host
        slots = Slots(pace.slots)
        self._inflight = Inflight(slots)
        tasks, changes, worktrees, clock = worlds.tasks, worlds.changes, worlds.worktrees, worlds.clock
        self._lease = Lease(
            tasks,
            worlds.guards,
            clock,
            host,
            seconds=pace.lease,
            beat=pace.beat,
            lost=lambda: self._inflight.stop(Stop.LEASE_LOST),
            remember=remember,
        )
        self._finisher = Finisher(tasks, clock, host)
        self._recorder = Recorder(worlds.frames, clock)
        boundary = Boundary(tasks, changes, worktrees, clock)
        self._roster = Roster(tasks, worlds.backends, clock, host=host)
        self._asking = Asking(worlds.permissions, clock, seconds=pace.answer, poll=pace.poll)
        self.executor = Executor(
            store=tasks,
            worktrees=worktrees,
            backends=worlds.backends,
            roster=self._roster,
            asking=self._asking,
            finisher=self._finisher,
            boundary=boundary,
            clock=clock,
            limits=Limits(pace.silent, pace.tool, None),
            logbook=worlds.logbook,
            commands=worlds.commands,
            narrations=Narrations(
                self._recorder,
                watching.hub if watching else None,
                clock,
                left=watching.follower.hint if watching else lambda _: None,
            ),
        )
        self._dispatcher = Dispatcher(tasks, self._inflight, self.executor, self._lease, clock, host=host, slots=slots, poll=pace.poll)
        self._rescuer = Rescuer(tasks, changes, worktrees, boundary, clock, host=host, poll=pace.poll)
        self._reviewer = Reviewer(changes, worktrees, self._lease, clock, host=host, poll=pace.poll)
        self._checker = Checker(
            changes, worktrees, worlds.commands, worlds.logbook, self._lease, clock, host=host, poll=pace.poll, most=pace.checks
        )
        self.janitor = Janitor(changes, worktrees, clock, host=host, retention=pace.retention)
        self._inflight.on_ended(self._rescuer.turn_ended)
        self._warmer = (
            Warmer(worlds.warming, worlds.cache, self._lease, clock, host=host, poll=pace.poll, bounds=pace.warming)
            if worlds.warming is not None and worlds.cache is not None
            else None
        )

    async def start(self, crashed: Sequence[UUID] = ()) -> None:
        """Take up work. `crashed`: nodes of this host whose processes and agents are known to be gone."""
        for node in crashed:
            await self._worlds.tasks.crashed(node, self._host)
        await self._lease.start()
        self._roster.start()
        self._asking.start()
        self._finisher.start()
        self._recorder.start()
        wakeups = self._worlds.wakeups
        wakeups.on("tasks_new", self._dispatcher.wake)
        wakeups.on("tasks_cancel", self._dispatcher.wake_cancel)
        wakeups.on("decisions_new", self._reviewer.wake)
        wakeups.on("decisions_new", self._rescuer.wake)
        wakeups.on("decisions_new", self._checker.wake)
        wakeups.on("tasks_new", self._checker.make_way)  # a session's next turn comes before the check of its last
        wakeups.on("permissions", self._asking.wake)
        wakeups.on("agents_probe", self._roster.wake)
        if self._warmer is not None:
            wakeups.on("warming", self._warmer.wake)
            wakeups.on("tasks_new", self._warmer.turn_near)
            self._warmer.start()
        await wakeups.start()
        self._rescuer.start()
        self._reviewer.start()
        self._checker.start()
        self._dispatcher.start()
        self.janitor.start()

    async def stop(self) -> None:
        """Drain: claim nothing more, let turns finish for a while, interrupt the rest, leave nothing behind."""
        await self._dispatcher.stop_claiming()
        if self._warmer is not None:
            await self._warmer.stop()
        await self.janitor.stop()
        await self._checker.stop()
        self._inflight.drain()
        if len(self._inflight):
            log.info("draining", turns=len(self._inflight), seconds=self._pace.drain)
            await self._empty(self._pace.drain)
            self._inflight.stop(Stop.SHUTDOWN)
            await self._empty(self._pace.lease)  # longer than that the database is away: the tasks are no longer ours
        await self._dispatcher.stop()
        await self._reviewer.stop()
        await self._rescuer.stop()
        await self._finisher.stop()
        await self._inflight.empty()
        await self._recorder.stop()
        await self._asking.stop()
        await self._roster.stop()
        await self._stop_agents()
        await self._worlds.guards.stop_all()
        await self._worlds.wakeups.stop()
        await self._lease.stop()

    async def _stop_agents(self) -> None:
        """End the warm agents, and record which of them ended cleanly: what those keep can be resumed."""
        well = []
        for name, backend in self._worlds.backends.items():
            try:
                await backend.stop()
                well.append(name)
            except Exception:
                log.exception("an agent could not be stopped cleanly; its guardian ends it", agent=name)
        try:
            if self._lease.node is not None:
                await self._worlds.tasks.agents_stopped(self._lease.node, well)
        except Unavailable as error:
            log.warning("what the agents keep cannot be recorded; they will be told anew what was said", why=error.message)

    async def _empty(self, seconds: float) -> None:
        """Wait until no turn runs, at most so long."""
        empty = asyncio.ensure_future(self._inflight.empty())
        timer = asyncio.ensure_future(self._worlds.clock.sleep(seconds))
        await asyncio.wait({empty, timer}, return_when=asyncio.FIRST_COMPLETED)
        for wait in (empty, timer):
            wait.cancel()
