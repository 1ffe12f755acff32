"""Slots of a node: never more than there are, and who goes on comes before who begins."""

from __future__ import annotations

import asyncio

import pytest
from fake_clock import FakeClock

from coder.runtime.slots import Seat, Slots
from coder.runtime.watchdog import Pulse


class Waiter:
    """A turn that waits without its slot until it is let go."""

    def __init__(self, seat: Seat, pulse: Pulse) -> None:
        self.gate = asyncio.Event()
        self.task = asyncio.create_task(self._wait(seat, pulse))

    async def _wait(self, seat: Seat, pulse: Pulse) -> None:
        async with seat.given_back(pulse):
            await self.gate.wait()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def seated(slots: Slots) -> Seat:
    slots.take(1)
    return Seat(slots)


async def test_a_wait_frees_its_slot_and_the_end_of_it_takes_one(clock: FakeClock) -> None:
    slots = Slots(1)
    seat = seated(slots)
    assert slots.free == 0
    waiter = Waiter(seat, Pulse(clock))
    await clock.settle()
    assert slots.free == 1
    waiter.gate.set()
    await waiter.task
    assert slots.free == 0
    seat.leave()
    seat.leave()
    assert slots.free == 1


async def test_who_goes_on_comes_first_in_order_and_nothing_is_free_meanwhile(clock: FakeClock) -> None:
    slots = Slots(2)
    rung: list[int] = []
    waiters = [Waiter(seated(slots), Pulse(clock)) for _ in range(2)]
    await clock.settle()
    slots.on_freed(lambda: rung.append(1))
    slots.take(2)
    for waiter in waiters:
        waiter.gate.set()
        await clock.settle()
    assert not any(waiter.task.done() for waiter in waiters)
    slots.give()
    await clock.settle()
    assert [waiter.task.done() for waiter in waiters] == [True, False]
    assert (slots.free, rung) == (0, [])
    slots.give()
    await waiters[1].task
    assert (slots.free, rung) == (0, [])
    slots.give()
    assert (slots.free, rung) == (1, [1])


async def test_a_turn_that_is_ended_while_it_stands_in_line_leaves_no_trace(clock: FakeClock) -> None:
    slots = Slots(1)
    first, second = Waiter(seated(slots), Pulse(clock)), None
    await clock.settle()
    second = Waiter(seated(slots), Pulse(clock))
    await clock.settle()
    slots.take(1)
    for waiter in (first, second):
        waiter.gate.set()
        await clock.settle()
    first.task.cancel()
    await clock.settle()
    slots.give()
    await clock.settle()
    assert second.task.done()
    assert not second.task.cancelled()
    assert slots.free == 0
    slots.give()
    assert slots.free == 1


async def test_a_slot_that_was_handed_over_to_a_turn_that_is_ended_goes_on(clock: FakeClock) -> None:
    slots = Slots(1)
    waiter = Waiter(seated(slots), Pulse(clock))
    await clock.settle()
    slots.take(1)
    waiter.gate.set()
    await clock.settle()
    slots.give()  # handed over, and in the same moment
    waiter.task.cancel()
    await clock.settle()
    assert waiter.task.cancelled()
    assert slots.free == 1


async def test_several_waits_of_a_turn_give_back_once_and_the_last_takes_one(clock: FakeClock) -> None:
    slots = Slots(1)
    seat, pulse = seated(slots), Pulse(clock)
    waiters = [Waiter(seat, pulse) for _ in range(3)]
    await clock.settle()
    for waiter in waiters:
        assert slots.free == 1
        waiter.gate.set()
        await clock.settle()
    assert all(waiter.task.done() for waiter in waiters)
    assert slots.free == 0


async def test_a_wait_that_begins_while_another_stands_in_line_keeps_the_clocks_still(clock: FakeClock) -> None:
    slots = Slots(1)
    seat, pulse = seated(slots), Pulse(clock)
    first = Waiter(seat, pulse)
    await clock.settle()
    slots.take(1)
    first.gate.set()
    await clock.settle()
    second = Waiter(seat, pulse)
    await clock.advance(100)
    slots.give()
    await clock.settle()
    assert first.task.done()
    assert slots.free == 1, "the second waits still"
    assert pulse.heard == 1000, "no time has passed for the turn"
    await clock.advance(50)
    second.gate.set()
    await second.task
    assert (pulse.started, pulse.heard, slots.free) == (1150, 1150, 0)


async def test_what_a_claim_does_not_need_rings_nobody() -> None:
    slots = Slots(3)
    rung: list[int] = []
    slots.on_freed(lambda: rung.append(1))
    slots.take(3)
    slots.give(2, ring=False)
    assert (slots.free, rung) == (2, [])
