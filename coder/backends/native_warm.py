"""The provider's prompt cache of native chats: a chat's prompt prefix sent once more, with the smallest possible answer.

Invariant: what is sent is what the chat's last request sent, to the byte, but for the length of the answer and whether it is streamed.
The effort of thinking is a part of it: to Anthropic another one is another prompt, and models of others are told it in the prompt.
Sent once: who fails waits for the next time.

Omitted on purpose: the chat is left as it is. The model libraries are loaded when the first warm comes, off the event loop.
"""

from __future__ import annotations

import asyncio
import importlib

from coder.backends.native_model import Models
from coder.config import Settings
from coder.events import Usage


class NativeCache:
    """Implements `warming.PromptCache`."""

    def __init__(self, settings: Settings) -> None:
        self._models = Models(settings)

    async def warm(self, model_history: str, model: str | None, thinking: str | None) -> Usage:
        await asyncio.to_thread(importlib.import_module, "coder.backends.native_prefix")
        from coder.backends.native_prefix import send

        return await send(self._models, model_history, self._models.name(model), thinking)

    async def close(self) -> None:
        await self._models.close()
