"""What an agent says while a turn runs, in one vocabulary for every backend.

A backend yields these in order and nothing else; it never sees message ids, frames or SQL.
Tool calls are snapshots: each `ToolCall` replaces the earlier one with the same `id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ToolStatus = Literal["running", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the agent's answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of the agent's reasoning, kept apart from its answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The present state of one tool call, whole.

    Attributes:
        id: the call's own id, unique within the turn.
        name: the tool, as the agent names it.
        input: the arguments as JSON text (`{}` when there are none).
        status: running, completed or failed.
        output: what the tool answered so far, as text.
        exit_code: of a command that ended, else None.
    """

    id: str
    name: str
    input: str
    status: ToolStatus
    output: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one model request; the turn's are the sum.

    Attributes:
        input_tokens: all prompt tokens, cached ones included.
        cached_tokens: the part of `input_tokens` read from the provider's prompt cache.
        output_tokens: tokens the model wrote, reasoning included.
        context_tokens: how full the context is after this request, None when not known.
        context_limit: how many tokens the context can hold, None when not known.
    """

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    context_tokens: int | None = None
    context_limit: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a watcher must know that the agent did not say (a fallback, a cut)."""

    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A slash command the agent offers: its name without the slash, what it does, and what may follow it."""

    name: str
    description: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Commands:
    """All slash commands known for the agent; replaces what was told before."""

    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class PlanEntry:
    text: str
    status: Literal["pending", "in_progress", "completed"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The agent's plan or to-do list, whole; replaces what was told before."""

    entries: tuple[PlanEntry, ...]


AskedFor = Literal["read", "edit", "execute", "fetch", "other"]


@dataclass(frozen=True, slots=True)
class PermissionRequest:
    """The agent wants to do something and waits until `LiveTurn.answer` was called with this `id`.

    Attributes:
        id: the agent's own, unique within the turn.
        tool: what it wants to use, as the agent names it (`bash`, `edit`).
        kind: what using it comes to.
        title: one line for people: the exact command, path or address.
        input: the arguments as JSON text.
        paths: the absolute paths it names, as far as the agent tells.
        call_id: the `ToolCall.id` it belongs to, None when the agent does not say.
    """

    id: str
    tool: str
    kind: AskedFor
    title: str
    input: str = "{}"
    paths: tuple[str, ...] = ()
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    label: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """The agent asks the user something and waits until `LiveTurn.answer` was called with this `id`.

    Attributes:
        id: the agent's own, unique within the turn; a question of several parts is several events in a row with ids of their own
            only where the agent numbers them so, else one event.
        text: what it asks.
        choices: what it proposes; other answers are free text.
        several: whether more than one may be chosen.
    """

    id: str
    text: str
    choices: tuple[Choice, ...] = ()
    several: bool = False


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """The model's provider failed and is asked again by itself; nothing is heard until then.

    Attributes:
        attempt: from 0.
        delay: seconds until the next try.
        message: the endpoint's words.
        code: its code, None when not known.
    """

    attempt: int
    delay: float
    message: str
    code: str | None = None


AgentEvent = TextDelta | ReasoningDelta | ToolCall | Usage | Notice | Commands | Plan | PermissionRequest | Question | RetryScheduled
