"""An agent of the Agent Client Protocol that misbehaves on request: a program for the tests, plain JSON-RPC, no SDK.

What it does stands in the prompt, a directive a line:
  say TEXT · think TEXT        text or reasoning             plan · commands · used N      those updates
  huge N                       N MB of text in small chunks  line N      one message of N MB
  bytes                        text that is no UTF-8         garbage     lines on standard output that are no messages
  stderr N                     N MB on standard error        hang        does not answer until it is cancelled
  deaf                         does not answer, and ignores a cancel     nothing     ends without a word
  crash CODE                   a last word on standard error, then it exits (what was said before is sent)
  ask COMMAND                  asks for permission to run it, and says what it was told
  edit PATH                    asks for permission to edit it, likewise   tools       tool calls in every odd order
  spawn                        leaves a process behind in its directory and says its id; `spawn!` with one that ignores TERM
  read PATH · write PATH TEXT  through the client's file system          tick N      the time of day N times, a message each
  error CODE TEXT              a JSON-RPC error as the answer            stop WORD   the stop reason
  recall                       says how many prompts the session heard before, and the last one
  model: TEXT                  says what the model answers to that
  say: TEXT · think: TEXT · put PATH: TEXT · run: COMMAND · may: COMMAND · invalid   as the conformance suite wants them
Options: --no-load (offers neither load nor resume), --mute (never answers initialize), --login (wants a login),
--load-fails, --resume (offers resume besides load). Sessions are kept in $HOME/standin, so that another process can load them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from asked_model import asked_model

STORE = Path(os.environ.get("HOME", "/tmp")) / "standin"
OUT = threading.Lock()
cancelled: dict[str, threading.Event] = {}
answers: dict[int, SimpleQueue[dict[str, Any]]] = {}
numbers = iter(range(1, 1_000_000))


def put(raw: bytes) -> None:
    with OUT:
        sys.stdout.buffer.write(raw + b"\n")
        sys.stdout.buffer.flush()


def send(**message: Any) -> None:
    put(json.dumps({"jsonrpc": "2.0", **message}).encode())


def ask(method: str, **params: Any) -> dict[str, Any]:
    number = next(numbers)
    waiting = answers[number] = SimpleQueue()
    send(id=number, method=method, params=params)
    return waiting.get()


class Session:
    """One session: where it works, and what it heard."""

    def __init__(self, name: str, cwd: str) -> None:
        self.name = name
        self.cwd = cwd
        self.heard: list[str] = []
        self.mode = "careful"
        self.options = {"model": "small", "effort": "low"}

    def keep(self) -> None:
        STORE.mkdir(parents=True, exist_ok=True)
        (STORE / f"{self.name}.json").write_text(json.dumps({"cwd": self.cwd, "heard": self.heard}))

    def choices(self) -> dict[str, Any]:
        selects = [
            {"id": "model", "name": "Model", "category": "model", "options": [{"value": m, "name": m.title()} for m in ("small", "large")]},
            {"id": "effort", "name": "Effort", "category": "thought_level", "options": [{"value": e, "name": e} for e in ("low", "high")]},
        ]
        modes = [{"id": mode, "name": mode.title()} for mode in ("careful", "bold")]
        return {
            "modes": {"currentModeId": self.mode, "availableModes": modes},
            "configOptions": [{**each, "type": "select", "currentValue": self.options[each["id"]]} for each in selects],
        }

    def update(self, what: str, **fields: Any) -> None:
        send(method="session/update", params={"sessionId": self.name, "update": {"sessionUpdate": what, **fields}})

    def say(self, text: str, kind: str = "agent_message_chunk") -> None:
        self.update(kind, content={"type": "text", "text": text})

    def permission(self, kind: str, title: str, **given: Any) -> None:
        call = {"toolCallId": f"call-{title}", "title": title, "kind": kind, "rawInput": given}
        self.update("tool_call", **call, name="bash" if kind == "execute" else "edit", status="pending")
        kinds = ("allow_always", "allow_once", "reject_once")
        options = [{"optionId": f"o-{name}", "name": name, "kind": name} for name in kinds]
        answer = ask("session/request_permission", sessionId=self.name, toolCall=call, options=options)
        outcome = answer["result"]["outcome"]
        allowed = outcome.get("optionId") == "o-allow_once"
        self.update("tool_call_update", toolCallId=call["toolCallId"], status="completed" if allowed else "failed")
        why = (answer["result"].get("_meta") or {}).get("message", "")
        self.say(f"[{outcome.get('optionId', outcome['outcome'])}{' ' + why if why else ''}]")

    def tools(self) -> None:
        self.update("tool_call", toolCallId="bare", title="Bare")
        self.update("tool_call_update", toolCallId="orphan", status="in_progress", rawInput={"path": "x"})
        self.update("tool_call", toolCallId="bare", title="Bare", kind="execute", status="in_progress", rawInput={"command": "ls"})
        self.update("tool_call_update", toolCallId="bare", status="completed", rawOutput={"stdout": "a b", "exit_code": 0})
        self.update("tool_call", toolCallId="bare", title="Bare", status="in_progress")
        diff = {"type": "diff", "path": f"{self.cwd}/x", "oldText": "a\nb\nc\n", "newText": "a\nB\nc\n"}
        self.update("tool_call_update", toolCallId="orphan", status="failed", content=[diff])

    def spawn(self, stubborn: bool) -> None:
        program = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"
        argv = [sys.executable, "-c", program] if stubborn else ["sh", "-c", "echo; exec sleep 600"]
        child = subprocess.Popen(argv, cwd=self.cwd, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, start_new_session=True)
        assert child.stdout is not None
        child.stdout.readline()
        self.say(f"pid {child.pid} ")

    def file(self, method: str, path: str, **fields: Any) -> None:
        answer = ask(method, sessionId=self.name, path=path if path.startswith("/") else f"{self.cwd}/{path}", **fields)
        error = answer.get("error")
        self.say(f"[{error['code']} {error['message']}]" if error else f"[{answer['result'].get('content', 'written')}]")

    def put(self, rest: str) -> None:
        place, _, text = rest.partition(": ")
        call = {"toolCallId": f"put-{next(numbers)}", "title": f"Write {place}", "kind": "edit"}
        self.update("tool_call", **call, status="in_progress", rawInput={"path": place, "content": text})
        Path(self.cwd, place).write_text(text)
        self.update("tool_call_update", toolCallId=call["toolCallId"], status="completed", content=[])

    def run(self, command: str) -> None:
        call = f"run-{next(numbers)}"
        self.update("tool_call", toolCallId=call, title=command, kind="execute", status="in_progress", rawInput={"command": command})
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(["/bin/sh", "-c", command], cwd=self.cwd, **streams)
        heard: SimpleQueue[bytes] = SimpleQueue()
        threading.Thread(target=lambda: heard.put(child.communicate()[0]), daemon=True).start()
        while child.poll() is None and not cancelled[self.name].wait(0.02):
            pass
        if child.poll() is None:
            child.terminate()
            self.update("tool_call_update", toolCallId=call, status="failed")
            return
        content = [{"type": "content", "content": {"type": "text", "text": heard.get().decode("utf-8", "replace")}}]
        status = "failed" if child.returncode else "completed"
        self.update("tool_call_update", toolCallId=call, status=status, content=content, rawOutput={"exit_code": child.returncode})

    def may(self, command: str) -> None:
        call = {"toolCallId": f"may-{next(numbers)}", "title": command, "kind": "execute", "rawInput": {"command": command}}
        options = [{"optionId": f"o-{name}", "name": name, "kind": name} for name in ("allow_always", "allow_once", "reject_once")]
        result = ask("session/request_permission", sessionId=self.name, toolCall=call, options=options)["result"]
        if result["outcome"].get("optionId") == "o-allow_once":
            self.run(command)
        else:
            self.say(f"denied: {(result.get('_meta') or {}).get('message', '')}")


def huge(session: Session, megabytes: int) -> None:
    piece = "0123456789abcde\n" * 256
    for _ in range(megabytes * 1_000_000 // len(piece) + 1):
        session.say(piece)


def garbage(_: Session, __: str) -> None:
    for line in (
        b"Loading model...",
        b"[1, 2, 3]",
        b'{"broken": ',
        b"[" * 100_000,
        b"\xff\xfe\x00",
        b"",
        b"42",
        b'{"id": [1], "result": {}}',
    ):
        put(line)
    send(method="session/update", params=None)
    send(method="session/update", params={"sessionId": 5, "update": {"sessionUpdate": "nobody_knows_this"}})
    send(method="vendor/notification", params={"x": 1})


def crash(session: Session, code: str) -> None:
    print("the engine is on fire", file=sys.stderr, flush=True)
    os._exit(int(code or 1))


def no_text(session: Session, _: str) -> None:
    update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "a@b\ud800c\u0000d"}}
    message = {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session.name, "update": update}}
    put(json.dumps(message).encode().replace(b"@", b"\xff\xfe"))


def invalid(session: Session, _: str) -> None:
    update = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": "fine @ fine"}}
    message = {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session.name, "update": update}}
    put(json.dumps(message).encode().replace(b"@", b"\xff\xfe"))


def noise(_: Session, megabytes: str) -> None:
    for _ in range(int(megabytes) * 1_000_000 // 6001 + 1):
        os.write(2, b"noise " * 1000 + b"\n")


def wait(session: Session, *, deaf: bool) -> None:
    while not cancelled[session.name].wait(3600) or deaf:
        threading.Event().wait(3600)


REVIEW = {"name": "review", "description": "Look", "input": {"hint": "what"}}
ACTS: dict[str, Any] = {
    "say": lambda s, rest: s.say(rest),
    "think": lambda s, rest: s.say(rest, "agent_thought_chunk"),
    "plan": lambda s, _: s.update("plan", entries=[{"content": "look", "status": "completed"}, {"content": "do", "status": "in_progress"}]),
    "commands": lambda s, _: s.update("available_commands_update", availableCommands=[REVIEW]),
    "used": lambda s, rest: s.update("usage_update", used=int(rest), size=1000),
    "huge": lambda s, rest: huge(s, int(rest)),
    "line": lambda s, rest: s.say("x" * (int(rest) * 1024 * 1024)),
    "bytes": no_text,
    "garbage": garbage,
    "stderr": noise,
    "hang": lambda s, _: wait(s, deaf=False),
    "deaf": lambda s, _: wait(s, deaf=True),
    "nothing": lambda s, _: None,
    "crash": crash,
    "ask": lambda s, rest: s.permission("execute", rest, command=rest),
    "edit": lambda s, rest: s.permission("edit", rest, path=rest),
    "tools": lambda s, _: s.tools(),
    "spawn": lambda s, _: s.spawn(False),
    "spawn!": lambda s, _: s.spawn(True),
    "read": lambda s, rest: s.file("fs/read_text_file", rest),
    "write": lambda s, rest: s.file("fs/write_text_file", rest.partition(" ")[0], content=rest.partition(" ")[2]),
    "tick": lambda s, rest: [(s.say(f"{time.monotonic_ns()} "), time.sleep(0.002)) for _ in range(int(rest))],
    "say:": lambda s, rest: s.say(rest.replace("\\n", "\n")),
    "think:": lambda s, rest: s.say(rest, "agent_thought_chunk"),
    "model:": lambda s, rest: s.say(asked_model(rest)),
    "put": lambda s, rest: s.put(rest),
    "run:": lambda s, rest: s.run(rest),
    "may:": lambda s, rest: s.may(rest),
    "invalid": invalid,
    "recall": lambda s, _: s.say(f"heard {len(s.heard)}, last {s.heard[-1] if s.heard else None!r}"),
}


def prompt(session: Session, number: Any, text: str) -> None:
    event = cancelled[session.name]
    stop = "end_turn"
    for line in text.splitlines():
        word, _, rest = line.partition(" ")
        if word == "error":
            code, _, message = rest.partition(" ")
            send(id=number, error={"code": int(code), "message": message, "data": {"details": "the details"}})
            return
        if word == "stop":
            stop = rest
        elif word in ACTS:
            ACTS[word](session, rest)
        if event.is_set() and "deaf" not in text:
            stop = "cancelled"
            break
    session.heard.append(text)
    session.keep()
    send(
        id=number, result={"stopReason": stop, "usage": {"totalTokens": 115, "inputTokens": 100, "outputTokens": 5, "cachedReadTokens": 10}}
    )


def answer(number: Any, method: str, params: dict[str, Any], sessions: dict[str, Session], options: set[str]) -> None:
    if method == "initialize":
        more = {"close": {}, "resume": {}} if "--resume" in options else {"close": {}}
        capabilities = {"loadSession": "--no-load" not in options, "sessionCapabilities": more}
        if "--mute" not in options:
            info = {"name": "standin", "version": "3.1.4"}
            send(id=number, result={"protocolVersion": 1, "agentCapabilities": capabilities, "agentInfo": info})
    elif method == "session/new" and "--login" in options:
        send(id=number, error={"code": -32000, "message": "Authentication required", "data": {"details": "run standin login"}})
    elif method == "session/new":
        session = Session(f"s-{os.getpid()}-{len(sessions)}-{time.monotonic_ns()}", params["cwd"])
        sessions[session.name] = session
        session.update("available_commands_update", availableCommands=[{"name": "/init", "description": "Begin"}])
        send(id=number, result={"sessionId": session.name, **session.choices()})
    elif method in ("session/load", "session/resume"):
        stored = STORE / f"{params['sessionId']}.json"
        if "--load-fails" in options or not stored.exists():
            send(id=number, error={"code": -32002, "message": "Resource not found"})
            return
        session = sessions[params["sessionId"]] = Session(params["sessionId"], params["cwd"])
        session.heard = json.loads(stored.read_text())["heard"]
        for text in session.heard if method == "session/load" else ():
            session.say(text, "user_message_chunk")
            session.say(f"REPLAYED {text}")
        send(id=number, result=session.choices())
    elif method == "session/set_mode":
        sessions[params["sessionId"]].mode = params["modeId"]
        send(id=number, result={})
    elif method == "session/set_config_option":
        session = sessions[params["sessionId"]]
        if params["value"] == "refused":
            send(id=number, error={"code": -32602, "message": "no such value"})
            return
        session.options[params["configId"]] = params["value"]
        send(id=number, result={"configOptions": session.choices()["configOptions"]})
    elif method == "session/close":
        del sessions[params["sessionId"]]
        send(id=number, result={})
    elif method == "session/prompt":
        text = "\n".join(part.get("text", "") for part in params["prompt"])
        cancelled[params["sessionId"]] = threading.Event()
        threading.Thread(target=prompt, args=(sessions[params["sessionId"]], number, text), daemon=True).start()
    elif number is not None:
        send(id=number, error={"code": -32601, "message": f"no method {method}"})


def main() -> None:
    options, sessions = set(sys.argv[1:]), {}
    if "--version" in options:
        print("standin 3.1.4")
        return
    threading.excepthook = lambda failed: (sys.__excepthook__(*failed[:3]), os._exit(70))  # type: ignore[func-returns-value]
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if "method" not in message:
            answers.pop(message["id"]).put(message)
        elif message["method"] == "session/cancel":
            cancelled[message["params"]["sessionId"]].set()
        else:
            answer(message.get("id"), message["method"], message.get("params") or {}, sessions, options)


if __name__ == "__main__":
    main()
