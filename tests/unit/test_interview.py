"""A node waits for answers through outages of the database and errors nobody foresaw; the deadline waits for whoever is just answering."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from fake_clock import FakeClock

from coder.errors import Unavailable
from coder.events import Question
from coder.permission import Answer, Ruling
from coder.ports import Asked
from coder.runtime.asking import AGAIN_SECONDS, Asking
from coder.task import Project, Task

ID = UUID(int=1)
TASK = Task(1, 2, 1, 3, ID, ID, Project(ID, "shop", "/srv/shop", "native"), "x", None, None, None, None, None, None, (), None)
WHICH = Question("1", "Which?")


class Store:
    """Answers what the test puts there; raises what it puts there first."""

    def __init__(self) -> None:
        self.faults: list[Exception] = []
        self.found: dict[UUID, Answer] = {}
        self.settled: list[Ruling] = []
        self.answering = False
        self.asks = 0

    def _may_fail(self) -> None:
        if self.faults:
            raise self.faults.pop(0)

    async def ask(self, *_: object) -> Asked:
        self.asks += 1
        self._may_fail()
        return Asked(uuid4(), None)

    async def answers(self, asked: list[UUID]) -> dict[UUID, Answer]:
        self._may_fail()
        return {each: self.found[each] for each in asked if each in self.found}

    async def settle(self, asked: UUID, task: Task, ruling: Ruling) -> Answer | None:
        self.settled.append(ruling)
        return None if self.answering else ruling.answer


class Bench:
    def __init__(self) -> None:
        self.clock, self.store = FakeClock(), Store()
        self.asking = Asking(self.store, self.clock, seconds=60, poll=2)  # type: ignore[arg-type]

    def wait(self) -> tuple[UUID, asyncio.Task[Answer]]:
        request = uuid4()
        return request, asyncio.create_task(self.asking.answered(request, TASK, WHICH, Path("/w")))


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def until(clock: FakeClock, seconds: float, happened: Callable[[], bool]) -> None:
    for _ in range(int(seconds * 4)):
        if happened():
            return
        await clock.advance(0.25)
    assert happened()


async def test_asking_outlives_an_outage(bench: Bench) -> None:
    bench.store.faults = [Unavailable("away."), Unavailable("away.")]
    asked = asyncio.create_task(bench.asking.asked(TASK, "goose", WHICH, None))
    await bench.clock.settle()
    await bench.clock.advance(AGAIN_SECONDS)
    assert not asked.done()
    await bench.clock.advance(AGAIN_SECONDS)
    assert (await asked)[1] is None
    assert bench.store.asks == 3


@pytest.mark.parametrize("fault", [Unavailable("away."), ValueError("nobody foresaw this")])
async def test_looking_for_answers_outlives_whatever_happens(bench: Bench, fault: Exception) -> None:
    bench.asking.start()
    request, waiting = bench.wait()
    await bench.clock.settle()
    bench.store.faults = [fault]
    bench.store.found[request] = Answer(True)
    await until(bench.clock, 10, waiting.done)
    assert await waiting == Answer(True)
    await bench.asking.stop()


async def test_a_bell_is_enough(bench: Bench) -> None:
    bench.asking.start()
    request, waiting = bench.wait()
    await bench.clock.settle()
    bench.store.found[request] = Answer(True)
    bench.asking.wake()
    await bench.clock.settle()
    assert waiting.done(), "no time has passed"
    await bench.asking.stop()


async def test_the_deadline_waits_for_somebody_who_is_just_answering(bench: Bench) -> None:
    bench.asking.start()
    request, waiting = bench.wait()
    await bench.clock.settle()
    bench.store.answering = True
    await bench.clock.advance(65)
    assert bench.store.settled
    assert not waiting.done()
    bench.store.found[request] = Answer(True, None, ("red",))
    await until(bench.clock, 5, waiting.done)
    assert (await waiting).answers == ("red",)
    await bench.asking.stop()


async def test_who_stops_waiting_is_not_looked_for_any_more(bench: Bench) -> None:
    bench.asking.start()
    _, waiting = bench.wait()
    await bench.clock.settle()
    waiting.cancel()
    await bench.clock.advance(100)
    assert bench.store.settled == []
    await bench.asking.stop()
