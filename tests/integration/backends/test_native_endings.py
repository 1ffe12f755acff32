"""How turns of the native backend end when something goes wrong, or when somebody leaves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from native_turns import KEY, chat
from turns import Chat

from coder.errors import DiskFull, ProviderError, ToolLoop
from coder.events import TextDelta

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

FIRST_WORDS = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m1"}
"""The beginning of a streamed answer of the OpenAI protocol."""


@pytest.fixture
async def talk(tmp_path: Path, model_server: ModelServer) -> AsyncIterator[Chat]:
    async with chat(tmp_path, model_base_url=model_server.openai) as made:
        yield made


@pytest.mark.parametrize(
    ("status", "what", "advice"),
    [
        (400, "rejects the request", "name another model"),
        (401, "refuses the key", "CODER_MODEL_API_KEY"),
        (403, "refuses the key", "CODER_MODEL_API_KEY"),
        (404, "knows no model m1", "CODER_MODEL_BASE_URL"),
        (429, "limits the rate", "later"),
        (500, "failed", "retry"),
        (503, "not available", "later"),
    ],
)
@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
async def test_an_error_of_the_endpoint_is_one_sentence_after_one_request(
    tmp_path: Path, model_server: ModelServer, protocol: str, status: int, what: str, advice: str
) -> None:
    prompt = f"error {status}\n{protocol}-status-test"
    async with chat(tmp_path, model_base_url=model_server.openai, model_protocol=protocol) as talk:
        played = await talk.play(prompt)
    assert isinstance(played.error, ProviderError)
    message = played.error.message
    assert all(words in message for words in (model_server.url, what, f"{status}: scripted error {status}", advice)), message
    assert message.endswith(".")
    assert KEY not in message
    assert message in played.log
    assert len(model_server.requests(f"error {status}\\n{protocol}-status-test")) == 1


@pytest.mark.parametrize(
    ("directive", "what"),
    [("cut", "broke off in the middle"), ("garbage", "no answer that can be used"), ("empty", "no answer that can be used")],
)
async def test_an_answer_that_cannot_be_used_is_said_so(talk: Chat, directive: str, what: str) -> None:
    played = await talk.play(directive)
    assert isinstance(played.error, ProviderError)
    assert what in played.error.message


@pytest.mark.parametrize(
    "answer",
    [
        b"data: {broken\n\n",
        b"data: [1, 2]\n\n",
        b'data: {"error": {"message": "out of memory", "code": 500}}\n\n',
        b'data: {"choices": "what"}\n\n',
        b"\xff\xfe\n\n",
    ],
)
async def test_a_malformed_stream_is_an_error_of_the_endpoint(tmp_path: Path, answer: bytes) -> None:
    async with _server(answer) as (url, _), chat(tmp_path, model_base_url=url) as talk:
        played = await talk.play("hello")
    assert isinstance(played.error, ProviderError)
    assert url in played.error.message


async def test_an_endpoint_that_is_down_is_named(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://someone:hidden@127.0.0.1:{closed.getsockname()[1]}/v1"
        async with chat(tmp_path, model_base_url=url) as talk:
            played = await talk.play("hello")
    assert isinstance(played.error, ProviderError)
    assert f"{url.replace('someone:hidden@', '')} cannot be reached" in played.error.message
    assert "hidden" not in played.error.message


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"model_base_url": None}, "CODER_MODEL_BASE_URL"),
        ({"model_base_url": "http://127.0.0.1:9/v1", "default_model": " "}, "CODER_DEFAULT_MODEL"),
    ],
)
async def test_without_a_model_the_sentence_names_the_settings(tmp_path: Path, values: dict[str, str], names: str) -> None:
    async with chat(tmp_path, **values) as talk:
        played = await talk.play("hello")
    assert isinstance(played.error, ProviderError)
    assert names in played.error.message


async def test_a_model_that_comes_to_no_end_is_stopped_and_can_be_asked_again(tmp_path: Path, model_server: ModelServer) -> None:
    async with chat(tmp_path, model_base_url=model_server.openai, max_requests=4) as talk:
        played = await talk.play("loop\nendless-test")
        assert isinstance(played.error, ToolLoop)
        assert "4 requests" in played.error.message
        assert len(model_server.requests("endless-test")) == 4
        assert (await talk.play("say: better")).transcript.text == "better"


async def test_a_failed_turn_stays_in_the_chat_and_keeps_its_prefix(talk: Chat, model_server: ModelServer) -> None:
    first = await talk.play("say: one-kept")
    failed = await talk.play("write a.txt: x\nerror 500")
    third = await talk.play("say: three-kept")
    assert failed.error is not None
    assert first.history is not None
    assert failed.history is not None
    assert third.history is not None
    assert failed.history.startswith(first.history[:-1])
    assert third.history.startswith(failed.history[:-1])
    last = model_server.requests("three-kept")[-1]["messages"]
    assert [message["role"] for message in last] == ["system", "user", "assistant", "user", "assistant", "tool", "user"]


async def test_a_rejected_turn_is_taken_out_of_the_chat(talk: Chat, model_server: ModelServer) -> None:
    """Else the chat could never be used again: what was rejected would be sent with every later turn."""
    first = await talk.play("say: one")
    rejected = await talk.play("write a.txt: x\nerror 400")
    assert rejected.error is not None
    assert rejected.history == first.history
    assert (await talk.play("say: on")).error is None


async def test_leaving_before_the_first_event_sends_nothing(talk: Chat, model_server: ModelServer) -> None:
    talk.history = "[]"
    async with talk.backend.run_turn(talk.turn("say: never-sent")) as live:
        pass
    assert live.model_history == "[]"
    assert model_server.requests("never-sent") == []


async def test_leaving_in_mid_answer_closes_the_connection_at_once(tmp_path: Path) -> None:
    words = json.dumps({**FIRST_WORDS, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "One"}}]})
    async with _server(f"data: {words}\n\n".encode(), hold=True) as (url, closed), chat(tmp_path, model_base_url=url) as talk:
        played = await talk.play("hello", until=lambda _, event: isinstance(event, TextDelta))
        async with asyncio.timeout(5):
            await closed.wait()
    assert played.transcript.text == "One"
    assert played.history is not None
    (message,) = json.loads(played.history)
    assert message["kind"] == "request"


async def test_a_cancelled_reader_ends_the_turn(tmp_path: Path) -> None:
    async with _server(b"", hold=True) as (url, closed), chat(tmp_path, model_base_url=url) as talk:
        reading = asyncio.ensure_future(talk.play("hello"))
        async with asyncio.timeout(5):
            await closed.asked.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            await closed.wait()


async def test_leaving_in_mid_command_ends_it_with_its_descendants(talk: Chat, model_server: ModelServer) -> None:
    pipe = talk.worktree / "pids"
    os.mkfifo(pipe)
    command = "(trap '' TERM; setsid sleep 1000) & echo $! $$ > pids; sleep 1000"
    turn = talk.turn(f"run: true\n+ run: {command}\nsay: never")
    async with talk.backend.run_turn(turn) as live:
        reading = asyncio.ensure_future(_read(live.events))
        pids = [int(pid) for pid in (await asyncio.to_thread(pipe.read_text)).split()]
        assert live.busy_with_tool()
        assert all(_lives(pid) for pid in pids)
        reading.cancel()
    assert len(pids) == 2
    assert not any(_lives(pid) for pid in pids)
    assert not live.busy_with_tool()
    talk.history = live.model_history
    assert (await talk.play("say: after-the-end")).error is None
    results = [message for message in model_server.requests("after-the-end")[-1]["messages"] if message["role"] == "tool"]
    assert results[0]["content"] == "[exit code 0]"
    assert "interrupted" in results[1]["content"]


async def test_a_full_disk_is_said_so(talk: Chat) -> None:
    (talk.folder / "full").symlink_to("/dev/full")
    played = await talk.play("run: echo hello\nsay: never", log=talk.folder / "full")
    assert isinstance(played.error, DiskFull)


async def _read(events: AsyncIterator[object]) -> None:
    async for _ in events:
        pass


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class _Closed(asyncio.Event):
    """Set when a client has closed its connection; `asked` when its request has come."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()


class _server:
    """An endpoint that answers every request with the same bytes as its stream.

    Args:
        hold: keep the answer open until the client goes.
    """

    def __init__(self, answer: bytes, hold: bool = False) -> None:
        self._answer = answer
        self._hold = hold
        self._closed = _Closed()

    async def __aenter__(self) -> tuple[str, _Closed]:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/v1", self._closed

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        self._closed.asked.set()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n" + self._answer)
        await writer.drain()
        if self._hold:
            await reader.read()
            self._closed.set()
        writer.close()
