"""A scripted model behind an OpenAI-compatible address, so that coder can be tried and tested without a real one.

It does what directives in the user's prompt say, one tool call per answer, in order:

    write PATH: text          edit PATH: old => new          read PATH          run: command          say: text

In texts `\\n`, `\\t` and `\\\\` are escapes. A `say` before a tool call goes in front of it, the last one is the answer. A prompt
without directives gets one sentence that says what this is. `python -m coder.demo.model` serves it and prints the address.

Invariant: an answer depends on the request alone: which directive comes next is counted from the assistant's tool-call messages
since the user's last message. The names of tools and their parameters are taken from the request.

Omitted on purpose: everything of the protocol that the native backend does not use, keys, and time (it answers at once).
Chat completions: https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import argparse
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "demo"
PLAIN = (
    "This is coder's scripted demo model; it cannot think. Give it lines like `write hello.txt: Hello`, "
    "`edit hello.txt: Hello => Goodbye`, `read hello.txt`, `run: ls` or `say: done`, or set CODER_MODEL_BASE_URL to a real model."
)
_BODY_BYTES = 50_000_000
_PIECE = 12

_LINES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("write", re.compile(r"write (?P<path>\S+?): ?(?P<text>.*)")),
    ("edit", re.compile(r"edit (?P<path>\S+?): ?(?P<old>.*?) => ?(?P<new>.*)")),
    ("read", re.compile(r"read (?P<path>\S+)")),
    ("run", re.compile(r"run: ?(?P<command>.*)")),
    ("say", re.compile(r"say: ?(?P<text>.*)")),
)
_NAMES = {
    "write": re.compile(r"write(_file)?|create_file", re.I),
    "edit": re.compile(r"edit(_file)?|replace|str_replace", re.I),
    "read": re.compile(r"read(_file)?|view", re.I),
    "run": re.compile(r"run|bash|shell|exec_command|run_shell_command", re.I),
}
_PARAMETERS = {
    "path": re.compile(r"(file_?|absolute_)?path", re.I),
    "text": re.compile(r"contents?|text|file_text", re.I),
    "old": re.compile(r"old(_?str(ing)?)?|before", re.I),
    "new": re.compile(r"new(_?str(ing)?)?|after", re.I),
    "command": re.compile(r"command|cmd", re.I),
}


@dataclass(frozen=True, slots=True)
class Step:
    """One directive: its kind, and its values by the names of `_PARAMETERS`."""

    kind: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its text, and the tool it calls with the arguments, if any."""

    text: str
    tool: str | None = None
    arguments: str = "{}"


def directives(prompt: str) -> list[Step]:
    """The directives in a prompt; lines that are none are passed over."""
    steps = []
    for line in prompt.splitlines():
        for kind, pattern in _LINES:
            if match := pattern.fullmatch(line.strip()):
                steps.append(Step(kind, {name: _unescaped(value) for name, value in match.groupdict().items()}))
                break
    return steps


def reply(request: dict[str, Any]) -> Reply:
    """The answer to a request's body."""
    messages = request["messages"]
    last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=-1)
    steps = directives(_text(messages[last]["content"])) if last >= 0 else []
    tools = [tool["function"] for tool in request.get("tools") or ()]
    if not steps or not tools:
        return Reply(PLAIN)
    done = sum(1 for message in messages[last + 1 :] if message["role"] == "assistant" and message.get("tool_calls"))
    said: list[str] = []
    for step in steps:
        if step.kind == "say":
            said.append(step.values["text"])
        elif done > 0:
            done -= 1
            said = []
        else:
            name, arguments = _call(step, tools)
            return Reply("\n".join(said), name, json.dumps(arguments, ensure_ascii=False))
    return Reply("\n".join(said) or "Done.")


def _call(step: Step, tools: list[dict[str, Any]]) -> tuple[str, dict[str, str]]:
    tool = next((tool for tool in tools if _NAMES[step.kind].fullmatch(tool["name"])), None)
    if tool is None:
        return step.kind, step.values
    properties = tool.get("parameters", {}).get("properties", {})
    return tool["name"], {
        parameter: value for name, value in step.values.items() for parameter in properties if _PARAMETERS[name].fullmatch(parameter)
    }


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part.get("text", "") for part in content or ())


