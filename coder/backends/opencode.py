"""The opencode backend: one warm `opencode serve` for all turns of this node, and one more for those without network.

The server starts with the first turn that needs it and stops when none did for a while. Each session of ours is one of opencode's
in its own directory; they run side by side. opencode's own docs say that its sessions are not isolated from each other.

Invariant: whoever leaves `run_turn` leaves nothing behind but the warm server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from coder.backends.launcher import Launcher
from coder.backends.native_model import Models
from coder.backends.opencode_place import Place
from coder.backends.opencode_probe import Probe
from coder.backends.opencode_settings import Wishes, uses_endpoint
from coder.backends.opencode_turn import RETRY_SECONDS, OpencodeTurn
from coder.backends.turn_log import TurnLog
from coder.config import Settings
from coder.errors import ProviderError
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import ExecutionPath


class OpencodeBackend:
    """opencode, as the port `Backend`.

    Args:
        launcher: starts its programs.
        retry_seconds: how long one model request may wait for its endpoint in all.
    """

    execution_path = ExecutionPath.OPENCODE

    def __init__(self, launcher: Launcher, settings: Settings, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._launcher = launcher
        self._settings = settings
        self._retry_seconds = retry_seconds
        self.probing = Probe(launcher, settings)
        self._places = {
            True: Place(launcher, settings, True, self.probing.server_started),
            False: Place(launcher.of(network=False), settings, False, lambda server: None),
        }

    async def start(self) -> None:
        """Nothing is warmed up: the server starts with the first turn."""

    async def stop(self) -> None:
        await self.probing.stop()
        await asyncio.gather(*(place.stop() for place in self._places.values()))

    async def probe(self) -> tuple[AgentFacts, ...]:
        """What is known of opencode without waiting for it; see `opencode_probe.py`."""
        name, install = self._launcher.name, self._launcher.spec.install or None
        program = await asyncio.to_thread(self._launcher.program)
        if program is None:
            detail = f"there is no program {self._launcher.spec.command[0]} on the PATH"
            return (AgentFacts(name, ExecutionPath.OPENCODE, available=False, detail=detail, install=install),)
        known = self.probing.known(program)
        models, detail = await self._models()
        if known.version is None:
            detail = " ".join(filter(None, ("Its version and models are being asked for.", detail)))
        return (
            AgentFacts(
                name,
                ExecutionPath.OPENCODE,
                available=True,
                version=known.version,
                detail=detail,
                models=tuple(dict.fromkeys((*models, *known.models))),
                path=program,
                modes=known.modes,
                thinking_options=known.thinking_options,
                commands=known.commands,
                install=install,
                unfinished=known.version is None,
            ),
        )

    async def _models(self) -> tuple[tuple[str, ...], str]:
        """The endpoint's models as opencode names them, the default one first, and why there are none."""
        default, prefix = (self._settings.default_model or "").strip(), self._settings.model_provider
        models = [default if "/" in default else f"{prefix}/{default}"] if default else []
        detail = ""
        if uses_endpoint(self._launcher):
            try:
                models += [f"{prefix}/{name}" for name in await Models(self._settings).names()]
            except ProviderError as error:
                detail = error.message
        return tuple(dict.fromkeys(models)), detail

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        place = self._places[turn.network]
        wishes = Wishes.of(turn, self._settings, self._launcher.spec.default_mode)
        key = self._settings.model_api_key.get_secret_value() if self._settings.model_api_key else None
        async with AsyncExitStack() as stack:
            live = OpencodeTurn(turn, place, wishes, stack, TurnLog(turn.log, key), self._retry_seconds)
            try:
                yield live
            finally:
                # To its end also when whoever leaves is cancelled once more: nothing of the turn may stay.
                closing = asyncio.ensure_future(live.close())
                try:
                    await asyncio.shield(closing)
                except asyncio.CancelledError:
                    await asyncio.wait({closing})
                    raise
