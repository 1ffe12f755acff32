"""A stand-in for `opencode serve`: its routes and its bus, and a script in the prompt that says what goes wrong.

Run as `opencode_standin.py serve --port 0 --hostname 127.0.0.1`. What a prompt may hold, one a line (a colon may follow the word):
    say TEXT            a text, a word a delta, and once more as a whole      think TEXT    reasoning, likewise
    double TEXT         a text, every event twice                             recall        says what was prompted before
    write PATH: TEXT    a tool call that writes a file                        run COMMAND   one that runs a command
    ask COMMAND         one that asks first, or says `denied: <message>`      crash CODE    the server exits
    cut                 the event stream breaks here                          lose TEXT     said while nobody hears: the stream is cut first
    much BYTES          a text of that size, said while nobody hears
    huge BYTES          a text of that size in deltas of 64 KiB, no whole     line BYTES    one event of that size
    garbage             events that are no JSON, and no event                 invalid       a text with bytes that are no UTF-8
    flood BYTES         that much noise beside the answer                     mutter        bytes that are no UTF-8 beside it
    clock TIMES         so many deltas, each the moment it is sent            retry SECONDS the provider fails; it is asked again then
    silent              nothing more comes, the status stays busy             deaf          likewise, and an abort is not answered
    nothing             the turn ends without a word                          idle          the status says idle, and nothing ends
    stale               it ends, but the event that says idle is lost
Whatever was said is in `GET …/message`. The environment variable STANDIN_START=exit|never|slow is about its start.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from urllib.parse import parse_qs, urlsplit

WORDS = {"say-huge": "huge"}
PASSWORD = os.environ.get("OPENCODE_SERVER_PASSWORD", "")
numbers = itertools.count(1)


def new(kind: str) -> str:
    return f"{kind}_{time.time_ns() // 1_000_000 * 0x1000 + next(numbers) & (1 << 48) - 1:012x}x{next(numbers)}"


class House:
    """What the server knows: sessions with their messages, who is busy, what is asked, and who hears the bus."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.busy: set[str] = set()
        self.asked: dict[str, tuple[dict[str, Any], threading.Event, dict[str, Any]]] = {}
        self.aborted: dict[str, threading.Event] = {}
        self.deaf: set[str] = set()
        self.hearers: list[SimpleQueue[bytes | threading.Event | None]] = []
        self.lock = threading.Lock()

    def send(self, raw: bytes | threading.Event | None) -> None:
        with self.lock:
            for hearer in self.hearers:
                hearer.put(raw)
            if raw is None:
                self.hearers.clear()

    def tell(self, session: str, kind: str, times: int = 1, **properties: Any) -> None:
        payload = {"id": new("evt"), "type": kind, "properties": {"sessionID": session, **properties}}
        event = {"directory": self.sessions[session]["directory"], "payload": payload}
        for _ in range(times):
            self.send(b"data: " + json.dumps(event).encode() + b"\n\n")


house = House()


