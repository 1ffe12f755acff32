"""A model endpoint that sends what it is told to, byte for byte: for answers that no well-made server gives.

It speaks just enough HTTP to read a request; what it answers is looked up by the first line of the last user message,
one answer per request, the last one again and again. Unknown models get the 404 of OpenAI's API.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

MODELS = ("m1",)
HEADERS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNKED = HEADERS.replace(b"Connection", b"Transfer-Encoding: chunked\r\nConnection")
DONE = b"data: [DONE]\n\n"
FIRST = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m1"}


@dataclass(frozen=True)
class Answer:
    """Attributes: sent: all of the answer, its status line included; hold: leave the connection open after it."""

    sent: Iterable[bytes]
    hold: bool = False


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One event of a streamed answer (OpenAI, chat completion chunk)."""
    return b"data: " + json.dumps({**FIRST, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode() + b"\n\n"


def text(*pieces: str) -> bytes:
    return b"".join(event({"role": "assistant", "content": piece}) for piece in pieces) + event({}, "stop")


def call(name: str, arguments: str, call_id: str = "c1") -> bytes:
    """A tool call, and the end of the answer."""
    function = {"name": name, "arguments": arguments}
    return event({"role": "assistant", "tool_calls": [{"index": 0, "id": call_id, "type": "function", "function": function}]}) + event(
        {}, "tool_calls"
    )


def status(code: int, message: str) -> bytes:
    body = json.dumps({"error": {"message": message, "type": "scripted", "code": None}}).encode()
    return b"HTTP/1.1 %d Scripted\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
        code, len(body), body,
    )  # fmt: skip


@dataclass
class BadModel:
    """Attributes: answers: by the first line of a prompt; asked: how often each was asked."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)

    def script(self, line: str, *answers: bytes | Answer) -> None:
        self.answers[line] = [answer if isinstance(answer, Answer) else Answer([answer]) for answer in answers]

    def answer(self, body: dict[str, Any]) -> Answer:
        if body["model"] not in MODELS:
            return Answer([status(404, f"The model `{body['model']}` does not exist")])
        prompt = [message["content"] for message in body["messages"] if message["role"] == "user"][-1]
        line = str(prompt).partition("\n")[0]
        number = self.asked[line] = self.asked.get(line, 0) + 1
        listed = self.answers.get(line) or [Answer([HEADERS + text("Done.") + DONE])]
        return listed[min(number, len(listed)) - 1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)
            body = await reader.readexactly(length)
            if head.startswith(b"GET"):
                listing = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]}).encode()
                answer = Answer([HEADERS.replace(b"text/event-stream", b"application/json") + listing])
            else:
                answer = self.answer(json.loads(body))
            for piece in answer.sent:
                writer.write(piece)
                await writer.drain()
            if answer.hold:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # whoever asked went away, which is what some tests are about
        finally:
            writer.close()


@asynccontextmanager
async def bad_model() -> AsyncIterator[BadModel]:
    model = BadModel()
    server = await asyncio.start_server(model.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()[:2]
    model.url = f"http://{host}:{port}/v1"
    try:
        yield model
    finally:
        server.close()
