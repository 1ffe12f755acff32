"""What a terminal shows of a turn: each thing once, however often the turn is told again, and nothing an agent wrote moves its cursor."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from coder.cli.teller import Teller
from coder.frames import (
    Delta,
    MessageStarted,
    NoticeFrame,
    PermissionRequested,
    PlanFrame,
    ReasoningDelta,
    SessionFrame,
    SessionHistory,
    ToolCallFrame,
    TurnEnded,
    TurnStarted,
)
from coder.live import fold

STARTED = TurnStarted("s", 7, 3, "c", "native", 1, "2026-03-01T09:30:00+00:00")
PROMPT = MessageStarted("s", 7, "user", "Do it")


def call(number: int, status: str, output: str = "", code: int | None = None) -> ToolCallFrame:
    snapshot = {"id": f"c{number}", "name": "run", "input": '{"command": "make"}', "status": status, "output": output, "exit_code": code}
    return ToolCallFrame("s", 7, number, snapshot)


def message(role: str, text: str, **given: Any) -> dict[str, Any]:
    return {"task_id": 3, "role": role, "text": text, "reasoning": "", "tool_calls": [], "state": "complete", **given}


def history(*messages: dict[str, Any]) -> SessionHistory:
    return SessionHistory("s", list(messages), [], False, None)


def shown(*frames: SessionFrame, **given: Any) -> str:
    written: list[str] = []
    teller = Teller(written.append, **given)
    for frame in frames:
        teller.tell(frame.wire(), 0.0)
    return "".join(written)


@some.composite
def turns(draw: some.DrawFn) -> list[SessionFrame]:
    """A turn's frames: prose in parts of several deltas, and tool calls that begin and end."""
    frames: list[SessionFrame] = [STARTED, PROMPT]
    for part in range(1, draw(some.integers(1, 5)) + 1):
        kind = draw(some.sampled_from([Delta, ReasoningDelta, None]))
        if kind is None:
            frames += [call(part, "running"), call(part, draw(some.sampled_from(["completed", "failed"])), "out")]
        else:
            frames += [kind("s", 7, part, text) for text in draw(some.lists(some.text(min_size=1, max_size=4), min_size=1, max_size=4))]
    return frames


def words(text: str) -> str:
    """The text without the line breaks that an interruption brings, and without what coder itself says."""
    return "".join(line for line in text.splitlines() if not line.startswith("──"))


@given(turns(), some.data())
def test_a_turn_that_is_told_again_is_written_once(frames: list[SessionFrame], data: some.DataObject) -> None:
    moments = sorted(data.draw(some.lists(some.integers(2, len(frames)), max_size=3)))
    told, before = list[SessionFrame](), 0
    for moment in moments:
        told += [*frames[before:moment], history(), *fold(frames[:moment]).frames()]
        before = moment
    told += frames[before:]
    whole = shown(*frames)
    assert sorted(words(shown(*told))) == sorted(words(whole))
    assert shown(*told).count("── task 3, native") == 1


@given(some.text(max_size=20), some.text(max_size=20))
def test_what_ended_while_the_line_was_broken_is_written_to_its_end(seen: str, rest: str) -> None:
    whole = "".join((seen, rest))
    told = shown(STARTED, PROMPT, Delta("s", 7, 1, seen), history(message("user", "Do it"), message("assistant", whole)))
    once = shown(STARTED, PROMPT, Delta("s", 7, 1, whole))
    assert words(told) == words(once)


@given(some.text())
def test_nothing_an_agent_writes_reaches_the_terminal_as_a_control_character(text: str) -> None:
    question = {"id": "1", "text": text, "choices": [{"label": text, "description": text}], "several": False}
    frames = (
        STARTED, MessageStarted("s", 7, "user", text), Delta("s", 7, 1, text), ReasoningDelta("s", 7, 2, text),
        NoticeFrame("s", 7, 3, text),
        ToolCallFrame("s", 7, 4, {"id": text, "name": text, "input": text, "status": "completed", "output": text, "exit_code": 1}),
        PlanFrame("s", 7, [{"text": text, "status": "pending"}]), PermissionRequested("s", 7, "p" * 8, "requested", question),
        TurnEnded("s", 7, 3, "failed", None, text),
    )  # fmt: skip
    for given_ in ({}, {"keys": True}):
        assert not any(ord(each) < 0x20 and each not in "\n\t" for each in shown(*frames, **given_))


def test_only_the_task_that_is_watched_is_told() -> None:
    other = TurnStarted("s", 8, 4, "c", "native", 1, "2026-03-01T09:30:00+00:00")
    frames = (STARTED, PROMPT, Delta("s", 7, 1, "mine"), TurnEnded("s", 7, 3, "completed"), other, Delta("s", 8, 1, "not mine"))
    assert shown(*frames, only=3) == "── task 3, native\n> Do it\nmine\n── task 3 completed\n"


def test_of_a_session_the_newest_messages_are_shown_and_later_ones_all() -> None:
    old = [message("user", f"ask {task}") | {"task_id": task} for task in range(10)]
    first = shown(history(*old))
    assert "ask 5" not in first
    assert "earlier messages" in first
    assert first.endswith("> ask 6\n> ask 7\n> ask 8\n> ask 9\n")
    new = message("user", "ask 10") | {"task_id": 10}
    assert shown(history(*old), history(*old, new)) == first + "> ask 10\n"


def test_a_long_output_is_cut_and_a_failed_call_says_so() -> None:
    told = shown(STARTED, call(1, "running"), call(1, "failed", "line\n" * 30, 2))
    assert told.endswith("▸ run make\n✗ run make (exit code 2)\n" + "  line\n" * 8 + "  … 22 more lines\n")
