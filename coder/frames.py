"""What clients get and send over the WebSocket. The only file that spells a wire `type`.

A frame is a fact for watchers: small, whole in itself, and about one session (`session_id`) where it is about a session at
all. Frames of a turn carry its `turn_id`, which is the epoch of its claim: a task that runs again is another turn. What an
agent says is numbered in parts: text, reasoning and tool calls in the order they came, so that whoever folds the frames of a
turn gets its transcript in order.

Omitted on purpose: sequence numbers. They belong to a client's outbox (`outbox.py`), not to what is said.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Frame:
    """Something a client is told."""

    type: ClassVar[str]

    def wire(self) -> dict[str, Any]:
        """The frame as a JSON object, its type first."""
        return {"type": self.type, **{each.name: getattr(self, each.name) for each in fields(self)}}


@dataclass(frozen=True, slots=True)
class SessionFrame(Frame):
    """A frame about one session."""

    session_id: str


@dataclass(frozen=True, slots=True)
class TurnStarted(SessionFrame):
    type = "turn_started"
    turn_id: int
    task_id: int
    chat_id: str
    agent: str
    attempt: int
    started_at: str


@dataclass(frozen=True, slots=True)
class MessageStarted(SessionFrame):
    """A message is written from now on; the user's is whole at once."""

    type = "message_started"
    turn_id: int
    message_id: str
    role: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Delta(SessionFrame):
    """More text of a part of the answer."""

    type = "delta"
    turn_id: int
    part: int
    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta(SessionFrame):
    """More text of a part of the reasoning."""

    type = "reasoning_delta"
    turn_id: int
    part: int
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallFrame(SessionFrame):
    """The present state of one tool call, whole; it replaces the earlier one of the same part."""

    type = "tool_call"
    turn_id: int
    part: int
    call: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AgentCommands(SessionFrame):
    """The slash commands known for the task's agent; replaces what was told before."""

    type = "agent_commands"
    turn_id: int
    task_id: int
    commands: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class PlanFrame(SessionFrame):
    """The agent's plan, whole; replaces what was told before."""

    type = "plan"
    turn_id: int
    entries: list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class PermissionRequested(SessionFrame):
    """A permission or question in its present state; it waits for an answer while `state` is `requested`."""

    type = "permission_request"
    turn_id: int
    permission_id: str
    state: str
    request: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProviderRetry(SessionFrame):
    """The model's provider failed and is asked again at `retry_at`. Never part of the history."""

    type = "provider_retry"
    turn_id: int
    attempt: int
    delay_ms: int
    retry_at: str
    message: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class UsageFrame(SessionFrame):
    """Tokens of the turn so far: sums, not differences."""

    type = "usage"
    turn_id: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    context_tokens: int | None


@dataclass(frozen=True, slots=True)
class NoticeFrame(SessionFrame):
    type = "notice"
    turn_id: int
    part: int
    text: str


@dataclass(frozen=True, slots=True)
class MessageComplete(SessionFrame):
    """The answer is stored, as it is in the history from now on."""

    type = "message_complete"
    turn_id: int
    message_id: str
    state: str


@dataclass(frozen=True, slots=True)
class ChangePending(SessionFrame):
    """The session has another open change, or none any more."""

    type = "change_pending"
    change_id: str | None


@dataclass(frozen=True, slots=True)
class TaskStateFrame(SessionFrame):
    type = "task_state"
    task_id: int
    state: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class TurnEnded(SessionFrame):
    type = "turn_ended"
    turn_id: int
    task_id: int
    state: str
    reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SessionHistory(SessionFrame):
    """The answer to `chat.subscribe`: what is stored, and what waits; the turn that runs follows in frames of its own."""

    type = "session_history"
    messages: list[dict[str, Any]]
    queued: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Ping(Frame):
    """Answer with `pong`. Its `seq` is 0 and it is never stored."""

    type = "ping"


@dataclass(frozen=True, slots=True)
class Reset(Frame):
    """What the client knows may have gaps: subscribe again. `why` is for people."""

    type = "reset"
    why: str


@dataclass(frozen=True, slots=True)
class Surface(Frame):
    """A surface as it is now; the answer to `surface.subscribe`."""

    type = "surface"
    session_id: str
    surface: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SurfaceUpdate(Frame):
    type = "surface_update"
    session_id: str
    surface: str
    state: dict[str, Any] = field(default_factory=dict)


PROSE = (Delta, ReasoningDelta)
SERVER_FRAMES: tuple[type[Frame], ...] = (
    *(TurnStarted, MessageStarted, Delta, ReasoningDelta, ToolCallFrame, AgentCommands, PlanFrame, PermissionRequested, ProviderRetry),
    *(UsageFrame, NoticeFrame, MessageComplete, ChangePending, TaskStateFrame, TurnEnded, SessionHistory, Surface, SurfaceUpdate),
    *(Ping, Reset),
)
"""Every frame a client can get, in the order docs/wire.md shows them."""

BY_TYPE = {frame.type: frame for frame in SERVER_FRAMES}


def from_wire(content: dict[str, Any]) -> Frame:
    """The frame of a JSON object as `Frame.wire` gives it."""
    kind = BY_TYPE[content["type"]]
    return kind(**{name: value for name, value in content.items() if name not in ("type", "seq")})


def merged(first: Frame, second: Frame) -> Frame | None:
    """One frame that says what two neighbouring ones say, None when there is none: deltas of one part."""
    if isinstance(first, Delta) and isinstance(second, Delta) and (first.turn_id, first.part) == (second.turn_id, second.part):
        return Delta(first.session_id, first.turn_id, first.part, first.text + second.text)
    if (
        isinstance(first, ReasoningDelta)
        and isinstance(second, ReasoningDelta)
        and (first.turn_id, first.part) == (second.turn_id, second.part)
    ):
        return ReasoningDelta(first.session_id, first.turn_id, first.part, first.text + second.text)
    return None
