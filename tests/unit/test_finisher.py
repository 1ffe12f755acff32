"""Grouped writes: who waits while one group commits shares the next; nobody suffers from another's fault; nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fake_clock import FakeClock

from coder.errors import Contended, Unavailable
from coder.runtime.finisher import AWAY_SECONDS, GROUP, LEFT_MOST_SECONDS, Group


class Writer:
    """Where groups are written: notes what came together, and fails as it is told."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.fault: Callable[[list[int]], Exception | None] = lambda items: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def write(self, items: list[int]) -> list[str]:
        self.groups.append(list(items))
        await self.gate.wait()
        if (fault := self.fault(items)) is not None:
            raise fault
        return [f"stored {item}" for item in items]


@asynccontextmanager
async def grouping() -> AsyncIterator[tuple[Writer, Group[int, str], FakeClock]]:
    writer, clock = Writer(), FakeClock()
    group: Group[int, str] = Group(writer.write, clock)
    group.start()
    try:
        async with asyncio.timeout(20):
            yield writer, group, clock
    finally:
        await group.stop()


async def test_one_alone_goes_at_once() -> None:
    async with grouping() as (writer, group, _):
        assert await group.put(1) == "stored 1"
        assert writer.groups == [[1]]


async def test_those_that_come_meanwhile_share_the_next_group_and_get_their_own_results() -> None:
    async with grouping() as (writer, group, clock):
        writer.gate.clear()
        waiting = [asyncio.create_task(group.put(1))]
        await clock.settle()
        waiting += [asyncio.create_task(group.put(number)) for number in range(2, 6)]
        await clock.settle()
        writer.gate.set()
        assert await asyncio.gather(*waiting) == [f"stored {number}" for number in range(1, 6)]
        assert writer.groups == [[1], [2, 3, 4, 5]]


async def test_a_group_has_a_bound() -> None:
    async with grouping() as (writer, group, _):
        await asyncio.gather(*[group.put(number) for number in range(GROUP + 5)])
        assert [len(each) for each in writer.groups] == [GROUP, 5]


async def test_a_bad_one_harms_nobody_else() -> None:
    async with grouping() as (writer, group, _):
        writer.fault = lambda items: ValueError("bad row") if 2 in items else None
        answers = await asyncio.gather(*[group.put(number) for number in (1, 2, 3)], return_exceptions=True)
        assert [str(answer) for answer in answers] == ["stored 1", "bad row", "stored 3"]
        assert writer.groups == [[1, 2, 3], [1], [2], [3]]
        assert await group.put(4) == "stored 4"


async def test_while_the_database_is_away_all_wait_for_it() -> None:
    async with grouping() as (writer, group, clock):
        writer.fault = lambda items: Unavailable("gone")
        waiting = [asyncio.create_task(group.put(number)) for number in (1, 2)]
        for _ in range(3):
            await clock.asleep(AWAY_SECONDS)
            await clock.advance(AWAY_SECONDS)
        assert not any(each.done() for each in waiting)
        writer.fault = lambda items: None
        await clock.asleep(AWAY_SECONDS)
        await clock.advance(AWAY_SECONDS)
        assert await asyncio.gather(*waiting) == ["stored 1", "stored 2"]


async def test_one_that_somebody_holds_is_tried_again_behind_the_others() -> None:
    async with grouping() as (writer, group, clock):
        writer.fault = lambda items: Contended("row locked") if 1 in items else None
        held = asyncio.create_task(group.put(1))
        await clock.asleep(LEFT_MOST_SECONDS)
        other = asyncio.create_task(group.put(2))
        await clock.settle()
        await clock.advance(LEFT_MOST_SECONDS)
        assert other.done()
        assert not held.done()
        assert writer.groups == [[1], [2, 1], [2], [1]]
        writer.fault = lambda items: None
        await clock.advance(LEFT_MOST_SECONDS)
        assert held.done()
        assert (held.result(), other.result()) == ("stored 1", "stored 2")


async def test_stopping_refuses_what_still_waits_and_what_comes_later() -> None:
    async with grouping() as (writer, group, clock):
        writer.gate.clear()
        waiting = [asyncio.create_task(group.put(1))]
        await clock.settle()
        waiting.append(asyncio.create_task(group.put(2)))
        await clock.settle()
        await group.stop()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)
        with pytest.raises(Unavailable, match="another node recovers the task"):
            await group.put(3)
        await group.stop()


async def test_who_no_longer_waits_does_not_stop_the_writer() -> None:
    async with grouping() as (writer, group, clock):
        writer.gate.clear()
        gone = asyncio.create_task(group.put(1))
        await clock.settle()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        writer.gate.set()
        assert await group.put(2) == "stored 2"
