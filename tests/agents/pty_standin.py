"""A stand-in for an agent that is a one-shot command: it reads its prompt from standard input and writes claude's stream of records.

Directives, one a line:
  say: text   think: text   write PATH: text   run: command   (\\n in texts is a line's end)
  recall      says all prompts of its conversation so far (`--resume <id>` goes on with one; they are kept below its home)
  say-huge N  says N characters             invalid     says bytes that are no UTF-8
  flood N     N bytes to standard error     nothing     ends at once, without a word
  silent      never says anything           crash       says a word, then dies by SIGKILL
  model: text says what the model answers to that
  fail N      ends with that exit code      ask         reads a line from the terminal itself and says it
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from asked_model import asked_model

PIECE = 65_536


class Speaker:
    """Writes records."""

    def __init__(self, session: str) -> None:
        self.session = session
        self.calls = 0
        self.write({"type": "system", "subtype": "init", "slash_commands": ["help"]})
        self.message = 0

    def write(self, record: dict[str, Any]) -> None:
        line = json.dumps({**record, "session_id": self.session}, ensure_ascii=False).encode("utf-8", "surrogateescape") + b"\n"
        while line:
            line = line[os.write(1, line) :]

    def event(self, **event: Any) -> None:
        self.write({"type": "stream_event", "event": event})

    def begin(self) -> None:
        self.message += 1
        usage = {"input_tokens": 200, "cache_read_input_tokens": 1000, "output_tokens": 1}
        self.event(type="message_start", message={"id": f"msg_{self.message}", "usage": usage})

    def end(self) -> None:
        self.event(type="message_delta", usage={"output_tokens": 34})
        self.event(type="message_stop")

    def prose(self, kind: str, text: str) -> None:
        self.begin()
        self.event(type="content_block_start", content_block={"type": kind})
        for start in range(0, len(text), PIECE):
            self.event(type="content_block_delta", delta={"type": f"{kind}_delta", kind: text[start : start + PIECE]})
        if len(text) <= PIECE:
            self.write({"type": "assistant", "message": {"id": f"msg_{self.message}", "content": [{"type": kind, kind: text}]}})
        self.end()

    def tool(self, name: str, arguments: dict[str, str]) -> str:
        self.calls += 1
        call = f"call_{self.calls}"
        self.begin()
        block = {"type": "tool_use", "id": call, "name": name, "input": arguments}
        self.write({"type": "assistant", "message": {"id": f"msg_{self.message}", "content": [block]}})
        self.end()
        return call

    def result(self, call: str, failed: bool, output: str) -> None:
        block = {"type": "tool_result", "tool_use_id": call, "is_error": failed, "content": output}
        self.write({"type": "user", "message": {"content": [block]}})


def run(speaker: Speaker, command: str) -> None:
    call = speaker.tool("Bash", {"command": command})
    done = subprocess.run(
        ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    output = done.stdout.decode("utf-8", "surrogateescape")
    told = f"Exit code {done.returncode}\n{output}" if done.returncode else output
    speaker.result(call, done.returncode != 0, told)


def write(speaker: Speaker, place: str, text: str) -> None:
    call = speaker.tool("Write", {"file_path": place, "content": text})
    Path(place).write_text(text)
    speaker.result(call, False, f"Wrote {place}.")


def obey(speaker: Speaker, line: str, prompts: list[str]) -> None:
    word, _, rest = line.partition(" ")
    text = rest.replace("\\n", "\n")
    if word in ("say:", "think:"):
        speaker.prose("text" if word == "say:" else "thinking", text)
    elif word == "write":
        place, _, content = text.partition(": ")
        write(speaker, place, content)
    elif word == "run:":
        run(speaker, rest)
    elif word == "model:":
        speaker.prose("text", asked_model(rest))
    elif word == "recall":
        speaker.prose("text", json.dumps(prompts, ensure_ascii=False))
    elif word == "say-huge":
        speaker.prose("text", "x" * int(rest))
    elif word == "invalid":
        speaker.prose("text", "fine \udcff\udcfe\udcc3 fine")
    elif word == "flood":
        for _ in range(int(rest) // PIECE):
            os.write(2, (b"noise " * (PIECE // 6))[:-1] + b"\n")
    elif word == "silent":
        signal.pause()
    elif word == "crash":
        speaker.prose("text", "dying")
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "fail":
        os.write(2, b"something is wrong here\n")
        sys.exit(int(rest))
    elif word == "ask":
        with open("/dev/tty", encoding="utf-8") as keyboard:
            speaker.prose("text", f"answered {keyboard.readline()!r}")


def main() -> None:
    prompt = sys.stdin.read()
    lines = [line.strip() for line in prompt.splitlines()]
    if "nothing" in lines:
        return
    resumed = sys.argv[1] == "--resume" if len(sys.argv) > 2 else False
    session = sys.argv[2] if resumed else f"session-{os.getpid()}-{os.stat('/proc/self').st_ctime_ns}"
    kept = Path.home() / f"standin-{session}.json"
    prompts: list[str] = json.loads(kept.read_text()) if resumed else []
    speaker = Speaker(session)
    for line in lines:
        obey(speaker, line, [*prompts, prompt])
    kept.write_text(json.dumps([*prompts, prompt]))
    speaker.write({"type": "result", "subtype": "success", "is_error": False, "result": ""})


if __name__ == "__main__":
    main()
