"""What opencode's bus says of one turn, as our events. Pure: a fold over the events of `GET /global/event`.

A turn is our prompt's message and every message after it (their ids grow with time), in its session and in the sessions of
the subagents it starts. Of those the tool calls and the usage are shown, not what they say: that is said to the agent.

Invariant: a text is shown once and in order, whether it comes as deltas, as whole parts or both, and also when events come
twice; after a gap in the stream (`interrupted`) the parts that were open are only believed as wholes, since nobody knows which
deltas are missing. The turn is settled by its last message's own end, never by an `idle` alone: after an abort or an error
that comes twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coder.events import AgentEvent, Notice, ReasoningDelta, RetryScheduled, TextDelta, ToolCall
from coder.protocols.opencode_words import asked, failure, obj, plan, question, text, tool_call, usage

REMEMBERED = 4096
GOES_ON = ("tool-calls", "unknown", "")


def session_of(payload: Mapping[str, Any]) -> str:
    """The session an event is about, empty when it is about none."""
    properties = obj(payload.get("properties"))
    return text(properties.get("sessionID")) or text(obj(properties.get("info")).get("sessionID"))


def child_of(payload: Mapping[str, Any]) -> tuple[str, str] | None:
    """A new session of a subagent and the session that started it."""
    if payload.get("type") != "session.created":
        return None
    made = obj(obj(payload.get("properties")).get("info"))
    child, parent = text(made.get("id")), text(made.get("parentID"))
    return (child, parent) if child and parent else None


@dataclass(slots=True)
class _Message:
    answer: bool
    child: bool
    hidden: bool
    done: bool = False
    finish: str = ""


@dataclass(slots=True)
class _Part:
    kind: str
    message: str
    shown: int = 0
    ended: bool = False
    unsure: bool = False


class TurnReading:
    """What one turn has said so far.

    Args:
        session: opencode's id of the session.
        prompt: the id of the message that holds our prompt.
        directory: absolute directory of the session, for paths of permissions.

    Attributes:
        idle: the session said that it has nothing to do, since something else was heard.
        failed: why the turn failed, as a sentence; None as long as it did not.
        waited: seconds of all waits before retries of the present model request.
    """

    def __init__(self, session: str, prompt: str, directory: str) -> None:
        self.session = session
        self.children: set[str] = set()
        self.idle = False
        self.failed: str | None = None
        self.waited = 0.0
        self._prompt = prompt
        self._directory = directory
        self._messages: dict[str, _Message] = {}
        self._parts: dict[str, _Part] = {}
        self._calls: dict[str, ToolCall] = {}
        self._running: set[str] = set()
        self._by_call: dict[tuple[str, str], str] = {}
        self._asked: set[str] = set()
        self._heard: deque[str] = deque(maxlen=REMEMBERED)
        self._known: set[str] = set()
        self._said: dict[str, str] = {}
        self._plan: object = None

    @property
    def settled(self) -> bool:
        """Whether the turn is over."""
        return self.idle and not self._open() and (self.failed is not None or self._finished())

    @property
    def doubtful(self) -> bool:
        """Whether something should follow soon, or has been lost."""
        return not self.settled and (self.idle or self._finished() or any(p.unsure and not p.ended for p in self._parts.values()))

    @property
    def running_tools(self) -> frozenset[str]:
        """The ids of the tool calls that run at this moment."""
        return frozenset(self._running)

    def hear(self, payload: Mapping[str, Any], now: float) -> list[AgentEvent]:
        """Fold one event of the bus in.

        Args:
            now: seconds since 1970.
        """
        if not self._new(text(payload.get("id"))):
            return []
        kind, properties = text(payload.get("type")), obj(payload.get("properties"))
        session = session_of(payload)
        if (child := child_of(payload)) and child[1] in (self.session, *self.children):
            self.children.add(child[0])
        if session != self.session and session not in self.children:
            return []
        if kind == "message.part.delta":
            return self._delta(properties)
        if kind == "message.part.updated":
            return self._whole(obj(properties.get("part")))
        if kind == "message.updated":
            self._message(obj(properties.get("info")))
            return []
        if kind == "permission.asked":
            return self.permissions([properties])
        if kind == "question.asked":
            return self.questions([properties])
        return self._session(kind, properties, now) if session == self.session else []

    def read(self, messages: Iterable[Any], idle: bool) -> list[AgentEvent]:
        """Fold in what the server tells of itself (`GET …/message`), after a gap or a silence.

        Args:
            messages: of one of the turn's sessions, in order.
            idle: whether the turn's own session has nothing to do by its status.
        """
        events: list[AgentEvent] = []
        for entry in messages:
            self._message(obj(obj(entry).get("info")))
            parts = obj(entry).get("parts")
            for part in parts if isinstance(parts, list) else ():
                events += self._whole(obj(part))
        for part in self._parts.values():
            part.unsure = True  # what still is in the stream may be in here already
        self.idle = idle
        return events

    def interrupted(self) -> None:
        """The stream of events was broken, so some were lost."""
        for part in self._parts.values():
            part.unsure = True
        self.idle = False

    def permissions(self, requests: Iterable[Any]) -> list[AgentEvent]:
        """Permissions that are asked for, those told of already left out."""
        return [asked(request, self._directory, self._by_call.get(_call_of(request))) for request in self._fresh(requests)]

    def questions(self, requests: Iterable[Any]) -> list[AgentEvent]:
        """Questions that are asked, those told of already left out; each part of one is an event with an id of its own."""
        return [event for request in self._fresh(requests) for event in question(request)]

    def _new(self, event: str) -> bool:
        if not event:
            return True
        if event in self._known:
            return False
        if len(self._heard) == REMEMBERED:
            self._known.discard(self._heard[0])
        self._heard.append(event)
        self._known.add(event)
        return True

    def _fresh(self, requests: Iterable[Any]) -> list[Mapping[str, Any]]:
        fresh = []
        for request in map(obj, requests):
            name = text(request.get("id"))
            if name and name not in self._asked and text(request.get("sessionID")) in (self.session, *self.children):
                self._asked.add(name)
                fresh.append(request)
        return fresh

    def _session(self, kind: str, properties: Mapping[str, Any], now: float) -> list[AgentEvent]:
        status = obj(properties.get("status"))
        if kind == "session.idle" or (kind == "session.status" and status.get("type") == "idle"):
            self.idle = True
        elif kind == "session.status":
            self.idle = False
            if status.get("type") == "retry":
                return [self._retry(status, now)]
        elif kind == "session.error":
            self.failed = self.failed or failure(properties.get("error"))
        elif kind == "session.compacted":
            return [Notice("opencode summarised the conversation so far, since it had outgrown the model's context.")]
        elif kind == "todo.updated" and (event := plan(properties.get("todos"))) != self._plan:
            self._plan = event
            return [event]
        return []

    def _retry(self, status: Mapping[str, Any], now: float) -> RetryScheduled:
        at, attempt = status.get("next"), status.get("attempt")
        delay = max(0.0, at / 1000 - now) if isinstance(at, int | float) else 0.0
        self.waited += delay
        return RetryScheduled(max(0, attempt - 1) if isinstance(attempt, int) else 0, delay, text(status.get("message")))

    def _message(self, info: Mapping[str, Any]) -> None:
        name, session = text(info.get("id")), text(info.get("sessionID"))
        if name <= self._prompt or session not in (self.session, *self.children):
            return
        answer, child = info.get("role") == "assistant", session != self.session
        message = self._messages.setdefault(name, _Message(answer, child, info.get("summary") is True or child))
        if answer and obj(info.get("time")).get("completed"):
            message.done, message.finish = True, text(info.get("finish")) or ("error" if info.get("error") else "")
            if not child and info.get("error"):
                self.failed = failure(info.get("error"))

    def _open(self) -> bool:
        return any(message.answer and not message.child and not message.done for message in self._messages.values())

    def _finished(self) -> bool:
        """Whether the last of the turn's own messages is an answer after which nothing is to come."""
        own = [name for name, message in self._messages.items() if message.answer and not message.child]
        return bool(own) and (last := self._messages[max(own)]).done and last.finish not in GOES_ON

    def _delta(self, properties: Mapping[str, Any]) -> list[AgentEvent]:
        part = self._parts.get(text(properties.get("partID")))
        piece = text(properties.get("delta"))
        if part is None or part.unsure or part.ended or properties.get("field") != "text" or not piece:
            return []
        part.shown += len(piece)
        return self._say(part, piece, part.shown == len(piece))

    def _whole(self, found: Mapping[str, Any]) -> list[AgentEvent]:
        name, kind, owner = text(found.get("id")), text(found.get("type")), text(found.get("messageID"))
        message = self._messages.get(owner)
        if message is None or not message.answer or not name:
            return []
        if kind == "tool":
            return self._tool(name, owner, found)
        if kind == "step-finish" and name not in self._parts:
            self._parts[name] = _Part(kind, owner, ended=True)
            self.waited = 0.0
            return [usage(found.get("tokens"), child=message.child)]
        if kind not in ("text", "reasoning"):
            return []
        part = self._parts.setdefault(name, _Part(kind, owner))
        part.ended = part.ended or bool(obj(found.get("time")).get("end"))
        piece = text(found.get("text"))[part.shown :]
        if not piece:
            return []
        first, part.shown = part.shown == 0, part.shown + len(piece)
        return self._say(part, piece, first)

    def _say(self, part: _Part, piece: str, first: bool) -> list[AgentEvent]:
        self.waited = 0.0
        if self._messages[part.message].hidden:
            return []
        gap = "\n\n" if first and part.kind in self._said else ""
        self._said[part.kind] = part.message
        return [TextDelta(gap + piece) if part.kind == "text" else ReasoningDelta(gap + piece)]

    def _tool(self, name: str, owner: str, found: Mapping[str, Any]) -> list[AgentEvent]:
        state = obj(found.get("state"))
        before = self._calls.get(name)
        if before is not None and before.status != "running" and state.get("status") in ("pending", "running"):
            return []
        call = tool_call(name, found)
        self._by_call[owner, text(found.get("callID"))] = name
        self.waited = 0.0
        if state.get("status") == "running":
            self._running.add(name)
        else:
            self._running.discard(name)
        if call == before:
            return []
        self._calls[name] = call
        return [call]


def _call_of(request: Mapping[str, Any]) -> tuple[str, str]:
    tool = obj(request.get("tool"))
    return text(tool.get("messageID")), text(tool.get("callID"))
