"""Whole turns of the native backend against the scripted model."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from native_turns import KEY, chat
from turns import Chat

from coder.events import AgentEvent, Notice, ReasoningDelta, TextDelta, ToolCall, Usage

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)


@pytest.fixture
async def talk(tmp_path: Path, model_server: ModelServer) -> AsyncIterator[Chat]:
    async with chat(tmp_path, model_base_url=model_server.openai) as made:
        yield made


async def test_a_turn_writes_a_file_runs_a_command_and_says_so(talk: Chat) -> None:
    played = await talk.play("write notes/a.txt: one\\ntwo\nrun: cat notes/a.txt; exit 3\nthink: done?\nsay: It is done.")
    assert played.error is None
    assert (talk.worktree / "notes/a.txt").read_text() == "one\ntwo"
    assert (played.transcript.text, played.transcript.reasoning) == ("It is done.", "done?")
    write, run = played.transcript.tool_calls
    assert (write.name, write.status, write.output) == ("write", "completed", "Wrote notes/a.txt.")
    assert json.loads(write.input) == {"path": "notes/a.txt", "content": "one\ntwo"}
    assert (run.name, run.status, run.output, run.exit_code) == ("run", "completed", "one\ntwo\n[exit code 3]", 3)
    assert played.of(Usage) == [Usage(1200, 0, 34, 1234)] * 3
    assert [type(event) for event in played.events[-3:]] == [ReasoningDelta, TextDelta, Usage]


async def test_every_call_is_told_as_running_before_it_starts_and_once_as_ended(talk: Chat) -> None:
    marker = talk.worktree / "marker"
    seen: list[tuple[str, bool]] = []

    def note(_: object, event: object) -> bool:
        if isinstance(event, ToolCall):
            seen.append((event.status, marker.exists()))
        return False

    await talk.play("run: touch marker\nsay: ok", until=note)
    assert [status for status, _ in seen] == ["running"] * (len(seen) - 1) + ["completed"]
    assert [exists for _, exists in seen] == [False] * (len(seen) - 1) + [True]


async def test_calls_of_one_answer_run_one_after_the_other(talk: Chat) -> None:
    """Each command would see the other's trace if they overlapped."""
    one = "run: test ! -e busy && touch busy && read -t 0.2 < /dev/zero; rm busy && echo alone"
    played = await talk.play(f"{one}\n+ {one}\n+ {one}\nsay: ok")
    assert [call.output.strip() for call in played.transcript.tool_calls] == ["alone"] * 3


async def test_a_tool_that_runs_is_told(talk: Chat) -> None:
    gate = talk.worktree / "gate"
    os.mkfifo(gate)
    busy: list[bool] = []
    async with talk.backend.run_turn(talk.turn("run: cat gate\nsay: ok")) as live:
        events = aiter(live.events)
        while not isinstance(await anext(events), ToolCall):
            busy.append(live.busy_with_tool())
        rest = asyncio.ensure_future(_collect(events))
        with await asyncio.to_thread(gate.open, "w") as opened:  # opens once the command reads
            busy.append(live.busy_with_tool())
            opened.write("through")
        ended = [event for event in await rest if isinstance(event, ToolCall) and event.status == "completed"]
        busy.append(live.busy_with_tool())
    assert busy == [True, False]
    assert [call.output for call in ended] == ["through"]


async def test_asking_for_an_event_can_be_given_up_and_done_again(talk: Chat) -> None:
    gate = talk.worktree / "gate"
    os.mkfifo(gate)
    async with talk.backend.run_turn(talk.turn("run: cat gate\nsay: ok")) as live:
        events = aiter(live.events)
        asking = asyncio.ensure_future(_collect(events))
        with await asyncio.to_thread(gate.open, "w") as opened:
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            opened.write("through")
        rest = await _collect(events)
    assert [event.output for event in rest if isinstance(event, ToolCall)] == ["through"]
    assert TextDelta("ok") in rest


async def _collect(events: AsyncIterator[AgentEvent]) -> list[AgentEvent]:
    return [event async for event in events]


