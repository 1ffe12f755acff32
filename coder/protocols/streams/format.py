"""What the formats share: the state of a turn that is read from records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from coder.events import AgentEvent, Plan, PlanEntry, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.protocols.streams.lines import Record, as_json, list_at, text_at


class Format(ABC):
    """One format, reading one turn.

    Attributes:
        session: the agent's id of its conversation, None until it is told.
        failure: the agent's own words for why the turn failed, None unless it did.
        running: the tool calls that have begun and not ended.
        cumulative: whether usage is told as the conversation's sum so far, once at the end of a turn.
    """

    cumulative: ClassVar[bool] = False

    def __init__(self) -> None:
        self.session: str | None = None
        self.failure: str | None = None
        self.running: dict[str, ToolCall] = {}
        self._spoke: dict[type[TextDelta | ReasoningDelta], str] = {}

    @abstractmethod
    def read(self, record: Record) -> list[AgentEvent] | None:
        """The events of a record; None when it is of no known type."""

    def close(self) -> list[AgentEvent]:
        """What is left at the end of the output."""
        return []

    def say(self, kind: type[TextDelta | ReasoningDelta], text: str, block: str) -> list[AgentEvent]:
        """A piece of a block of text or reasoning; between two blocks stands an empty line."""
        if not text:
            return []
        before = self._spoke.get(kind, block)
        self._spoke[kind] = block
        return [kind(text if before == block else "\n\n" + text)]

    def begin(self, call: str, name: str, arguments: Any) -> list[AgentEvent]:
        """A tool call that has begun, or whose arguments are known now."""
        if not call:
            return []
        self.running[call] = ToolCall(call, name or "tool", as_json(arguments), "running")
        return [self.running[call], *plan_of(name, arguments)]

    def end(self, call: str, failed: bool, output: str, exit_code: int | None = None) -> list[AgentEvent]:
        """A tool call that has ended."""
        if not call:
            return []
        begun = self.running.pop(call, None) or ToolCall(call, "tool", "{}", "running")
        return [ToolCall(call, begun.name, begun.input, "failed" if failed else "completed", output, exit_code)]


def plan_of(tool: str, arguments: Any) -> list[AgentEvent]:
    """The plan in the arguments of a tool that keeps a to-do list."""
    if tool.lower().replace("_", "") != "todowrite":
        return []
    entries = []
    for todo in list_at(arguments, "todos"):
        status = text_at(todo, "status")
        if content := text_at(todo, "content"):
            entries.append(
                PlanEntry(content, "completed" if status == "completed" else "in_progress" if status == "in_progress" else "pending")
            )
    return [Plan(tuple(entries))]


def less(total: Usage, before: Usage) -> Usage:
    """What was used since, never less than nothing."""
    return Usage(
        max(0, total.input_tokens - before.input_tokens),
        max(0, total.cached_tokens - before.cached_tokens),
        max(0, total.output_tokens - before.output_tokens),
        total.context_tokens,
    )
