"""The backend of agents that speak the Agent Client Protocol over their standard streams, one instance per agent.

Nothing is started before the first turn, and the official SDK is loaded then, off the event loop: an idle service stays
small. What is kept warm is bounded by `Warm`, which all agents of a node share.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coder.backends.acp_process import AcpProcess
from coder.backends.acp_sessions import AcpSessions
from coder.backends.acp_turn import AcpTurn
from coder.backends.launcher import Launcher
from coder.backends.version import Version
from coder.backends.warm import Warm
from coder.config import Settings
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import ExecutionPath


class AcpBackend:
    """One agent, as the port `Backend`.

    Args:
        warm: what bounds the warm processes of this node; one for all its agents.
    """

    execution_path = ExecutionPath.ACP

    def __init__(self, launcher: Launcher, settings: Settings, warm: Warm) -> None:
        self._launcher = launcher
        self._sessions = AcpSessions(launcher, settings, warm)
        self._version = Version(launcher)

    @property
    def processes(self) -> tuple[AcpProcess, ...]:
        """Those that run now."""
        return self._sessions.processes

    async def start(self) -> None:
        """Nothing is warmed up: a process starts with the first turn that needs it."""

    async def stop(self) -> None:
        await self._sessions.stop()

    async def probe(self) -> tuple[AgentFacts, ...]:
        """Whether the program is there, and what is known of it; what only a session tells is known once there was one."""
        name, spec = self._launcher.name, self._launcher.spec
        path = await asyncio.to_thread(self._launcher.program)
        if path is None:
            detail = f"there is no program {spec.command[0]}"
            return (AgentFacts(name, ExecutionPath.ACP, available=False, detail=detail, models=spec.models, install=spec.install or None),)
        version, odd = await self._version.of(path)
        learned = self._sessions.learned
        options = learned.options
        return (
            AgentFacts(
                name,
                ExecutionPath.ACP,
                available=True,
                version=learned.version or version,
                detail="" if learned.version else odd,
                models=tuple(dict.fromkeys((*spec.models, *options.model.ids))),
                path=path,
                modes=options.mode.ids,
                thinking_options=options.thinking.ids,
                commands=learned.commands,
                unfinished=not learned.whole,
            ),
        )

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        endpoint = self._launcher.endpoint
        live = AcpTurn(self._launcher.name, turn, endpoint.key if endpoint else None, self._sessions.enter)
        try:
            yield live
        finally:
            try:
                await live.leave()
            finally:
                if live.entered is not None:
                    await self._sessions.release(live.entered)
