"""A node keeps caches warm: what is due is sent, given up when a turn is near, and survives a restart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from nodebench import QUICK, House

from coder.errors import ProviderError
from coder.events import Usage
from coder.warming import Bounds

AHEAD = "select enabled and next_warm_at > clock_timestamp() from cache_warming"


@dataclass
class Cache:
    """A provider whose cache answers, or is silent until let go, or fails.

    Attributes:
        asked: the histories it was sent; given_up: how many of them nobody waited for to the end.
    """

    asked: list[tuple[str, str | None]] = field(default_factory=list)
    given_up: int = 0
    silent: asyncio.Event | None = None
    fails: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def warm(self, model_history: str, model: str | None, thinking: str | None) -> Usage:
        self.asked.append((model_history, model))
        self.changed.set()
        try:
            if self.silent is not None:
                await self.silent.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            self.changed.set()
            raise
        if self.fails:
            raise ProviderError("The endpoint answers 500; try again later.")
        return Usage(1000, 900, 1)

    async def close(self) -> None: ...

    async def until(self, asked: int, given_up: int = 0) -> None:
        async with asyncio.timeout(20):
            while len(self.asked) < asked or self.given_up < given_up:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def cache(house: House) -> Cache:
    house.cache = Cache()
    return house.cache


async def resting(house: House) -> UUID:
    """A session with a native turn behind it, whose cache is to be kept warm."""
    task = await house.add("remember this", model="m7")
    await house.ended(task)
    session = await house.session_of(task)
    assert await house.sql.fetchval("select coder.set_warming($1, true)", session)
    return session


async def due(house: House) -> None:
    await house.sql.execute("update cache_warming set next_warm_at = clock_timestamp() - interval '1 s' where enabled")
    await house.sql.execute("select pg_notify('warming', '')")


async def test_what_is_due_is_sent_and_the_next_is_ahead(house: House, cache: Cache) -> None:
    await house.node()
    await resting(house)
    assert cache.asked == []
    for count in (1, 2):
        await due(house)
        await house.until("select warms = $1 from cache_warming", count)
        assert await house.sql.fetchval(AHEAD)
    assert cache.asked == [('[{"role":"user","content":"remember"}]', "m7")] * 2
    row = await house.sql.fetchrow("select * from cache_warming")
    assert (row["input_tokens"], row["cached_tokens"], row["output_tokens"], row["last_cached_tokens"]) == (2000, 1800, 2, 900)


async def test_a_turn_that_is_near_has_a_warm_given_up_and_schedules_the_next(house: House, cache: Cache) -> None:
    cache.silent = asyncio.Event()
    await house.node()
    session = await resting(house)
    await due(house)
    await cache.until(1)
    task = await house.add("wait for it", session_id=session)
    await cache.until(1, 1)
    await house.agent.until("spoke wait for it")
    await due(house)
    house.agent.let_go("wait for it")
    await house.ended(task)
    assert await house.sql.fetchval("select warms from cache_warming") == 0
    assert len(cache.asked) == 1, "none while the turn ran"


@pytest.mark.parametrize("call", ["set_warming", "close_session"])
async def test_switching_off_and_closing_have_a_warm_given_up(house: House, cache: Cache, call: str) -> None:
    cache.silent = asyncio.Event()
    await house.node()
    session = await resting(house)
    await due(house)
    await cache.until(1)
    await house.sql.execute(f"select coder.{call}($1)", session)
    await cache.until(1, 1)
    assert await house.sql.fetchval("select not enabled and next_warm_at is null and warms = 0 from cache_warming")


async def test_closing_stops_it_and_aborts_the_turn(house: House, cache: Cache) -> None:
    await house.node()
    session = await resting(house)
    task = await house.add("wait for ever", session_id=session)
    await house.agent.until("spoke wait for ever")
    await house.sql.execute("select coder.close_session($1)", session)
    assert await house.ended(task) == ["cancelled"]
    assert await house.sql.fetchval("select not enabled from cache_warming")


async def test_a_restart_keeps_it(house: House, cache: Cache) -> None:
    node = await house.node()
    await resting(house)
    await node.stop()
    await due(house)
    await house.node()
    await house.until("select warms = 1 from cache_warming")
    assert await house.sql.fetchval(AHEAD)


async def test_of_two_nodes_one_sends_it(house: House, cache: Cache) -> None:
    await house.node()
    await house.node()
    await resting(house)
    for count in range(1, 6):
        await due(house)
        await house.until("select warms = $1 from cache_warming", count)
    assert len(cache.asked) == 5


async def test_a_failure_is_shown_and_tried_again_the_next_time(house: House, cache: Cache) -> None:
    cache.fails = True
    await house.node()
    await resting(house)
    await due(house)
    assert await house.until("select error from cache_warming") == "The endpoint answers 500; try again later."
    assert await house.sql.fetchval(AHEAD)
    cache.fails = False
    await due(house)
    await house.until("select warms = 1 and error is null from cache_warming")


async def test_it_stops_by_itself_at_its_ceiling_and_after_a_time_without_a_turn(house: House, cache: Cache) -> None:
    await house.node(replace(QUICK, warming=Bounds(tokens=1500, idle=3600)))
    session = await resting(house)
    for count in (1, 2):
        await due(house)
        await house.until("select warms = $1 from cache_warming", count)
    await due(house)
    assert await house.until("select stopped from cache_warming") == "tokens"
    assert await house.sql.fetchval("select not enabled and next_warm_at is null from cache_warming")
    assert await house.sql.fetchval("select coder.set_warming($1, true)", session)
    await house.sql.execute("update sessions set last_activity_at = now() - interval '2 hours'")
    await due(house)
    await house.until("select stopped = 'idle' from cache_warming")
    assert len(cache.asked) == 2


async def test_a_session_without_a_native_conversation_sends_nothing(house: House, cache: Cache) -> None:
    await house.node()
    task = await house.add("say nothing to remember")
    await house.ended(task)
    await house.sql.execute("select coder.set_warming($1, true)", await house.session_of(task))
    await due(house)
    await house.until(AHEAD)
    assert await house.sql.fetchval("select warms from cache_warming") == 0
    assert cache.asked == []
