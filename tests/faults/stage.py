"""Where the fault tests happen: a database, a data directory, real node processes, and the witness they leave in a file."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from servers import AWAY

NODE = Path(__file__).resolve().parents[1] / "agents" / "witness_node.py"
LOOK_SECONDS = 0.02
START_SECONDS = 30.0
KILLED = -signal.SIGKILL
INTERRUPTED = "select id from tasks t where state = 'interrupted' and not exists (select from tasks r where r.retry_of = t.id)"


@dataclass(frozen=True, slots=True)
class Said:
    """One line of the witness."""

    what: str
    task: int
    session: UUID
    epoch: int
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Sent:
    """When a task was sent and acknowledged; those of one transaction share its number."""

    begun: float
    acknowledged: float
    transaction: int


def boottime() -> float:
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


async def until(fact: Callable[[], Any], seconds: float, what: str) -> float:
    """Wait for a fact (a function or a coroutine function); answers after how many seconds it was so, fails when the time is over."""
    begun = time.monotonic()
    while True:
        found = fact()
        if isinstance(found, Awaitable):
            found = await found
        passed = time.monotonic() - begun
        if found:
            return passed
        assert passed < seconds, f"within {seconds:g} s: {what}"
        await asyncio.sleep(LOOK_SECONDS)


async def at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but no longer than that."""
    waiting = asyncio.ensure_future(event.wait())
    await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()


class NodeProcess:
    """A dispatcher process of this test."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process
        self.ids: list[UUID] = []

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def ready(self) -> None:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), START_SECONDS)
        assert line.startswith(b"ready "), f"{self.name} did not start:\n{self.log.read_text()}"
        self.ids.append(UUID(line.split()[1].decode()))

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self, seconds: float) -> int:
        """Wait for its end; answers the exit code."""
        return await asyncio.wait_for(self._process.wait(), seconds)

    async def kill(self) -> None:
        if self.returncode is None:
            self.signal(signal.SIGKILL)
            await self.ended(10)

    def family(self) -> set[int]:
        """Every living process that this node's agents and their guardians are, found by what stands in their environment."""
        mark = f"CODER_WITNESS={self.name}\0".encode()
        found = set()
        for place in Path("/proc").iterdir():
            if place.name.isdigit():
                try:
                    environment = (place / "environ").read_bytes()
                except OSError:  # it ended while we looked
                    continue
                if mark in environment:
                    found.add(int(place.name))
        return found

    async def family_ends(self, seconds: float = 2.0) -> None:
        """Nothing that this node has started outlives it by more than two seconds."""
        await until(lambda: not self.family(), seconds, f"no descendant of {self.name} lives")


