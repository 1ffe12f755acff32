"""What opencode's bus said in real runs, and what coder makes of it: also when it comes twice, in pieces, or with a gap."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from golden_events import as_lines, lines_of
from hypothesis import given, settings
from hypothesis import strategies as st

from coder.events import AgentEvent, Notice, PermissionRequest, Question, RetryScheduled
from coder.permission import Answer
from coder.protocols.opencode import TurnReading
from coder.protocols.opencode_answers import Reply, Waiting
from coder.protocols.opencode_words import asked, failure, question
from coder.transcript import Transcript

GOLDEN = Path(__file__).parents[1] / "golden" / "opencode"
RECORDED = sorted(path.stem for path in GOLDEN.glob("*.jsonl") if not path.stem.endswith(".expected"))
NOW = 1795646740.0
SESSION, PROMPT = "ses_a", "msg_1"


def recorded(name: str) -> tuple[TurnReading, list[dict[str, Any]]]:
    head, *events = lines_of(GOLDEN / f"{name}.jsonl")
    return TurnReading(**head), [event["payload"] for event in events]


def folded(events: list[AgentEvent]) -> tuple[Any, ...]:
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
    return transcript.text, transcript.reasoning, transcript.tool_calls, transcript.usage, transcript.notices


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_becomes_the_expected_events(name: str) -> None:
    reading, payloads = recorded(name)
    events = [event for payload in payloads for event in reading.hear(payload, NOW)]
    *expected, end = lines_of(GOLDEN / f"{name}.expected.jsonl")
    assert [json.loads(line) for line in as_lines(events)] == expected
    assert {"settled": reading.settled, "failed": reading.failed} == end


@pytest.mark.parametrize("name", RECORDED)
def test_nothing_is_shown_after_a_turn_is_settled(name: str) -> None:
    reading, payloads = recorded(name)
    shown_after: list[AgentEvent] = []
    for payload in payloads:
        settled = reading.settled
        events = reading.hear(payload, NOW)
        shown_after += events if settled else []
    assert shown_after == []


def snapshot_of(payloads: list[dict[str, Any]], session: str) -> list[dict[str, Any]]:
    """What `GET …/message` answers after these events."""
    messages: dict[str, dict[str, Any]] = {}
    for payload in copy.deepcopy(payloads):
        told = payload["properties"]
        if payload["type"] == "message.updated" and told["info"]["sessionID"] == session:
            messages.setdefault(told["info"]["id"], {"parts": {}})["info"] = told["info"]
        elif payload["type"] == "message.part.updated" and told["part"]["sessionID"] == session:
            messages[told["part"]["messageID"]]["parts"][told["part"]["id"]] = told["part"]
        elif payload["type"] == "message.part.delta" and told["sessionID"] == session:
            messages[told["messageID"]]["parts"][told["partID"]]["text"] += told["delta"]
    return [{"info": each["info"], "parts": list(each["parts"].values())} for each in messages.values()]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(RECORDED), st.data())
def test_events_that_come_twice_are_shown_once(name: str, data: st.DataObject) -> None:
    reading, payloads = recorded(name)
    expected = folded([event for payload in payloads for event in reading.hear(payload, NOW)])
    again, _ = recorded(name)
    events: list[AgentEvent] = []
    for number, payload in enumerate(payloads):
        events += again.hear(payload, NOW)
        if data.draw(st.booleans()):
            events += again.hear(payloads[data.draw(st.integers(0, number))], NOW)
    assert folded(events) == expected


def streamed(texts: list[list[str]]) -> list[dict[str, Any]]:
    """A turn of one message a text, each in pieces, as opencode sends it."""
    payloads: list[dict[str, Any]] = []

    def send(kind: str, **properties: Any) -> None:
        payloads.append({"id": f"evt_{len(payloads)}", "type": kind, "properties": {"sessionID": SESSION, **properties}})

    for number, pieces in enumerate(texts, 2):
        message, part = f"msg_{number}", f"prt_{number}"
        place = {"id": part, "messageID": message, "sessionID": SESSION, "type": "text"}
        info = {"id": message, "sessionID": SESSION, "role": "assistant", "time": {"created": 1}}
        send("message.updated", info=info)
        send("message.part.updated", part={**place, "text": "", "time": {"start": 1}})
        for piece in pieces:
            send("message.part.delta", messageID=message, partID=part, field="text", delta=piece)
        send("message.part.updated", part={**place, "text": "".join(pieces), "time": {"start": 1, "end": 2}})
        finish = "stop" if number == len(texts) + 1 else "tool-calls"
        send("message.updated", info={**info, "time": {"created": 1, "completed": 2}, "finish": finish})
    send("session.status", status={"type": "idle"})
    return payloads


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXTS = st.lists(st.lists(st.text(LETTERS, min_size=1, max_size=5), min_size=1, max_size=5), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.data())
def test_gaps_in_the_stream_change_nothing_of_what_was_said(texts: list[list[str]], data: st.DataObject) -> None:
    """Wherever the stream breaks, however much is lost, and whatever of it is in the snapshot already when it goes on."""
    payloads = streamed(texts)
    reading = TurnReading(SESSION, PROMPT, "/w")
    events: list[AgentEvent] = []
    at = 0
    while at < len(payloads):
        for payload in payloads[at : (at := at + data.draw(st.integers(1, 6)))]:
            events += reading.hear(payload, NOW)
        if at < len(payloads) and data.draw(st.booleans()):
            at = data.draw(st.integers(at, len(payloads)))
            seen = data.draw(st.integers(at, len(payloads)))  # the answer may know what the new stream says again
            reading.interrupted()
            events += reading.read(snapshot_of(payloads[:seen], SESSION), idle=seen == len(payloads))
    events += reading.read(snapshot_of(payloads, SESSION), idle=True)
    assert reading.settled
    assert reading.failed is None
    assert folded(events)[0] == "\n\n".join("".join(pieces) for pieces in texts)


@given(TEXTS)
def test_the_turn_before_and_other_sessions_are_not_heard(texts: list[list[str]]) -> None:
    later = TurnReading(SESSION, "msg_9", "/w")
    other = TurnReading("ses_other", PROMPT, "/w")
    for payload in streamed(texts):
        assert later.hear(payload, NOW) == []
        assert other.hear(payload, NOW) == []
    assert not later.settled
    assert not other.idle


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("id", "sessionID", "info", "part", "type", "time", "state", "status", "questions")), inner, max_size=4
        )
    ),
    max_leaves=12,
)
KINDS = (
    "message.updated",
    "message.part.updated",
    "message.part.delta",
    "session.status",
    "session.error",
    "session.created",
    "todo.updated",
)


@given(st.sampled_from((*KINDS, "permission.asked", "question.asked", "other")), SHAPES, SHAPES)
def test_nothing_that_is_sent_breaks_the_reading(kind: str, properties: Any, messages: Any) -> None:
    reading = TurnReading(SESSION, PROMPT, "/w")
    if isinstance(properties, dict):
        properties = {**properties, "sessionID": SESSION}
    reading.hear({"type": kind, "properties": properties}, NOW)
    reading.read(messages if isinstance(messages, list) else [messages], idle=True)
    assert reading.settled in (True, False)


def test_an_idle_that_belongs_to_the_turn_before_does_not_end_this_one() -> None:
    reading = TurnReading(SESSION, PROMPT, "/w")
    *turn, end = streamed([["one"], ["two"]])
    idle = {"type": "session.idle", "properties": {"sessionID": SESSION}}
    for payload in turn:
        reading.hear(idle, NOW)
        assert not reading.settled or payload is turn[-1]
        reading.hear(payload, NOW)
    reading.hear(end, NOW)
    assert reading.settled


def test_retries_add_up_until_the_endpoint_answers() -> None:
    reading = TurnReading(SESSION, PROMPT, "/w")

    def retry(attempt: int) -> list[AgentEvent]:
        status = {"type": "retry", "attempt": attempt, "message": "busy", "next": (NOW + 30) * 1000}
        return reading.hear({"type": "session.status", "properties": {"sessionID": SESSION, "status": status}}, NOW)

    assert retry(1) == [RetryScheduled(0, 30.0, "busy")]
    retry(2)
    assert reading.waited == 60.0
    for payload in streamed([["hello"]]):
        reading.hear(payload, NOW)
    assert reading.waited == 0.0


def test_a_summary_of_the_conversation_is_not_an_answer() -> None:
    reading = TurnReading(SESSION, PROMPT, "/w")
    events: list[AgentEvent] = []
    for payload in streamed([["a summary"], ["the answer"]]):
        info = payload["properties"].get("info")
        if info and info["id"] == "msg_2":
            payload["properties"]["info"] = {**info, "summary": True}
        events += reading.hear(payload, NOW)
    compacted = {"type": "session.compacted", "properties": {"sessionID": SESSION}}
    assert [type(event) for event in reading.hear(compacted, NOW)] == [Notice]
    assert folded(events)[0] == "the answer"


def test_a_path_outside_is_told_as_it_is() -> None:
    request = {"id": "per_1", "permission": "edit", "patterns": ["../x", "y"], "metadata": {}}
    assert asked(request, "/w", None).paths == ("/w/../x", "/w/y")


def test_a_question_of_several_parts_has_an_id_for_each() -> None:
    parts = [{"question": "one?", "options": [{"label": "a"}]}, {"question": "two?", "multiple": True, "options": []}]
    one, two = question({"id": "que_1", "questions": parts})
    assert (one.id, two.id, two.several) == ("que_1#0", "que_1#1", True)


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (
            {"name": "ProviderAuthError", "data": {"providerID": "acme", "message": "bad key"}},
            "provider acme refused opencode's key: bad key",
        ),
        ({"name": "ContextOverflowError", "data": {"message": "too long"}}, "outgrown"),
        ({"name": "APIError", "data": {"message": "no", "statusCode": 403}}, "an error 403: no"),
        ({"name": "MessageAbortedError", "data": {}}, "called the turn off"),
        (None, "no reason"),
    ],
)
def test_a_failure_is_a_sentence(error: Any, part: str) -> None:
    assert part in failure(error)


def test_a_reply_says_once_or_why_not_and_comes_once() -> None:
    waiting = Waiting()
    waiting.hear([PermissionRequest("per_1", "bash", "execute", "ls"), PermissionRequest("per_2", "bash", "execute", "rm")])
    assert waiting.answer("per_1", Answer(True)) == Reply("/permission/per_1/reply", {"reply": "once"})
    assert waiting.answer("per_1", Answer(True)) is None
    refused = waiting.answer("per_2", Answer(False))
    assert refused is not None
    assert refused.body["reply"] == "reject"
    assert refused.body["message"]


@given(st.permutations(["que_1#0", "que_1#1", "que_1#2"]))
def test_a_question_is_replied_to_when_all_its_parts_are_answered(order: list[str]) -> None:
    waiting = Waiting()
    waiting.hear([Question(f"que_1#{number}", "?") for number in range(3)])
    *early, last = [waiting.answer(part, Answer(True, answers=(part[-1],))) for part in order]
    assert early == [None, None]
    assert last == Reply("/question/que_1/reply", {"answers": [["0"], ["1"], ["2"]]})


def test_a_question_that_is_not_answered_is_rejected_whole() -> None:
    waiting = Waiting()
    waiting.hear([Question("que_1#0", "?"), Question("que_1#1", "?"), Question("que_2", "?")])
    assert waiting.answer("que_1#1", Answer(False)) == Reply("/question/que_1/reject", {})
    assert waiting.answer("que_1#0", Answer(True)) is None
    assert waiting.answer("que_2", Answer(True, answers=("a", "b"))) == Reply("/question/que_2/reply", {"answers": [["a", "b"]]})
