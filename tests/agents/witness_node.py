"""A dispatcher process for the fault tests: the real node on the real database, whose turns are stand-in agents.

Only three things differ from the service: the backend (`witness.py` under a guardian), the worktrees (none) and, where
asked for, a fault: the process kills itself with SIGKILL at the n-th pass of a named point. The points lie in wrappers
around the ports, so the product has no hook for them. Points: `claim`, `seen`, `finish`, each `.before` or `.after`, and
`running` (the agent works, its first event is committed).

Run as `python witness_node.py <settings as JSON>`, see `Given`. It says `ready <node id>` on standard output, stops like
the service on SIGTERM, and at once when its standard input closes, so that no test leaves one behind.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from uuid import UUID

import structlog
from null import NullCommands, NullLive, NullWorktrees

from coder.backends.guardian import Guarded, Guardians
from coder.errors import InternalError
from coder.events import AgentEvent, TextDelta, Usage
from coder.host.identity import host_id, host_name
from coder.host.logbook import FileLogbook
from coder.host.slot import take
from coder.ports import AgentFacts, Backend, Claimed, LiveTurn, Turn, Wakeups
from coder.postgres import listener, pool
from coder.postgres.changes import PostgresChanges
from coder.postgres.frames import PostgresFrames
from coder.postgres.listener import Listener, Silence
from coder.postgres.permissions import PostgresPermissions
from coder.postgres.pool import open_pool
from coder.postgres.tasks import PostgresTasks
from coder.runtime.clock import SystemClock
from coder.runtime.node import Node, Pace, Worlds
from coder.task import Ending, ExecutionPath, Left, Stored, Task

AGENT = Path(__file__).with_name("witness.py")


@dataclass(frozen=True)
class Given:
    """The settings of one node; times in seconds.

    Attributes:
        data: the data directory; nodes that share it are on one host.
        folder: where the witness, the locks and the gate are.
        listen: DSN of the LISTEN connection, None for no listening at all.
        name: found again in the environment of everything this node starts.
        kill: `<point>:<n>`, or empty.
    """

    dsn: str
    listen: str | None
    data: str
    folder: str
    name: str
    lease: float = 3.0
    beat: float = 1.0
    poll: float = 0.5
    drain: float = 10.0
    slots: int = 8
    answer: float = 15.0
    probe: float = 10.0
    echo: float = 5.0
    kill: str = ""


class Fault:
    """Ends this process at the n-th pass of a point, as a power cut would."""

    def __init__(self, order: str) -> None:
        self._point, _, number = order.partition(":")
        self._left = int(number or 0)

    def reach(self, point: str) -> None:
        if point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class FaultyTasks(PostgresTasks):
    """The real store, with points before and after what counts."""

    fault: Fault

    async def claim(self, node: UUID, host: UUID, count: int) -> list[Claimed]:
        self.fault.reach("claim.before")
        claimed = await super().claim(node, host, count)
        if claimed:
            self.fault.reach("claim.after")
        return claimed

    async def mark_seen(self, tasks: list[Task]) -> set[int]:
        self.fault.reach("seen.before")
        seen = await super().mark_seen(tasks)
        self.fault.reach("seen.after")
        return seen

    async def finish(self, endings: list[Ending], left: list[Left]) -> Stored:
        if endings:
            self.fault.reach("finish.before")
        stored = await super().finish(endings, left)
        if endings:
            self.fault.reach("finish.after")
        return stored


@dataclass
class WitnessBackend:
    """Runs `witness.py` with the last line of the prompt."""

    given: Given
    guardians: Guardians
    fault: Fault
    execution_path: ExecutionPath = ExecutionPath.NATIVE
    environment: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.environment = {"PATH": os.environ["PATH"], "CODER_WITNESS": self.given.name}

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def probe(self) -> tuple[AgentFacts, ...]:
        return (AgentFacts("native", self.execution_path, True),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        words = turn.prompt.rsplit("\n", 1)[-1].split()
        argv = [sys.executable, "-I", "-S", str(AGENT), self.given.folder, str(turn.task_id), str(turn.session_id), str(turn.epoch), *words]
        guarded = await self.guardians.spawn(argv, cwd=turn.cwd, env=self.environment, stdin=DEVNULL, stderr=DEVNULL)
        try:
            yield NullLive(self._events(guarded))
        finally:
            await guarded.stop()

    async def _events(self, guarded: Guarded) -> AsyncIterator[AgentEvent]:
        assert guarded.stdout is not None
        async for _ in guarded.stdout:
            yield TextDelta("at work")
            self.fault.reach("running")
        if code := await guarded.wait():
            raise InternalError(f"The stand-in agent ended with {code}.")
        yield Usage(10, 0, 2)


@asynccontextmanager
async def running(given: Given) -> AsyncIterator[UUID]:
    """The node, wired as `service.py` does it; answers its first id."""
    clock, data, fault = SystemClock(), Path(given.data), Fault(given.kill)
    ids: list[UUID] = []
    async with AsyncExitStack() as stack:
        queue = await open_pool(given.dsn, size=4, name="coder-queue")
        stack.push_async_callback(queue.close)
        lease = await open_pool(given.dsn, size=1, name="coder-lease")
        stack.push_async_callback(lease.close)
        tasks, host = FaultyTasks(queue, lease), host_id(data)
        tasks.fault = fault
        await tasks.register_host(host, host_name())
        slot = take(data)
        guardians = Guardians(lock_fd=slot.fd)
        wakeups: Wakeups = Silence() if given.listen is None else Listener(given.listen, clock)
        backends: dict[str, Backend] = {"native": WitnessBackend(given, guardians, fault)}
        worktrees: Any = NullWorktrees()
        changes = PostgresChanges(queue)
        worlds = Worlds(
            tasks,
            changes,
            worktrees,
            backends,
            guardians,
            wakeups,
            FileLogbook(data),
            clock,
            NullCommands(),
            PostgresPermissions(queue),
            PostgresFrames(queue),
        )
        pace = Pace(given.slots, given.poll, given.lease, given.beat, given.drain, silent=60, tool=60, retention=3600)

        def remember(node: UUID) -> None:
            ids.append(node)
            slot.remember(node)

        node = Node(worlds, pace, host, remember)
        try:
            await node.start(slot.crashed)
            yield ids[0]
        finally:
            await node.stop()
            slot.release()


def die() -> None:
    """The test is gone."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    given = Given(**json.loads(sys.argv[1]))
    listener.PROBE_SECONDS, listener.ECHO_SECONDS, pool.ANSWER_SECONDS = given.probe, given.echo, given.answer
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.add_reader(0, die)
    async with running(given) as node:
        print(f"ready {node}", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
