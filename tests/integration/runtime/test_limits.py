"""Limits of a turn, on a clock that the test moves: silence, a tool, the task's own timeout, a worktree that stays in use."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from fake_clock import FakeClock
from nodebench import QUICK, House

from coder.postgres.listener import Silence
from coder.runtime.executor import HELD_MOST_SECONDS, HELD_SECONDS

SLOW = replace(QUICK, poll=1e6, lease=1e7, beat=1e6, silent=180, tool=3600)


@pytest.fixture
def clock(house: House) -> FakeClock:
    """The clock of the nodes of this house; only LISTEN lives on real time."""
    house.clock = FakeClock()
    return house.clock


async def running(house: House, input: str, **columns: object) -> int:
    await house.node(SLOW)
    task = await house.add(input, **columns)
    await house.agent.until(f"start {input}")
    return task


@pytest.mark.parametrize("verb", ["wait", "mute"])
async def test_an_agent_that_falls_silent_is_ended(house: House, clock: FakeClock, verb: str) -> None:
    task = await running(house, f"{verb} x")
    if verb == "wait":
        await house.until("select first_event_at from tasks where id = $1", task)
    await clock.asleep(180)
    await clock.advance(179)
    assert (await house.task(task))["state"] == "running"
    await clock.advance(2)
    assert await house.ended(task) == ["failed"]
    row = await house.task(task)
    assert (row["reason"], house.agent.order[-1]) == ("timeout", f"end {verb} x")
    assert "silent for CODER_INACTIVITY_SECONDS (180 s)" in row["error"]


async def test_a_running_tool_may_be_silent_longer_but_not_for_ever(house: House, clock: FakeClock) -> None:
    task = await running(house, "tool x")
    await house.until("select first_event_at from tasks where id = $1", task)
    await clock.asleep(180)
    await clock.advance(3599)
    assert (await house.task(task))["state"] == "running"
    await clock.advance(2)
    assert await house.ended(task) == ["failed"]
    assert "A tool ran longer than CODER_TOOL_SECONDS (3600 s)" in (await house.task(task))["error"]


async def test_a_task_s_own_timeout_ends_it_and_no_other(house: House, clock: FakeClock) -> None:
    task = await running(house, "wait x", timeout=timedelta(seconds=30))
    other = await house.add("wait y")
    await house.agent.until("start wait y")
    await clock.asleep(30)
    await clock.advance(31)
    assert await house.ended(task) == ["failed"]
    assert (await house.task(task))["error"] == "The turn took longer than its timeout of 30 s; raise it, or ask for less at once."
    assert (await house.task(other))["state"] == "running"


async def test_a_worktree_that_stays_in_use_fails_the_turn_with_a_sentence(house: House, clock: FakeClock) -> None:
    task = await house.add("say x")
    house.notebook.held.add(await house.session_of(task))
    await house.node(SLOW)
    await clock.asleep(HELD_SECONDS)
    await clock.advance(HELD_MOST_SECONDS - 1)
    assert (await house.task(task))["state"] == "running"
    await clock.advance(2)
    assert await house.ended(task) == ["failed"]
    row = await house.task(task)
    assert row["reason"] == "internal"
    assert "in use by a turn" in row["error"]


async def test_the_poll_finds_what_no_bell_told(house: House, clock: FakeClock) -> None:
    house.wakeups = Silence
    await house.node(replace(SLOW, poll=2.0))
    await clock.asleep(2.0)
    task = await house.add("say x")
    assert (await house.task(task))["state"] == "pending"
    await clock.advance(2.0)
    assert await house.ended(task) == ["completed"]
