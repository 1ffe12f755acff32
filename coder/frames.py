"""What clients get over the WebSocket. With `operations.py` the only file that spells a wire `type`.

A frame is a fact for watchers: small, whole in itself, and about one session (`session_id`) where it is about a session at
all. Frames of a turn carry its `turn_id`, which is the epoch of its claim: a task that runs again is another turn. What an
agent says is numbered in parts: text, reasoning and tool calls in the order they came, so that whoever folds the frames of a
turn gets its transcript in order.

What clients send is in `operations.py`. Omitted on purpose: sequence numbers. They belong to a client's outbox
(`outbox.py`), not to what is said.
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
    """A message is written from now on; the user's is whole at once. A turn has one of each role."""

    type = "message_started"
    turn_id: int
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
    """A permission or question; it waits for a person while `state` is `requested`, until a frame says `answered`."""

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
    task_id: int
    state: str


@dataclass(frozen=True, slots=True)
class ChangePending(SessionFrame):
    """The session has another open change, or none any more."""

    type = "change_pending"
    change_id: str | None


@dataclass(frozen=True, slots=True)
class TaskStateFrame(SessionFrame):
    """A task of the session is in another state; one that waits comes with what it says, as `session_history` shows it."""

    type = "task_state"
    task_id: int
    state: str
    reason: str | None = None
    text: str | None = None
    client_message_id: str | None = None


@dataclass(frozen=True, slots=True)
class TurnEnded(SessionFrame):
    """The turn is over; `state` is its task's: `pending` when it runs again by itself, as another turn."""

    type = "turn_ended"
    turn_id: int
    task_id: int
    state: str
    reason: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SessionHistory(SessionFrame):
    """What is stored of a session, and what waits in it: the answer to `chat.subscribe`. It replaces all that the client knew of
    the session; the turn that runs is not in it and follows in frames of its own.

    Attributes:
        messages: the newest, oldest first.
        queued: tasks that wait, as `{task_id, text, client_message_id, created_at}`, in their order.
        more: whether there are older messages than these; `GET /sessions/{id}/messages` has them.
        change_id: the session's open change.
    """

    type = "session_history"
    messages: list[dict[str, Any]]
    queued: list[dict[str, Any]]
    more: bool
    change_id: str | None


@dataclass(frozen=True, slots=True)
class Hello(Frame):
    """The answer to `hello`: `current` (nothing was missed), `replay` (what was missed follows) or `reset` (subscribe again)."""

    type = "hello"
    client_id: str
    epoch: str
    answer: str


@dataclass(frozen=True, slots=True)
class Accepted(Frame):
    """The answer to `chat.send`: its task is stored. A hint: the message shows as queued, then in a turn, then in the history."""

    type = "accepted"
    client_message_id: str
    session_id: str
    task_id: int
    existed: bool


@dataclass(frozen=True, slots=True)
class ErrorFrame(Frame):
    """An operation could not be done. `operation` is its type, `about` its session, surface or message."""

    type = "error"
    code: str
    message: str
    operation: str | None = None
    about: str | None = None


@dataclass(frozen=True, slots=True)
class Ping(Frame):
    """Answer with `pong`."""

    type = "ping"


@dataclass(frozen=True, slots=True)
class Reset(Frame):
    """What the client knows may have gaps: subscribe again. `why` is for people."""

    type = "reset"
    why: str


@dataclass(frozen=True, slots=True)
class Surface(SessionFrame):
    """A surface as it is now; the answer to `surface.subscribe`. The state of `cache-warming`: whether the prompt cache is kept warm, how
    often, when the next warm is due (null when off; a past time while a turn runs) and the last one was, how much of the last
    prompt came from the cache, how old the cache was then, what warms took since it was switched on, and why it stopped or failed."""

    type = "surface"
    surface: str
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SurfaceUpdate(SessionFrame):
    """The surface is another now."""

    type = "surface_update"
    surface: str
    state: dict[str, Any] = field(default_factory=dict)


PROSE = (Delta, ReasoningDelta)
TRANSIENT = (Hello, Accepted, ErrorFrame, Ping)
"""Their `seq` is 0: they belong to one socket, are never kept and never sent again."""
SERVER_FRAMES: tuple[type[Frame], ...] = (
    *(TurnStarted, MessageStarted, Delta, ReasoningDelta, ToolCallFrame, AgentCommands, PlanFrame, PermissionRequested, ProviderRetry),
    *(UsageFrame, NoticeFrame, MessageComplete, ChangePending, TaskStateFrame, TurnEnded, SessionHistory, Surface, SurfaceUpdate),
    *(Reset, *TRANSIENT),
)
"""Every frame a client can get, in the order docs/wire.md shows them."""

BY_TYPE = {frame.type: frame for frame in SERVER_FRAMES}


def from_wire(content: dict[str, Any]) -> Frame:
    """The frame of a JSON object as `Frame.wire` gives it."""
    kind = BY_TYPE[content["type"]]
    return kind(**{name: value for name, value in content.items() if name not in ("type", "seq")})
