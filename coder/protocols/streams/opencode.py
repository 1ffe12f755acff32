"""The format of `opencode run --format json --thinking`: the parts of its messages, each when it is complete.

A tool is told when it has ended, so that none ever runs as far as this format goes.
"""

from __future__ import annotations

from typing import Any

from coder.events import AgentEvent, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.protocols.streams.format import Format, plan_of
from coder.protocols.streams.lines import Record, as_json, code_at, dig, number_at, text_at


class Opencode(Format):
    """opencode."""

    def read(self, record: Record) -> list[AgentEvent] | None:
        self.session = self.session or text_at(record, "sessionID") or None
        kind, part = record["type"], record.get("part")
        if kind == "text":
            return self.say(TextDelta, text_at(part, "text"), text_at(part, "id"))
        if kind == "reasoning":
            return self.say(ReasoningDelta, text_at(part, "text"), text_at(part, "id"))
        if kind == "tool_use":
            return self._tool(part)
        if kind == "step_finish":
            return self._used(dig(part, "tokens"))
        if kind == "error":
            error = record.get("error")
            self.failure = text_at(error, "data", "message") or text_at(error, "message") or text_at(error, "name") or "no reason told"
            return []
        return [] if kind == "step_start" else None

    def _tool(self, part: Any) -> list[AgentEvent]:
        call, name, state = text_at(part, "callID"), text_at(part, "tool"), dig(part, "state")
        if not call:
            return []
        failed = text_at(state, "status") == "error"
        output = text_at(state, "error") if failed else text_at(state, "output")
        arguments = dig(state, "input")
        ended = ToolCall(
            call, name or "tool", as_json(arguments), "failed" if failed else "completed", output, code_at(state, "metadata", "exit")
        )
        return [ended, *plan_of(name, arguments)]

    def _used(self, tokens: Any) -> list[AgentEvent]:
        cached = number_at(tokens, "cache", "read")
        given = number_at(tokens, "input") + cached + number_at(tokens, "cache", "write")
        written = number_at(tokens, "output") + number_at(tokens, "reasoning")
        return [Usage(given, cached, written, given + written)] if given or written else []
