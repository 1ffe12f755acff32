"""One home of opencode's and the one warm server in it: started when a turn needs it, stopped when none did for a while.

Invariant: never two servers in one home, however many turns come at once; whose server has ended otherwise than by our clean
stop, their sessions are not gone back to.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from coder.backends.launcher import Launcher
from coder.backends.native_model import Models
from coder.backends.opencode_server import Server
from coder.backends.opencode_settings import own_model, uses_endpoint
from coder.config import Settings
from coder.errors import ProviderError
from coder.task import AgentSession

log = structlog.get_logger(__name__)


class Place:
    """A home, and who runs in it.

    Args:
        network: whether the server there may reach the network.
        started: told of every server that has become ready.
    """

    def __init__(self, launcher: Launcher, settings: Settings, network: bool, started: Callable[[Server], None]) -> None:
        self.launcher = launcher
        self._settings = settings
        self._network = network
        self._started = started
        self._server: Server | None = None
        self._starting = asyncio.Lock()
        self._used: set[str] = set()
        self._lost: set[str] = set()
        self._wanted: set[str] = set()
        self._idle: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def use(self, model: str | None) -> AsyncIterator[Server]:
        """The server, for one turn.

        Args:
            model: `provider/model` that the turn wants.

        Raises:
            AgentUnavailable: it does not start.
        """
        async with self._starting:
            server = await self._warm(own_model(model, self._settings))
            server.turns += 1
        try:
            yield server
        finally:
            server.turns -= 1
            if server.turns == 0 and server is self._server:
                self._rest(server)

    def remembers(self, session: AgentSession) -> bool:
        """Whether a session can be gone back to, as far as we know of its server's end."""
        if session.home != self.launcher.home_name or session.status == "lost":
            return False
        self._bury()
        return session.id not in self._lost

    def crashed_with(self, session: AgentSession) -> bool:
        """Whether the session's server ended without having been asked to."""
        return session.id in self._lost

    def holds(self, session: AgentSession) -> bool:
        """Whether the present server itself has had the session."""
        return session.id in self._used

    def refused(self, session: str) -> None:
        """The server does not take a session's prompt: whether it still has it is asked the next time."""
        self._used.discard(session)

    def used(self, session: str) -> None:
        """A session is held by the present server."""
        self._lost.discard(session)
        self._used.add(session)

    async def stop(self) -> None:
        """Stop the server; its sessions can be gone back to."""
        idle, self._idle = self._idle, None
        if idle is not None:
            idle.cancel()
        async with self._starting:
            await self._retire()

    async def _warm(self, model: str | None) -> Server:
        """The living server, or a new one; call it with the lock."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._bury()
        server = self._server
        if server is not None and model and model not in server.models and server.turns == 0 and uses_endpoint(self.launcher):
            self._wanted.add(model)  # it only knows the models it was started with
            await self._retire()
            server = None
        if server is None:
            if model:
                self._wanted.add(model)
            server = self._server = await Server.start(self.launcher, self._settings, await self._models(), self._network)
            self._started(server)
        return server

    async def _models(self) -> tuple[str, ...]:
        """The endpoint's models: what it tells, the default one, and what was asked for."""
        named = [own for name in (self._settings.default_model, *self.launcher.spec.models) if (own := self._own(name))]
        try:
            told = await Models(self._settings).names() if uses_endpoint(self.launcher) else ()
        except ProviderError as error:
            log.info("opencode starts without the endpoint's list of models", why=error.message)
            told = ()
        return tuple(dict.fromkeys((*named, *sorted(self._wanted), *told)))

    def _own(self, name: str | None) -> str | None:
        name = (name or "").strip()
        return (own_model(name, self._settings) if "/" in name else name) or None

    def _bury(self) -> None:
        """Notice that the server has ended by itself."""
        if self._server is not None and not self._server.alive:
            self._lost |= self._used
            self._used = set()
            self._server = None

    async def _retire(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        if server.alive:
            self._used = set()
            await server.stop()
        else:
            self._lost |= self._used
            self._used = set()
            await server.stop()

    def _rest(self, server: Server) -> None:
        async def wait() -> None:
            await asyncio.sleep(self._settings.agent_idle_seconds)
            async with self._starting:
                if server is self._server and server.turns == 0:
                    self._idle = None
                    log.info("opencode was idle, so its server is stopped", home=self.launcher.home_name)
                    await self._retire()

        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.create_task(wait(), name="opencode idle")
