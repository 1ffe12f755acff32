"""The configured model endpoint: its address, its models, and the pydantic-ai model that talks to it.

Invariant: nothing retries behind our back (the client's own retries are off), and the endpoint's key is in nothing this
module returns or raises except the client itself. The model libraries are imported on first use, off the event loop, so that
an idle service stays small.

Omitted on purpose: time limits on an answer. A connection must come about within 10 s; how long a model may be silent is
the watchdog's business.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

import httpx

from coder.config import Settings
from coder.errors import ProviderError

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from openai import AsyncOpenAI
    from pydantic_ai.models import Model
    from pydantic_ai.settings import ModelSettings, ThinkingEffort

CONNECT_SECONDS = 10.0
PROBE_SECONDS = 5.0
_NO_KEY = "not-set"  # the clients insist on one; endpoints that want none ignore it
_ANTHROPIC_VERSION = "2023-06-01"
EFFORTS: tuple[ThinkingEffort, ...] = ("minimal", "low", "medium", "high", "xhigh", "max")


def thinking_effort(option: str | None) -> ModelSettings:
    """What a thinking option means for a request; nothing where it is none of `EFFORTS`."""
    for effort in EFFORTS:
        if effort == (option or "").strip():
            return {"thinking": effort}
    return {}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where native inference goes.

    Attributes:
        base_url: as configured, without a slash at the end.
        key: its key, None when it wants none; never in the representation.
    """

    protocol: Literal["openai", "anthropic"]
    base_url: str
    key: str | None = field(repr=False)

    @classmethod
    def of(cls, settings: Settings) -> Endpoint | None:
        """The endpoint of the settings, None when none is configured. `auto` goes by the address."""
        base_url = (settings.model_base_url or "").strip().rstrip("/")
        if not base_url:
            return None
        key = settings.model_api_key.get_secret_value() if settings.model_api_key else None
        protocol = settings.model_protocol
        if protocol == "auto":
            address = urlsplit(base_url)
            named = (address.hostname or "").endswith("anthropic.com") or "anthropic" in address.path.split("/")
            protocol = "anthropic" if named else "openai"
        return cls(protocol, base_url, key or None)

    @property
    def shown(self) -> str:
        """The address for people: without user, password and query."""
        address = urlsplit(self.base_url)
        return urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path, "", ""))

    @property
    def host(self) -> str:
        """Host and port; the name under which its answers are remembered."""
        return urlsplit(self.base_url).netloc.rpartition("@")[2]

    @property
    def root(self) -> str:
        """The address without `/v1`, which Anthropic's client adds itself."""
        return self.base_url.removesuffix("/v1")

    def models_request(self) -> tuple[str, Mapping[str, str]]:
        """Address and headers of the list of models (OpenAI: GET /models; Anthropic: GET /v1/models)."""
        if self.protocol == "anthropic":
            return f"{self.root}/v1/models", {"x-api-key": self.key or _NO_KEY, "anthropic-version": _ANTHROPIC_VERSION}
        return f"{self.base_url}/models", {"authorization": f"Bearer {self.key}"} if self.key else {}

    def without_key(self, text: str) -> str:
        return text.replace(self.key, "***") if self.key else text


