"""Watching in the terminal: one loop takes what the line, the keyboard and the clock bring, one by one."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
from typing import Any
from uuid import UUID, uuid4

from coder.cli.desk import Desk, actor, sound
from coder.cli.exits import FAILED, OF_STATE, STOPPED, complain
from coder.cli.keyboard import Keyboard
from coder.cli.line import Line
from coder.cli.screen import coloured, progress
from coder.cli.teller import Teller
from coder.cli.waiting import WAITING_FOR
from coder.errors import CoderError, InvalidInput
from coder.task import INPUT_BYTES

TICK_SECONDS = 1.0
LOOK_SECONDS = 3.0
"""After so long without a word the tasks that are waited for are looked at."""
SETTLE_SECONDS = 3.0
"""How long the last frames of a task that has ended may take."""
NOT_SHOWN = ("hello", "ping")
ANSWERS = ("accepted", "error")
UNDERSTOOD = ("session", "dispatcher")


class Watching:
    """A session, or one task of it, in this terminal.

    Args:
        session: its id; None for one that the first message opens.
        task: only this one is shown, and its end ends the watching.
        message: what every message says besides its text (`project`, `agent` …); None where nothing can be said.
        as_json: frames as JSON lines instead of words.
    """

    def __init__(
        self, desk: Desk, session: str | None, *, task: int | None = None, message: dict[str, Any] | None = None, as_json: bool = False
    ) -> None:
        self._desk = desk
        self._session = session
        self._task = task
        self._message = message
        self._json = as_json
        self._notes: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self._line = Line(desk.live, lambda: self._note("broke"), lambda: self._note("back"))
        self._keyboard = Keyboard(lambda text: self._note("line", text))
        self._keys = self._keyboard.terminal and not as_json
        self._sent: set[str] = set()
        self._unsaid: list[str] = []
        self._held: list[dict[str, Any]] = []
        self._awaited: dict[int, str | None] = {} if task is None else {task: None}
        self._over: dict[int, tuple[float, str, str | None]] = {}
        self._why: dict[int, str] = {}
        self._running: int | None = None
        self._no_more = False
        self._stops = 0
        self._quiet_since = 0.0
        self._code: int | None = None
        self._failed = 0
        self._teller = Teller(
            self._print,
            only=task,
            coloured=coloured(),
            columns=lambda: shutil.get_terminal_size().columns if sys.stdout.isatty() and os.environ.get("TERM") != "dumb" else 0,
            keys=self._keys,
            mine=lambda number: task is None and number in self._awaited,
        )

    def run(self) -> int:
        """Watch until the end; answers the exit code. Raises what `Line.frames` and the door raise."""
        return asyncio.run(self._run())

    def _note(self, kind: str, what: Any = None) -> None:
        self._notes.put_nowait((kind, what))

    def _print(self, text: str) -> None:
        if not self._json:
            encoding = sys.stdout.encoding or "utf-8"
            print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)

    def _say(self, text: str) -> None:
        if self._json:
            progress(text)
        else:
            self._teller.say(text)

    async def _door(self, statement: str, **parameters: Any) -> dict[str, Any]:
        """A row, without keeping the line waiting for it."""
        return await asyncio.to_thread(self._desk.patiently, statement, **parameters)

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────

    async def _run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._note, "stop", number)
        if self._session is not None:
            await self._line.watch(self._session)
        if self._keys or self._message is not None:
            self._keyboard.listen()
        if self._keys and self._session is None:
            self._teller.prompt()
        frames = self._line.frames()
        said, noted = asyncio.ensure_future(anext(frames)), asyncio.ensure_future(self._notes.get())
        self._quiet_since = ticked = loop.time()
        try:
            while self._code is None:
                await asyncio.wait({said, noted}, timeout=TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if noted.done():
                    await self._noted(*noted.result())
                    noted = asyncio.ensure_future(self._notes.get())
                elif said.done():
                    await self._tell(said.result())
                    said = asyncio.ensure_future(anext(frames))
                if loop.time() - ticked >= TICK_SECONDS:
                    ticked = loop.time()
                    await self._tick(ticked)
        finally:
            said.cancel()
            noted.cancel()
            await asyncio.gather(said, noted, return_exceptions=True)
            await frames.aclose()
            self._keyboard.close()
        return self._code

    async def _tick(self, now: float) -> None:
        self._teller.tick(now)
        if now - self._quiet_since > LOOK_SECONDS:
            self._quiet_since = now
            await self._look()
        for task, (since, state, error) in list(self._over.items()):
            if now - since > SETTLE_SECONDS and task != self._running:  # of a turn that is told the end is told too
                self._end(task, state, error)

    async def _noted(self, kind: str, what: Any) -> None:
        if kind == "broke":
            self._say("the line broke; trying again")
        elif kind == "back":
            self._say("the line holds again")
        elif kind == "stop":
            await self._stop()
        else:
            await self._typed(what)

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────

    async def _tell(self, frame: dict[str, Any]) -> None:
        kind = frame["type"]
        if self._json and kind not in NOT_SHOWN:
            print(json.dumps(frame), flush=True)
        if kind in NOT_SHOWN:
            return
        if self._sent and kind not in ANSWERS:  # whose task it is about is known in a moment
            self._held.append(frame)
            return
        await self._show(frame)

    async def _show(self, frame: dict[str, Any]) -> None:
        kind, self._quiet_since = frame["type"], asyncio.get_running_loop().time()
        if kind == "permission_request" and frame["state"] == "requested" and self._keys:
            self._keyboard.forget()
        self._teller.tell(frame, self._quiet_since)
        match kind:
            case "accepted":
                self._sent.discard(frame["client_message_id"])
                self._awaited.setdefault(frame["task_id"], None)
                self._session = frame["session_id"]
                await self._send_rest()
            case "error":
                self._refused(frame)
                await self._send_rest()
            case "turn_started":
                self._running = frame["task_id"]
            case "turn_ended":
                self._running = None
                if frame["state"] in OF_STATE:
                    self._end(frame["task_id"], frame["state"], frame["error"])
                self._invite()
            case "task_state" if frame["task_id"] in self._awaited and frame["state"] in OF_STATE:
                await self._look()
            case "session_history":
                self._running = None
                await self._look({message["task_id"] for message in frame["messages"] if message["role"] == "assistant"})
                self._invite()

        if kind in ANSWERS and not self._sent:
            held, self._held = self._held, []
            for each in held:
                await self._show(each)

    def _invite(self) -> None:
        """Show that something can be said now."""
        busy = self._running is not None or self._sent or self._teller.asked or not all(self._awaited.values())
        if self._keys and self._message is not None and not busy:
            self._teller.prompt()

    def _refused(self, frame: dict[str, Any]) -> None:
        self._teller.typed()
        complain(frame["message"])
        self._sent.discard(frame["about"])
        self._failed = self._failed or FAILED
        self._settle()
        self._invite()

    async def _look(self, told: set[int] | None = None) -> None:
        """See what became of the tasks that are waited for.

        Args:
            told: those whose answer was just told from the history.
        """
        for task in [task for task, state in self._awaited.items() if state is None]:
            row = await self._door("task_get", task=task)
            if row["state"] not in OF_STATE:
                self._explain(task, row["waiting_for"] if row["state"] == "pending" else None)
            elif row["attempts"] == 0 or (told is not None and task in told):
                self._end(task, row["state"], row["error"])
            else:  # frames of it may be on their way
                self._over.setdefault(task, (asyncio.get_running_loop().time(), row["state"], row["error"]))

    def _explain(self, task: int, why: str | None) -> None:
        """Say why a task does not run yet; once for each reason. In a chat its own earlier messages are none."""
        if why is not None and why != self._why.get(task) and (self._task is not None or why not in UNDERSTOOD):
            self._why[task] = why
            self._say(f"task {task} is pending: {WAITING_FOR[why]}")

    def _end(self, task: int, state: str, error: str | None) -> None:
        """A task has ended, and everything of it was told."""
        self._over.pop(task, None)
        if self._awaited.get(task, state) is not None:
            return
        self._awaited[task] = state
        self._teller.ended(task, state, error)
        self._failed = self._failed or OF_STATE[state]
        self._settle()

    def _settle(self) -> None:
        """Whether this was all that was waited for."""
        done = not self._sent and not self._unsaid and all(self._awaited.values())
        if done and (self._task is not None or self._no_more):
            self._code = self._failed

    # ── what is typed ────────────────────────────────────────────────────────────────────────────────

    async def _typed(self, text: str | None) -> None:
        if self._keys:
            self._teller.typed()
        try:
            sound(text or "", "What was typed")
        except InvalidInput as error:
            self._refused({"message": error.message, "about": None})
            return
        if text is None:
            await self._closed()
        elif self._teller.asked and self._keys:
            await self._answer(text.strip())
        elif self._message is not None and text.strip():
            await self._send(text)
        else:
            self._invite()

    async def _closed(self) -> None:
        """There is nothing more to read."""
        if self._keys:
            if self._message is not None:
                self._code = 0
        elif self._message is not None:
            self._no_more = True
            self._settle()

    async def _send_rest(self) -> None:
        """Send what waited for its session to be opened, all of it or, if there is none yet, the next."""
        while self._unsaid and (self._session is not None or not self._sent):
            await self._send(self._unsaid.pop(0))

    async def _send(self, text: str) -> None:
        if self._session is None and self._sent:  # the first one opens the session
            self._unsaid.append(text)
            return
        if len(text.encode()) > INPUT_BYTES:
            said = f"A message may have {INPUT_BYTES} bytes; put large material into a file of the project and name it."
            self._refused({"message": said, "about": None})
            return
        number = uuid4().hex
        self._sent.add(number)
        given = {name: value for name, value in (self._message or {}).items() if value is not None}
        if self._session is not None:
            given = {**given, "session_id": self._session, "project": None, "workspace_id": None}
        await self._line.say({"type": "chat.send", "client_message_id": number, "text": text, **given})

    async def _answer(self, text: str) -> None:
        """Answer what an agent asks, as it was typed."""
        permission, request = next(iter(self._teller.asked.items()))
        statement, how, said = _question(request, text) if "tool" not in request else _permission(text)
        if not statement:
            self._teller.ask(permission)
            return
        try:
            await asyncio.to_thread(self._desk.door.row, statement, permission_id=UUID(permission), actor=actor(), **how)
            self._say(said)
        except CoderError as error:
            complain(error.message)
        self._teller.asked.pop(permission, None)
        if self._teller.asked:
            self._teller.ask(next(iter(self._teller.asked)))

    async def _stop(self) -> None:
        """Ctrl-C: in a chat it stops the turn, then the chat; elsewhere the watching. What was watched goes on."""
        self._stops += 1
        if self._keys and self._message is not None and self._running is not None and self._stops == 1:
            self._say(f"task {self._running} is being cancelled; Ctrl-C again leaves")
            await self._door("task_cancel", task=self._running)
            return
        where = self._task if self._task is not None else (self._session or "")[:8]
        if where:
            self._teller.typed()
            progress(f"nothing was stopped; `coder watch {where}` watches it again")
        self._code = STOPPED


def _permission(text: str) -> tuple[str, dict[str, Any], str]:
    """The statement for what was typed about a permission, its parameters and what to say; no statement where it is unclear."""
    word, _, why = text.partition(" ")
    match word.lower():
        case "y" | "yes":
            return "permission_allow", {"scope": "once", "pattern": None}, "allowed this once"
        case "s" | "session":
            return "permission_allow", {"scope": "session", "pattern": None}, "allowed from now on in this session"
        case "p" | "project":
            return "permission_allow", {"scope": "project", "pattern": None}, "allowed from now on in this project"
        case "n" | "no":
            return "permission_deny", {"message": why.strip() or None}, "denied; the agent goes on without it"
    return "", {}, ""


def _question(request: dict[str, Any], text: str) -> tuple[str, dict[str, Any], str]:
    """The same for a question."""
    if not text:
        return "", {}, ""
    labels = [choice["label"] for choice in request["choices"]]
    numbers = [part.strip() for part in text.split(",")]
    if all(part.isdecimal() and 0 < int(part) <= len(labels) for part in numbers) and (request["several"] or len(numbers) == 1):
        answers = [labels[int(part) - 1] for part in numbers]
    else:
        answers = [text]
    return "permission_answer", {"answers": answers}, f"answered: {', '.join(answers)}"
