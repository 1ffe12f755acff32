"""The format of `codex exec --json`: items that start, change and complete, between `turn.started` and `turn.completed`."""

from __future__ import annotations

import re
from typing import Any

from coder.events import AgentEvent, Notice, Plan, PlanEntry, ReasoningDelta, RetryScheduled, TextDelta, ToolCall, Usage
from coder.protocols.streams.format import Format
from coder.protocols.streams.lines import Record, as_json, code_at, dig, list_at, number_at, prose, text_at

_AGAIN = re.compile(r"Reconnecting\W+(\d{1,4})/\d")


class Codex(Format):
    """Codex."""

    cumulative = True

    def read(self, record: Record) -> list[AgentEvent] | None:
        kind = record["type"]
        if kind == "thread.started":
            self.session = text_at(record, "thread_id") or None
        elif kind in ("item.started", "item.updated", "item.completed"):
            return self._item(record.get("item"), kind == "item.completed")
        elif kind == "turn.completed":
            self.failure = None
            given, written = number_at(record, "usage", "input_tokens"), number_at(record, "usage", "output_tokens")
            return [Usage(given, number_at(record, "usage", "cached_input_tokens"), written)]
        elif kind == "turn.failed":
            self.failure = text_at(record, "error", "message") or self.failure or "no reason told"
        elif kind == "error":
            message = text_at(record, "message") or "no reason told"
            if again := _AGAIN.match(message):
                return [RetryScheduled(max(0, int(again[1]) - 1), 0.0, message)]
            self.failure = message
        elif kind != "turn.started":
            return None
        return []

    def _item(self, item: Any, over: bool) -> list[AgentEvent]:
        kind, name = text_at(item, "type"), text_at(item, "id")
        if kind == "agent_message":
            return self.say(TextDelta, text_at(item, "text"), name) if over else []
        if kind == "reasoning":
            return self.say(ReasoningDelta, text_at(item, "text"), name) if over else []
        if kind == "error":
            return [Notice(text_at(item, "message"))] if over else []
        if kind == "todo_list":
            return [Plan(tuple(self._entry(entry) for entry in list_at(item, "items")))]
        return self._tool(name, kind, item, over) if name else []

    def _tool(self, name: str, kind: str, item: Any, over: bool) -> list[AgentEvent]:
        if kind == "command_execution":
            tool, arguments, output = "exec_command", {"command": text_at(item, "command")}, text_at(item, "aggregated_output")
        elif kind == "mcp_tool_call":
            tool = f"{text_at(item, 'server')}.{text_at(item, 'tool')}"
            arguments, output = dig(item, "arguments"), prose(dig(item, "result", "content")) or text_at(item, "error", "message")
        else:
            tool, output = kind or "tool", ""
            arguments = {key: value for key, value in item.items() if key not in ("id", "type", "status")}
        if over:
            self.begin(name, tool, arguments)
            return self.end(name, text_at(item, "status") in ("failed", "declined"), output, code_at(item, "exit_code"))
        self.running[name] = ToolCall(name, tool, as_json(arguments), "running", output)
        return [self.running[name]]

    @staticmethod
    def _entry(entry: Any) -> PlanEntry:
        return PlanEntry(text_at(entry, "text"), "completed" if dig(entry, "completed") is True else "pending")
