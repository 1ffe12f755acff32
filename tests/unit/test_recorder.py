"""The recorder: rows without a gap, sent again unchanged, stored before the end of their turn; none for a turn of a moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import UUID

import pytest

from coder.errors import Unavailable
from coder.frame_log import FrameRow
from coder.frames import Delta, ToolCallFrame
from coder.runtime import recorder as module
from coder.runtime.clock import SystemClock
from coder.runtime.recorder import Recorder
from coder.task import Project, Task

ID = UUID(int=1)
TASK = Task(1, 2, 1, 3, ID, ID, Project(ID, "p", "/p", "native"), "x", None, None, None, None, None, None, (), None)
OTHER = Task(5, 6, 1, 3, UUID(int=2), ID, Project(ID, "p", "/p", "native"), "x", None, None, None, None, None, None, (), None)


class Log:
    """Notes what it is asked to store. Attributes: faults: raised by the next calls, after the rows were noted."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[FrameRow], set[str]]] = []
        self.faults: list[Exception] = []
        self.refused: set[int] = set()
        self._called = asyncio.Event()

    async def append(self, rows: list[FrameRow], touched: set[str]) -> None:
        self.calls.append((rows, touched))
        self._called.set()
        if self.faults:
            raise self.faults.pop(0)
        if self.refused & {row.task for row in rows}:
            raise ValueError("nobody foresaw this")

    async def prune(self) -> int:
        return 0

    @property
    def rows(self) -> list[FrameRow]:
        return [row for rows, _ in self.calls for row in rows]

    async def until(self, calls: int) -> None:
        async with asyncio.timeout(20):
            while len(self.calls) < calls:
                self._called.clear()
                await self._called.wait()


@pytest.fixture
async def log() -> Log:
    return Log()


@pytest.fixture
async def recorder(log: Log) -> AsyncIterator[Recorder]:
    recorder = Recorder(log, SystemClock(), window=0.01)
    recorder.start()
    yield recorder
    await recorder.stop()


def delta(text: str, part: int = 1) -> Delta:
    return Delta(str(ID), 2, part, text)


def call(status: str, output: str) -> ToolCallFrame:
    return ToolCallFrame(str(ID), 2, 1, {"id": "a", "name": "run", "input": "{}", "status": status, "output": output})


async def test_a_window_is_one_statement_with_what_was_said_merged(log: Log, recorder: Recorder) -> None:
    one, other = recorder.track(TASK), recorder.track(OTHER)
    for text in "abc":
        one.add(delta(text))
    other.add(delta("x"))
    await log.until(1)
    ((rows, touched),) = log.calls
    assert [(row.task, row.epoch, row.seq, json.loads(row.payload)["text"]) for row in rows] == [(1, 2, 1, "abc"), (5, 6, 1, "x")]
    assert touched == {str(ID), str(UUID(int=2))}
    one.add(delta("d"))
    await log.until(2)
    assert [row.seq for row in log.calls[1][0]] == [2]


async def test_a_turn_whose_end_comes_within_its_first_window_leaves_no_rows_but_a_doorbell(log: Log, recorder: Recorder) -> None:
    track = recorder.track(TASK)
    track.add(delta("done"))
    await recorder.settle(track)
    recorder.drop(track)
    await log.until(1)
    assert log.calls == [([], {str(ID)})]


async def test_a_turn_that_waits_long_for_its_end_is_stored_all_the_same(
    log: Log, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSING_SECONDS", 0.05)
    track = recorder.track(TASK)
    track.add(delta("done"))
    await recorder.settle(track)
    await log.until(1)
    assert [row.seq for row in log.rows] == [1]


async def test_what_was_said_is_stored_before_the_end_is(log: Log, recorder: Recorder) -> None:
    track = recorder.track(TASK)
    track.add(delta("a"))
    await log.until(1)
    track.add(delta("b"))
    await recorder.settle(track)
    assert [(row.seq, json.loads(row.payload)["text"]) for row in log.rows] == [(1, "a"), (2, "b")]


async def test_while_the_database_is_away_it_is_kept_and_then_sent_again_unchanged(
    log: Log, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.01)
    log.faults = [Unavailable("away"), Unavailable("away")]
    track = recorder.track(TASK)
    track.add(delta("a"))
    await log.until(1)
    for text in "bcd":
        track.add(delta(text))
    await recorder.settle(track)
    first, second, third, fourth = (rows for rows, _ in log.calls)
    assert first == second == third, "nobody knows whether it was stored"
    assert [(row.seq, json.loads(row.payload)["text"]) for row in fourth] == [(2, "bcd")]


async def test_a_row_that_is_refused_harms_its_own_turn_alone(log: Log, recorder: Recorder) -> None:
    log.refused = {1}
    bad, good = recorder.track(TASK), recorder.track(OTHER)
    bad.add(delta("a"))
    good.add(delta("x"))
    await log.until(3)
    assert [[row.task for row in rows] for rows, _ in log.calls] == [[1, 5], [1], [5]]
    bad.add(delta("b"))
    good.add(delta("y"))
    await log.until(4)
    assert [(row.task, row.seq) for row in log.calls[3][0]] == [(5, 2)]


async def test_a_large_call_that_runs_is_stored_once_a_second_and_its_end_at_once(log: Log, recorder: Recorder) -> None:
    track = recorder.track(TASK)
    large = "x" * module.LARGE_CHARACTERS
    track.add(call("running", large))
    await log.until(1)
    for number in range(5):
        track.add(call("running", large + str(number)))
    track.add(call("completed", large + "end"))
    await log.until(2)
    assert [json.loads(row.payload)["call"]["status"] for row in log.rows] == ["running", "completed"]
