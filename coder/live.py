"""A turn as watchers see it: events become frames, and frames fold into what a late comer gets. Pure.

`Narrator` numbers the parts of one turn. `Gathered` keeps frames in the fewest that say the same: deltas of a part merged, of
each tool call, plan and list of commands only the latest. `Fold` is all of a turn so far, with of a retry or permission only
what still waits. Folding the frames of `Fold.frames()` gives the same fold again, so it does not matter how often or when
somebody joins. `Said` is what of a turn ends up in its message, to compare the two.

Omitted on purpose: storing, sending, time but for what arrives as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from coder.events import AgentEvent, Commands, Notice, Plan, RetryScheduled, TextDelta, ToolCall, Usage
from coder.events import ReasoningDelta as Reasoning
from coder.frames import (
    AgentCommands,
    Delta,
    MessageStarted,
    NoticeFrame,
    PermissionRequested,
    PlanFrame,
    ProviderRetry,
    ReasoningDelta,
    SessionFrame,
    ToolCallFrame,
    TurnStarted,
    UsageFrame,
)

FOLD_BYTES = 4_194_304


class Narrator:
    """The frames of one turn, event by event."""

    def __init__(self, session_id: str, turn_id: int, task_id: int) -> None:
        self._session = session_id
        self._turn = turn_id
        self._task = task_id
        self._part = 0
        self._kind: type[Any] | None = None
        self._calls: dict[str, int] = {}

    def tell(self, event: AgentEvent, usage: Usage, now: datetime) -> SessionFrame | None:
        """The frame for one event, as the transcript let it through; None where a permission has frames of its own.

        Args:
            usage: the turn's sums after this event.
        """
        match event:
            case TextDelta(text):
                return Delta(self._session, self._turn, self._at(TextDelta), text)
            case Reasoning(text):
                return ReasoningDelta(self._session, self._turn, self._at(Reasoning), text)
            case Notice(text):
                return NoticeFrame(self._session, self._turn, self._fresh(), text)
            case ToolCall():
                if event.id not in self._calls:
                    self._calls[event.id] = self._fresh()
                return ToolCallFrame(self._session, self._turn, self._calls[event.id], asdict(event))
            case Usage():
                return UsageFrame(self._session, self._turn, *(getattr(usage, name) for name in USAGE))
            case Commands(commands):
                return AgentCommands(self._session, self._turn, self._task, [asdict(command) for command in commands])
            case Plan(entries):
                return PlanFrame(self._session, self._turn, [asdict(entry) for entry in entries])
            case RetryScheduled(attempt, delay, message, code):
                due = (now + timedelta(seconds=delay)).isoformat()
                return ProviderRetry(self._session, self._turn, attempt, round(delay * 1000), due, message, code)
        return None

    def _at(self, kind: type[Any]) -> int:
        """The part that prose of this kind goes on with."""
        if self._kind is not kind:
            self._fresh()
            self._kind = kind
        return self._part

    def _fresh(self) -> int:
        self._part += 1
        self._kind = None
        return self._part


USAGE = ("input_tokens", "cached_tokens", "output_tokens", "context_tokens")


class _Prose:
    """A part of text or reasoning that grows; its pieces are joined only when somebody asks."""

    __slots__ = ("first", "pieces")

    def __init__(self, first: Delta | ReasoningDelta) -> None:
        self.first = first
        self.pieces = [first.text]

    def frame(self) -> Delta | ReasoningDelta:
        if len(self.pieces) > 1:
            self.pieces = ["".join(self.pieces)]
        first = self.first
        return type(first)(first.session_id, first.turn_id, first.part, self.pieces[0])


class Gathered:
    """Frames of one turn in the fewest that say the same.

    Attributes:
        size: characters of what agents wrote, as far as it is kept.
    """

    def __init__(self) -> None:
        self._parts: dict[int, _Prose | ToolCallFrame | NoticeFrame] = {}
        self._latest: dict[type[SessionFrame], SessionFrame] = {}
        self._permissions: dict[str, PermissionRequested] = {}
        self.size = 0

    def apply(self, frame: SessionFrame) -> None:
        """Take one frame in. Whatever is said after a retry was announced ends the wait for it."""
        if isinstance(frame, Delta | ReasoningDelta):
            before = self._parts.get(frame.part)
            if isinstance(before, _Prose):
                before.pieces.append(frame.text)
            else:
                self._parts[frame.part] = _Prose(frame)
            self.size += len(frame.text)
        elif isinstance(frame, ToolCallFrame | NoticeFrame):
            self._forget(frame.part)
            self._parts[frame.part] = frame
            self.size += _size(frame)
        elif isinstance(frame, PermissionRequested):
            self._permissions[frame.permission_id] = frame
        else:
            self._latest[type(frame)] = frame
        if not isinstance(frame, ProviderRetry):
            self._latest.pop(ProviderRetry, None)

    def _forget(self, part: int) -> None:
        before = self._parts.pop(part, None)
        if isinstance(before, ToolCallFrame | NoticeFrame):
            self.size -= _size(before)

    def frames(self) -> list[SessionFrame]:
        """The frames that gather to this: the parts by number, then the rest, a retry that is waited for last."""
        parts = [_shown(self._parts[number]) for number in sorted(self._parts)]
        kinds = sorted((kind for kind in self._latest if kind is not ProviderRetry), key=lambda kind: kind.type)
        latest = [self._latest[kind] for kind in kinds]
        waiting: list[SessionFrame] = list(self._permissions.values())
        if ProviderRetry in self._latest:
            waiting.append(self._latest[ProviderRetry])
        return [*parts, *latest, *waiting]


class Fold(Gathered):
    """The turn so far, for who joins in its middle, within `FOLD_BYTES`.

    Attributes:
        away: parts that are no longer kept here, since the turn grew beyond that: calls that have ended, whose last
            snapshot is to be read from the stored frames.
    """

    def __init__(self, started: TurnStarted) -> None:
        super().__init__()
        self.started = started
        self.away: set[int] = set()
        self._messages: list[MessageStarted] = []

    def apply(self, frame: SessionFrame) -> None:
        if isinstance(frame, MessageStarted):
            self._messages.append(frame)
            return
        if isinstance(frame, ToolCallFrame):
            self.away.discard(frame.part)
        super().apply(frame)
        if isinstance(frame, PermissionRequested) and frame.state != "requested":
            del self._permissions[frame.permission_id]
        if self.size > FOLD_BYTES:
            self._put_away()

    def _put_away(self) -> None:
        """Let the oldest calls that have ended go until the rest fits."""
        for number in sorted(self._parts):
            part = self._parts[number]
            if isinstance(part, ToolCallFrame) and part.call["status"] != "running":
                self._forget(number)
                self.away.add(number)
                if self.size <= FOLD_BYTES:
                    return

    def frames(self) -> list[SessionFrame]:
        return [self.started, *self._messages, *super().frames()]

    def unlike(self, calls: Iterable[dict[str, Any]]) -> list[ToolCallFrame]:
        """The snapshots among these that are not the ones kept here, as frames of the same parts."""
        kept = {part.call["id"]: part for part in self._parts.values() if isinstance(part, ToolCallFrame)}
        return [
            ToolCallFrame(frame.session_id, frame.turn_id, frame.part, call)
            for call in calls
            if (frame := kept.get(call["id"])) is not None and frame.call != call
        ]

    def said(self) -> Said:
        parts = [_shown(self._parts[number]) for number in sorted(self._parts)]
        return Said(
            "".join(part.text for part in parts if isinstance(part, Delta)),
            "".join(part.text for part in parts if isinstance(part, ReasoningDelta)),
            len(self.away) + sum(isinstance(part, ToolCallFrame) for part in parts),
        )


class Said(NamedTuple):
    """What of a turn is in its message: text, reasoning, and how many tool calls."""

    text: str
    reasoning: str
    calls: int


def fold(frames: Iterable[SessionFrame]) -> Fold:
    """Fold the frames of one turn, `turn_started` first."""
    turn = iter(frames)
    started = next(turn)
    assert isinstance(started, TurnStarted), "the frames of a turn begin with its start"
    folded = Fold(started)
    for frame in turn:
        folded.apply(frame)
    return folded


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """The answer of a turn as its message holds it. `tool_calls` are snapshots as `ToolCallFrame.call`."""

    state: str
    text: str
    reasoning: str
    tool_calls: list[dict[str, Any]]

    @property
    def said(self) -> Said:
        return Said(self.text, self.reasoning, len(self.tool_calls))

    def frames(self, session_id: str, turn_id: int) -> list[SessionFrame]:
        """The whole answer in frames, for watchers of a turn that nobody narrated. The order of its parts is not stored:
        reasoning, tool calls, text."""
        told: list[SessionFrame] = []
        if self.reasoning:
            told.append(ReasoningDelta(session_id, turn_id, 1, self.reasoning))
        told += [ToolCallFrame(session_id, turn_id, number, call) for number, call in enumerate(self.tool_calls, 2)]
        if self.text:
            told.append(Delta(session_id, turn_id, len(self.tool_calls) + 2, self.text))
        return told


def _shown(part: _Prose | ToolCallFrame | NoticeFrame) -> SessionFrame:
    return part.frame() if isinstance(part, _Prose) else part


def _size(frame: ToolCallFrame | NoticeFrame) -> int:
    if isinstance(frame, ToolCallFrame):
        return len(frame.call["input"]) + len(frame.call["output"])
    return len(frame.text)
