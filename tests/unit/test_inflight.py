"""Handles of running turns: stopping ends the cancellable part once, for the first reason, and only that."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from coder.ports import Claimed
from coder.runtime.inflight import Inflight, Running, Stop, Stopped
from coder.runtime.slots import Seat, Slots
from coder.task import Project, Task

ID = UUID(int=1)


def claimed(number: int) -> Claimed:
    task = Task(number, 100 + number, 1, 3, ID, ID, Project(ID, "p", "/p", "native"), "x", None, None, None, None, None, None, (), None)
    return Claimed(task, None)


async def forever() -> None:
    await asyncio.Event().wait()


async def yielded(times: int = 5) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_part_that_is_not_stopped_answers() -> None:
    async def part() -> int:
        return 7

    assert await Running(claimed(1), Seat(Slots(1))).stoppable(part()) == 7


async def test_stopping_ends_the_part_and_the_first_reason_counts() -> None:
    running = Running(claimed(1), Seat(Slots(1)))
    left: list[str] = []

    async def part() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)  # an agent takes its time to end
            left.append("cleaned up")

    turn = asyncio.create_task(running.stoppable(part()))
    await yielded()
    running.stop(Stop.USER)
    running.stop(Stop.SHUTDOWN)
    with pytest.raises(Stopped) as caught:
        await turn
    assert (caught.value.why, left) == (Stop.USER, ["cleaned up"])


async def test_a_turn_stopped_before_its_part_began_never_begins_it() -> None:
    running = Running(claimed(1), Seat(Slots(1)))
    running.stop(Stop.SHUTDOWN)
    with pytest.raises(Stopped):
        await running.stoppable(forever())


async def test_what_fails_while_it_is_stopped_was_stopped_and_what_fails_by_itself_failed() -> None:
    async def stubborn() -> None:
        try:
            await forever()
        finally:
            raise ValueError("the connection is gone")

    running = Running(claimed(1), Seat(Slots(1)))
    turn = asyncio.create_task(running.stoppable(stubborn()))
    await yielded()
    running.stop(Stop.USER)
    with pytest.raises(Stopped):
        await turn

    async def broken() -> None:
        raise ValueError("by itself")

    with pytest.raises(ValueError, match="by itself"):
        await Running(claimed(1), Seat(Slots(1))).stoppable(broken())


async def test_a_part_that_completes_although_it_is_stopped_has_completed() -> None:
    async def deaf() -> str:
        try:
            await forever()
        except asyncio.CancelledError:
            return "done all the same"
        raise AssertionError

    running = Running(claimed(1), Seat(Slots(1)))
    turn = asyncio.create_task(running.stoppable(deaf()))
    await yielded()
    running.stop(Stop.USER)
    assert await turn == "done all the same"


async def test_cancelling_the_turn_itself_waits_until_its_part_has_let_go() -> None:
    let_go = asyncio.Event()

    async def part() -> None:
        try:
            await forever()
        finally:
            await yielded()
            let_go.set()

    turn = asyncio.create_task(Running(claimed(1), Seat(Slots(1))).stoppable(part()))
    await yielded()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert let_go.is_set()


class House:
    """Turns that run until they are stopped or told to end."""

    def __init__(self) -> None:
        self.inflight = Inflight(Slots(8))
        self.rung = 0
        self.inflight.on_ended(self.ring)
        self.ends: dict[int, asyncio.Event] = {}
        self.stopped: dict[int, Stop] = {}

    def ring(self) -> None:
        self.rung += 1

    async def execute(self, running: Running) -> None:
        task = running.claimed.task.id
        self.ends[task] = asyncio.Event()
        try:
            await running.stoppable(self.ends[task].wait())
        except Stopped as stopped:
            self.stopped[task] = stopped.why

    def start(self, *tasks: int) -> None:
        for task in tasks:
            self.inflight.start(claimed(task), self.execute)


async def test_turns_are_stopped_by_name_or_all() -> None:
    house = House()
    house.start(1, 2, 3)
    assert (len(house.inflight), house.inflight.ids()) == (3, {1, 2, 3})
    await yielded()
    house.inflight.stop(Stop.USER, {2, 99})
    await yielded(10)
    assert (house.stopped, house.rung, house.inflight.ids()) == ({2: Stop.USER}, 1, {1, 3})
    house.inflight.stop(Stop.SHUTDOWN)
    await house.inflight.empty()
    assert house.stopped == {2: Stop.USER, 1: Stop.SHUTDOWN, 3: Stop.SHUTDOWN}
    assert (len(house.inflight), house.rung) == (0, 3)


async def test_waiting_for_none_waits_for_those_that_start_meanwhile() -> None:
    house = House()
    house.start(1)
    empty = asyncio.create_task(house.inflight.empty())
    await yielded()
    house.start(2)
    await yielded()
    house.ends[1].set()
    await yielded(10)
    assert not empty.done()
    house.ends[2].set()
    await empty


async def test_one_turn_that_breaks_takes_no_other_along(caplog: pytest.LogCaptureFixture) -> None:
    house = House()

    async def break_down(running: Running) -> None:
        raise ValueError("a fault of ours")

    unseen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
    house.start(1)
    house.inflight.start(claimed(2), break_down)
    await yielded(10)
    assert (house.inflight.ids(), house.rung) == ({1}, 1)
    house.ends[1].set()
    await house.inflight.empty()


async def test_the_same_task_under_another_epoch_is_another_turn() -> None:
    """Its first turn still cleans up after a lost lease when the second is claimed."""
    house = House()
    first = claimed(1)
    house.inflight.start(first, house.execute)
    second = Claimed(Task(**{name: getattr(first.task, name) for name in first.task.__slots__} | {"epoch": 999}), None)
    house.inflight.start(second, house.execute)
    assert len(house.inflight) == 2
    assert sorted(house.inflight.epochs()) == [101, 999]
    await yielded()
    house.inflight.stop(Stop.USER)
    await house.inflight.empty()


async def test_a_drain_ends_those_that_wait_for_a_person_now_or_later() -> None:
    now, later, never = (Running(claimed(number), Seat(Slots(1))) for number in (1, 2, 3))
    with now.asking():
        for running in (now, later, never):
            running.drain()
        assert (now.why, later.why, never.why) == (Stop.SHUTDOWN, None, None)
    with later.asking():
        assert later.why is Stop.SHUTDOWN
    assert never.why is None
