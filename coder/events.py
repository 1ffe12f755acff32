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
    """

    input_tokens: int
    cached_tokens: int
    output_tokens: int
    context_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a watcher must know that the agent did not say (a fallback, a cut)."""

    text: str


AgentEvent = TextDelta | ReasoningDelta | ToolCall | Usage | Notice
