"""One dispatcher process: its loops, in the order they start, and back in the order they stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog

from coder.errors import CoderError
from coder.ports import AgentFacts, Backend, ChangeStore, Clock, FrameLog, Guards, Logbook, Setup, TaskStore, Wakeups, Worktrees
from coder.runtime.boundary import Boundary
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
from coder.runtime.watchdog import Limits
from coder.runtime.watching import Watching

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
    setup: Setup
    frames: FrameLog


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
        self._inflight = Inflight()
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
        self.executor = Executor(
            store=tasks,
            worktrees=worktrees,
            backends=worlds.backends,
            finisher=self._finisher,
            boundary=boundary,
            clock=clock,
            limits=Limits(pace.silent, pace.tool, None),
            logbook=worlds.logbook,
            setup=worlds.setup,
            narrations=Narrations(
                self._recorder,
                watching.hub if watching else None,
                clock,
                left=watching.follower.hint if watching else lambda _: None,
            ),
        )
        self._dispatcher = Dispatcher(tasks, self._inflight, self.executor, self._lease, clock, host=host, slots=pace.slots, poll=pace.poll)
        self._rescuer = Rescuer(tasks, changes, worktrees, boundary, clock, host=host, poll=pace.poll)
        self._reviewer = Reviewer(changes, worktrees, self._lease, clock, host=host, poll=pace.poll)
        self.janitor = Janitor(changes, worktrees, clock, host=host, retention=pace.retention)
        self._inflight.on_ended(self._rescuer.turn_ended)

    async def start(self, crashed: Sequence[UUID] = ()) -> None:
        """Take up work. `crashed`: nodes of this host whose processes and agents are known to be gone."""
        for node in crashed:
            await self._worlds.tasks.crashed(node, self._host)
        await self._lease.start()
        await self.probe()
        self._finisher.start()
        self._recorder.start()
        wakeups = self._worlds.wakeups
        wakeups.on("tasks_new", self._dispatcher.wake)
        wakeups.on("tasks_cancel", self._dispatcher.wake_cancel)
        wakeups.on("decisions_new", self._reviewer.wake)
        wakeups.on("decisions_new", self._rescuer.wake)
        await wakeups.start()
        self._rescuer.start()
        self._reviewer.start()
        self._dispatcher.start()
        self.janitor.start()

    async def probe(self) -> tuple[AgentFacts, ...]:
        """Find out what this host can run, and record it."""
        found: list[AgentFacts] = []
        for name, backend in self._worlds.backends.items():
            try:
                found.extend(await backend.probe())
            except CoderError as error:
                log.warning("an agent could not be probed", agent=name, why=error.message)
        self.executor.available = frozenset(facts.agent for facts in found if facts.available)
        await self._worlds.tasks.record_agents(self._host, tuple(found))
        return tuple(found)

    async def stop(self) -> None:
        """Drain: claim nothing more, let turns finish for a while, interrupt the rest, leave nothing behind."""
        await self._dispatcher.stop_claiming()
        await self.janitor.stop()
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
        for backend in self._worlds.backends.values():
            await backend.stop()
        await self._worlds.guards.stop_all()
        await self._worlds.wakeups.stop()
        await self._lease.stop()

    async def _empty(self, seconds: float) -> None:
        """Wait until no turn runs, at most so long."""
        empty = asyncio.ensure_future(self._inflight.empty())
        timer = asyncio.ensure_future(self._worlds.clock.sleep(seconds))
        await asyncio.wait({empty, timer}, return_when=asyncio.FIRST_COMPLETED)
        for wait in (empty, timer):
            wait.cancel()
