"""The one LISTEN connection of a process.

A notification is a doorbell: it carries no truth (on `frames` a hint where to look) and may be lost. So the listener
rings every bell itself after each (re)subscription, and tests its own ear: every 10 s it notifies itself and reconnects
when the echo does not come within 5 s, since a half-open socket is otherwise never noticed.
Source: PostgreSQL manual, NOTIFY and LISTEN.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import asyncpg
import structlog

from coder.ports import Clock
from coder.postgres.statements import load

STATEMENTS = load("server.sql")
CHANNELS = ("tasks_new", "tasks_cancel", "decisions_new", "permissions", "agents_probe", "frames", "warming")
PROBE_SECONDS = 10.0
ECHO_SECONDS = 5.0
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)

log = structlog.get_logger(__name__)


class Listener:
    """Implements `ports.Wakeups` on a connection of its own (never through a transaction pooler)."""

    def __init__(self, dsn: str, clock: Clock) -> None:
        self._dsn = dsn
        self._clock = clock
        self._rings: dict[str, list[Callable[[str], None]]] = {channel: [] for channel in CHANNELS}
        self._probe = f"coder_probe_{uuid4().hex}"
        self._echo = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.subscriptions = 0

    def on(self, channel: str, ring: Callable[[], None]) -> None:
        self._rings[channel].append(lambda _: ring())

    def on_hint(self, channel: str, ring: Callable[[str], None]) -> None:
        self._rings[channel].append(ring)

    async def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="listener")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._listen()
                failures = 0
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
                log.warning("the LISTEN connection broke; polling goes on until it is back", error=str(error) or type(error).__name__)
            await self._clock.sleep(RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
            failures += 1

    async def _listen(self) -> None:
        """Listen until the connection is closed or the echo stays away."""
        connection = await asyncpg.connect(
            self._dsn, timeout=10, command_timeout=ECHO_SECONDS, server_settings={"application_name": "coder-listen"}
        )
        try:
            if await connection.fetchval(STATEMENTS["is_standby"].sql):
                raise asyncpg.InterfaceError("this server is a standby, which cannot notify")
            for channel in (*CHANNELS, self._probe):
                await connection.add_listener(channel, self._heard)
            self.subscriptions += 1
            for rings in self._rings.values():
                for ring in rings:
                    ring("")
            while not connection.is_closed():
                self._echo.clear()
                await connection.execute(STATEMENTS["ring"].sql, self._probe)
                # Not wait_for: before Python 3.12 that swallows a cancellation which comes together with the echo.
                async with asyncio.timeout(ECHO_SECONDS):
                    await self._echo.wait()
                await self._pause(connection)
        finally:
            connection.terminate()

    async def _pause(self, connection: Any) -> None:
        """Wait until the next probe, or until the connection is lost."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        waits = {asyncio.create_task(self._clock.sleep(PROBE_SECONDS)), asyncio.create_task(lost.wait())}
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _heard(self, _connection: Any, _pid: int, channel: str, payload: str) -> None:
        if channel == self._probe:
            self._echo.set()
            return
        for ring in self._rings[channel]:
            ring(payload)


class Silence:
    """No LISTEN at all (behind a transaction pooler without a direct connection): the polls do the work."""

    def on(self, channel: str, ring: Callable[[], None]) -> None: ...

    def on_hint(self, channel: str, ring: Callable[[str], None]) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
