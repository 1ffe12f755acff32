"""The native backend: a model endpoint, our own tools, and pydantic-ai's loop between them.

Invariant: whoever leaves `run_turn` leaves nothing behind: the request is aborted, a running command is ended with all its
descendants.

Omitted on purpose: the turn itself, which is `native_turn.py`'s. That loads the model libraries, so it is imported when the
first turn comes, off the event loop: an idle service stays small.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from coder.backends.guardian import Guardians
from coder.backends.launcher import offline
from coder.backends.native_model import Models
from coder.backends.sandbox import Sandbox
from coder.config import Settings
from coder.errors import ProviderError
from coder.ports import AgentFacts, Clock, LiveTurn, Turn
from coder.task import ExecutionPath

AGENT = "native"


class NativeBackend:
    """Native inference, as the port `Backend`.

    Args:
        sandbox: what confines its commands; None = nothing does.
        home: their home where they are confined.
    """

    execution_path = ExecutionPath.NATIVE

    def __init__(
        self, settings: Settings, guardians: Guardians, clock: Clock, sandbox: Sandbox | None = None, home: Path = Path("/")
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._sandbox = sandbox or Sandbox("off", home)
        self._home = home
        self._guardians = guardians
        self._models = Models(settings)

    async def start(self) -> None:
        """Nothing is warmed up: connections are made on first use."""

    async def stop(self) -> None:
        await self._models.close()

    async def probe(self) -> tuple[AgentFacts, ...]:
        """Whether an endpoint is configured, and the models it tells of. One that cannot be reached now may be later."""
        default = (self._settings.default_model or "").strip()
        if self._models.endpoint is None:
            detail = "no endpoint is configured: set CODER_MODEL_BASE_URL and CODER_DEFAULT_MODEL"
            return (AgentFacts(AGENT, ExecutionPath.NATIVE, available=False, detail=detail),)
        try:
            models, detail = await self._models.names(), ""
        except ProviderError as error:
            models, detail = (), error.message
        if default:
            models = (default, *(name for name in models if name != default))
        return (AgentFacts(AGENT, ExecutionPath.NATIVE, available=True, detail=detail, models=models),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        await asyncio.to_thread(importlib.import_module, "coder.backends.native_turn")
        from coder.backends.native_turn import NativeTurn

        home = self._home if turn.network else offline(self._home)
        cell = self._sandbox.cell(self._guardians, worktree=turn.worktree, home=home, network=turn.network)
        async with AsyncExitStack() as stack:
            yield NativeTurn(turn, self._settings, self._models, cell, self._clock, stack)
