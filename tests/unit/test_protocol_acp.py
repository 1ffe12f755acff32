"""The Agent Client Protocol's translation: recordings of real agents, the odd ways of tool calls, and whatever else comes.

`tests/golden/acp/<agent>.jsonl` is what an agent wrote in two turns against the scripted model (it writes a file, runs a
command, is allowed both; then it is refused one), with paths made general and long lists cut. Run this file as a program
to write the expected events anew, and read the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coder.events import AgentEvent, Commands, PermissionRequest, Plan, TextDelta, ToolCall, Usage
from coder.protocols.acp import LIVE_CHARACTERS, Translation
from coder.protocols.acp_options import Options, told, updated
from coder.protocols.acp_output import difference
from coder.transcript import Transcript

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "acp"
AGENTS = ("claude", "codex", "goose", "qwen")
CWD = "/srv/tree"


def spoken(agent: str) -> Iterator[dict[str, Any]]:
    """The events of a recording, a mark for each turn's end among them."""
    translation, asked = Translation(CWD), 0
    for line in (GOLDEN / f"{agent}.jsonl").read_text().splitlines():
        message = json.loads(line)
        events: list[AgentEvent] = []
        method, params, result = message.get("method"), message.get("params"), message.get("result")
        if method == "session/update":
            events = translation.update(params["update"])
        elif method == "session/request_permission":
            asked += 1
            events = translation.asked(f"permission-{asked}", params["toolCall"])
        elif isinstance(result, dict) and "stopReason" in result:
            events = translation.ended(result)
        yield from ({"event": type(event).__name__, **json.loads(json.dumps(asdict(event)))} for event in events)
        if isinstance(result, dict) and "stopReason" in result:
            yield {"turn": result["stopReason"], "running": translation.running}
            translation = Translation(CWD)


@pytest.mark.parametrize("agent", AGENTS)
def test_recordings_become_the_events_they_always_became(agent: str) -> None:
    expected = [json.loads(line) for line in (GOLDEN / f"{agent}.events.jsonl").read_text().splitlines()]
    assert list(spoken(agent)) == expected


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_tells_its_tools_names_arguments_output_and_exit_code(agent: str) -> None:
    """What a person needs of a turn, whatever way the agent has of telling it."""
    events = list(spoken(agent))
    first = events[: next(number for number, event in enumerate(events) if "turn" in event)]
    calls = {event["id"]: event for event in first if event["event"] == "ToolCall"}
    write, run = calls.values()
    assert "/srv/tree/a.txt" in write["input"]
    assert (write["status"], run["status"], run["exit_code"]) == ("completed", "failed", 3)
    assert "hi\none\ntwo" in run["output"]
    assert "echo hi; cat a.txt; exit 3" in run["input"]
    assert "".join(event["text"] for event in first if event["event"] == "TextDelta").endswith("It is done.")
    assert any(event["event"] == "ReasoningDelta" and "let me see" in event["text"] for event in first)
    assert sum(event["input_tokens"] for event in first if event["event"] == "Usage") > 0
    asked = [event for event in events if event.get("event") == "PermissionRequest"]
    assert asked[-1]["title"] == "touch no"
    assert asked[-1]["kind"] == "execute"


def test_choices_are_read_from_modes_and_options_alike() -> None:
    offers = {}
    for agent in AGENTS:
        lines = map(json.loads, (GOLDEN / f"{agent}.jsonl").read_text().splitlines())
        offers[agent] = next(told(line["result"]) for line in lines if (line.get("result") or {}).get("sessionId"))
    assert offers["goose"].mode.ids == ("auto", "approve", "smart_approve", "chat")
    assert offers["claude"].thinking.ids == ("default", "low", "medium", "high", "xhigh", "max")
    assert offers["codex"].mode.ids == ("read-only", "workspace-write", "agent", "agent-full-access")
    assert (offers["qwen"].model.ids, offers["qwen"].model.value("m1")) == (("m1",), "$runtime|openai|m1(openai)")
    assert {agent: options.model.option for agent, options in offers.items()} == dict.fromkeys(AGENTS, "model")
    changed = updated(offers["goose"], {"sessionUpdate": "current_mode_update", "currentModeId": "chat"})
    assert (changed.mode.current, changed.mode.ids) == ("chat", offers["goose"].mode.ids)


