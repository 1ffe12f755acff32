"""The format of `claude -p --output-format stream-json --verbose --include-partial-messages`, which qwen writes as well.

A message comes twice, in pieces (`stream_event`) and block by block whole (`assistant`): of the whole only what did not come in
pieces is told. Subagents' messages have a `parent_tool_use_id`: their tools are shown, their words come as their call's output.
"""

from __future__ import annotations

import re
from typing import Any

from coder.events import AgentEvent, Command, Commands, ReasoningDelta, RetryScheduled, TextDelta, Usage
from coder.protocols.streams.format import Format
from coder.protocols.streams.lines import Record, dig, list_at, number_at, prose, text_at

_EXIT = re.compile(r"^Exit [Cc]ode:? (\d{1,3})$", re.MULTILINE)
_PROSE: dict[str, type[TextDelta | ReasoningDelta]] = {"text": TextDelta, "thinking": ReasoningDelta}


class Claude(Format):
    """Claude Code. Its count of input tokens leaves the cached ones out."""

    cached_apart = True

    def __init__(self) -> None:
        super().__init__()
        self._block = 0
        self._streamed = {"text": 0, "thinking": 0}
        self._request = ""
        self._counted = ""
        self._usage = Usage(0, 0, 0)
        self._spoken = False

    def read(self, record: Record) -> list[AgentEvent] | None:
        self.session = self.session or text_at(record, "session_id") or None
        kind = record["type"]
        if kind == "stream_event":
            return self._piece(dig(record, "event"), bool(record.get("parent_tool_use_id")))
        if kind == "assistant":
            return self._whole(record, bool(record.get("parent_tool_use_id")))
        if kind == "user":
            return [*self._count(), *(event for block in list_at(record, "message", "content") for event in self._result(block))]
        if kind == "result":
            return self._end(record)
        if kind == "system":
            return self._system(record)
        return None

    def close(self) -> list[AgentEvent]:
        return self._count()

    def _system(self, record: Record) -> list[AgentEvent]:
        subtype = text_at(record, "subtype")
        if subtype == "init":
            names = [name for name in list_at(record, "slash_commands") if isinstance(name, str)]
            return [Commands(tuple(Command(name) for name in names))] if names else []
        if subtype == "api_retry":
            status = record.get("error_status")
            delay = number_at(record, "retry_delay_ms") / 1000
            code = None if status is None else str(status)
            return [RetryScheduled(max(0, number_at(record, "attempt") - 1), delay, text_at(record, "error") or "the request failed", code)]
        return []

    def _piece(self, event: Any, nested: bool) -> list[AgentEvent]:
        kind = text_at(event, "type")
        if kind == "message_start":
            self._streamed = {"text": 0, "thinking": 0}
            return self._used(text_at(event, "message", "id"), dig(event, "message", "usage"))
        if kind == "message_delta":
            return self._used(self._request, dig(event, "usage"))
        if kind == "message_stop":
            return self._count()
        if kind == "content_block_start":
            self._block += 1
            if text_at(event, "content_block", "type") == "tool_use":
                return self.begin(text_at(event, "content_block", "id"), text_at(event, "content_block", "name"), {})
        if kind == "content_block_delta" and not nested:
            for name, said in _PROSE.items():
                if text_at(event, "delta", "type") == f"{name}_delta" and (text := text_at(event, "delta", name)):
                    self._streamed[name] += len(text)
                    return self._say(said, text)
        return []

    def _whole(self, record: Record, nested: bool) -> list[AgentEvent]:
        message = record.get("message")
        events = self._used(text_at(message, "id"), dig(message, "usage"))
        if record.get("is_api_error_message"):
            self.failure = prose(dig(message, "content")) or None
            return events
        for block in list_at(message, "content"):
            kind = text_at(block, "type")
            if kind in _PROSE and not nested:
                text = text_at(block, kind)
                streamed, self._streamed[kind] = self._streamed[kind], 0
                if not streamed:
                    self._block += 1
                events += self._say(_PROSE[kind], text[streamed:])
            elif kind == "tool_use":
                events += self.begin(text_at(block, "id"), text_at(block, "name"), dig(block, "input"))
        return events

    def _say(self, kind: type[TextDelta | ReasoningDelta], text: str) -> list[AgentEvent]:
        self._spoken = self._spoken or (bool(text) and kind is TextDelta)
        return self.say(kind, text, str(self._block))

    def _result(self, block: Any) -> list[AgentEvent]:
        if text_at(block, "type") != "tool_result":
            return []
        output = prose(dig(block, "content"))
        code = _EXIT.search(output)
        return self.end(text_at(block, "tool_use_id"), dig(block, "is_error") is True, output, int(code[1]) if code else None)

    def _end(self, record: Record) -> list[AgentEvent]:
        """The end of the turn. Its text was told already, unless nothing was."""
        events = self._count()
        said = text_at(record, "result")
        if record.get("is_error") is True:
            self.failure = text_at(record, "error", "message") or said or self.failure or text_at(record, "subtype") or "no reason told"
        else:
            self.failure = None
            if not self._spoken:
                events += self._say(TextDelta, said)
        return events

    def _used(self, request: str, usage: Any) -> list[AgentEvent]:
        """Note a request's usage; the one before has come to its end when this is of another."""
        if not request or request == self._counted:
            return []
        events = self._count() if request != self._request else []
        self._request = request
        cached = number_at(usage, "cache_read_input_tokens")
        given = number_at(usage, "input_tokens")
        if self.cached_apart:
            given += cached + number_at(usage, "cache_creation_input_tokens")
        noted = self._usage
        given, written = max(given, noted.input_tokens), max(number_at(usage, "output_tokens"), noted.output_tokens)
        self._usage = Usage(given, max(cached, noted.cached_tokens), written, given + written)
        return events

    def _count(self) -> list[AgentEvent]:
        usage, self._usage = self._usage, Usage(0, 0, 0)
        self._counted, self._request = self._request or self._counted, ""
        return [usage] if usage.context_tokens else []


class Qwen(Claude):
    """Qwen Code. Its count of input tokens holds the cached ones."""

    cached_apart = False
