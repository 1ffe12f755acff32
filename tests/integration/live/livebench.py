"""A database with a project, and processes on it: APIs with real sockets and nodes with scripted agents, in one or in many processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import uvicorn
from agents.null import NullCommands, NullGuards, NullWorktrees
from agents.scripted import ScriptedBackend
from pane import Terminal
from tab import TOKEN, Tab, entry

from coder.config import Settings
from coder.host.logbook import FileLogbook
from coder.postgres.changes import PostgresChanges
from coder.postgres.door import PostgresDoor
from coder.postgres.frames import PostgresFrames
from coder.postgres.listener import Listener
from coder.postgres.permissions import PostgresPermissions
from coder.postgres.pool import open_pool
from coder.postgres.tasks import PostgresTasks
from coder.postgres.warming import PostgresWarming
from coder.runtime.clock import SystemClock
from coder.runtime.node import Node, Pace, Worlds
from coder.runtime.watching import Watching
from coder.web import protocol
from coder.web.app import build

PATIENCE_SECONDS = 60.0
START_SECONDS = 120.0
SERVICE = Path(__file__).resolve().parents[2] / "agents" / "live_service.py"
PACE = Pace(slots=20, poll=0.5, lease=30, beat=5, drain=5, silent=180, tool=3600, retention=1e9)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class Server:
    """One API with its live view. Attributes: url, watching."""

    def __init__(self, url: str, watching: Watching) -> None:
        self.url = url
        self.watching = watching


class Process:
    """A `coder up` of its own. Attributes: url: of its API, if it has one."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()


class LiveHouse:
    """One database, a project in it, and whatever runs on it; everything is stopped at the end."""

    def __init__(self, dsn: str, folder: Path, stack: AsyncExitStack) -> None:
        self.dsn = dsn
        self.folder = folder
        self.gates = folder / "gates"
        self.gates.mkdir()
        self._stack = stack
        self._number = 0
        self.sql: asyncpg.Connection[Any]
        self.project: UUID

    async def open(self) -> None:
        self.sql = await asyncpg.connect(self.dsn)
        self._stack.callback(self.sql.terminate)
        await self.sql.execute("insert into api_tokens (name, hash) values ('admin', $1)", hashlib.sha256(TOKEN.encode()).digest())
        self.project = await self.sql.fetchval(
            "insert into projects (name, path) values ('shop', $1) returning id", str(self._repository())
        )

    def _repository(self) -> Path:
        path = self.folder / "shop"
        who = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t"}
        for command in (["init", "-qb", "main", str(path)], ["-C", str(path), "commit", "-q", "--allow-empty", "-m", "start"]):
            subprocess.run(["git", *command], env={**os.environ, **who}, check=True)
        return path

    async def server(self, *, ping: float = 25.0, poll: float = 0.5, max_sockets: int = 2000) -> Server:
        """An API in this process."""
        clock = SystemClock()
        pool, frames = await open_pool(self.dsn, size=4, plan_anew=True), await open_pool(self.dsn, size=4)
        self._stack.callback(pool.terminate)
        self._stack.callback(frames.terminate)
        watching = Watching(PostgresFrames(frames), PostgresWarming(frames), clock, poll=poll)
        listener = Listener(self.dsn, clock)
        self._stack.push_async_callback(listener.stop)
        await watching.start(listener)
        self._stack.push_async_callback(watching.stop)
        settings = Settings(_env_file=None, ping_seconds=ping, max_sockets=max_sockets)  # type: ignore[call-arg]
        app = build(PostgresDoor(pool, clock), settings, uuid4(), watching)
        listening = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=5, **protocol.SETTINGS)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))

        async def stop() -> None:
            server.should_exit = True
            await serving

        self._stack.push_async_callback(stop)
        return Server(f"http://127.0.0.1:{listening.getsockname()[1]}/", watching)

    async def node(self, watching: Watching | None = None, pace: Pace = PACE) -> Node:
        """A dispatcher in this process, narrating to a live view if one is given."""
        clock = SystemClock()
        queue, lease, frames = await open_pool(self.dsn, size=4), await open_pool(self.dsn, size=1), await open_pool(self.dsn, size=2)
        for pool in (queue, lease, frames):
            self._stack.callback(pool.terminate)
        store, host = PostgresTasks(queue, lease), uuid4()
        await store.register_host(host, "here")
        backends: Any = {"native": ScriptedBackend(self.gates)}
        worktrees: Any = NullWorktrees()
        worlds = Worlds(
            store, PostgresChanges(queue), worktrees, backends, NullGuards(), Listener(self.dsn, clock), FileLogbook(self.folder), clock,
            NullCommands(), PostgresPermissions(queue), PostgresFrames(frames),
        )  # fmt: skip
        node = Node(worlds, pace, host, lambda _: None, watching)
        await node.start()
        self._stack.push_async_callback(node.stop)
        return node

    async def process(self, role: str, **settings: str) -> Process:
        """`coder up --role ROLE` with scripted agents, as a process."""
        self._number += 1
        given = {
            "database_url": self.dsn, "data_dir": str(self.folder / f"data{self._number}"), "port": "0", "admin_token": TOKEN,
            "poll_seconds": "0.5", "lease_seconds": "2", "beat_seconds": "0.5", "drain_seconds": "2", **settings,
        }  # fmt: skip
        environment = {**os.environ, **{f"CODER_{name.upper()}": value for name, value in given.items()}}
        log = self.folder / f"process{self._number}.log"
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(SERVICE), role, str(self.gates),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors, env=environment,
            )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = (await process.stdout.readline()).decode()
        assert line.startswith("ready "), log.read_text()
        found = Process(process, line.split()[1], log)
        self._stack.push_async_callback(found.kill)
        return found

    def open_gate(self, name: str) -> None:
        (self.gates / name).touch()

    async def add(self, prompt: str, session: str | None = None) -> tuple[int, str]:
        """Queue a task as anybody may; answers it and its session."""
        sql = "insert into tasks (project_id, session_id, input) values ($1, $2, $3) returning id, session_id"
        row = await self.sql.fetchrow(sql, self.project, UUID(session) if session else None, prompt)
        return row["id"], str(row["session_id"])

    async def until(self, query: str, *values: Any) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (answer := await self.sql.fetchval(query, *values)):  # noqa: ASYNC110 - facts of the database
                await asyncio.sleep(0.005)
            return answer

    async def ended(self, *tasks: int) -> None:
        await self.until("select bool_and(ended_at is not null) from tasks where id = any ($1)", list(tasks))

    async def transcript(self, session: str) -> list[tuple[Any, ...]]:
        """What is stored of a session, as `View.transcript` shows it."""
        rows = await self.sql.fetch(
            "select row_to_json(m)::text as row from messages m where session_id = $1 order by ordinal", UUID(session)
        )

        return [entry(json.loads(row["row"])) for row in rows]

    async def terminal(self, *arguments: str, **settings: str) -> Terminal:
        """A command of coder on a terminal of its own."""
        terminal = Terminal(self.folder, *arguments, **{"database_url": self.dsn, **settings})
        self._stack.push_async_callback(terminal.close)
        return await terminal.open()

    def tab(self, url: str, **given: Any) -> Tab:
        tab = Tab(url, **given)
        self._stack.push_async_callback(tab.cut)
        return tab


@asynccontextmanager
async def live_house(dsn: str, folder: Path) -> AsyncIterator[LiveHouse]:
    async with AsyncExitStack() as stack:
        house = LiveHouse(dsn, folder, stack)
        await house.open()
        yield house
