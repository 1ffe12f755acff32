"""The service of one process: database, node, API, in the order they start, and back in the order they stop.

Roles: `all` is API and dispatcher in one process; `api` and `dispatch` are one of them, on the same database.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import uvicorn

from coder.backends.guardian import Guardians
from coder.backends.limits import Limits
from coder.backends.native_warm import NativeCache
from coder.backends.project_commands import GuardedCommands
from coder.backends.registry import build_backends, make_sandbox, read_registry
from coder.config import Role, Settings
from coder.errors import Unavailable
from coder.git.checkout import find_checkout
from coder.git.compare import compare
from coder.git.worktrees import GitWorktrees
from coder.host.identity import host_id, host_name
from coder.host.logbook import FileLogbook
from coder.host.loop import run
from coder.host.slot import take, wait, write
from coder.ports import Backend, Door, Wakeups
from coder.postgres.changes import PostgresChanges
from coder.postgres.door import PostgresDoor
from coder.postgres.embedded import EmbeddedServer
from coder.postgres.frames import PostgresFrames
from coder.postgres.listener import Listener, Silence
from coder.postgres.permissions import PostgresPermissions
from coder.postgres.pool import open_pool
from coder.postgres.schema import migrate
from coder.postgres.tasks import PostgresTasks
from coder.postgres.warming import PostgresWarming
from coder.runtime.clock import SystemClock
from coder.runtime.node import Node, Pace, Worlds
from coder.runtime.watching import Watching
from coder.warming import Bounds
from coder.web import page, protocol
from coder.web.app import build
from coder.where import data_dir

TOKEN_BYTES = 32
GRACEFUL_SECONDS = 5
QUEUE_CONNECTIONS = 4
DOOR_CONNECTIONS = 8
FRAMES_CONNECTIONS = 4

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ready:
    """What whoever started the service needs to know. The token is None unless it was made just now; the panel's address lets a
    browser in, once."""

    url: str | None
    panel: str | None
    token: str | None
    database_url: str


def prepare_logging(settings: Settings) -> None:
    """Logs go to standard error, one line an event; standard output is for what people asked for."""
    last: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")


class SignalFreeServer(uvicorn.Server):
    """uvicorn without its signal handlers: the service decides when to stop."""

    def capture_signals(self) -> Any:
        return nullcontext()


class Service:
    """Args: backends: instead of the usual ones, by agent name (measurements and tests bring their own)."""

    def __init__(self, settings: Settings, role: Role, backends: Callable[[Guardians], Mapping[str, Backend]] | None = None) -> None:
        self._settings = settings
        self._role = role
        self._backends = backends
        self._embedded: EmbeddedServer | None = None
        self._clock = SystemClock()
        self._local = secrets.token_urlsafe(TOKEN_BYTES)
        self.host = host_id(data_dir(settings))

    def run(self, ready: Callable[[Ready], Awaitable[None]]) -> int:
        """Start everything, say so, serve until SIGTERM or SIGINT; answers the exit code. Call it from the main thread."""
        prepare_logging(self._settings)
        if self._role != "api":
            read_registry(self._settings)  # who has a broken one hears it at once, and nothing has been started
        for folder in (data_dir(self._settings), data_dir(self._settings) / "worktrees", data_dir(self._settings) / "logs"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._settings.database_url is None:
            self._embedded = EmbeddedServer(data_dir(self._settings))
            self._embedded.start()
        try:
            dsn = self._settings.database_url.get_secret_value() if self._settings.database_url else self.embedded_dsn()
            migrate(dsn)
            run(self._serve(dsn, ready))
        finally:
            if self._embedded is not None:
                self._embedded.stop()
        return 0

    def embedded_dsn(self) -> str:
        assert self._embedded is not None, "only asked for where the embedded server was started"
        return self._embedded.dsn

    async def _serve(self, dsn: str, ready: Callable[[Ready], Awaitable[None]]) -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        async with AsyncExitStack() as stack:
            note = await stack.enter_async_context(self._note())
            if self._embedded is not None:  # attached ones too: the first to notice becomes its next owner
                keeper = asyncio.create_task(self._keep(self._embedded), name="embedded-postgres")
                stack.callback(keeper.cancel)
            pool = await open_pool(dsn, size=DOOR_CONNECTIONS, plan_anew=True, name="coder-door")
            stack.push_async_callback(pool.close)
            door = PostgresDoor(pool, self._clock)
            queue = await open_pool(dsn, size=QUEUE_CONNECTIONS, name="coder-queue")
            stack.push_async_callback(queue.close)
            lease = await open_pool(dsn, size=1, name="coder-lease")
            stack.push_async_callback(lease.close)
            told = await open_pool(dsn, size=FRAMES_CONNECTIONS, name="coder-frames")
            stack.push_async_callback(told.close)
            tasks, frames = PostgresTasks(queue, lease), PostgresFrames(told)
            await tasks.register_host(self.host, host_name())
            listen = self._settings.listen_url.get_secret_value() if self._settings.listen_url else dsn
            wakeups: Wakeups = Silence() if listen == "off" else Listener(listen, self._clock)
            stack.push_async_callback(wakeups.stop)
            url, watching = None, None
            # The node last, so that it is the first to stop: it claims nothing from then on, and while it drains the API still answers.
            if self._role != "dispatch":
                watching = Watching(frames, PostgresWarming(told), self._clock, poll=self._settings.poll_seconds)
                stack.push_async_callback(watching.stop)
                await watching.start(wakeups)
                url = await stack.enter_async_context(self._web(door, watching))
                note(url)
            if self._role != "api":
                permissions = PostgresPermissions(queue)
                changes, warming = PostgresChanges(queue), PostgresWarming(queue)
                await stack.enter_async_context(self._node(tasks, changes, permissions, frames, warming, wakeups, watching))
            # Made last, so that one that is shown once is not lost to something that did not start.
            token = await self._ensure_token(door)
            await ready(Ready(url, await self._panel(door, url), token, dsn))
            await stop.wait()
            log.info("stopping", drain_seconds=self._settings.drain_seconds)

    async def _keep(self, server: EmbeddedServer) -> None:
        """Start the embedded server again whenever it dies under us."""
        while True:
            await server.wait()
            log.error("the embedded PostgreSQL ended unexpectedly; starting it again", log=str(server.log_path))
            try:
                server.start()
            except Unavailable as error:
                log.error("the embedded PostgreSQL does not start", why=error.message)
                await self._clock.sleep(self._settings.poll_seconds)

    async def _ensure_token(self, door: Door) -> str | None:
        """The configured admin token, or one made at the first start; answers it only when it was made just now."""
        if self._settings.admin_token is not None:
            await door.row("token_add", name="admin", hash=digest(self._settings.admin_token.get_secret_value()))
            return None
        if (await door.row("token_count"))["tokens"]:
            return None
        token = secrets.token_urlsafe(TOKEN_BYTES)
        await door.row("token_add", name="admin", hash=digest(token))
        return token

    async def _panel(self, door: Door, url: str | None) -> str | None:
        """The panel's address with a code that lets a browser in."""
        if url is None or not (page.BUILT / "index.html").is_file():
            return None
        address, code = login_link(url)
        return address if await door.rows("login_link", hash=code, name="admin") else None

    @asynccontextmanager
    async def _node(
        self,
        tasks: PostgresTasks,
        changes: PostgresChanges,
        permissions: PostgresPermissions,
        frames: PostgresFrames,
        warming: PostgresWarming,
        wakeups: Wakeups,
        watching: Watching | None,
    ) -> AsyncIterator[Node]:
        settings, where = self._settings, data_dir(self._settings)
        slot = take(where)
        guardians = Guardians(lock_fd=slot.fd, limits=Limits(settings.agent_memory_bytes, settings.agent_processes))
        homes, sandbox = where / "homes" / slot.path.stem, make_sandbox(settings)
        worlds = Worlds(
            tasks=tasks,
            changes=changes,
            worktrees=GitWorktrees(where),
            backends=self._backends(guardians) if self._backends else build_backends(settings, guardians, homes, sandbox, self._clock),
            guards=guardians,
            wakeups=wakeups,
            logbook=FileLogbook(where),
            commands=GuardedCommands(guardians, sandbox, homes / "setup"),
            clock=self._clock,
            permissions=permissions,
            frames=frames,
            warming=warming,
            cache=NativeCache(settings),
        )
        pace = Pace(
            slots=settings.max_turns,
            poll=settings.poll_seconds,
            lease=settings.lease_seconds,
            beat=settings.beat_seconds,
            drain=settings.drain_seconds,
            silent=settings.inactivity_seconds,
            tool=settings.tool_seconds,
            retention=settings.retention_days * 86400,
            answer=settings.permission_seconds,
            checks=settings.max_checks,
            warming=Bounds(settings.warming_tokens, settings.warming_idle_seconds),
        )
        node = Node(worlds, pace, self.host, slot.remember, watching)
        try:
            await node.start(slot.crashed)
            yield node
        finally:
            await node.stop()
            slot.release()

    @asynccontextmanager
    async def _web(self, door: Door, watching: Watching) -> AsyncIterator[str]:
        """Serve the API; answers its address. The socket is bound here, since uvicorn would end the process when it cannot."""
        host, port = self._settings.host, self._settings.port
        try:
            listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            raise Unavailable(
                f"The API cannot listen on {host}:{port} ({error.strerror}); set CODER_PORT or CODER_HOST to a free one."
            ) from error
        config = uvicorn.Config(
            build(door, self._settings, self.host, watching, page.BUILT, digest(self._local), find_checkout, compare),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACEFUL_SECONDS,
            **protocol.SETTINGS,
        )
        server = SignalFreeServer(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]), name="api")
        try:
            while not server.started:
                if serving.done():
                    raise Unavailable("The API ended while it started; look at the log above.")
                await asyncio.wait({serving}, timeout=0.01)
            host, port = listening.getsockname()[:2]
            yield f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
        finally:
            server.should_exit = True
            await asyncio.gather(serving, return_exceptions=True)

    @asynccontextmanager
    async def _note(self) -> AsyncIterator[Callable[[str], None]]:
        """Say in the data directory who serves it, for `coder down` and `coder watch`; it is true as long as the file is locked.

        Answers how to add where the API is, with its token: only the file's owner can read it, who may do anything here anyway."""
        path = service_file(self._settings, self._role)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not wait(fd, time.sleep):
                raise Unavailable(f"coder already runs on this data directory ({path} is locked); stop it with `coder down` first.")
            noted: dict[str, object] = {"pid": os.getpid(), "role": self._role}
            write(fd, noted)
            try:
                yield lambda url: write(fd, {**noted, "url": url, "token": self._local})
            finally:
                path.unlink(missing_ok=True)
        finally:
            os.close(fd)


def service_file(settings: Settings, role: str) -> Path:
    return data_dir(settings) / f"service-{role}.json"


def login_link(url: str) -> tuple[str, bytes]:
    """The panel's address with a fresh code, which no server and no log gets to see, and what is stored of the code."""
    code = secrets.token_urlsafe(TOKEN_BYTES)
    return f"{url}#login={code}", digest(code)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
