"""A warm sends the chat's prompt prefix, byte for byte, with the smallest possible answer."""

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

from coder.backends.native_warm import NativeCache
from coder.errors import ProviderError
from coder.events import Usage

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

PROMPT = ("model", "messages", "tools", "system", "tool_choice")
"""What a request says to the model; the rest is about the answer."""


@pytest.fixture(params=["openai", "anthropic"])
async def talk(request: pytest.FixtureRequest, tmp_path: Path, model_server: ModelServer) -> AsyncIterator[tuple[Chat, NativeCache]]:
    url = model_server.openai if request.param == "openai" else model_server.url
    given = {"model_base_url": url, "model_protocol": request.param}
    async with chat(tmp_path, **given) as made:
        cache = NativeCache(settings(**given))
        yield made, cache
        await cache.close()


def sent(body: dict[str, Any]) -> dict[str, str]:
    return {name: json.dumps(body[name]) for name in PROMPT if name in body}


async def test_it_is_the_prompt_of_the_last_request_and_the_beginning_of_the_next(
    talk: tuple[Chat, NativeCache], model_server: ModelServer, request: pytest.FixtureRequest
) -> None:
    mine, cache = talk
    word = f"warm-prefix-{request.node.callspec.params['talk']}"
    await mine.play(f"write a.txt: {word}\nread a.txt\nthink: hm\nsay: one")
    played = await mine.play("run: cat a.txt\nsay: two")
    last = model_server.requests(word)[-1]
    assert played.history is not None
    usage = await cache.warm(played.history, None)
    warm = model_server.requests(word)[-1]
    assert warm != last
    assert sent(warm) == sent(last)
    assert warm.get("max_tokens") == 1 or warm.get("max_completion_tokens") == 1
    assert usage.input_tokens > 0
    assert isinstance(usage, Usage)
    await mine.play("say: three")
    following = model_server.requests(word)[-1]
    for earlier, later in zip(warm["messages"][:-1], following["messages"], strict=False):
        assert earlier == later


async def test_what_cannot_be_sent_is_a_sentence(model_server: ModelServer) -> None:
    cache = NativeCache(settings(model_base_url=model_server.openai))
    for history in ("[]", "no history"):
        with pytest.raises(ProviderError, match="cannot be read"):
            await cache.warm(history, None)
    away = NativeCache(settings(model_base_url="http://127.0.0.1:1/v1"))
    history = json.dumps([{"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "x"}]}])
    with pytest.raises(ProviderError, match="cannot be reached"):
        await away.warm(history, None)
    for each in (cache, away):
        await each.close()


@pytest.fixture
def endpoint() -> Iterator[str]:
    """One that tells of its prompt cache."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "o"}}
            usage = {"prompt_tokens": 1200, "completion_tokens": 1, "total_tokens": 1201, "prompt_tokens_details": {"cached_tokens": 1152}}
            body = json.dumps(
                {"id": "1", "object": "chat.completion", "created": 1, "model": "m1", "choices": [choice], "usage": usage}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
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


async def test_what_it_took_and_what_came_from_the_cache_is_what_the_provider_says(endpoint: str) -> None:
    cache = NativeCache(settings(model_base_url=endpoint))
    history = json.dumps([{"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "x"}]}])
    assert await cache.warm(history, None) == Usage(1200, 1152, 1, 1201)
    await cache.close()