def test_modes_may_come_as_a_config_option_alone_and_in_groups() -> None:
    groups = [{"group": "g", "name": "G", "options": [{"value": "build", "name": "Build"}]}, {"value": "plan", "name": "Plan"}]
    options = told({"configOptions": [{"id": "mode", "type": "select", "currentValue": "build", "options": groups}]})
    assert (options.mode.option, options.mode.current, options.mode.ids) == ("mode", "build", ("build", "plan"))


def test_output_that_grows_is_told_by_tenths_and_kept_up_to_a_bound() -> None:
    translation, told_events = Translation(CWD), 0
    translation.update({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "run", "status": "in_progress"})
    piece = {"terminal_output_delta": {"data": "x" * 99 + "\n"}}
    for _ in range(30_000):
        told_events += len(translation.update({"sessionUpdate": "tool_call_update", "toolCallId": "c", "_meta": piece}))
    (last,) = translation.update({"sessionUpdate": "tool_call_update", "toolCallId": "c", "status": "completed"})
    assert isinstance(last, ToolCall)
    assert len(last.output) == LIVE_CHARACTERS
    assert told_events < 200


@pytest.mark.parametrize(
    ("call", "name", "given"),
    [
        ({"kind": "execute", "title": "make test"}, "execute", '{"title":"make test"}'),
        ({"kind": "execute", "title": "make test", "rawInput": {"command": "make"}}, "execute", '{"command":"make"}'),
        ({"title": "thing"}, "thing", "{}"),
    ],
)
def test_what_a_call_does_is_told_where_the_agent_says_it_in_the_title_alone(call: dict[str, Any], name: str, given: str) -> None:
    """As gemini does."""
    (event,) = Translation(CWD).update({"sessionUpdate": "tool_call", "toolCallId": "c", **call})
    assert isinstance(event, ToolCall)
    assert (event.name, json.loads(event.input)) == (name, json.loads(given))


def test_an_end_is_final() -> None:
    translation = Translation(CWD)
    translation.update({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "run", "status": "failed"})
    translation.update({"sessionUpdate": "tool_call", "toolCallId": "c", "title": "run", "status": "in_progress"})
    assert not translation.running


@pytest.mark.parametrize(
    ("call", "kind", "title", "paths"),
    [
        ({"kind": "other", "rawInput": {"command": ["git", "push"]}}, "execute", "git push", ()),
        ({"rawInput": {"path": "a/b.txt"}}, "read", "a/b.txt", ("/srv/tree/a/b.txt",)),
        ({"rawInput": {"path": "/etc/passwd", "content": "x"}}, "edit", "/etc/passwd", ("/etc/passwd",)),
        (
            {"kind": "edit", "rawInput": {"changes": {}}, "locations": [{"path": "/x"}, {"path": "y"}]},
            "edit",
            "/x, y",
            ("/x", "/srv/tree/y"),
        ),
        ({"kind": "delete", "content": [{"type": "diff", "path": "/x", "newText": ""}]}, "edit", "/x", ("/x",)),
        ({"kind": "fetch", "title": "Fetch", "rawInput": {"url": "http://x/"}}, "fetch", "http://x/", ()),
        ({"kind": "switch_mode", "title": "Leave plan mode"}, "other", "Leave plan mode", ()),
        ({}, "other", "c", ()),
    ],
)
def test_a_permission_request_says_what_it_comes_to(call: dict[str, Any], kind: str, title: str, paths: tuple[str, ...]) -> None:
    request = Translation(CWD).asked("p", {"toolCallId": "c", **call})[-1]
    assert isinstance(request, PermissionRequest)
    assert (request.kind, request.title, request.paths, request.call_id) == (kind, title, paths, "c")


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"inputTokens": 100, "outputTokens": 5, "cachedReadTokens": 40, "totalTokens": 105}, Usage(100, 40, 5)),
        ({"inputTokens": 100, "outputTokens": 5, "cachedReadTokens": 40, "cachedWriteTokens": 2, "totalTokens": 147}, Usage(142, 40, 5)),
    ],
)
def test_cached_tokens_are_part_of_the_input_however_the_agent_counts(usage: dict[str, int], expected: Usage) -> None:
    assert Translation(CWD).ended({"usage": usage}) == [expected]


