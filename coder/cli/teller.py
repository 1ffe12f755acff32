"""Frames as a person reads them: a turn as it happens, on a terminal or in a file.

The invariants: what a turn says is written once, however often its session is told again; text of agents and users reaches the
terminal without control characters. What coder says stands on lines of its own that begin with `──`.
Omitted on purpose: where frames come from, and what is answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from coder.cli.screen import one_line, visible

DIM, BOLD, RED, YELLOW = "2", "1", "31", "33"
RECENT_MESSAGES = 4
OUTPUT_LINES = 8
LINE_CHARACTERS = 200
RUNNING = "running"
NOTHING = ("", "{}")
"""The input of a call whose arguments are still written; it is shown when they are known."""
PERMISSION_KEYS = "y once · s in this session from now on · p in this project from now on · n no, or n and why not"
QUESTION_KEYS = "the number of a choice{several}, or your own words"


@dataclass
class Shown:
    """What of one task's turn was written. `told` counts the present telling, which may be another one of the same turn."""

    turn: int = 0
    written: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)
    calls: dict[str, str] = field(default_factory=dict)
    notices: set[str] = field(default_factory=set)
    prompted: bool = False
    over: bool = False


class Teller:
    """Args:
    write: puts text where people read it.
    only: the one task that is told of; None for all of the session.
    coloured: whether escape codes for colours may be written.
    columns: the width of the terminal; 0 where lines cannot be written over.
    keys: whether somebody types here, who can answer what agents ask and sees what was typed.
    mine: whether a task was sent from here.

    Attributes:
        asked: open permissions and questions, oldest first.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        only: int | None = None,
        coloured: bool = False,
        columns: Callable[[], int] = lambda: 0,
        keys: bool = False,
        mine: Callable[[int], bool] = lambda task: False,
    ) -> None:
        self._write = write
        self._only = only
        self._coloured = coloured
        self._columns = columns
        self._keys = keys
        self._mine = mine
        self._prose = ""
        self._fresh = True
        self._passing = False
        self._tasks: dict[int, Shown] = {}
        self._turns: dict[int, int] = {}
        self._retry: tuple[float, int] | None = None
        self._plan: list[dict[str, str]] = []
        self._change: str | None = None
        self._tokens: dict[int, int] = {}
        self._began = False
        self.asked: dict[str, dict[str, Any]] = {}

    # ── lines ────────────────────────────────────────────────────────────────────────────────────────

    def say(self, text: str, style: str = DIM) -> None:
        """A line of coder's own."""
        self._put(f"── {one_line(text)}", style)

    def prompt(self) -> None:
        """Invite to type."""
        self._break()
        self._write("> ")
        self._fresh = False

    def typed(self) -> None:
        """Somebody ended a line on the terminal."""
        self._fresh, self._prose = True, ""

    def _put(self, line: str, style: str = "") -> None:
        self._break()
        self._write(self._styled(line, style) + "\n")

    def _break(self) -> None:
        """Go to the beginning of a line."""
        if self._passing:
            self._write("\r\x1b[K")
            self._passing, self._fresh = False, True
        if not self._fresh:
            self._write("\n")
        self._fresh, self._prose = True, ""

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if style and self._coloured else text

    def _stream(self, kind: str, turn: int, text: str) -> None:
        """Prose that grows; another kind begins on another line."""
        if self._prose != (prose := f"{kind}{turn}"):
            self._break()
            self._prose = prose
        self._write(self._styled(visible(text), DIM if kind == "reasoning" else ""))
        self._fresh = text.endswith("\n")

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────

    def tell(self, frame: dict[str, Any], now: float) -> None:
        """Write what a frame says. `now`: monotonic seconds."""
        kind = frame["type"]
        if kind == "session_history":
            self._history(frame)
        elif kind == "turn_started":
            self._start(frame)
        elif kind == "task_state":
            self._queue(frame)
        elif kind == "change_pending":
            self._changed(frame["change_id"])
        elif frame.get("turn_id") in self._turns:
            self._in_turn(kind, frame, now)

    def _in_turn(self, kind: str, frame: dict[str, Any], now: float) -> None:
        shown = self._tasks[self._turns[frame["turn_id"]]]
        if self._retry is not None and kind != "provider_retry":
            self._retry = None
        match kind:
            case "message_started":
                if frame["role"] == "user":
                    self._prompted(shown, self._turns[frame["turn_id"]], frame["text"])
            case "delta" | "reasoning_delta":
                self._grow(shown, "text" if kind == "delta" else "reasoning", frame["text"])
            case "tool_call":
                self._call(shown, frame["call"])
            case "notice":
                self._notice(shown, frame["text"])
            case "plan":
                self._planned(frame["entries"])
            case "permission_request":
                self._permission(frame)
            case "provider_retry":
                self._wait(frame, now)
            case "usage":
                self._tokens[frame["turn_id"]] = frame["input_tokens"] + frame["output_tokens"]
            case "turn_ended":
                self._end(shown, frame)

    def _start(self, frame: dict[str, Any]) -> None:
        task, turn = frame["task_id"], frame["turn_id"]
        if self._only not in (None, task):
            return
        shown = self._tasks.get(task)
        if shown is None or shown.turn != turn:
            again = shown is not None and shown.turn
            shown = self._tasks[task] = Shown(turn, prompted=bool(again))
            attempt = f", attempt {frame['attempt']}" if frame["attempt"] > 1 else ""
            self.say(f"task {task}, {frame['agent']}{attempt}")
        shown.told = {}
        self.asked.clear()  # those that wait are told again
        self._turns[turn] = task

    def _prompted(self, shown: Shown, task: int, text: str) -> None:
        if not shown.prompted and not (self._keys and self._mine(task)):
            self._put("> " + visible(text.rstrip()).replace("\n", "\n  "), BOLD)
        shown.prompted = True

    def _grow(self, shown: Shown, what: str, text: str) -> None:
        """Write what of a text is new: in another telling its beginning is not."""
        told = shown.told.get(what, 0)
        shown.told[what] = told + len(text)
        written = shown.written.get(what, 0)
        if (fresh := text[max(0, written - told) :]) and shown.told[what] > written:
            shown.written[what] = shown.told[what]
            self._stream(what, shown.turn, fresh)

    def _call(self, shown: Shown, call: dict[str, Any]) -> None:
        before = shown.calls.get(call["id"])
        if before == call["status"] or (call["status"] == RUNNING and call["input"] in NOTHING):
            return
        shown.calls[call["id"]] = call["status"]
        ended, failed = call["status"] != RUNNING, call["status"] == "failed" or call["exit_code"]
        if not ended:
            self._put(_call_line("▸", call))
            return
        code = f" (exit code {call['exit_code']})" if call["exit_code"] else ""
        self._put(_call_line("✗" if failed else "✓", call) + code, RED if failed else "")
        lines = call["output"].rstrip().splitlines() if call["output"].strip() else []
        for line in lines[:OUTPUT_LINES]:
            self._put("  " + visible(line)[:LINE_CHARACTERS], DIM)
        if len(lines) > OUTPUT_LINES:
            self._put(f"  … {len(lines) - OUTPUT_LINES} more lines", DIM)

    def _notice(self, shown: Shown, text: str) -> None:
        if text not in shown.notices:
            shown.notices.add(text)
            self.say(text, YELLOW)

    def _planned(self, entries: list[dict[str, str]]) -> None:
        if entries == self._plan:
            return
        self._plan = entries
        self.say("plan")
        for entry in entries:
            mark = {"completed": "x", "in_progress": ">"}.get(entry["status"], " ")
            self._put(f"   [{mark}] {one_line(entry['text'])}", DIM)

    def _changed(self, change: str | None) -> None:
        if change is not None and change != self._change:
            self.say(f"change {change[:8]} waits for a decision; `coder change show {change[:8]}` shows it")
        self._change = change

    def _queue(self, frame: dict[str, Any]) -> None:
        if self._only is None and frame["state"] == "pending" and not self._mine(frame["task_id"]) and frame["text"] is not None:
            self.say(f"task {frame['task_id']} waits: {frame['text']}"[:LINE_CHARACTERS])

    def _end(self, shown: Shown, frame: dict[str, Any]) -> None:
        self.asked.clear()
        self._turns.pop(frame["turn_id"], None)
        tokens = self._tokens.pop(frame["turn_id"], 0)
        self.ended(frame["task_id"], frame["state"], frame["error"], tokens)

    def ended(self, task: int, state: str, error: str | None, tokens: int | None = 0) -> None:
        """Say how a task's turn ended; once."""
        shown = self._tasks.setdefault(task, Shown())
        if shown.over:
            return
        if state == "pending":
            self.say(f"task {task} was stopped before anything of it was seen; it runs again by itself")
            return
        shown.over = True
        decide = f"was interrupted; `coder task resume {task}`, `retry` or `dismiss` decides what becomes of it"
        what = decide if state == "interrupted" else state
        spent = f" ({tokens:,} tokens)" if tokens else ""
        self.say(f"task {task} {what}{spent}{f': {error}' if error else ''}", RED if state in ("failed", "interrupted") else DIM)

    # ── histories ────────────────────────────────────────────────────────────────────────────────────

    def _history(self, frame: dict[str, Any]) -> None:
        """What is stored: of what was not seen yet the newest, of what was being told the rest."""
        self._turns.clear()
        self.asked.clear()
        self._retry = None
        messages = [message for message in frame["messages"] if self._only in (None, message["task_id"])]
        fresh = [message for message in messages if not self._known(message["task_id"])]
        skipped = 0 if self._began or self._only is not None else max(0, len(fresh) - RECENT_MESSAGES)
        if skipped or (frame["more"] and not self._began and self._only is None):
            self.say(f"earlier messages: `coder session show {frame['session_id'][:8]} --messages`")
        passed = {message["task_id"] for message in fresh[:skipped]} - {message["task_id"] for message in fresh[skipped:]}
        for task in passed:
            self._tasks[task] = Shown(prompted=True, over=True)
        for message in messages:
            if message["task_id"] not in passed and not self._tasks.setdefault(message["task_id"], Shown()).over:
                self._message(self._tasks[message["task_id"]], message)
        for waiting in frame["queued"] if self._only is None else ():
            if not self._known(waiting["task_id"]) and not self._mine(waiting["task_id"]):
                self.say(f"task {waiting['task_id']} waits: {waiting['text']}"[:LINE_CHARACTERS])
        self._changed(frame["change_id"])
        self._began = True

    def _known(self, task: int) -> bool:
        return task in self._tasks

    def _message(self, shown: Shown, message: dict[str, Any]) -> None:
        if message["role"] == "user":
            self._prompted(shown, message["task_id"], message["text"])
            return
        shown.told = {}
        self._grow(shown, "reasoning", message["reasoning"])
        for call in message["tool_calls"]:
            self._call(shown, call)
        self._grow(shown, "text", message["text"])
        if self._only is None:
            self.ended(message["task_id"], {"complete": "completed"}.get(message["state"], message["state"]), None)

    # ── what waits for a person, or for a while ──────────────────────────────────────────────────────

    def _permission(self, frame: dict[str, Any]) -> None:
        known, request = frame["permission_id"], frame["request"]
        if frame["state"] != "requested":
            if self.asked.pop(known, None) is not None:
                self.say("that is answered")
            return
        self.asked[known] = request
        self.ask(known)

    def ask(self, permission: str) -> None:
        """Show what an agent asks, and how it is answered."""
        request = self.asked[permission]
        question = "tool" not in request
        self.say("the agent asks you" if question else f"the agent asks whether it may use {request['tool']}", YELLOW)
        for line in (request["text"] if question else request["title"]).splitlines():
            self._put("   " + visible(line), BOLD)
        for number, choice in enumerate(request["choices"] if question else (), 1):
            about = f": {choice['description']}" if choice["description"] else ""
            self._put(f"   {number} {one_line(choice['label'] + about)}")
        if self._keys:
            several = "s, with commas between" if question and request["several"] else ""
            self._put("   " + (QUESTION_KEYS.format(several=several) if question else PERMISSION_KEYS), DIM)
            self.prompt()
        elif question:
            self._put(f"   `coder permission answer {permission[:8]} …` answers it", DIM)
        else:
            self._put(f"   `coder permission allow {permission[:8]}` or `deny` answers it", DIM)

    def _wait(self, frame: dict[str, Any], now: float) -> None:
        code = f" ({frame['code']})" if frame["code"] else ""
        self._retry = (now + frame["delay_ms"] / 1000, self._turns[frame["turn_id"]])
        self.say(f"the model's endpoint: {frame['message']}{code}; it is asked again in {frame['delay_ms'] / 1000:g} s", YELLOW)
        self.tick(now)

    def tick(self, now: float) -> None:
        """Write the countdown to the next request anew; to be called every second."""
        columns = self._columns()
        if self._retry is None or not columns or not (self._passing or self._fresh):
            return
        due, task = self._retry
        left = f"   {max(0, round(due - now))} s; `coder task retry-now {task}` asks it at once"
        self._write("\r\x1b[K" + self._styled(left[: columns - 1], YELLOW))
        self._passing = True


def _call_line(mark: str, call: dict[str, Any]) -> str:
    """One line for a tool call: its name and its arguments, as short as can be."""
    try:
        given = json.loads(call["input"])
    except ValueError:
        given = call["input"]
    if isinstance(given, dict):
        values = [value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in given.values()]
        given = values[0] if len(values) == 1 else ", ".join(f"{name}: {value}" for name, value in zip(given, values, strict=True))
    line = one_line(f"{mark} {call['name']} {given}")
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"
