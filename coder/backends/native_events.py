"""From pydantic-ai's events to ours.

Invariant: a `ToolCall` with status running comes out before its tool starts, and one that ended comes out exactly once.
All text that comes out is clean (see `coder.transcript.clean`).

Omitted on purpose: errors, and the history; a tool's output while it runs.
Loads pydantic-ai, so it is imported only once a turn runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

from pydantic_ai.messages import (
    AgentStreamEvent,
    FunctionToolCallEvent,
    FunctionToolResultEvent,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
    ToolReturnPart,
)

from coder.events import AgentEvent, ReasoningDelta, TextDelta, ToolCall, ToolStatus, Usage
from coder.transcript import clean, clean_json

_ARGUMENTS_STEP = 1_000


class Translation:
    """The events of one turn."""

    def __init__(self) -> None:
        self._held = ""
        self._written: dict[int, int] = {}
        self._open: dict[str, ToolCall] = {}
        self._used: set[str] = set()

    def translate(self, event: AgentStreamEvent) -> Iterator[AgentEvent]:
        match event:
            case PartStartEvent(part=TextPart(content=text)) | PartDeltaEvent(delta=TextPartDelta(content_delta=text)):
                yield from map(TextDelta, self._joined(text))
            case PartStartEvent(part=ThinkingPart(content=text)) | PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))):
                yield from map(ReasoningDelta, self._joined(text))
            case PartEndEvent(part=TextPart()):
                yield from map(TextDelta, self._flushed())
            case PartEndEvent(part=ThinkingPart()):
                yield from map(ReasoningDelta, self._flushed())
            case PartStartEvent(part=ToolCallPart() as part, index=index):
                self._written[index] = 0
                yield self._opened(part)
            case PartDeltaEvent(delta=ToolCallPartDelta(tool_call_id=str(call_id), args_delta=str(written)), index=index):
                yield from self._progress(index, call_id, len(written))
            case PartEndEvent(part=ToolCallPart() as part) | FunctionToolCallEvent(part=part):
                yield from self._called(part)
            case FunctionToolResultEvent(part=part):
                yield self._ended(part)

    def _joined(self, piece: str) -> Iterator[str]:
        """A piece of text, cleaned; the first half of a surrogate pair at its end is held back until the second comes."""
        piece = self._held + piece
        self._held = piece[-1] if "\ud800" <= piece[-1:] <= "\udbff" else ""
        if text := clean(piece.removesuffix(self._held)):
            yield text

    def _flushed(self) -> Iterator[str]:
        held, self._held = self._held, ""
        if held:
            yield clean(held)

    def _opened(self, part: ToolCallPart | ToolReturnPart) -> ToolCall:
        """Our call for the model's; some endpoints give every response's calls the same ids, ours are unique in the turn."""
        given = call_id = clean(part.tool_call_id)
        if given not in self._open:
            if call_id in self._used:
                call_id = f"{call_id}-{len(self._used)}"
            self._used.add(call_id)
            self._open[given] = ToolCall(call_id, clean(part.tool_name), "{}", "running")
        return self._open[given]

    def _progress(self, index: int, call_id: str, characters: int) -> Iterator[AgentEvent]:
        """A call whose arguments are still being written, now and then: long ones take a slow model minutes."""
        before = self._written.get(index, 0)
        self._written[index] = before + characters
        if (call := self._open.get(clean(call_id))) and (before + characters) // _ARGUMENTS_STEP > before // _ARGUMENTS_STEP:
            yield call

    def _called(self, part: ToolCallPart) -> Iterator[AgentEvent]:
        given = clean(part.tool_call_id)
        told = given in self._open
        call = replace(self._opened(part), input=clean_json(part.args_as_json_str()))
        if not told or call != self._open[given]:
            self._open[given] = call
            yield call

    def _ended(self, part: ToolReturnPart) -> ToolCall:
        call = self._opened(part)
        del self._open[clean(part.tool_call_id)]
        content = part.content if isinstance(part.content, str) else json.dumps(part.content, ensure_ascii=False, default=str)
        exit_code = part.metadata.get("exit_code") if isinstance(part.metadata, dict) else None
        status: ToolStatus = "completed" if part.outcome == "success" else "failed"
        return replace(call, status=status, output=clean(content), exit_code=exit_code)


def usage_of(response: ModelResponse, limit: int | None = None) -> Usage | None:
    """What one model request took; None where the endpoint does not say.

    Args:
        limit: how many tokens the model's context can hold, None when not known.
    """
    tokens = response.usage
    if not tokens.input_tokens and not tokens.output_tokens:
        return None
    cached = tokens.cache_read_tokens
    return Usage(tokens.input_tokens, cached, tokens.output_tokens, tokens.input_tokens + tokens.output_tokens, limit)
