"""The fold of a turn: what is stored is clean, bounded and complete."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from coder.events import AgentEvent, Command, Commands, Notice, Plan, PlanEntry, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.transcript import TEXT_BYTES, TOOL_BYTES, Transcript, clean, clean_json

any_text = st.text(st.characters(exclude_categories=()), max_size=60)


def folded(*events: AgentEvent) -> Transcript:
    transcript = Transcript()
    for event in events:
        transcript.apply(event)
    return transcript


def test_text_and_reasoning_are_kept_apart_and_in_order() -> None:
    transcript = folded(TextDelta("a"), ReasoningDelta("hm"), TextDelta("b"), ReasoningDelta("m"))
    assert (transcript.text, transcript.reasoning) == ("ab", "hmm")


def test_the_latest_snapshot_of_a_call_wins_in_first_seen_order() -> None:
    transcript = folded(
        ToolCall("1", "run", "{}", "running"),
        ToolCall("2", "read", "{}", "running"),
        ToolCall("1", "run", '{"command":"ls"}', "completed", "out", 0),
    )
    assert [(c.id, c.status, c.output) for c in transcript.tool_calls] == [("1", "completed", "out"), ("2", "running", "")]
    assert json.loads(transcript.tool_calls_json())[0] == {
        "id": "1",
        "name": "run",
        "input": '{"command":"ls"}',
        "status": "completed",
        "output": "out",
        "exit_code": 0,
    }


def test_usage_is_summed_and_the_context_is_the_last_known() -> None:
    transcript = folded(Usage(10, 5, 2, 12), Usage(20, 15, 3, 23), Usage(1, 0, 1))
    assert transcript.usage == Usage(31, 20, 6, 23)


def test_a_summary_is_the_first_500_characters() -> None:
    assert folded(TextDelta("é" * 600)).summary() == "é" * 500


def test_notices_are_kept() -> None:
    assert folded(Notice("careful\x00")).notices == ("careful\ufffd",)


def test_text_beyond_its_bound_is_cut_with_one_notice_and_spilled_whole() -> None:
    transcript = Transcript()
    assert transcript.apply(TextDelta("a" * (TEXT_BYTES - 1))) == (TextDelta("a" * (TEXT_BYTES - 1)),)
    shown = transcript.apply(TextDelta("éb"))
    assert [type(event) for event in shown] == [Notice]
    assert transcript.apply(TextDelta("c")) == ()
    assert transcript.text == "a" * (TEXT_BYTES - 1)
    assert len(transcript.notices) == 1
    first, second = transcript.take_spills()
    assert (first.file, first.text, first.append) == ("text.txt", "a" * (TEXT_BYTES - 1) + "éb", False)
    assert (second.text, second.append) == ("c", True)
    assert transcript.take_spills() == ()


def test_reasoning_has_a_bound_of_its_own() -> None:
    transcript = folded(ReasoningDelta("r" * (TEXT_BYTES + 1)), TextDelta("t"))
    assert (len(transcript.reasoning), transcript.text) == (TEXT_BYTES, "t")


def test_tool_output_beyond_its_bound_is_cut_visibly_and_spilled_whole() -> None:
    transcript = folded(ToolCall("../x", "run", "{}", "completed", "o" * (TOOL_BYTES + 1), 0))
    (call,) = transcript.tool_calls
    assert len(call.output.encode()) <= TOOL_BYTES
    assert call.output.endswith("[… cut here, 262,145 bytes in all; the whole is in the turn's file tool-1.txt]")
    (spill,) = transcript.take_spills()
    assert (spill.file, len(spill.text)) == ("tool-1.txt", TOOL_BYTES + 1)


def test_tool_input_beyond_its_bound_stays_json() -> None:
    transcript = folded(ToolCall("1", "write", json.dumps({"text": '"' * TOOL_BYTES}), "running"))
    (call,) = transcript.tool_calls
    assert isinstance(json.loads(call.input), str)
    assert len(call.input.encode()) <= TOOL_BYTES
    assert transcript.take_spills()[0].file == "tool-1-input.txt"


def test_calls_that_still_run_at_the_end_are_ended() -> None:
    transcript = folded(ToolCall("1", "run", "{}", "running"), ToolCall("2", "run", "{}", "completed"))
    assert [call.id for call in transcript.end_tools()] == ["1"]
    assert [call.status for call in transcript.tool_calls] == ["failed", "completed"]


def test_what_postgres_refuses_becomes_the_replacement_character() -> None:
    assert clean("a\x00b") == "a\ufffdb"
    assert clean("é\ud800x\udc00") == "é\ufffdx\ufffd"
    assert clean("\ud83d\ude00") == "😀"
    assert clean_json('{"a": "\\u0000 \\ud83d\\ude00 \\ud83d"}') == '{"a": "\ufffd 😀 \ufffd"}'
    assert clean_json("") == "{}"
    assert json.loads(clean_json('{"path": "READ\x00')) == '{"path": "READ\ufffd'
    assert json.loads(clean_json("[" * 100_000)) == "[" * 100_000


@given(any_text)
def test_clean_text_can_be_stored_and_stays_as_it_is(text: str) -> None:
    once = clean(text)
    assert "\x00" not in once
    once.encode()
    assert clean(once) == once


@given(st.lists(st.tuples(st.sampled_from(["text", "reasoning", "call", "notice"]), any_text), max_size=20))
def test_everything_in_a_transcript_can_be_stored(events: list[tuple[str, str]]) -> None:
    transcript = Transcript()
    for kind, text in events:
        made: dict[str, AgentEvent] = {
            "text": TextDelta(text),
            "reasoning": ReasoningDelta(text),
            "call": ToolCall(text, text, json.dumps({text: [text, 1]}), "completed", text),
            "notice": Notice(text),
        }
        transcript.apply(made[kind])
    stored = [transcript.text, transcript.reasoning, transcript.tool_calls_json(), *transcript.notices]
    for call in transcript.tool_calls:
        stored.append(call.input)
        assert "\\u0000" not in call.input
        json.loads(call.input)
    assert all("\x00" not in text and text.encode() is not None for text in stored)


def test_plans_and_commands_replace_what_was_told_before_and_are_bounded() -> None:
    transcript = Transcript()
    assert (transcript.plan, transcript.commands) == (Plan(()), Commands(()))
    transcript.apply(Plan((PlanEntry("look", "pending"),)))
    (told,) = transcript.apply(Plan((PlanEntry("lo\0ok", "completed"), PlanEntry("x" * 5000, "pending"))))
    assert told == transcript.plan
    assert [(entry.text[:6], len(entry.text), entry.status) for entry in transcript.plan.entries] == [
        ("lo\ufffdok", 5, "completed"), ("xxxxxx", 1000, "pending")]  # fmt: skip
    transcript.apply(Commands(tuple(Command(f"c{number}", "d" * 2000) for number in range(600))))
    assert (len(transcript.commands.commands), len(transcript.commands.commands[0].description)) == (500, 1000)
    assert transcript.text == ""
