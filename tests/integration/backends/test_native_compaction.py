"""A conversation is summarised and goes on from the summary; how much a model's context holds."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from native_turns import chat
from turns import Chat, settings

from coder.backends.native_model import Models, limit_of
from coder.errors import ProviderError
from coder.events import Usage

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)


@pytest.fixture
async def talk(tmp_path: Path, model_server: ModelServer) -> AsyncIterator[Chat]:
    async with chat(tmp_path, model_base_url=model_server.openai, context_limit=5000) as made:
        yield made


async def test_the_next_turn_knows_the_summary_alone(talk: Chat, model_server: ModelServer) -> None:
    await talk.play("write a.txt: first-thing-9\nsay: I wrote it.")
    played = await talk.play("summarise-9\nthink: what was there?\nsay: A file a.txt was written.", compacts=True)
    assert played.error is None
    after = await talk.play("heard first-thing-9\nheard a.txt")
    assert after.transcript.text == "I never heard first-thing-9.\nI heard a.txt."
    body = model_server.requests("summarise-9")[-1]
    assert [(message["role"], message.get("content")) for message in body["messages"][1:3]] == [
        ("user", "summarise-9\nthink: what was there?\nsay: A file a.txt was written."), ("assistant", "A file a.txt was written.")
    ]  # fmt: skip
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "user"]


async def test_what_is_summarised_is_sent_with_its_cached_prefix(talk: Chat, model_server: ModelServer) -> None:
    await talk.play("read nothing.txt\nsay: prefix-of-10")
    await talk.play("summarise-10\nsay: There was no file.", compacts=True)
    _, before, asked = model_server.requests("prefix-of-10")
    assert asked["messages"][: len(before["messages"])] == before["messages"]
    assert asked["tools"] == before["tools"]


async def test_whoever_summarises_changes_nothing(talk: Chat) -> None:
    await talk.play("say: hello")
    played = await talk.play("write b.txt: x\nrun: touch c.txt\nsay: Summary.", compacts=True)
    assert [call.status for call in played.transcript.tool_calls] == ["failed", "failed"]
    assert "answer with the summary" in played.transcript.tool_calls[0].output
    assert not (talk.worktree / "b.txt").exists()
    assert not (talk.worktree / "c.txt").exists()
    assert len(json.loads(played.history or "[]")) == 2


async def test_no_summary_is_no_success(talk: Chat) -> None:
    await talk.play("say: hello")
    played = await talk.play("empty", compacts=True)
    assert isinstance(played.error, ProviderError)


async def test_a_turn_tells_how_much_its_context_holds(talk: Chat) -> None:
    played = await talk.play("say: hello")
    assert [usage.context_limit for usage in played.of(Usage)] == [5000]
    assert played.transcript.usage.context_limit == 5000


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ({"id": "m"}, None),
        ({"id": "m", "max_model_len": 32768}, 32768),
        ({"id": "m", "context_length": 131072, "meta": {"n_ctx_train": 1}}, 131072),
        ({"id": "m", "meta": {"n_ctx_train": 40960}}, 40960),
        ({"id": "m", "meta": {"n_ctx_train": 40960, "n_ctx": 8192}}, 8192),
        ({"id": "m", "context_window": "large", "max_input_tokens": 200000}, 200000),
        ({"id": "m", "max_model_len": 0, "meta": None}, None),
        ({"id": "m", "max_model_len": True}, None),
    ],
)
def test_what_lists_of_models_say_of_their_contexts(entry: dict[str, Any], limit: int | None) -> None:
    assert limit_of(entry) == limit


@pytest.fixture
def models_list() -> Iterator[str]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"data": [{"id": "gpt-4o", "max_model_len": 4096}, {"id": "gpt-4o-mini"}, {"id": "own"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_the_endpoint_s_list_goes_before_the_table_and_the_table_before_the_setting(models_list: str) -> None:
    models = Models(settings(model_base_url=models_list, context_limit=1234))
    assert models.context_limit("gpt-4o") == 128000
    assert await models.names() == ("gpt-4o", "gpt-4o-mini", "own")
    assert [models.context_limit(name) for name in ("gpt-4o", "gpt-4o-mini", "own", "nobody's")] == [4096, 128000, 1234, 1234]
    assert Models(settings(model_base_url=models_list)).context_limit("own") is None