class Models:
    """The models of the configured endpoint; one HTTP client for all turns, made on first use."""

    def __init__(self, settings: Settings) -> None:
        self.endpoint = Endpoint.of(settings)
        self._default = (settings.default_model or "").strip()
        self._limit = settings.context_limit
        self._limits: dict[str, int] = {}
        self._client: AsyncOpenAI | AsyncAnthropic | None = None

    def name(self, asked: str | None) -> str:
        """The model a task gets: the one it asks for, else the default.

        Raises:
            ProviderError: there is neither, or no endpoint.
        """
        if self.endpoint is None:
            raise ProviderError(
                "Native inference has no model endpoint; set CODER_MODEL_BASE_URL (for example http://127.0.0.1:11434/v1), "
                "CODER_DEFAULT_MODEL and, where the endpoint wants a key, CODER_MODEL_API_KEY, and start coder again."
            )
        name = (asked or "").strip() or self._default
        if not name:
            raise ProviderError("The task names no model and there is no default; name one in the task, or set CODER_DEFAULT_MODEL.")
        return name

    async def model(self, name: str, thinking_field: str | None = None) -> Model:
        """The model of that name, ready for requests. The first call loads the libraries, which takes about a second.

        Args:
            thinking_field: the field in which this endpoint gave reasoning earlier in the chat, see `native_history.py`.
        """
        assert self.endpoint is not None, "name() comes first"
        if self._client is None:
            await asyncio.to_thread(_load, self.endpoint.protocol)
        if self.endpoint.protocol == "anthropic":
            return self._anthropic(self.endpoint, name)
        return self._openai(self.endpoint, name, thinking_field)

    async def names(self) -> tuple[str, ...]:
        """What the endpoint answers when asked for its models, in its order.

        Raises:
            ProviderError: it cannot be reached, refuses, or answers something else.
        """
        assert self.endpoint is not None, "only where there is an endpoint"
        url, headers = self.endpoint.models_request()
        where = self.endpoint.shown
        try:
            async with httpx.AsyncClient(timeout=PROBE_SECONDS) as client:
                answer = await client.get(url, headers=headers)
                answer.raise_for_status()
                models = {str(model["id"]): limit_of(model) for model in answer.json()["data"]}
                self._limits = {name: limit for name, limit in models.items() if limit is not None}
                return tuple(models)
        except httpx.HTTPStatusError as error:
            raise ProviderError(f"{where} answers {error.response.status_code} when asked for its models.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderError(f"{where} cannot be reached ({str(error) or type(error).__name__}).") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ProviderError(f"{where} answers something that is no list of models.") from error

    def context_limit(self, name: str) -> int | None:
        """How many tokens the context of a model holds, None when not known: as the endpoint's own list said last, else as
        the table of genai-prices says, else as the setting says. The first call loads the table, which takes a moment."""
        if name in self._limits:
            return self._limits[name]
        from genai_prices.data_snapshot import get_snapshot

        try:
            _, model = get_snapshot().find_provider_model(name, None, None, self.endpoint.base_url if self.endpoint else None)
        except LookupError:
            try:
                _, model = get_snapshot().find_provider_model(name, None, None, None)
            except LookupError:
                return self._limit
        return model.context_window or self._limit

    async def close(self) -> None:
        """Close the connections; may be called again, and `model` after it."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    def _openai(self, endpoint: Endpoint, name: str, thinking_field: str | None) -> Model:
        import httpx2
        from openai import AsyncOpenAI
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.profiles.openai import OpenAIModelProfile
        from pydantic_ai.providers.openai import OpenAIProvider
        from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

        if self._client is None:
            timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
            self._client = AsyncOpenAI(base_url=endpoint.base_url, api_key=endpoint.key or _NO_KEY, max_retries=0, timeout=timeout)
        assert isinstance(self._client, AsyncOpenAI)
        if endpoint.host == "api.openai.com":
            return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=self._client))
        # Whether such a model thinks is not told by its name: who asks for an effort is obeyed.
        profile = OpenAIModelProfile(supports_thinking=True)
        if thinking_field is not None:
            # The default (`auto`) adds an empty field to this turn's messages and takes it away from the next turn's, and
            # with that the cached prefix.
            profile |= OpenAIModelProfile(openai_chat_send_back_thinking_parts="field", openai_chat_thinking_field=thinking_field)
        return OpenAIChatModel(name, provider=OpenAICompatibleProvider(endpoint.host, openai_client=self._client), profile=profile)

    def _anthropic(self, endpoint: Endpoint, name: str) -> Model:
        import httpx2
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider
        from pydantic_ai.settings import ModelSettings

        if self._client is None:
            timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
            self._client = AsyncAnthropic(base_url=endpoint.root, api_key=endpoint.key or _NO_KEY, max_retries=0, timeout=timeout)
        assert isinstance(self._client, AsyncAnthropic)
        # Unlike OpenAI's, this protocol caches a prompt only where it is told to.
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=self._client), settings=ModelSettings(cache=True))


LIMITS = ("max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens", "n_ctx", "n_ctx_train")
"""The fields in which endpoints say it: vLLM; OpenRouter and Together; Groq; LM Studio and Mistral; Anthropic; llama.cpp (in `meta`)."""


def limit_of(model: Mapping[str, Any]) -> int | None:
    """The context limit that an entry of an endpoint's list of models tells, None where it tells none."""
    meta = model.get("meta")
    places = (model, meta if isinstance(meta, dict) else {})
    told = (place.get(name) for place in places for name in LIMITS)
    return next((limit for limit in told if type(limit) is int and limit > 0), None)


def _load(protocol: str) -> None:
    importlib.import_module(f"pydantic_ai.models.{protocol}")
    importlib.import_module(f"pydantic_ai.providers.{protocol}")
