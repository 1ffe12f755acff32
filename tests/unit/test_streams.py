"""Streams of records: recorded ones of real agents, and what may go wrong on the way."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coder.events import AgentEvent, Notice, Plan, PlanEntry, ReasoningDelta, RetryScheduled, TextDelta, ToolCall, Usage
from coder.protocols.streams.lines import LINE_BYTES, Lines
from coder.protocols.streams.reader import FORMATS, HELD, SHOWN, Reader
from coder.transcript import Transcript

GOLDEN = Path(__file__).parents[1] / "golden" / "pty"
WIRES = sorted(path for path in GOLDEN.glob("*.jsonl") if not path.name.endswith(".events.jsonl"))
NOTHING = Usage(0, 0, 0)


def reader(name: str, before: Usage | None = NOTHING) -> Reader:
    return Reader(name.partition("-")[0], before)


def read(name: str, *pieces: bytes, before: Usage | None = NOTHING) -> tuple[list[AgentEvent], Reader]:
    reading = reader(name, before)
    events = [event for piece in pieces for event in reading.feed(piece)]
    return events + reading.close(), reading


def wire(*records: object) -> bytes:
    return b"".join((record if isinstance(record, bytes) else json.dumps(record).encode()) + b"\n" for record in records)


def text(events: list[AgentEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def notices(events: list[AgentEvent]) -> str:
    return "\n".join(event.text for event in events if isinstance(event, Notice))


@pytest.mark.parametrize("path", WIRES, ids=lambda path: path.stem)
def test_recorded_output_gives_the_events_it_always_gave(path: Path) -> None:
    events, reading = read(path.stem, path.read_bytes())
    told = [json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False) for event in events]
    told.append(json.dumps({"session": reading.session, "failure": reading.failure}, ensure_ascii=False))
    assert told == path.with_suffix(".events.jsonl").read_text().splitlines()


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_turn_is_in_it(name: str) -> None:
    """The same turn of all agents folds to the same, but for what an agent does its own way."""
    events, reading = read(name, (GOLDEN / f"{name}.jsonl").read_bytes())
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
    assert transcript.text == 'I write first.\n\nAll done, ünï "q".'
    assert transcript.reasoning == "hmm let me see"
    write, run = transcript.tool_calls
    assert "hi there" in write.input
    assert (run.exit_code, "out-42" in run.output) == (3, True)
    assert transcript.usage.output_tokens == 3 * 34
    assert (reading.busy, reading.failure) == (False, None)
    assert reading.session is not None or name == "goose"


@pytest.mark.parametrize("path", WIRES, ids=lambda path: path.stem)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 20_000), max_size=8))
def test_how_it_is_cut_makes_no_difference(path: Path, cuts: list[int]) -> None:
    content = path.read_bytes()
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    assert read(path.stem, *(content[start:end] for start, end in pairwise(places)))[0] == read(path.stem, content)[0]


WORDS = [
    "type",
    "message",
    "content",
    "text",
    "id",
    "event",
    "delta",
    "item",
    "usage",
    "part",
    "state",
    "tokens",
    "error",
    "toolCall",
    "value",
]
KINDS = [
    *(
        "assistant",
        "user",
        "system",
        "result",
        "stream_event",
        "init",
        "api_retry",
        "message_start",
        "message_delta",
        "content_block_delta",
    ),
    *("item.started", "item.completed", "turn.completed", "turn.failed", "error", "todo_list", "command_execution", "agent_message"),
    *("message", "complete", "toolRequest", "toolResponse", "text", "thinking", "tool_use", "tool_result", "step_finish", "reasoning"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(KINDS) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=12,
)
RECORDS = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6).flatmap(
    lambda rest: st.sampled_from(KINDS).map(lambda kind: json.dumps({**rest, "type": kind}).encode())
)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=100, deadline=None)
@given(lines=st.lists(RECORDS | st.binary(max_size=30), max_size=6))
def test_whatever_comes_is_taken(name: str, lines: list[bytes]) -> None:
    events, _ = read(name, b"\n".join(lines))
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
    transcript.text.encode()
    transcript.tool_calls_json().encode()


def test_what_is_no_record_is_a_notice_and_in_the_log() -> None:
    said = {"type": "text", "part": {"id": "p", "text": "answer"}}
    events, reading = read("opencode", wire(b"\x1b[33mwarning\x1b[0m: {odd}\r", said, b"later {", {"type": "brand_new"}, {"no": "type"}))
    assert (text(events), notices(events)) == ("answer", 'warning: {odd}\nlater {\n{"no": "type"}')
    assert reading.take_strays() == ["warning: {odd}", "later {", '{"type": "brand_new"}', '{"no": "type"}']
    assert reading.last_words == 'warning: {odd}\nlater {\n{"no": "type"}'


def test_records_are_found_beside_noise_and_beside_each_other() -> None:
    first, second = (json.dumps({"type": "text", "part": {"id": "p", "text": word}}).encode() for word in ("one ", "two"))
    events, _ = read("opencode", b"\x1b[?25l" + first + second + b"\x1b[?25h\r\n", b"stuck " + first + b" to it\n")
    assert text(events) == "one twoone "
    assert notices(events) == "stuck\n to it"


def test_output_without_any_record_is_the_answer() -> None:
    assert text(read("goose", b"just\r\ntalking, ", b"no records")[0]) == "just\ntalking, no records\n"
    many = b"".join(b"line %d of something else\n" % number for number in range(HELD // 10))
    reading = reader("goose")
    at_once = reading.feed(many)
    assert len(text(at_once)) > HELD
    assert text(at_once + reading.close()) == many.decode()
    assert notices(at_once) == ""


def test_a_flood_beside_the_answer_is_cut_with_a_sentence() -> None:
    said = wire({"type": "text", "part": {"id": "p", "text": "answer"}})
    events, _ = read("opencode", said, b"noise and more of it\n" * 10_000, said)
    assert len(notices(events)) < SHOWN + 200
    assert notices(events).endswith("is in the turn's log]")


def test_a_line_beyond_all_measure_is_left_out_with_a_sentence() -> None:
    said = wire({"type": "text", "part": {"id": "p", "text": "answer"}})
    events, _ = read("opencode", said, *[b'{"type": "text", ' + b"x" * 65_536] * (LINE_BYTES // 65_536 + 1), b"\n", said)
    assert text(events) == "answeranswer"
    assert notices(events) == "A line of more than 16 MB was left out."


def test_lines_hold_no_more_than_their_limit() -> None:
    lines = Lines(limit=10)
    assert lines.feed(b"short\nlonger than ten") == [b"short"]
    assert lines._pieces == []
    assert lines.feed(b" and more\nnext\nlast") == [None, b"next"]
    assert lines.close() == [b"last"]


def test_usage_that_counts_up_is_told_as_the_turns_own() -> None:
    done = wire({"type": "turn.completed", "usage": {"input_tokens": 800, "cached_input_tokens": 100, "output_tokens": 136}})
    events, reading = read("codex", done, before=Usage(600, 50, 102))
    assert events == [Usage(200, 50, 34)]
    assert reading.total == Usage(800, 100, 136)
    assert read("codex", done, before=None)[0] == []


def test_claudes_whole_messages_fill_what_did_not_come_in_pieces() -> None:
    def whole(kind: str, content: str) -> dict[str, object]:
        return {"type": "assistant", "message": {"id": "m", "content": [{"type": kind, kind: content}]}}

    def piece(content: str) -> dict[str, object]:
        return {"type": "stream_event", "event": {"type": "content_block_delta", "delta": {"type": "text_delta", "text": content}}}

    start = {"type": "stream_event", "event": {"type": "content_block_start", "content_block": {"type": "text"}}}
    events, _ = read("claude", wire(start, piece("half "), whole("text", "half and half"), whole("thinking", "hm"), whole("text", "more")))
    assert text(events) == "half and half\n\nmore"
    assert [event.text for event in events if isinstance(event, ReasoningDelta)] == ["hm"]
    result = {"type": "result", "is_error": False, "result": "only here"}
    assert text(read("claude", wire(result))[0]) == "only here"
    assert text(read("claude", wire(whole("text", "only here"), result))[0]) == "only here"


def test_claudes_subagents_show_their_tools_but_not_their_words() -> None:
    inner = {"type": "assistant", "parent_tool_use_id": "call_1"}
    words = {**inner, "message": {"id": "a", "content": [{"type": "text", "text": "to itself"}]}}
    tool = {**inner, "message": {"id": "b", "content": [{"type": "tool_use", "id": "call_2", "name": "Read", "input": {}}]}}
    events, reading = read("claude", wire(words, tool))
    assert events == [ToolCall("call_2", "Read", "{}", "running")]
    assert reading.busy


def test_retries_and_plans() -> None:
    retry = {"type": "system", "subtype": "api_retry", "attempt": 2, "retry_delay_ms": 1500, "error_status": 529, "error": "overloaded"}
    todo = {"todos": [{"content": "look", "status": "completed"}, {"content": "mend", "status": "in_progress"}]}
    call = {"type": "assistant", "message": {"id": "m", "content": [{"type": "tool_use", "id": "c", "name": "TodoWrite", "input": todo}]}}
    events, _ = read("claude", wire(retry, call))
    assert events[0] == RetryScheduled(1, 1.5, "overloaded", "529")
    assert events[2] == Plan((PlanEntry("look", "completed"), PlanEntry("mend", "in_progress")))
    listed = {"id": "i", "type": "todo_list", "items": [{"text": "look", "completed": True}, {"text": "mend", "completed": False}]}
    assert read("codex", wire({"type": "item.updated", "item": listed}))[0] == [
        Plan((PlanEntry("look", "completed"), PlanEntry("mend", "pending")))
    ]


@pytest.mark.parametrize("piece", [b"{", b'{"type":', b"[{" * 9, b'{"a":1}', b"noise "], ids=range(5))
def test_time_is_linear(piece: bytes) -> None:
    """Eight times as much takes about eight times as long; quadratic work would take sixty-four times."""

    def cost(size: int) -> float:
        line = piece * (size // len(piece)) + b"\n"
        start = time.process_time()
        read("opencode", line)
        return time.process_time() - start

    cost(50_000)
    small = min(cost(50_000) for _ in range(3))
    assert cost(8 * 50_000) < 24 * small
