"""A browser's tab as the protocol asks it to behave, and a witness that nothing comes twice, late, or from elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from coder.frames import SessionFrame, TurnStarted, from_wire
from coder.live import Fold

TOKEN = "a-token-of-the-tests"
PATIENCE_SECONDS = 60.0
ENTRY = ("task_id", "role", "text", "reasoning", "tool_calls")


def entry(message: dict[str, Any]) -> tuple[Any, ...]:
    """What of a message is compared."""
    return tuple(json.dumps(message[name], sort_keys=True) if name == "tool_calls" else message[name] for name in ENTRY)


class WholeFold(Fold):
    """A tab keeps all of a turn."""

    def _put_away(self) -> None: ...


class View:
    """One session as a tab shows it."""

    def __init__(self) -> None:
        self.histories = 0
        self.messages: list[dict[str, Any]] = []
        self.queued: dict[int, dict[str, Any]] = {}
        self.turns: dict[int, Fold] = {}
        self.frames: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.change: str | None = None

    def apply(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        kind = frame["type"]
        if kind == "session_history":
            self.histories += 1
            self.messages, self.turns, self.change = list(frame["messages"]), {}, frame["change_id"]
            self.queued = {each["task_id"]: each for each in frame["queued"]}
        elif kind == "task_state":
            if frame["state"] == "pending":
                self.queued[frame["task_id"]] = frame
            else:
                self.queued.pop(frame["task_id"], None)
        elif kind == "change_pending":
            self.change = frame["change_id"]
        elif kind == "turn_started":
            assert frame["turn_id"] not in self.turns, "a turn starts once"
            found = from_wire(frame)
            assert isinstance(found, TurnStarted)
            self.turns[frame["turn_id"]] = WholeFold(found)
        elif kind == "message_complete":
            fold = self.turns[frame["turn_id"]]
            self.messages += self.said(fold)
        elif kind == "turn_ended":
            self.turns.pop(frame["turn_id"], None)
            self.ended.append(frame)
        else:
            told = from_wire(frame)
            assert isinstance(told, SessionFrame)
            self.turns[frame["turn_id"]].apply(told)

    def said(self, fold: Fold) -> list[dict[str, Any]]:
        said, task = fold.said(), fold.started.task_id
        prompt = self.prompt(fold)
        calls = [frame.wire()["call"] for frame in fold.frames() if frame.type == "tool_call"]
        return [
            {"task_id": task, "role": "user", "text": prompt, "reasoning": "", "tool_calls": []},
            {"task_id": task, "role": "assistant", "text": said.text, "reasoning": said.reasoning, "tool_calls": calls},
        ]

    def prompt(self, fold: Fold) -> str | None:
        """What the turn was asked; it comes with the frame after the one that starts the turn."""
        mine = (each for each in self.frames if each["type"] == "message_started" and each["turn_id"] == fold.started.turn_id)
        return next((each["text"] for each in mine if each["role"] == "user"), None)

    @property
    def transcript(self) -> list[tuple[Any, ...]]:
        """What is shown: what is stored, then the turns that run."""
        running = [message for fold in self.turns.values() if self.prompt(fold) is not None for message in self.said(fold)]
        return [entry(message) for message in [*self.messages, *running]]

    @property
    def text(self) -> str:
        """Of the turn that runs."""
        (fold,) = self.turns.values()
        return fold.said().text


class Tab:
    """One client. It acknowledges, answers pings and comes back; what breaks the protocol's promises fails the test."""

    def __init__(self, url: str, *, client_id: str | None = None, token: str = TOKEN, acks: bool = True) -> None:
        self.url = url.replace("http", "ws").rstrip("/") + "/api/v1/ws"
        self.client_id = client_id or uuid4().hex
        self.epoch: str | None = None
        self.cursor: int | None = 0
        self.views: dict[str, View] = {}
        self.wanted: set[str] = set()
        self.unanswered: set[str] = set()
        self.answers: list[str] = []
        self.errors: list[dict[str, Any]] = []
        self.accepted: list[dict[str, Any]] = []
        self.surfaces: list[dict[str, Any]] = []
        self.resets = 0
        self.batches = 0
        self.pings = 0
        self.broken: BaseException | None = None
        self.closed: ConnectionClosed | None = None
        self.pongs = True
        self._token = token
        self._acks = acks
        self._line: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def end(self) -> tuple[int, str] | None:
        """The code and reason with which the server closed."""
        return (self.closed.rcvd.code, self.closed.rcvd.reason) if self.closed is not None and self.closed.rcvd is not None else None

    @property
    def line(self) -> ClientConnection:
        assert self._line is not None, "the tab is not connected"
        return self._line

    async def __aenter__(self) -> Tab:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()

    async def open(self, since: int | None = None, epoch: str | None = None) -> None:
        """Connect and say hello, with what is known from before; answered, or `closed`."""
        self.closed = None
        self._line = await connect(self.url, subprotocols=["coder.v1", f"bearer.{self._token}"], max_size=None, compression=None)  # type: ignore[list-item]
        assert self._line.subprotocol == "coder.v1"
        hello = {
            "type": "hello",
            "client_id": self.client_id,
            "epoch": epoch or self.epoch,
            "since": (self.cursor or 0) if since is None else since,
        }
        await self.send(hello)
        answers = len(self.answers)
        self._reader = asyncio.create_task(self._read(self._line))
        await self.until(lambda: len(self.answers) > answers or self.closed)
        if not self.closed and self.answers[-1] != "reset":
            await self._ask(self._line)

    async def cut(self) -> None:
        """The line breaks, without a word."""
        if self._line is not None and self._reader is not None:
            self._line.transport.abort()
            await asyncio.gather(self._reader, return_exceptions=True)
            self._line = self._reader = None
        if self.broken is not None:
            raise self.broken

    async def send(self, operation: dict[str, Any] | str | bytes) -> None:
        await self.line.send(json.dumps(operation) if isinstance(operation, dict) else operation)

    async def subscribe(self, session: str) -> View:
        """Watch a session; answers once its history is there."""
        self.wanted.add(session)
        self.unanswered.add(session)
        before = self.views[session].histories if session in self.views else 0
        await self.send({"type": "chat.subscribe", "session_id": session})
        await self.until(lambda: session in self.views and self.views[session].histories > before)
        return self.views[session]

    async def until(self, fact: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (found := fact()):
                if self.broken is not None:
                    raise self.broken
                self._changed.clear()
                await self._changed.wait()
            return found

    async def _read(self, line: ClientConnection) -> None:
        try:
            async for message in line:
                content = json.loads(message)
                self.batches += isinstance(content, list)
                for frame in content if isinstance(content, list) else [content]:
                    await self._take(line, frame)
                self._changed.set()
        except ConnectionClosed as closed:
            self.closed = closed
        except BaseException as error:  # noqa: BLE001 - told to whoever waits
            self.broken = error
        finally:
            if self.closed is None and line.close_code is not None and line.protocol.close_exc is not None:
                self.closed = line.protocol.close_exc
            self._changed.set()

    async def _take(self, line: ClientConnection, frame: dict[str, Any]) -> None:
        seq, kind = frame["seq"], frame["type"]
        if seq == 0:
            await self._answer(line, frame)
            return
        assert self.cursor is None or seq == self.cursor + 1, f"frame {seq} follows {self.cursor}"
        self.cursor = seq
        if kind == "reset":
            await self._start_over(line)
            return
        if kind in ("surface", "surface_update"):
            self.surfaces.append(frame)
            return
        session = frame["session_id"]
        assert session in self.wanted, "a frame of a session that nobody asked for"
        if kind == "session_history":
            self.unanswered.discard(session)
            self.views.setdefault(session, View())
        if session in self.views:
            self.views[session].apply(frame)
        if self._acks and seq % 20 == 0:
            await line.send(json.dumps({"type": "ack", "seq": seq}))

    async def _answer(self, line: ClientConnection, frame: dict[str, Any]) -> None:
        match frame["type"]:
            case "hello":
                self.answers.append(frame["answer"])
                if frame["answer"] == "reset":
                    self.cursor = None  # whatever comes next is the beginning
                self.epoch = frame["epoch"]
            case "ping":
                self.pings += 1
                if self.pongs:
                    await line.send(json.dumps({"type": "pong"}))
            case "accepted":
                self.accepted.append(frame)
                self.wanted.add(frame["session_id"])
            case "error":
                self.errors.append(frame)

    async def _start_over(self, line: ClientConnection) -> None:
        self.resets += 1
        self.unanswered = set(self.wanted)
        await self._ask(line)

    async def _ask(self, line: ClientConnection) -> None:
        """A subscription holds once its history came; whether one before that arrived is not known."""
        for session in self.unanswered:
            await line.send(json.dumps({"type": "chat.subscribe", "session_id": session}))
