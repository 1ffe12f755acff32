"""The live view: from an agent's event to a watcher's socket, fan-out, and what an idle watcher costs.

Watchers are processes of their own (`watchers.py`), so that this process is the server alone.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any
from uuid import uuid4

import uvicorn

from coder.config import Settings
from coder.events import AgentEvent, TextDelta
from coder.frames import Delta, TurnStarted
from coder.ports import Turn
from coder.postgres.door import PostgresDoor
from coder.postgres.frames import PostgresFrames
from coder.postgres.listener import Listener
from coder.postgres.pool import open_pool
from coder.postgres.warming import PostgresWarming
from coder.runtime.clock import SystemClock
from coder.runtime.watching import Watching
from coder.web import protocol
from coder.web.app import build
from tests.agents.null import NullBackend, NullWorktrees
from tests.bench.bed import Bed, Queue
from tests.bench.figure import Figure, alternate
from tests.bench.turns import ended, node

SESSIONS, WATCHERS = 20, 200
BURST = 20
TEXT = "some words that a model says "


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[int]:
    """An ASGI application on loopback; answers the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1, **protocol.SETTINGS)
    )
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task


class Crowd:
    """Watchers in another process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, what: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        return json.loads(await self._process.stdout.readline())


@asynccontextmanager
async def crowd(port: int, count: int, sessions: list[str], path: str = "/api/v1/ws") -> AsyncIterator[Crowd]:
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    top = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.watchers", str(port), str(count), "0", path, cwd=top, limit=1 << 28, **pipes
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write((" ".join(sessions) + "\n").encode())
        assert (await process.stdout.readline()).strip() == b"open"
        yield Crowd(process)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def api(queue: Queue) -> AsyncIterator[tuple[Watching, int]]:
    """An API with its live view on a database; answers the view and the port."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        door, frames = await open_pool(queue.dsn, size=4, plan_anew=True), await open_pool(queue.dsn, size=4)
        stack.push_async_callback(door.close)
        stack.push_async_callback(frames.close)
        await queue.connection.execute(
            "insert into api_tokens (name, hash) values ('bench', $1) on conflict do nothing", hashlib.sha256(b"bench").digest()
        )
        watching, listener = Watching(PostgresFrames(frames), PostgresWarming(frames), clock, poll=2), Listener(queue.dsn, clock)
        stack.push_async_callback(listener.stop)
        await watching.start(listener)
        stack.push_async_callback(watching.stop)
        settings = Settings(_env_file=None, ping_seconds=3600)  # type: ignore[call-arg]
        yield watching, await stack.enter_async_context(serving(build(PostgresDoor(door, clock), settings, uuid4(), watching)))


async def watched(watching: Watching, sessions: list[str], count: int) -> None:
    """Wait until so many watch."""
    while sum(len(watching.hub.subscribers(session)) for session in sessions) < count:  # noqa: ASYNC110 - nobody rings
        await asyncio.sleep(0.01)


async def delays(bed: Bed, *, apart: bool) -> list[float]:
    """Milliseconds from an agent's event to the sockets of 200 watchers of 20 sessions, 20 deltas a second each.

    Args:
        apart: the API learns of the turns through the database alone, as one in another process does.
    """
    deltas = 40 if bed.quick else 200
    go = asyncio.Event()

    async def script(turn: Turn) -> AsyncIterator[AgentEvent]:
        yield TextDelta("here")
        await go.wait()
        await asyncio.sleep(turn.task_id % SESSIONS * 0.05 / SESSIONS)  # agents do not speak in chorus
        for number in range(deltas):
            await asyncio.sleep(0.05)
            yield TextDelta(f"@{time.clock_gettime(time.CLOCK_MONOTONIC):.6f}@ {TEXT}{number}")

    async with bed.database() as queue, api(queue) as (watching, port):
        await queue.fill(SESSIONS)
        sessions = [str(row["id"]) for row in await queue.connection.fetch("select id from sessions")]
        told = None if apart else watching
        async with (
            node(queue, bed.place, NullWorktrees(), NullBackend(script), SESSIONS, told),
            crowd(port, WATCHERS, sessions) as watchers,
        ):
            await watched(watching, sessions, WATCHERS)
            go.set()
            await ended(queue)
            await asyncio.sleep(0.5)
            found: list[float] = await watchers.ask("delays")
    assert len(found) >= 0.99 * SESSIONS * deltas * WATCHERS / SESSIONS, "every watcher got every delta"
    return found