async def test_the_prompt_cache_holds_from_turn_to_turn(talk: Chat, model_server: ModelServer) -> None:
    first = await talk.play("write a.txt: cache-prefix-7\nread a.txt\nthink: hm\nsay: one")
    second = await talk.play("run: cat a.txt\nsay: two")
    third = await talk.play("say: three")
    assert first.history is not None
    assert second.history is not None
    assert third.history is not None
    assert second.history.startswith(first.history[:-1])
    assert third.history.startswith(second.history[:-1])
    bodies = model_server.requests("cache-prefix-7")
    assert len(bodies) == 3 + 2 + 1
    for earlier, later in pairwise(bodies):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]
        assert (later["tools"], later["model"]) == (earlier["tools"], earlier["model"])


async def test_what_the_model_remembers_survives_storage_and_a_new_process(talk: Chat, model_server: ModelServer) -> None:
    await talk.play("say: remember-the-word-xylophone")
    talk.history = json.loads(json.dumps(talk.history))
    await talk.play("say: again-xylophone")
    last = model_server.requests("again-xylophone")[-1]
    assert [message["role"] for message in last["messages"]] == ["system", "user", "assistant", "user"]


async def test_an_unreadable_history_starts_afresh_with_a_notice(talk: Chat) -> None:
    for broken in ("", "{", '{"not": "ours"}', '[{"kind": "unheard of"}]'):
        talk.history = broken
        played = await talk.play("say: hello")
        assert played.error is None
        assert len(played.of(Notice)) == 1
        assert played.history is not None
        assert len(json.loads(played.history)) == 2


def strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings(item)


async def test_characters_postgres_refuses_become_replacements(talk: Chat, model_server: ModelServer) -> None:
    played = await talk.play("say: a\\0b \\ud800!\nwrite a.txt: odd-x\\0y\nsay: 0123456789😀😀")
    assert played.error is None
    assert played.transcript.text == "a\ufffdb \ufffd!0123456789😀😀"
    assert "".join(event.text for event in played.of(TextDelta)) == played.transcript.text
    assert (talk.worktree / "a.txt").read_text() == "odd-x\ufffdy"
    assert played.history is not None
    kept = [*strings(json.loads(played.history)), *(text for call in played.of(ToolCall) for text in strings(json.loads(call.input)))]
    assert len(kept) > 10
    assert not any("\x00" in text or text.encode() is None for text in kept)
    assert (await talk.play("say: and on")).error is None
    for earlier, later in pairwise(model_server.requests("odd-x")):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]


async def test_broken_arguments_and_unknown_tools_go_back_to_the_model(talk: Chat) -> None:
    played = await talk.play("badjson\nunknowntool\nwrite a.txt: ok\nsay: mended")
    assert played.error is None
    assert played.transcript.text == "mended"
    assert [call.status for call in played.transcript.tool_calls] == ["failed", "failed", "completed"]
    assert (talk.worktree / "a.txt").exists()


async def test_a_refused_tool_call_does_not_end_the_turn(talk: Chat) -> None:
    played = await talk.play("write ../out.txt: no\nread .git/config\nread nothing.txt\nsay: ok")
    assert played.error is None
    assert [call.status for call in played.transcript.tool_calls] == ["failed"] * 3
    assert "leads out of the worktree" in played.transcript.tool_calls[0].output
    assert "No such file" in played.transcript.tool_calls[2].output
    assert not (talk.folder / "out.txt").exists()


async def test_the_task_names_the_model_and_blank_means_the_default(talk: Chat, model_server: ModelServer) -> None:
    await talk.play("say: by-name-42", model="m2")
    await talk.play("say: by-default-42", model="  ")
    assert model_server.requests("by-name-42")[0]["model"] == "m2"
    assert model_server.requests("by-default-42")[0]["model"] == "m1"