class Stage:
    """One database and everything that happens on it."""

    def __init__(self, dsn: str, place: Path, stack: AsyncExitStack, seed: int) -> None:
        self.dsn = dsn
        self.place = place
        self.folder = place / "witness"
        self.data = place / "data"
        self.rng = random.Random(seed)
        self.nodes: list[NodeProcess] = []
        self.projects: list[UUID] = []
        self.sessions: list[tuple[UUID, UUID]] = []
        self.sent: dict[int, Sent] = {}
        self._stack = stack
        self._db: asyncpg.Connection[Any] | None = None
        self._gate: int | None = None
        self._numbers = itertools.count()
        self.folder.mkdir()
        (self.folder / "witness").touch()
        os.mkfifo(self.folder / "gate")

    # ── the database ─────────────────────────────────────────────────────────────────────────────────

    async def db(self) -> asyncpg.Connection[Any]:
        """A connection of the test's own, past every proxy; made anew when the server was restarted."""
        if self._db is None or self._db.is_closed():
            self._db = await asyncpg.connect(self.dsn, timeout=10, command_timeout=30)
        return self._db

    async def rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        return list(await (await self.db()).fetch(sql, *arguments))

    async def value(self, sql: str, *arguments: Any) -> Any:
        return await (await self.db()).fetchval(sql, *arguments)

    async def state(self, task: int) -> str:
        return str(await self.value("select state from tasks where id = $1", task))

    async def furnish(self, projects: int, sessions: int) -> None:
        """Make projects, and that many sessions spread over them."""
        for number in range(projects):
            sql = "insert into projects (name, path) values ($1, $2) returning id"
            self.projects.append(await self.value(sql, f"project-{number}", str(self.place)))
        for number in range(sessions):
            project = self.projects[number % projects]
            session = await self.value("insert into sessions (project_id) values ($1) returning id", project)
            self.sessions.append((session, project))

    async def add(self, session: int, words: str, **more: Any) -> int:
        """Queue one task, as anybody may; answers its id once it is acknowledged."""
        names = ["session_id", "project_id", "input", *more]
        places = ", ".join(f"${number + 1}" for number in range(len(names)))
        sql = f"insert into tasks ({', '.join(names)}) values ({places}) returning id"
        begun = boottime()
        task = int(await self.value(sql, *self.sessions[session], words, *more.values()))
        self.acknowledged([task], begun)
        return task

    async def copy(self, tasks: Sequence[tuple[int, str]]) -> list[int]:
        """Queue many tasks (session, words) in one COPY; answers their ids."""
        records = [(*self.sessions[session], words) for session, words in tasks]
        before, begun = await self.value("select coalesce(max(id), 0) from tasks"), boottime()
        await (await self.db()).copy_records_to_table("tasks", records=records, columns=["session_id", "project_id", "input"])
        ids = [row["id"] for row in await self.rows("select id from tasks where id > $1 order by id", before)]
        self.acknowledged(ids, begun)
        return ids

    def acknowledged(self, tasks: Iterable[int], begun: float) -> None:
        """These were sent then, in one transaction whose commit was answered just now."""
        now, number = boottime(), next(self._numbers)
        self.sent.update({task: Sent(begun, now, number) for task in tasks})

    def precedes(self, one: int, other: int) -> bool:
        """Whether a task was acknowledged before another was sent, or came before it in one transaction."""
        if one not in self.sent or other not in self.sent:
            return False
        first, second = self.sent[one], self.sent[other]
        return first.acknowledged < second.begun or (first.transaction == second.transaction and one < other)

    # ── nodes ────────────────────────────────────────────────────────────────────────────────────────

    async def node(self, *, dsn: str | None = None, listen: str | None = "", **given: Any) -> NodeProcess:
        """Start a dispatcher process and wait until it works. `listen`: None = notifications are lost."""
        node = await self.launch(dsn=dsn, listen=listen, **given)
        await node.ready()
        return node

    async def launch(self, *, dsn: str | None = None, listen: str | None = "", **given: Any) -> NodeProcess:
        name = f"{self.place.name}-{os.getpid()}-{next(self._numbers)}"
        dsn = dsn or self.dsn
        settings = {"dsn": dsn, "listen": dsn if listen == "" else listen, "data": str(self.data), "folder": str(self.folder), "name": name}
        log = self.place / f"{name}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(NODE),
                json.dumps(settings | given),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        node = NodeProcess(name, process, log)
        self.nodes.append(node)
        self._stack.push_async_callback(node.kill)
        return node

    # ── the witness ──────────────────────────────────────────────────────────────────────────────────

    def witness(self) -> list[Said]:
        """What the agents said so far, in the order in which it happened."""
        lines = [line.split() for line in (self.folder / "witness").read_text().splitlines()]
        return [Said(what, int(task), UUID(session), int(epoch), int(pid), float(at)) for what, task, session, epoch, pid, at in lines]

    def said(self, what: str, task: int) -> bool:
        return any(said.what == what and said.task == task for said in self.witness())

    def said_all(self, what: str, tasks: Iterable[int]) -> bool:
        return set(tasks) <= {said.task for said in self.witness() if said.what == what}

    async def started(self, *tasks: int, seconds: float = 10) -> None:
        await until(lambda: self.said_all("start", tasks), seconds, f"the agents of {tasks} work")

    async def seen(self, *tasks: int, seconds: float = 10) -> None:
        """The first events of these tasks are committed."""
        sql = "select count(*) from tasks where id = any ($1) and state = 'running' and first_event_at is not null"

        async def all_seen() -> bool:
            return bool(await self.value(sql, list(tasks)) == len(tasks))

        await until(all_seen, seconds, f"{tasks} run and were seen")

    def open_gate(self) -> None:
        """Let agents that wait at the gate go on, and later ones pass."""
        if self._gate is None:
            self._gate = os.open(self.folder / "gate", os.O_RDWR)
            self._stack.callback(os.close, self._gate)

    async def take_care(self) -> None:
        """Resume or retry what was interrupted, as a person would."""
        for row in await self.rows(INTERRUPTED):
            await self.value(f"select coder.{self.rng.choice(['resume', 'retry'])}($1)", row["id"])

    async def all_rest(self, seconds: float) -> float:
        """Wait until nothing waits or runs; somebody takes care of what was interrupted meanwhile."""
        moving = f"select exists (select from tasks where state in ('pending', 'running')) or exists ({INTERRUPTED})"

        async def rest() -> bool:
            try:
                await self.take_care()
                return not await self.value(moving)
            except AWAY:
                return False  # the server is being restarted

        return await until(rest, seconds, "every task has come to rest")

    async def close(self) -> None:
        """After the nodes: let go of the database, and tell what the nodes logged, which pytest shows of a failed test."""
        if self._db is not None:
            self._db.terminate()
        for node in self.nodes:
            print(f"── {node.name} ended with {node.returncode}; the end of its log:\n{node.log.read_text()[-6000:]}")
