"""A model request that fails is sent again on the schedule, visibly, and no tool runs twice for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_clock import FakeClock
from native_turns import chat
from turns import Chat, Played

from coder.errors import ProviderError
from coder.events import RetryScheduled, TextDelta, ToolCall
from coder.ports import LiveTurn

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)
EIGHT_HOURS = 28800
SCHEDULE = [5, 10, 30, 60, 300, 600, 900, 1800, *[1800] * 13]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def talk(tmp_path: Path, model_server: ModelServer, clock: FakeClock) -> AsyncIterator[Chat]:
    async with chat(tmp_path, clock=clock, model_base_url=model_server.openai, retry_seconds=EIGHT_HOURS) as made:
        yield made


async def play(talk: Chat, clock: FakeClock, prompt: str) -> Played:
    """Play a turn, letting the time of each wait pass once it is announced and slept."""

    async def pass_time(retry: RetryScheduled) -> None:
        await clock.asleep(retry.delay)
        await clock.advance(retry.delay)

    passing: list[asyncio.Task[None]] = []

    def seen(_: LiveTurn, event: object) -> bool:
        if isinstance(event, RetryScheduled):
            passing.append(asyncio.ensure_future(pass_time(event)))
        return False

    played = await talk.play(prompt, until=seen)
    await asyncio.gather(*passing)
    return played


async def test_each_failed_request_is_announced_waited_for_and_sent_again(talk: Chat, clock: FakeClock) -> None:
    played = await play(talk, clock, "error 429 3\nthree-times-429\nsay: At last.")
    assert played.error is None
    assert played.transcript.text == "At last."
    retries = played.of(RetryScheduled)
    assert [(retry.attempt, retry.delay, retry.code) for retry in retries] == [(0, 5, "429"), (1, 10, "429"), (2, 30, "429")]
    assert all("scripted error 429" in retry.message for retry in retries)


async def test_the_last_failure_is_final_after_eight_hours(talk: Chat, clock: FakeClock, model_server: ModelServer) -> None:
    played = await play(talk, clock, "error 503\nnever-comes-back")
    assert isinstance(played.error, ProviderError)
    assert [retry.delay for retry in played.of(RetryScheduled)] == SCHEDULE
    assert len(model_server.requests("never-comes-back")) == 22


async def test_the_counter_starts_again_with_each_request_and_tools_run_once(talk: Chat, clock: FakeClock) -> None:
    played = await play(talk, clock, "error 500 2\nrun: echo once >> log\nerror 502 1\nsay: Done.\ntwo-requests")
    assert played.error is None
    assert [retry.attempt for retry in played.of(RetryScheduled)] == [0, 1, 0]
    assert (talk.worktree / "log").read_text() == "once\n"
    assert [call.status for call in played.transcript.tool_calls] == ["completed"]


async def test_what_will_not_come_right_by_waiting_fails_at_once(talk: Chat, model_server: ModelServer) -> None:
    for status in (400, 401, 403, 404):
        played = await talk.play(f"error {status}\nat-once-{status}")
        assert isinstance(played.error, ProviderError)
        assert played.of(RetryScheduled) == []
        assert len(model_server.requests(f"at-once-{status}")) == 1


async def test_an_answer_that_breaks_off_after_it_began_is_not_asked_for_again(talk: Chat, model_server: ModelServer) -> None:
    played = await talk.play("cut\nbroken-after-words")
    assert isinstance(played.error, ProviderError)
    assert played.of(TextDelta)
    assert played.of(RetryScheduled) == []
    assert len(model_server.requests("broken-after-words")) == 1


async def test_leaving_during_a_wait_ends_it_at_once(talk: Chat, clock: FakeClock, model_server: ModelServer) -> None:
    played = await talk.play("error 429\nleft-waiting", until=lambda _, event: isinstance(event, RetryScheduled))
    assert played.error is None
    assert len(played.of(RetryScheduled)) == 1
    assert clock.due() == [], "nobody sleeps any more"
    await clock.advance(EIGHT_HOURS)
    assert len(model_server.requests("left-waiting")) == 1
    assert (await talk.play("say: Still there.")).transcript.text == "Still there."


async def test_an_endpoint_that_is_away_is_waited_for(tmp_path: Path, clock: FakeClock) -> None:
    async with chat(tmp_path, clock=clock, model_base_url="http://127.0.0.1:9/v1", retry_seconds=15) as talk:
        played = await play(talk, clock, "say: hello")
    assert isinstance(played.error, ProviderError)
    assert [(retry.delay, retry.code) for retry in played.of(RetryScheduled)] == [(5, None), (10, None)]


async def test_no_tool_is_left_running_by_a_retry(talk: Chat, clock: FakeClock) -> None:
    played = await play(talk, clock, "run: echo a\nerror 500 1\nrun: echo b\nsay: ok")
    calls = played.of(ToolCall)
    assert {call.id for call in calls if call.status == "completed"} == {call.id for call in calls}
