"""A doorbell for one loop: no ring is lost, many rings count once, and without one the time runs out."""

from __future__ import annotations

import asyncio

import pytest
from fake_clock import FakeClock

from coder.runtime.wake import Wake


async def test_a_ring_before_the_wait_is_not_lost() -> None:
    wake = Wake(FakeClock())
    wake.wake()
    wake.wake()
    assert await wake.wait(60) is True


async def test_rings_in_between_count_once() -> None:
    clock = FakeClock()
    wake = Wake(clock)
    wake.wake()
    await wake.wait(60)
    waiting = asyncio.create_task(wake.wait(60))
    await clock.asleep(60)
    assert not waiting.done()
    wake.wake()
    wake.wake()
    assert await waiting is True


async def test_the_time_runs_out_without_a_ring() -> None:
    clock = FakeClock()
    waiting = asyncio.create_task(Wake(clock).wait(2))
    await clock.asleep(2)
    await clock.advance(1.9)
    assert not waiting.done()
    await clock.advance(0.2)
    assert await waiting is False


async def test_a_wait_that_is_cancelled_leaves_nothing_behind() -> None:
    clock = FakeClock()
    wake = Wake(clock)
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(wake.wait(2))
    await clock.asleep(2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await clock.settle()
    assert asyncio.all_tasks() == before
    assert clock.due() == []
