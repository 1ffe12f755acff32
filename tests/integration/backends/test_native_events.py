"""The translation of pydantic-ai's events, where endpoints differ from what one would expect."""

from __future__ import annotations

import pytest
from pydantic_ai.messages import (
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
)

from coder.backends.native_events import Translation
from coder.events import AgentEvent, TextDelta, ToolCall


def translated(*events: object) -> list[AgentEvent]:
    translation = Translation()
    return [ours for event in events for ours in translation.translate(event)]  # type: ignore[arg-type]


def call(arguments: str, call_id: str = "call_0") -> list[object]:
    part = ToolCallPart("run", arguments, call_id)
    return [PartStartEvent(index=0, part=ToolCallPart("run", "", call_id)), PartEndEvent(index=0, part=part), FunctionToolCallEvent(part)]


def result(text: str, call_id: str = "call_0") -> FunctionToolResultEvent:
    return FunctionToolResultEvent(ToolReturnPart("run", text, call_id))


def test_ids_that_an_endpoint_uses_again_are_made_unique() -> None:
    events = translated(*call('{"command":"a"}'), result("a"), *call('{"command":"b"}'), result("b"))
    ended = [event for event in events if isinstance(event, ToolCall) and event.status == "completed"]
    assert [(event.id, event.input, event.output) for event in ended] == [
        ("call_0", '{"command":"a"}', "a"),
        ("call_0-1", '{"command":"b"}', "b"),
    ]


def test_two_calls_of_one_answer_with_the_same_id_are_both_ended() -> None:
    events = translated(*call("{}"), *call("{}"), result("a"), result("b"))
    ended = [event for event in events if isinstance(event, ToolCall) and event.status == "completed"]
    assert [event.output for event in ended] == ["a", "b"]
    assert len({event.id for event in ended}) == 2


def test_a_call_is_told_once_when_it_opens_and_once_when_it_is_whole() -> None:
    assert [event.input for event in translated(*call('{"command": "a"}')) if isinstance(event, ToolCall)] == ["{}", '{"command":"a"}']


def test_long_arguments_show_signs_of_life() -> None:
    delta = PartDeltaEvent(index=0, delta=ToolCallPartDelta(args_delta="x" * 100, tool_call_id="call_0"))
    events = translated(PartStartEvent(index=0, part=ToolCallPart("write", "", "call_0")), *[delta] * 50)
    assert len(events) == 1 + 5


@pytest.mark.parametrize(
    ("pieces", "text"),
    [(["a\ud83d", "\ude00b"], "a😀b"), (["\ud83d", "x"], "\ufffdx"), (["x\ud83d"], "x\ufffd"), (["a\x00", "b"], "a\ufffdb")],
)
def test_characters_that_come_in_two_pieces_are_joined(pieces: list[str], text: str) -> None:
    first, *rest = pieces
    deltas = [PartDeltaEvent(index=0, delta=TextPartDelta(content_delta=piece)) for piece in rest]
    events = translated(PartStartEvent(index=0, part=TextPart(first)), *deltas, PartEndEvent(index=0, part=TextPart("".join(pieces))))
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == text
