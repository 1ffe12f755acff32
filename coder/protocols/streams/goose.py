"""The format of `goose run --output-format stream-json`: messages, those of one answer under one id, and `complete` at the end.

goose tells no session; the one it was given by name is it. An endpoint's failure is an answer of goose's own, with exit code 0.
"""

from __future__ import annotations

from typing import Any

from coder.events import AgentEvent, Notice, ReasoningDelta, TextDelta, Usage
from coder.protocols.streams.format import Format
from coder.protocols.streams.lines import Record, code_at, dig, list_at, number_at, prose, text_at

_FAILED = "Ran into this error: "


class Goose(Format):
    """goose."""

    cumulative = True

    def read(self, record: Record) -> list[AgentEvent] | None:
        kind = record["type"]
        if kind == "message":
            message = record.get("message")
            inferred = dig(message, "metadata", "inference") is not None
            return [event for block in list_at(message, "content") for event in self._content(block, text_at(message, "id"), inferred)]
        if kind == "complete":
            given, written = number_at(record, "input_tokens"), number_at(record, "output_tokens")
            return [Usage(given, number_at(record, "cache_read_input_tokens"), written)] if given or written else []
        if kind == "error":
            self.failure = text_at(record, "error") or text_at(record, "message") or "no reason told"
            return []
        if kind == "notification":
            return []
        return None

    def _content(self, block: Any, message: str, inferred: bool) -> list[AgentEvent]:
        kind = text_at(block, "type")
        if kind == "text":
            text = text_at(block, "text")
            if text.startswith(_FAILED) and not inferred:
                self.failure = text.removeprefix(_FAILED).partition("\n")[0]
                return []
            return self.say(TextDelta, text, message)
        if kind == "thinking":
            return self.say(ReasoningDelta, text_at(block, "thinking"), message)
        if kind == "toolRequest":
            call = dig(block, "toolCall", "value")
            return self.begin(text_at(block, "id"), text_at(call, "name"), dig(call, "arguments"))
        if kind == "toolResponse":
            result = dig(block, "toolResult", "value")
            failed = text_at(block, "toolResult", "status") == "error" or dig(result, "isError") is True
            output = prose(dig(result, "content")) or text_at(block, "toolResult", "error")
            return self.end(text_at(block, "id"), failed, output, code_at(result, "structuredContent", "exit_code"))
        if kind == "systemNotification" and (text := text_at(block, "msg")):
            return [Notice(text)]
        return []