async def test_commands_start_in_the_working_directory_without_our_environment(
    tmp_path: Path, model_server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CODER_MODEL_API_KEY", KEY)
    monkeypatch.setenv("CODER_DATABASE_URL", "postgresql://secret")
    async with chat(tmp_path, cwd="sub", model_base_url=model_server.openai) as talk:
        played = await talk.play("run: pwd; env\nwrite here.txt: x\nsay: ok")
    output = played.transcript.tool_calls[0].output
    assert output.startswith(str(talk.worktree / "sub"))
    assert "PATH=" in output
    assert "CODER_" not in output
    assert (talk.worktree / "sub/here.txt").exists()


async def test_the_key_is_in_nothing_that_is_kept(talk: Chat) -> None:
    played = await talk.play(f"run: echo hi # {KEY[:0]}\nerror 401")
    assert played.error is not None
    for kept in (played.error.message, played.log, played.history or "", repr(talk.backend.__dict__)):
        assert KEY not in kept


async def test_the_log_tells_requests_and_commands_with_their_raw_output(talk: Chat) -> None:
    played = await talk.play("run: printf 'raw\\\\t\\\\001'; exit 4\nsay: ok")
    assert "request 1: model m1, 1200 tokens in, 0 of them cached, 34 out" in played.log
    assert "$ printf" in played.log
    assert "raw\t\x01" in played.log
    assert "[exit code 4]" in played.log


async def test_a_thinking_option_reaches_the_model_and_an_unknown_one_is_told(talk: Chat, model_server: ModelServer) -> None:
    known = await talk.play("say: effort-one", thinking_option_id="high")
    unknown = await talk.play("say: effort-two", thinking_option_id="gigantic")
    assert known.of(Notice) == []
    assert "gigantic" in unknown.of(Notice)[0].text
    assert unknown.transcript.text == "effort-two"


async def test_anthropic_endpoints_are_spoken_to_in_their_own_protocol(tmp_path: Path, model_server: ModelServer) -> None:
    async with chat(tmp_path, model_base_url=f"{model_server.url}/v1", model_protocol="anthropic") as talk:
        first = await talk.play("write a.txt: anthropic-prefix-9\nthink: hm\nsay: done")
        second = await talk.play("run: cat a.txt\nsay: again")
    assert (first.error, second.error) == (None, None)
    assert first.transcript.text == "done"
    assert first.transcript.reasoning == "hm"
    assert second.transcript.tool_calls[0].output == "anthropic-prefix-9"
    assert first.of(Usage)[0] == Usage(200, 0, 34, 234)
    assert second.history is not None
    assert first.history is not None
    assert second.history.startswith(first.history[:-1])
    bodies = model_server.requests("anthropic-prefix-9")
    assert len(bodies) == 4
    for earlier, later in pairwise(bodies):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"]


async def test_cached_tokens_are_told(tmp_path: Path, model_server: ModelServer) -> None:
    """Of the scripted model's OpenAI dialects, OpenRouter's tells them."""
    async with chat(tmp_path, model_base_url=f"{model_server.url}/api/v1") as talk:
        played = await talk.play("say: cached")
    assert played.of(Usage) == [Usage(1200, 1000, 34, 1234)]


async def test_a_probe_tells_whether_and_what(tmp_path: Path, model_server: ModelServer) -> None:
    cases = {
        "there": {"model_base_url": model_server.openai, "default_model": "m2"},
        "anthropic": {"model_base_url": model_server.url, "model_protocol": "anthropic"},
        "none": {"model_base_url": None},
        "down": {"model_base_url": "http://127.0.0.1:9/v1"},
        "wrong": {"model_base_url": f"{model_server.url}/__aimock/health"},
    }
    facts = {}
    for name, values in cases.items():
        (tmp_path / name).mkdir()
        async with chat(tmp_path / name, **values) as talk:
            (facts[name],) = await talk.backend.probe()
    assert (facts["there"].agent, facts["there"].available, facts["there"].models) == ("native", True, ("m2", "m1"))
    assert facts["anthropic"].models == ("m1", "m2")
    assert not facts["none"].available
    assert "CODER_MODEL_BASE_URL" in facts["none"].detail
    assert facts["down"].available
    assert "cannot be reached" in facts["down"].detail
    assert facts["wrong"].models == ("m1",)
    assert facts["wrong"].detail


def test_the_model_libraries_are_loaded_by_the_first_turn_only(tmp_path: Path) -> None:
    program = "import sys, coder.backends.native; print([m for m in ('pydantic_ai', 'openai', 'anthropic') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert found.stdout.strip() == "[]"


async def test_stopping_twice_and_without_a_start_is_fine(tmp_path: Path, model_server: ModelServer) -> None:
    async with chat(tmp_path, model_base_url=model_server.openai) as talk:
        await talk.backend.stop()
        assert (await talk.play("say: still")).transcript.text == "still"
        await talk.backend.stop()
        await talk.backend.stop()
