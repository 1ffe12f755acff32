"""The native backend with the scripted demo model: what `bin/up --demo` runs."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from native_turns import chat
from turns import Chat

from coder.demo.model import PLAIN, ScriptedModel
from coder.events import TextDelta, Usage


@pytest.fixture
def model() -> Iterator[ScriptedModel]:
    served = ScriptedModel()
    served.start()
    yield served
    served.stop()
    served.stop()


@pytest.fixture
async def talk(tmp_path: Path, model: ScriptedModel) -> AsyncIterator[Chat]:
    async with chat(tmp_path, model_base_url=model.base_url, default_model="demo") as made:
        yield made


async def test_a_whole_turn(talk: Chat) -> None:
    played = await talk.play("write a.txt: one two\nedit a.txt: two => three\nread a.txt\nrun: exit 3\nsay: All of it is done.")
    assert played.error is None
    assert (talk.worktree / "a.txt").read_text() == "one three"
    assert [(call.name, call.status, call.exit_code) for call in played.transcript.tool_calls] == [
        ("write", "completed", None),
        ("edit", "completed", None),
        ("read", "completed", None),
        ("run", "completed", 3),
    ]
    assert played.transcript.tool_calls[2].output == "one three"
    assert played.transcript.text == "All of it is done."
    assert len(played.of(TextDelta)) > 1


async def test_usage_shows_the_cached_prefix(talk: Chat) -> None:
    played = await talk.play("run: true\nsay: done")
    first, second = played.of(Usage)
    assert 0 < first.cached_tokens < first.input_tokens
    assert second.cached_tokens >= first.input_tokens
    assert second.context_tokens == second.input_tokens + second.output_tokens


async def test_a_prompt_without_directives_is_answered_plainly(talk: Chat) -> None:
    assert (await talk.play("Make it faster.")).transcript.text == PLAIN


async def test_the_probe_names_its_model(talk: Chat) -> None:
    (facts,) = await talk.backend.probe()
    assert (facts.available, facts.models, facts.detail) == (True, ("demo",), "")


def test_answers_without_streaming_and_refusals(model: ScriptedModel) -> None:
    answer = _post(model, {"model": "demo", "messages": [{"role": "user", "content": "hello"}]})
    assert answer["choices"][0] == {"index": 0, "message": {"role": "assistant", "content": PLAIN}, "finish_reason": "stop"}
    for body in (b"{", b"[]", b"{}"):
        with pytest.raises(urllib.error.HTTPError, match="400"):
            _post(model, body)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(model.base_url)


def test_it_runs_as_a_program_and_prints_its_address() -> None:
    command = [sys.executable, "-m", "coder.demo.model", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/models") as answer:
            assert json.load(answer)["data"][0]["id"] == "demo"
        process.terminate()


def _post(model: ScriptedModel, body: dict[str, Any] | bytes) -> dict[str, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{model.base_url}/chat/completions", content, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        got: dict[str, Any] = json.load(answer)
    return got
