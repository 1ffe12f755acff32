"""Turns that are silent or late are ended, once, for the right reason; a running tool has its own limit."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_clock import FakeClock

from coder.runtime.inflight import Stop
from coder.runtime.watchdog import Limits, Pulse, watch

LIMITS = Limits(silent=180, tool=3600, whole=None)


class Turn:
    """What the watchdog sees of a turn."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.clock = FakeClock()
        self.pulse = Pulse(self.clock)
        self.tool = False
        self.stopped: list[Stop] = []
        self.news: list[bool] = []
        self.asked = 0
        self.fails: Exception | None = None
        self.reconcile_slowly = False
        self.task = asyncio.create_task(watch(self.clock, self.pulse, limits, lambda: self.tool, self.reconcile, self.stopped.append))

    async def reconcile(self) -> bool:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        if self.reconcile_slowly:
            await asyncio.Event().wait()
        return self.news.pop() if self.news else False

    async def after(self, seconds: float) -> list[Stop]:
        await self.clock.settle()
        await self.clock.advance(seconds)
        return self.stopped


@contextmanager
def watched(limits: Limits = LIMITS) -> Iterator[Turn]:
    turn = Turn(limits)
    yield turn
    turn.task.cancel()


async def test_silence_ends_a_turn_exactly_when_it_is_over() -> None:
    with watched() as turn:
        assert await turn.after(179.9) == []
        assert await turn.after(0.2) == [Stop.SILENT]
        assert await turn.after(10_000) == [Stop.SILENT], "once"
        assert turn.task.done()


async def test_every_word_starts_the_silence_anew() -> None:
    with watched() as turn:
        for _ in range(10):
            assert await turn.after(170) == []
            turn.pulse.beat()
        assert await turn.after(179) == []
        assert await turn.after(2) == [Stop.SILENT]


async def test_a_running_tool_may_be_silent_up_to_its_own_limit() -> None:
    with watched() as turn:
        turn.tool = True
        turn.pulse.beat()
        assert await turn.after(3599) == []
        assert await turn.after(2) == [Stop.SLOW_TOOL]


async def test_after_the_tool_silence_counts_from_its_last_word() -> None:
    with watched() as turn:
        turn.tool = True
        assert await turn.after(1000) == []
        turn.tool = False
        turn.pulse.beat()
        assert await turn.after(179) == []
        assert await turn.after(2) == [Stop.SILENT]


async def test_a_tool_that_starts_late_is_noticed_before_the_silence_counts() -> None:
    with watched() as turn:
        await turn.after(100)
        turn.tool = True
        turn.pulse.beat()
        assert await turn.after(200) == []


@pytest.mark.parametrize("tool", [False, True])
async def test_a_task_s_own_timeout_counts_whatever_happens(tool: bool) -> None:
    with watched(Limits(180, 3600, whole=60)) as turn:
        turn.tool = tool
        assert await turn.after(59) == []
        turn.pulse.beat()
        assert await turn.after(2) == [Stop.TIMEOUT]


async def test_a_timeout_longer_than_the_silence_does_not_hide_it() -> None:
    with watched(Limits(180, 3600, whole=1000)) as turn:
        assert await turn.after(181) == [Stop.SILENT]


async def test_a_turn_that_talks_on_is_ended_by_its_timeout() -> None:
    with watched(Limits(180, 3600, whole=1000)) as turn:
        for _ in range(9):
            assert await turn.after(100) == []
            turn.pulse.beat()
        assert await turn.after(101) == [Stop.TIMEOUT]


async def test_no_time_passes_while_a_turn_stands_still() -> None:
    with watched(Limits(180, 3600, whole=300)) as turn:
        assert await turn.after(100) == []
        turn.pulse.stand()
        turn.pulse.stand()
        assert await turn.after(100_000) == []
        turn.pulse.go()
        assert await turn.after(179) == [], "silence counts from when it went on"
        turn.pulse.beat()
        assert await turn.after(20) == []
        assert await turn.after(2) == [Stop.TIMEOUT], "100 s before and 200 s after"


async def test_an_agent_that_has_news_is_not_given_up() -> None:
    with watched() as turn:
        turn.news = [True, True]
        assert await turn.after(181) == []
        assert await turn.after(181) == []
        assert await turn.after(181) == [Stop.SILENT]
        assert turn.asked == 3


async def test_an_agent_that_speaks_while_it_is_asked_is_not_given_up() -> None:
    with watched() as turn:
        turn.reconcile_slowly = True
        assert await turn.after(181) == []
        turn.pulse.beat()
        assert await turn.after(100) == []
        assert await turn.after(100) == [Stop.SILENT]


async def test_an_agent_that_does_not_even_say_how_far_it_is_is_silent() -> None:
    with watched() as turn:
        turn.reconcile_slowly = True
        assert await turn.after(185) == []
        assert await turn.after(6) == [Stop.SILENT]


async def test_asking_that_fails_is_no_news() -> None:
    with watched() as turn:
        turn.fails = OSError("its pipe is broken")
        assert await turn.after(181) == [Stop.SILENT]