class Turn(threading.Thread):
    """Obeys one prompt."""

    def __init__(self, session: str, prompt: str, text: str) -> None:
        super().__init__(daemon=True)
        self.session = session
        self.lines = text.splitlines()
        self.info = {"id": new("msg"), "sessionID": session, "role": "assistant", "parentID": prompt, "time": {"created": 1}}
        self.entry: dict[str, Any] = {"info": self.info, "parts": []}
        self.stop = house.aborted.setdefault(session, threading.Event())
        self.stop.clear()

    def run(self) -> None:
        house.sessions[self.session]["messages"].append(self.entry)
        self.tell("session.status", status={"type": "busy"})
        self.tell("message.updated", info=self.info)
        for line in self.lines:
            word, _, rest = line.strip().partition(" ")
            step = getattr(self, f"do_{WORDS.get(word.rstrip(':'), word.rstrip(':'))}", None)
            if step is not None and step(rest) is False:
                return
            if self.stop.is_set():
                self.tell("session.error", error={"name": "MessageAbortedError", "data": {"message": "Aborted"}})
                break
        self.end()

    def end(self, silently: bool = False) -> None:
        tokens = {"input": 10, "output": 5, "reasoning": 0, "cache": {"read": 90, "write": 0}}
        self.part({"id": new("prt"), "type": "step-finish", "reason": "stop", "tokens": tokens})
        self.info |= {"time": {"created": 1, "completed": 2}, "finish": "stop"}
        self.tell("message.updated", info=self.info)
        house.busy.discard(self.session)
        if not silently:
            self.tell("session.status", status={"type": "idle"})
            self.tell("session.idle")

    def tell(self, kind: str, times: int = 1, **properties: Any) -> None:
        house.tell(self.session, kind, times, **properties)

    def part(self, part: dict[str, Any], times: int = 1, heard: bool = True) -> dict[str, Any]:
        part |= {"messageID": self.info["id"], "sessionID": self.session}
        self.entry["parts"] = [each for each in self.entry["parts"] if each["id"] != part["id"]] + [part]
        if heard:
            self.tell("message.part.updated", times, part=part)
        return part

    def do_say(self, text: str, times: int = 1, kind: str = "text") -> None:
        part = self.part({"id": new("prt"), "type": kind, "text": "", "time": {"start": 1}}, times)
        for piece in text.replace("\\n", "\n").split(" "):
            delta = piece if not part["text"] else f" {piece}"
            part["text"] += delta
            self.tell("message.part.delta", times, messageID=self.info["id"], partID=part["id"], field="text", delta=delta)
        self.part({**part, "time": {"start": 1, "end": 2}}, times)

    def do_double(self, text: str) -> None:
        self.do_say(text, 2)

    def do_cut(self, _: str) -> None:
        house.send(None)

    def do_lose(self, text: str) -> None:
        house.send(None)
        self.part({"id": new("prt"), "type": "text", "text": text, "time": {"start": 1, "end": 2}}, heard=False)

    def do_much(self, size: str) -> None:
        self.do_lose("x" * int(size))

    def do_think(self, text: str) -> None:
        self.do_say(text, kind="reasoning")

    def do_recall(self, _: str) -> None:
        self.do_say(" ".join(house.sessions[self.session]["prompts"][:-1]))

    def do_write(self, rest: str) -> None:
        path, _, text = rest.partition(": ")
        (Path(house.sessions[self.session]["directory"]) / path).write_text(text.replace("\\n", "\n"))
        self.tool("write", {"filePath": path}, "completed", "written", {})

    def tool(self, tool: str, given: dict[str, Any], status: str, output: str, told: dict[str, Any], name: str = "") -> str:
        name = name or new("prt")
        state = {"status": status, "input": given, "output": output, "metadata": {"output": output, **told}}
        self.part({"id": name, "type": "tool", "tool": tool, "callID": f"call_{name}", "state": state})
        return name

    def do_run(self, command: str) -> None:
        given = {"command": command}
        name = self.tool("bash", given, "running", "", {})
        directory = house.sessions[self.session]["directory"]
        process = subprocess.Popen(
            ("bash", "-c", command), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        output = b""
        while True:
            over = process.poll() is not None
            if piece := process.stdout.read() or b"":
                output += piece
                self.tool("bash", given, "running", output[-30_000:].decode(errors="replace"), {}, name)
            elif over:
                break
            if self.stop.wait(0.02) and process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        self.tool("bash", given, "completed", output[-30_000:].decode(errors="replace"), {"exit": process.returncode}, name)

    def do_ask(self, command: str) -> None:
        request = {
            "id": new("per"),
            "sessionID": self.session,
            "permission": "bash",
            "patterns": [command],
            "metadata": {"command": command},
        }
        answered, answer = threading.Event(), {}
        house.asked[request["id"]] = (request, answered, answer)
        self.tell("permission.asked", **{name: value for name, value in request.items() if name != "sessionID"})
        while not answered.wait(0.05):
            if self.stop.is_set():
                return
        if answer["reply"] == "once":
            self.do_run(command)
        else:
            self.do_say(f"denied: {answer['message']}")

    def do_huge(self, size: str) -> None:
        part = self.part({"id": new("prt"), "type": "text", "text": "", "time": {"start": 1}})
        self.entry["parts"].remove(part)
        for _ in range(int(size) // 65_536):
            self.tell("message.part.delta", messageID=self.info["id"], partID=part["id"], field="text", delta="x" * 65_536)

    def do_clock(self, times: str) -> None:
        part = self.part({"id": new("prt"), "type": "text", "text": "", "time": {"start": 1}})
        for _ in range(int(times)):
            time.sleep(0.005)
            self.tell("message.part.delta", messageID=self.info["id"], partID=part["id"], field="text", delta=f"{time.monotonic()!r} ")

    def do_line(self, size: str) -> None:
        place = {"id": new("prt"), "messageID": self.info["id"], "sessionID": self.session}
        self.tell("message.part.updated", part={**place, "type": "text", "text": "x" * int(size), "time": {"start": 1, "end": 2}})

    def do_garbage(self, _: str) -> None:
        for raw in (b"data: {no json\n\n", b"data: [1]\n\n", b'data: {"payload": 5}\n\n', b"nonsense\n\n", b"data: \xff\xfe\n\n"):
            house.send(raw)

    def do_retry(self, seconds: str) -> None:
        status = {"type": "retry", "attempt": next(numbers), "message": "too busy", "next": (time.time() + float(seconds)) * 1000}
        self.tell("session.status", status=status)

    def do_flood(self, size: str) -> None:
        for _ in range(int(size) // 65_536):
            os.write(2, b"noise " * 10_922 + b"end\n")

    def do_mutter(self, _: str) -> None:
        os.write(2, b"fine \xff\xfe fine\n")

    def do_invalid(self, _: str) -> None:
        part = self.part({"id": new("prt"), "type": "text", "text": "", "time": {"start": 1}})
        told = {"sessionID": self.session, "messageID": self.info["id"], "partID": part["id"], "field": "text", "delta": "fine HERE fine"}
        event = json.dumps({"payload": {"id": new("evt"), "type": "message.part.delta", "properties": told}}).encode()
        house.send(b"data: " + event.replace(b"HERE", b"\xff\xfe") + b"\n\n")

    def do_silent(self, _: str) -> None:
        self.stop.wait()

    def do_deaf(self, _: str) -> bool:
        house.deaf.add(self.session)
        return False

    def do_nothing(self, _: str) -> None:
        return

    def do_idle(self, _: str) -> bool:
        house.busy.discard(self.session)
        self.tell("session.idle")
        return False

    def do_stale(self, _: str) -> bool:
        self.end(silently=True)
        return False

    def do_crash(self, code: str) -> None:
        sent = threading.Event()
        house.send(sent)
        sent.wait(5)  # what was said before has left the house
        os.write(2, b"the stand-in falls over\n")
        os._exit(int(code or 1))


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        return

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.strip("/").split("/")
        if not self.allowed():
            return
        if path == ["global", "event"]:
            self.events()
        elif path == ["global", "health"]:
            self.reply({"healthy": True, "version": "0.0.1"})
        elif path == ["session", "status"]:
            self.reply({name: {"type": "busy"} for name in house.busy})
        elif path[0] == "session" and path[1] not in house.sessions:
            self.reply({"name": "NotFoundError"}, 404)
        elif path[0] == "session":
            self.reply(house.sessions[path[1]]["messages"] if path[2:] == ["message"] else [] if path[2:] else {"id": path[1]})
        elif path[0] == "permission":
            self.reply([request for request, answered, _ in house.asked.values() if not answered.is_set()])
        elif path[0] == "agent":
            self.reply([{"name": name, "mode": "primary"} for name in ("build", "plan")])
        elif path[0] == "command":
            self.reply([{"name": "init", "description": "begin", "template": "", "hints": []}])
        else:
            self.reply([] if path[0] == "question" else {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        path = urlsplit(self.path).path.strip("/").split("/")
        if not self.allowed():
            return
        if path == ["session"]:
            name = new("ses")
            directory = parse_qs(urlsplit(self.path).query)["directory"][0]
            house.sessions[name] = {"directory": directory, "messages": [], "prompts": []}
            self.reply({"id": name})
        elif path[2:] == ["prompt_async"]:
            house.busy.add(path[1])
            self.reply(None, 204)
            house.sessions[path[1]]["prompts"] += [part["text"] for part in body["parts"]]
            Turn(path[1], body["messageID"], body["parts"][-1]["text"]).start()
        elif path[2:] == ["abort"]:
            if path[1] in house.deaf:
                threading.Event().wait()
            house.aborted[path[1]].set()
            house.busy.discard(path[1])
            self.reply(True)
        elif path[0] == "permission" and path[1] in house.asked:
            _, answered, answer = house.asked[path[1]]
            answer.update(body)
            self.reply(True)
            answered.set()
        else:
            self.reply({"name": "NotFoundError"}, 404)

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == "Basic " + base64.b64encode(f"opencode:{PASSWORD}".encode()).decode():
            return True
        self.reply({"name": "Unauthorized"}, 401)
        return False

    def reply(self, content: Any, status: int = 200) -> None:
        raw = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        hearing: SimpleQueue[bytes | threading.Event | None] = SimpleQueue()
        with house.lock:
            house.hearers.append(hearing)
        self.wfile.write(b'data: {"payload":{"type":"server.connected","properties":{}}}\n\n')
        self.wfile.flush()
        while (raw := hearing.get()) is not None:
            if isinstance(raw, bytes):
                self.wfile.write(raw)
            else:
                raw.set()


def main() -> None:
    start = os.environ.get("STANDIN_START")
    if start == "exit":
        sys.exit("the stand-in does not want to start")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.daemon_threads = True
    print(f"opencode server listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
