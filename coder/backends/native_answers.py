"""What is done to every answer of the endpoint before the run goes on with it, and to every request that got none.

Invariant: no U+0000 and no lone surrogate gets into what the run remembers, and whatever an endpoint sends, a request fails
with an error of the endpoint, never with one of ours. A request is sent again only while nothing of it has come out, and each
wait is announced before it begins.

Omitted on purpose: the text of events, which comes out before an answer is whole (see `native_events.py`).
Loads pydantic-ai, so it is imported only once a turn runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.exceptions import AgentRunError, ModelAPIError, RetryModelRequest, UserError
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart, ThinkingPart, ToolCallPart
from pydantic_ai.models import ModelRequestContext

from coder.backends.native_failures import retry_of, retryable
from coder.backends.native_model import Endpoint
from coder.backoff import next_wait
from coder.events import RetryScheduled
from coder.transcript import clean, clean_json

Sleep = Callable[[float], Awaitable[None]]


class Answers(AbstractCapability[Any]):
    """The hooks of a run around its model requests.

    Args:
        announce: told of every retry before its wait.
        sleep: waits; cancelling it ends the turn.
        most: seconds that the retries of one request may take together.
    """

    def __init__(self, endpoint: Endpoint, announce: Callable[[RetryScheduled], None], sleep: Sleep, most: float) -> None:
        self._endpoint = endpoint
        self._announce = announce
        self._sleep = sleep
        self._most = most
        self._waited = 0.0

    async def after_model_request(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, response: ModelResponse
    ) -> ModelResponse:
        """Clean the answer, so that the next request already says what the stored text will; a lone surrogate cannot even be sent."""
        return replace(response, parts=[_clean(part) for part in response.parts])

    async def on_model_request_error(
        self, ctx: RunContext[Any], *, request_context: ModelRequestContext, error: Exception
    ) -> ModelResponse:
        """Name what the libraries stumble over: JSON of another shape than the protocol's comes as AttributeError and the like."""
        if request_context.attempt == 1:
            self._waited = 0.0
        if retryable(error):
            retry = request_context.attempt - 1
            asked = error.retry_after if isinstance(error, ModelAPIError) else None
            if (wait := next_wait(retry, self._waited, asked, self._most)) is not None:
                self._announce(retry_of(error, retry, wait, self._endpoint))
                await self._sleep(wait)
                self._waited += wait
                raise RetryModelRequest
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
