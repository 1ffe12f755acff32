"""What is done to every answer of the endpoint before the run goes on with it.

Invariant: no U+0000 and no lone surrogate gets into what the run remembers, and whatever an endpoint sends, a request fails
with an error of the endpoint, never with one of ours.

Omitted on purpose: the text of events, which comes out before an answer is whole (see `native_events.py`).
Loads pydantic-ai, so it is imported only once a turn runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, UserError
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import ModelRequestContext

from coder.transcript import clean, clean_json


class Answers(AbstractCapability[Any]):
    """The hooks of a run around its model requests."""

    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Clean the answer, so that the next request already says what the stored text will; a lone surrogate cannot even be sent."""
        return replace(response, parts=[_clean(part) for part in response.parts])

    async def on_model_request_error(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        """Name what the libraries stumble over: JSON of another shape than the protocol's comes as AttributeError and the like."""
        if isinstance(error, AgentRunError | UserError):
            raise error
        raise ModelAPIError(request_context.model.model_name, f"not what the protocol says, {type(error).__name__}: {error}") from error


def _clean(part: ModelResponsePart) -> ModelResponsePart:
    if isinstance(part, TextPart | ThinkingPart) and clean(part.content) != part.content:
        return replace(part, content=clean(part.content))
    if type(part) is ToolCallPart:  # not its kinds that a provider carries out itself
        changes: dict[str, Any] = {"tool_name": clean(part.tool_name), "tool_call_id": clean(part.tool_call_id)}
        if isinstance(part.args, str):
            changes["args"] = _arguments(part.args)
        return replace(part, **changes)
    return part


def _arguments(written: str) -> str:
    """JSON that spells half of a surrogate pair as an escape is refused whole by pydantic; cleaned, the call can be made."""
    cleaned = clean_json(written) if "\\u" in written else ""
    return cleaned if cleaned.startswith("{") else clean(written)
