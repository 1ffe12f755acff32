"""The LISTEN connection: it rings for what is notified and after every (re)subscription, and it notices when it has gone deaf."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from link import Link

from coder.postgres import listener as module
from coder.postgres.listener import CHANNELS, Listener, Silence
from coder.runtime.clock import SystemClock

SECONDS = 20.0


class Bells:
    """How often each channel rang, and a way to wait until it has."""

    def __init__(self) -> None:
        self.rung: Counter[str] = Counter()
        self._rang = asyncio.Event()

    def ring(self, channel: str) -> Callable[[], None]:
        def ring() -> None:
            self.rung[channel] += 1
            self._rang.set()

        return ring

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not enough():
                self._rang.clear()
                await self._rang.wait()


@asynccontextmanager
async def listening(dsn: str) -> AsyncIterator[tuple[Listener, Bells]]:
    listener, bells = Listener(dsn, SystemClock()), Bells()
    for channel in CHANNELS:
        listener.on(channel, bells.ring(channel))
    await listener.start()
    try:
        await bells.until(lambda: len(bells.rung) == len(CHANNELS))
        yield listener, bells
    finally:
        await listener.stop()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(module, "ECHO_SECONDS", 0.5)
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01,))


def notify(dsn: str, channel: str, payload: str = "") -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("select pg_notify(%s, %s)", [channel, payload])


async def test_each_channel_rings_its_own_bells_whatever_the_payload(database: str) -> None:
    async with listening(database) as (_, bells):
        assert bells.rung == dict.fromkeys(CHANNELS, 1), "every bell rings once at the subscription"
        for channel in CHANNELS:
            notify(database, channel, "nothing we believe")
            await bells.until(lambda channel=channel: bells.rung[channel] == 2)
        assert bells.rung == dict.fromkeys(CHANNELS, 2)
        notify(database, "somebody_else")


async def test_all_bells_of_a_channel_ring(database: str) -> None:
    listener, bells = Listener(database, SystemClock()), Bells()
    listener.on("tasks_new", bells.ring("a"))
    listener.on("tasks_new", bells.ring("b"))
    await listener.start()
    try:
        await bells.until(lambda: len(bells.rung) == 2)
    finally:
        await listener.stop()


@pytest.mark.usefixtures("quick")
async def test_a_terminated_connection_is_made_anew_and_every_bell_rings(database: str) -> None:
    async with listening(database) as (listener, bells):
        with psycopg.connect(database, autocommit=True) as admin:
            query = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'coder-listen' " \
                    "and datname = current_database()"  # fmt: skip
            assert admin.execute(query).fetchone() == (1,)
        await bells.until(lambda: listener.subscriptions >= 2 and min(bells.rung.values()) >= 2)
        before = bells.rung["tasks_new"]
        notify(database, "tasks_new")
        await bells.until(lambda: bells.rung["tasks_new"] > before)


@pytest.mark.usefixtures("quick")
async def test_a_cut_connection_is_made_anew(database: str) -> None:
    async with Link(database) as link, listening(link.dsn) as (listener, bells):
        link.cut()
        await bells.until(lambda: listener.subscriptions >= 2 and min(bells.rung.values()) >= 2)


@pytest.mark.usefixtures("quick")
async def test_a_connection_that_went_silent_is_noticed_by_the_missing_echo(database: str) -> None:
    async with Link(database) as link, listening(link.dsn) as (listener, bells):
        await link.connected(SECONDS)
        link.silence()
        await link.connected(SECONDS)
        link.restore()
        await bells.until(lambda: listener.subscriptions >= 2)
        before = bells.rung["tasks_new"]
        notify(database, "tasks_new")
        await bells.until(lambda: bells.rung["tasks_new"] > before)


@pytest.mark.usefixtures("quick")
async def test_a_server_that_is_not_there_yet_is_waited_for(database: str) -> None:
    async with Link(database) as link:
        link.silence()
        listener, bells = Listener(link.dsn, SystemClock()), Bells()
        listener.on("tasks_new", bells.ring("tasks_new"))
        await listener.start()
        try:
            await link.connected(SECONDS)
            link.cut()
            assert not bells.rung
            link.restore()
            await bells.until(lambda: bells.rung["tasks_new"] == 1)
        finally:
            await listener.stop()


async def test_starting_and_stopping_twice_or_never_does_no_harm(database: str) -> None:
    listener = Listener(database, SystemClock())
    await listener.stop()
    await listener.start()
    await listener.start()
    await listener.stop()
    await listener.stop()
    async with asyncio.timeout(SECONDS):
        with psycopg.connect(database) as connection:
            query = "select count(*) from pg_stat_activity where application_name = 'coder-listen' and datname = current_database()"
            while connection.execute(query).fetchone() != (0,):
                connection.execute("select pg_stat_clear_snapshot()")
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("quick")
async def test_stopping_works_at_whatever_moment_it_comes(database: str) -> None:
    """Together with the echo, too: a cancellation that is swallowed there is a service that never stops."""
    for _ in range(30):
        async with listening(database) as (_, bells):
            notify(database, "tasks_new")
            await bells.until(lambda bells=bells: bells.rung["tasks_new"] >= 2)


async def test_a_notification_is_heard_within_milliseconds(database: str) -> None:
    async with listening(database) as (_, bells):
        with psycopg.connect(database, autocommit=True) as connection:
            took = []
            for number in range(10):
                sent = time.monotonic()
                connection.execute("select pg_notify('tasks_new', '')")
                await bells.until(lambda number=number: bells.rung["tasks_new"] >= number + 2)
                took.append(time.monotonic() - sent)
        assert sorted(took)[5] < 0.5


async def test_without_a_connection_the_polls_do_the_work() -> None:
    silence, bells = Silence(), Bells()
    silence.on("tasks_new", bells.ring("tasks_new"))
    await silence.start()
    await silence.stop()
    assert not bells.rung