async def streaming(bed: Bed) -> list[Figure]:
    """Insert to claimed while 100 sessions stream 50 deltas a second each, to one watcher each, in the same process."""
    sessions, rounds = 100, 50 if bed.quick else 300
    over = asyncio.Event()

    async def script(turn: Turn) -> AsyncIterator[AgentEvent]:
        yield TextDelta("here")
        if turn.task_id <= sessions:
            await asyncio.sleep(turn.task_id % sessions * 0.02 / sessions)
            while not over.is_set():
                await asyncio.sleep(0.02)
                yield TextDelta(TEXT)

    async with bed.database() as queue, api(queue) as (watching, port):
        await queue.fill(sessions)
        watched_ids = [str(row["id"]) for row in await queue.connection.fetch("select id from sessions")]
        async with (
            node(queue, bed.place, NullWorktrees(), NullBackend(script), sessions + 16, watching),
            crowd(port, sessions, watched_ids) as watchers,
        ):
            await watched(watching, watched_ids, sessions)
            before, started = await watchers.ask("count"), time.monotonic()
            found = []
            for _ in range(rounds):
                task = await queue.connection.fetchval("insert into tasks (project_id, input) values ($1, 'x') returning id", queue.project)
                claimed = "select extract(epoch from claimed_at - created_at) from tasks where id = $1 and ended_at is not null"
                while (seconds := await queue.connection.fetchval(claimed, task)) is None:  # noqa: ASYNC110 - a fact of the database
                    await asyncio.sleep(0.01)
                found.append(float(seconds) * 1000)
            rate = (await watchers.ask("count") - before) / (time.monotonic() - started)
            over.set()
            await ended(queue)
    return [
        Figure("insert to claimed while 100 sessions stream, p50", median(found), "ms"),
        Figure("insert to claimed while 100 sessions stream, p99", quantiles(found, n=100)[98], "ms", target=25),
        Figure("frames that reached the watchers meanwhile", rate, "/s"),
    ]


class Broadcast:
    """The floor: bare uvicorn, a queue for each socket that is drained into one array."""

    def __init__(self) -> None:
        self.queues: list[asyncio.Queue[bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.queues.append(queue)
        gone = asyncio.ensure_future(receive())
        gone.add_done_callback(lambda _: queue.put_nowait(b""))
        while frame := await queue.get():
            frames = [frame]
            while not queue.empty():
                frames.append(queue.get_nowait())
            await send({"type": "websocket.send", "text": (b"[" + b",".join(frames) + b"]").decode()})


async def fan_out(bed: Bed) -> list[Figure]:
    """Frames to 50 watchers of one session per second of this process's CPU, so what one core does, against a bare broadcast
    of the same bytes."""
    count, frames, rounds = 50, 2000, 3 if bed.quick else 5
    broadcast = Broadcast()
    async with AsyncExitStack() as stack:
        queue = await stack.enter_async_context(bed.database())
        watching, port = await stack.enter_async_context(api(queue))
        bare_port = await stack.enter_async_context(serving(broadcast))
        await queue.fill(1)
        session = str(await queue.connection.fetchval("select id from sessions"))
        watchers = await stack.enter_async_context(crowd(port, count, [session]))
        bare_watchers = await stack.enter_async_context(crowd(bare_port, count, [], "/"))
        await watched(watching, [session], count)
        watching.hub.start_turn(TurnStarted(session, 1, 1, str(uuid4()), "native", 1, ""), local=True)
        clients = list(watching.clients._clients.values())

        async def rate(told: Crowd, publish: Any, backlog: Any) -> float:
            before, started = await told.ask("count"), time.process_time()
            for number in range(frames):
                publish(number)
                if number % BURST == BURST - 1:
                    await asyncio.sleep(0)
                    while backlog() > 1000:  # noqa: ASYNC110 - let the senders run
                        await asyncio.sleep(0)
            while await told.ask("count") < before + count * frames:  # noqa: ASYNC110 - it is asked for
                await asyncio.sleep(0.05)
            return count * frames / (time.process_time() - started)

        def tell(number: int) -> None:
            # Two parts in turn, so that no two neighbours are merged and each frame is a frame.
            watching.hub.publish(Delta(session, 1, 1 + number % 2, TEXT))

        def throw(number: int) -> None:
            content = b'{"seq":%d,' % number + json.dumps(Delta(session, 1, 1 + number % 2, TEXT).wire()).encode()[1:]
            for each in broadcast.queues:
                each.put_nowait(content)

        result = await alternate(
            lambda: rate(bare_watchers, throw, lambda: max(each.qsize() for each in broadcast.queues)),
            lambda: rate(watchers, tell, lambda: max(client.outbox.waiting for client in clients)),
            rounds,
        )
    return [result.figure("fan-out to 50 watchers", "frames/s", "bare uvicorn broadcast of the same bytes", ">=", 0.6)]


def resident() -> int:
    """Bytes of this process in memory."""
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096


async def idle(bed: Bed) -> list[Figure]:
    """What a watcher costs that nothing is told."""
    count = 200 if bed.quick else 500
    async with bed.database() as queue, api(queue) as (watching, port):
        await queue.fill(SESSIONS)
        sessions = [str(row["id"]) for row in await queue.connection.fetch("select id from sessions")]
        async with crowd(port, 5, sessions):
            await watched(watching, sessions, 5)
        gc.collect()
        before = resident()
        async with crowd(port, count, sessions):
            await watched(watching, sessions, count)
            gc.collect()
            used = (resident() - before) / count / 1024
    return [Figure("an idle watcher", used, "KB", target=50)]


async def live(bed: Bed) -> list[Figure]:
    """All figures of the live view."""
    figures = await idle(bed)  # first, since memory that was used once is used again
    for apart, name, p50, p99 in ((False, "event to socket", 2, 20), (True, "event to socket through the database", None, 120)):
        found = await delays(bed, apart=apart)
        figures.append(Figure(f"{name}, p50", median(found), "ms", target=p50))
        figures.append(Figure(f"{name}, p99", quantiles(found, n=100)[98], "ms", target=p99))
    return [*figures, *await streaming(bed), *await fan_out(bed)]
