"""One request with the prompt prefix of a native chat. Loads pydantic-ai, so it is imported only when a cache is kept warm."""

from __future__ import annotations

from pydantic_ai import Tool
from pydantic_ai.direct import model_request, model_request_stream
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import ModelRequestParameters

from coder.backends.native_events import usage_of
from coder.backends.native_failures import explain
from coder.backends.native_history import load, thinking_field
from coder.backends.native_model import Models, thinking_effort
from coder.backends.native_tools import Tools, offered
from coder.errors import ProviderError
from coder.events import Usage


def prefix(messages: list[ModelMessage]) -> list[ModelMessage]:
    """The messages of a chat up to its last request: what the provider was sent, and what the next turn begins with."""
    last = max((place for place, message in enumerate(messages) if not isinstance(message, ModelResponse)), default=-1)
    return messages[: last + 1]


async def send(models: Models, model_history: str, name: str, thinking: str | None) -> Usage:
    """Send it; answers what it took, zeros where the endpoint does not say.

    Anthropic takes no answer shorter than the thinking it may do. There the answer is broken off at its first word.

    Args:
        thinking: the option of the chat's latest turn.

    Raises:
        ProviderError: there is nothing to send, or the endpoint failed.
    """
    assert models.endpoint is not None, "else there was no name"
    messages = load(model_history)
    sent = prefix(messages or [])
    if messages is None or not sent:
        raise ProviderError("What the model remembers of this chat cannot be read, so its cache cannot be kept warm.")
    model = await models.model(name, thinking_field(messages, models.endpoint.host))
    # Only their definitions are looked at, which are the same in every worktree.
    tools = [Tool(tool, takes_ctx=False, sequential=True).tool_def for tool in offered(object.__new__(Tools))]
    parameters = ModelRequestParameters(function_tools=tools)
    effort = thinking_effort(thinking)
    try:
        if effort.get("thinking") and models.endpoint.protocol == "anthropic":
            async with model_request_stream(model, sent, model_settings=effort, model_request_parameters=parameters) as stream:
                async for _ in stream:
                    break
                answer = stream.get()
        else:
            answer = await model_request(model, sent, model_settings=effort | {"max_tokens": 1}, model_request_parameters=parameters)
    except AgentRunError as error:
        raise explain(error, models.endpoint, name, 1) from error
    return usage_of(answer) or Usage(0, 0, 0)
