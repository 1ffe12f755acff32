"""A turn as watchers see it: events become frames, and frames fold into what a late comer gets. Pure.

`Narrator` numbers the parts of one turn. `Fold` keeps the turn so far in the fewest frames: neighbouring deltas merged, of
each tool call, plan and list of commands only the latest, of a retry or permission only what still waits. Folding the frames
of `Fold.frames()` gives the same fold again, so it does not matter how often or when somebody joins.

Omitted on purpose: storing, sending, time but for what arrives as an argument.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

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
    merged,
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


class Fold:
    """The turn so far, for who joins in its middle."""

    def __init__(self, started: TurnStarted) -> None:
        self.started = started
        self._messages: list[MessageStarted] = []
        self._parts: dict[int, SessionFrame] = {}
        self._latest: dict[type[SessionFrame], SessionFrame] = {}
        self._permissions: dict[str, PermissionRequested] = {}
        self.size = 0

    @property
    def whole(self) -> bool:
        """Whether the fold is within its bound; beyond it the turn is read from the stored frames."""
        return self.size <= FOLD_BYTES

    def apply(self, frame: SessionFrame) -> None:
        """Fold one frame of this turn in; what ends a wait makes the retry that was waited for disappear."""
        if isinstance(frame, MessageStarted):
            self._messages.append(frame)
        elif isinstance(frame, Delta | ReasoningDelta):
            before = self._parts.get(frame.part)
            one = merged(before, frame) if before is not None else frame
            if isinstance(one, SessionFrame):
                self._parts[frame.part] = one
            self.size += len(frame.text)
        elif isinstance(frame, ToolCallFrame | NoticeFrame):
            before = self._parts.get(frame.part)
            self.size += _size(frame) - (_size(before) if before is not None else 0)
            self._parts[frame.part] = frame
        elif isinstance(frame, PermissionRequested):
            if frame.state == "requested":
                self._permissions[frame.permission_id] = frame
            else:
                self._permissions.pop(frame.permission_id, None)
        elif isinstance(frame, UsageFrame | AgentCommands | PlanFrame | ProviderRetry):
            self._latest[type(frame)] = frame
        if not isinstance(frame, ProviderRetry):
            self._latest.pop(ProviderRetry, None)

    def frames(self) -> list[SessionFrame]:
        """The frames that fold to this."""
        parts = [self._parts[number] for number in sorted(self._parts)]
        kinds = (AgentCommands, PlanFrame, UsageFrame)
        latest = [self._latest[kind] for kind in kinds if kind in self._latest]
        waiting: list[SessionFrame] = list(self._permissions.values())
        if ProviderRetry in self._latest:
            waiting.append(self._latest[ProviderRetry])
        return [self.started, *self._messages, *parts, *latest, *waiting]


def fold(frames: Iterable[SessionFrame]) -> Fold:
    """Fold the frames of one turn, `turn_started` first."""
    turn = iter(frames)
    started = next(turn)
    assert isinstance(started, TurnStarted), "the frames of a turn begin with its start"
    folded = Fold(started)
    for frame in turn:
        folded.apply(frame)
    return folded


def _size(frame: SessionFrame) -> int:
    if isinstance(frame, ToolCallFrame):
        return len(frame.call["input"]) + len(frame.call["output"])
    return len(frame.text) if isinstance(frame, NoticeFrame) else 0