def _unescaped(text: str) -> str:
    return re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t", "\\": "\\"}[match[1]], text)


def _usage(request: dict[str, Any], answer: Reply) -> dict[str, Any]:
    """Tokens, counted as four bytes each; all but the last message count as cached, as they would be with a real model."""
    sizes = [len(json.dumps(message)) // 4 + 1 for message in request["messages"]]
    written = len(answer.text + answer.arguments) // 4 + 1
    return {
        "prompt_tokens": sum(sizes),
        "completion_tokens": written,
        "total_tokens": sum(sizes) + written,
        "prompt_tokens_details": {"cached_tokens": sum(sizes[:-1])},
    }


def _message(answer: Reply, request: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or None}
    if answer.tool is not None:
        call_id = f"call_{len(request['messages'])}"
        message["tool_calls"] = [{"id": call_id, "type": "function", "function": {"name": answer.tool, "arguments": answer.arguments}}]
    return message


def _chunks(request: dict[str, Any], answer: Reply) -> Iterator[dict[str, Any]]:
    """The answer as the chunks of a stream: text in pieces, the call, the end, the usage."""
    base = {"id": "demo", "object": "chat.completion.chunk", "created": 0, "model": request.get("model", MODEL)}

    def chunk(delta: dict[str, Any], end: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}

    yield chunk({"role": "assistant", "content": ""})
    for start in range(0, len(answer.text), _PIECE):
        yield chunk({"content": answer.text[start : start + _PIECE]})
    calls = _message(answer, request).get("tool_calls", [])
    if calls:
        yield chunk({"tool_calls": [{"index": 0, **calls[0]}]})
    yield chunk({}, "tool_calls" if calls else "stop")
    yield {**base, "choices": [], "usage": _usage(request, answer)}


class _Exchange(BaseHTTPRequestHandler):
    """One connection; HTTP/1.0, so that its end is the answer's end."""

    def do_GET(self) -> None:
        if self.path.rstrip("/").endswith("/models"):
            self._send({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "coder"}]})
        else:
            self._refuse(HTTPStatus.NOT_FOUND, f"There is no {self.path} here; this model serves /v1/models and /v1/chat/completions.")

    def do_POST(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        if not self.path.endswith("/chat/completions") or length > _BODY_BYTES:
            self._refuse(HTTPStatus.NOT_FOUND, f"There is no {self.path} here; this model serves /v1/models and /v1/chat/completions.")
            return
        try:
            request = json.loads(self.rfile.read(length))
            answer = reply(request)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"The request is no chat completion: {type(error).__name__}: {error}.")
            return
        if request.get("stream"):
            self._stream(_chunks(request, answer))
            return
        end = "tool_calls" if answer.tool else "stop"
        choice = {"index": 0, "message": _message(answer, request), "finish_reason": end}
        head = {"id": "demo", "object": "chat.completion", "created": 0, "model": request.get("model", MODEL)}
        self._send({**head, "choices": [choice], "usage": _usage(request, answer)})

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the turn's own log tells of requests."""

    def _send(self, body: dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send({"error": {"message": message, "type": "invalid_request_error", "code": None}}, status)

    def _stream(self, chunks: Iterator[dict[str, Any]]) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            for chunk in chunks:
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            return  # the turn was left


class ScriptedModel:
    """The scripted model as a server in a thread of its own.

    Args:
        port: 0 for any free one.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._server = ThreadingHTTPServer((host, port), _Exchange)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="scripted model", daemon=True)

    @property
    def base_url(self) -> str:
        """What to set CODER_MODEL_BASE_URL to."""
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/v1"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop serving; tolerates never-started and stopped-twice."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        self._thread.join()


def main() -> None:
    """`python -m coder.demo.model [--host H] [--port P]`: serve, print the base URL on a line, go on until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m coder.demo.model", description="Serve a scripted OpenAI-compatible model.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 = any free one (default)")
    arguments = parser.parse_args()
    model = ScriptedModel(arguments.host, arguments.port)
    model.start()
    print(model.base_url, flush=True)
    try:
        model.wait()
    except KeyboardInterrupt:
        model.stop()


if __name__ == "__main__":
    main()