def test_a_difference_is_linear_and_right() -> None:
    before = [f"line {number}\n" for number in range(200_000)]
    after = [*before[:100], "new\n", *before[101:]]
    assert difference("x", "".join(before), "".join(after)).splitlines() == ["--- x", "+++ x", "@@ -101,1 +101,1 @@", "-line 100", "+new"]
    assert difference("x", None, "a\nb").splitlines() == ["--- /dev/null", "+++ x", "@@ -0,0 +1,2 @@", "+a", "+b"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "content", "text", "path", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
KINDS = ["agent_message_chunk", "agent_thought_chunk", "tool_call", "tool_call_update", "plan", "available_commands_update", "usage_update"]
FIELDS = st.sampled_from(
    ["content", "status", "kind", "title", "rawInput", "rawOutput", "locations", "entries", "availableCommands", "used", "_meta", "name"]
)
IDS = st.sampled_from(["a", "b"])
TOOL = st.fixed_dictionaries(
    {"sessionUpdate": st.sampled_from(["tool_call", "tool_call_update"]), "toolCallId": IDS},
    optional={
        "status": st.sampled_from(["pending", "in_progress", "completed", "failed"]),
        "title": st.text(max_size=5),
        "rawInput": JSON,
        "rawOutput": JSON,
        "content": JSON,
        "_meta": JSON,
    },
)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.builds(lambda kind, rest: {**rest, "sessionUpdate": kind}, st.sampled_from(KINDS), st.dictionaries(FIELDS, JSON, max_size=5)),
        max_size=8,
    )
)
def test_whatever_comes_is_translated_and_can_be_stored(updates: list[dict[str, Any]]) -> None:
    translation, transcript = Translation(CWD), Transcript()
    for update in updates:
        for event in [*translation.update(update), *translation.asked("p", {"toolCallId": "q", **update})]:
            transcript.apply(event)
            if isinstance(event, TextDelta):
                assert event.text
            if isinstance(event, Commands | Plan):
                hash(event)
    json.loads(transcript.tool_calls_json())
    updated(told({"configOptions": [updates], "modes": updates}), {"sessionUpdate": "config_option_update", "configOptions": updates})


@settings(max_examples=100, deadline=None)
@given(st.lists(TOOL, max_size=12))
def test_calls_are_upserted_by_id_and_the_last_snapshot_tells_all(updates: list[dict[str, Any]]) -> None:
    translation, latest = Translation(CWD), {}
    for update in updates:
        for event in translation.update(update):
            assert isinstance(event, ToolCall)
            latest[event.id] = event
    assert set(latest) == {update["toolCallId"] for update in updates}
    for call_id, call in latest.items():
        own = [update for update in updates if update["toolCallId"] == call_id]
        ended = [update["status"] for update in own if update.get("status") in ("completed", "failed")]
        assert call.status == "running" if not ended else call.status in ("completed", "failed")
    assert translation.running == any(call.status == "running" for call in latest.values())


def test_nothing_told_is_nothing_offered() -> None:
    assert told({}) == Options()


if __name__ == "__main__":
    for name in AGENTS:
        lines = [json.dumps(event, ensure_ascii=False) for event in spoken(name)]
        (GOLDEN / f"{name}.events.jsonl").write_text("\n".join(lines) + "\n")


def test_what_was_asked_for_and_never_began_has_failed_at_the_end() -> None:
    """gemini says nothing more of a call it was not allowed, and tells tokens in its own way."""
    translation = Translation("/w")
    translation.asked("1", {"toolCallId": "a", "status": "pending", "title": "touch no", "kind": "execute"})
    told = translation.ended({"stopReason": "end_turn", "_meta": {"quota": {"token_count": {"input_tokens": 7, "output_tokens": 2}}}})
    call, usage = told
    assert isinstance(call, ToolCall)
    assert call.status == "failed"
    assert usage == Usage(7, 0, 2)
    assert Translation("/w").ended({"_meta": {"quota": {"token_count": None}}}) == []
