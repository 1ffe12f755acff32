"""What went wrong with a model request, as a sentence: the endpoint, what it said, and what to do.

Invariant: the endpoint's key is in no sentence, whatever the endpoint echoes.

Omitted on purpose: retrying itself, see `native_answers.py`; whether a failure is worth one is told from the exception.
Loads pydantic-ai, so it is imported only once a turn runs.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_ai import exceptions as failures

from coder.backends.native_model import Endpoint
from coder.errors import ProviderError, ToolLoop, TurnError
from coder.events import RetryScheduled
from coder.transcript import clean

_SAID_CHARACTERS = 300

_ADVICE: tuple[tuple[type[Exception], str, str], ...] = (
    # The first class that fits wins, so the special ones stand before the general ones.
    (
        failures.ModelAuthenticationError,
        "refuses the key",
        "set CODER_MODEL_API_KEY to one that may use model {model}, and start coder again",
    ),
    (
        failures.ModelNotFoundError,
        "knows no model {model}",
        "name one of those that `coder agents` lists, or correct CODER_MODEL_BASE_URL (an OpenAI address mostly ends with /v1)",
    ),
    (failures.ModelQuotaExceededError, "says that the account's quota is used up", "top it up, or set another key or endpoint"),
    (failures.ModelRateLimitError, "limits the rate of requests", "retry the task later, or lower CODER_MAX_TURNS"),
    (
        failures.ModelContextWindowExceededError,
        "finds the conversation longer than the context of model {model}",
        "start a new chat in the session, or name a model with a larger context",
    ),
    (failures.ModelRequestRejectedError, "rejects the request", "check that model {model} takes tools, or name another model"),
    (failures.ModelTimeoutError, "did not answer in time", "see whether it is up and retry the task"),
    (failures.ModelServerError, "failed", "retry the task, and look into the endpoint's own log if it fails again"),
    (failures.ModelUnavailableError, "is not available at this moment", "retry the task later"),
    (
        failures.ContentFilterError,
        "withholds the answer because of its content filter",
        "put the task in other words, or name another model",
    ),
    (
        failures.IncompleteToolCall,
        "cut the answer of model {model} in a tool call",
        "ask for less at a time, or raise the endpoint's output limit",
    ),
    (failures.OutputTokenLimitExceeded, "cut the answer of model {model}", "ask for less at a time, or raise the endpoint's output limit"),
    (
        failures.UnexpectedModelBehavior,
        "gave no answer that can be used",
        "retry the task, or name another model than {model}",
    ),
    (failures.AgentRunError, "gave an answer that cannot be read", "see that the address is a model endpoint's, and retry the task"),
)


def explain(error: failures.AgentRunError, endpoint: Endpoint, model: str, max_requests: int) -> TurnError:
    """The error a turn ends with.

    Args:
        max_requests: the limit the turn had, named where it was reached.
    """
    if isinstance(error, failures.UsageLimitExceeded):
        return ToolLoop(requests=max_requests)
    if isinstance(error, failures.ModelConnectionError) and not isinstance(error, failures.ModelTimeoutError):
        what, advice = _connection(error)
    else:
        what, advice = next((what, advice) for kind, what, advice in _ADVICE if isinstance(error, kind))
    said = endpoint.without_key(clean(_said(error)))
    return ProviderError(f"{endpoint.shown} {what.format(model=model)} ({said}); {advice.format(model=model)}.")


def retryable(error: Exception) -> bool:
    """Whether sending the same request again may help: a rate limit, a 5xx, the network. A used-up quota will not come back by waiting."""
    if isinstance(error, failures.ModelQuotaExceededError):
        return False
    if isinstance(error, failures.ModelRateLimitError | failures.ModelConnectionError):
        return True
    return isinstance(error, failures.ModelHTTPError) and (error.status_code == 429 or error.status_code >= 500)


def retry_of(error: Exception, attempt: int, delay: float, endpoint: Endpoint) -> RetryScheduled:
    """What watchers are told before a wait: the endpoint's own words, and its code where it gave one."""
    said = endpoint.without_key(clean(_said(error) if isinstance(error, failures.AgentRunError) else str(error)))
    code = str(error.status_code) if isinstance(error, failures.ModelHTTPError) else None
    return RetryScheduled(attempt, delay, said, code)


def _connection(error: failures.ModelConnectionError) -> tuple[str, str]:
    if error.phase == "read":
        return "broke off in the middle of an answer", "retry the task, and look into the endpoint's own log if it happens again"
    return "cannot be reached", "start it, or correct CODER_MODEL_BASE_URL"


def _said(error: failures.AgentRunError) -> str:
    """What the endpoint said, on one line and not too long; its status in front where there is one."""
    words = ""
    if isinstance(error, failures.ModelAPIError):
        body = error.body
        if isinstance(body, dict):
            inner = body.get("error", body)
            body = inner.get("message", inner) if isinstance(inner, dict) else inner
        words = str(body) if body else ""
    if not words and isinstance(error, failures.ModelConnectionError):
        words = ": ".join(dict.fromkeys(str(cause) or type(cause).__name__ for cause in _causes(error)))
    words = " ".join((words or str(error) or type(error).__name__).split())
    if len(words) > _SAID_CHARACTERS:
        words = f"{words[:_SAID_CHARACTERS]}…"
    return f"{error.status_code}: {words}" if isinstance(error, failures.ModelHTTPError) else words


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The innermost two causes: the outer ones only say that there was a connection error."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    yield from reversed(chain[-2:])
