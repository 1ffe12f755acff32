"""A warm sends the chat's prompt prefix, byte for byte, with the smallest possible answer."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


class Thinker:
    """An endpoint that speaks Anthropic's protocol and thinks before it answers.

    Attributes:
        asked: the bodies it got.
        endless: it goes on thinking until nobody listens, which is `broken_off` then.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.endless = False
        self.broken_off = False
        self.url = ""

    def words(self) -> Iterator[tuple[str, dict[str, Any]]]:
        usage = {"input_tokens": 200, "cache_read_input_tokens": 1000, "output_tokens": 1}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None, "usage": usage}
        yield "message_start", {"message": message}
        yield "content_block_start", {"index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}}
        yield "content_block_delta", {"index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}
        while self.endless:
            yield "content_block_delta", {"index": 0, "delta": {"type": "thinking_delta", "thinking": "And on." * 1000}}
        yield "content_block_delta", {"index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}}
        yield "content_block_stop", {"index": 0}
        yield "content_block_start", {"index": 1, "content_block": {"type": "text", "text": ""}}
        yield "content_block_delta", {"index": 1, "delta": {"type": "text_delta", "text": "Done."}}
        yield "content_block_stop", {"index": 1}
        yield "message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {**usage, "output_tokens": 34}}
        yield "message_stop", {}


@pytest.fixture
def thinker() -> Iterator[Thinker]:
    told = Thinker()

    class Answers(Quiet):
        def do_POST(self) -> None:
            told.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            try:
                for event, content in told.words():
                    self.wfile.write(f"event: {event}\ndata: {json.dumps({'type': event, **content})}\n\n".encode())
            except OSError:
                told.broken_off = True

    with serving(Answers) as told.url:
        yield told


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def serving(answers: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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
    usage = await cache.warm(played.history, None, None)
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


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("claude-sonnet-4-5", {"thinking": {"type": "enabled", "budget_tokens": 16384}}),
        ("claude-opus-4-6", {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
    ],
    ids=["budget", "adaptive"],
)
@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
async def test_an_anthropic_chat_that_thinks_is_kept_warm_with_its_effort(
    tmp_path: Path, thinker: Thinker, model: str, effort: dict[str, Any]
) -> None:
    given = {"model_base_url": thinker.url, "model_protocol": "anthropic"}
    async with chat(tmp_path, **given) as talk:
        await talk.play("one", model=model, thinking_option_id="high")
        played = await talk.play("two", model=model, thinking_option_id="high")
    assert (played.error, played.transcript.reasoning, played.transcript.text) == (None, "Hm.", "Done.")
    last = thinker.asked[-1]
    assert {name: last.get(name) for name in effort} == effort
    assert last["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    thinker.endless = True
    cache = NativeCache(settings(**given))
    assert await cache.warm(played.history or "", model, "high") == Usage(1200, 1000, 1, 1201)
    await cache.close()
    assert len(thinker.asked) == 3
    assert thinker.asked[-1] == last
    async with asyncio.timeout(20):
        while not thinker.broken_off:  # noqa: ASYNC110 - it finds out when it writes
            await asyncio.sleep(0.01)


async def test_what_cannot_be_sent_is_a_sentence(model_server: ModelServer) -> None:
    cache = NativeCache(settings(model_base_url=model_server.openai))
    for history in ("[]", "no history"):
        with pytest.raises(ProviderError, match="cannot be read"):
            await cache.warm(history, None, None)
    away = NativeCache(settings(model_base_url="http://127.0.0.1:1/v1"))
    history = json.dumps([{"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "x"}]}])
    with pytest.raises(ProviderError, match="cannot be reached"):
        await away.warm(history, None, None)
    for each in (cache, away):
        await each.close()


@pytest.fixture
def endpoint() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """One that tells of its prompt cache, and what it was asked."""
    asked: list[dict[str, Any]] = []

    class Answers(Quiet):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
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

    with serving(Answers) as url:
        yield f"{url}/v1", asked


ONE_PROMPT = json.dumps([{"kind": "request", "parts": [{"part_kind": "user-prompt", "content": "x"}]}])


async def test_what_it_took_and_what_came_from_the_cache_is_what_the_provider_says(endpoint: tuple[str, list[dict[str, Any]]]) -> None:
    cache = NativeCache(settings(model_base_url=endpoint[0]))
    assert await cache.warm(ONE_PROMPT, None, None) == Usage(1200, 1152, 1, 1201)
    await cache.close()


async def test_an_effort_is_asked_for_by_turns_and_warms_of_any_model(tmp_path: Path, endpoint: tuple[str, list[dict[str, Any]]]) -> None:
    url, asked = endpoint
    cache = NativeCache(settings(model_base_url=url))
    async with chat(tmp_path, model_base_url=url) as talk:
        for option in ("high", None, "odd"):
            await talk.play("it does not stream, so this fails", thinking_option_id=option)
            await cache.warm(ONE_PROMPT, None, option)
    await cache.close()
    assert [body.get("reasoning_effort") for body in asked] == ["high", "high", None, None, None, None]
    assert [body.get("max_completion_tokens") for body in asked] == [None, 1] * 3
