"""The backend of agents that speak the Agent Client Protocol over their standard streams, one instance per agent.

Nothing is started before the first turn, and the official SDK is loaded then, off the event loop: an idle service stays
small. What is kept warm is bounded by `Warm`, which all agents of a node share.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from coder.backends.acp_process import AcpProcess
from coder.backends.acp_sessions import AcpSessions
from coder.backends.acp_turn import AcpTurn
from coder.backends.launcher import Launcher
from coder.backends.warm import Warm
from coder.config import Settings
from coder.errors import TurnError
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import ExecutionPath

VERSION_SECONDS = 10.0
VERSION_BYTES = 4096
_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")


class AcpBackend:
    """One agent, as the port `Backend`.

    Args:
        warm: what bounds the warm processes of this node; one for all its agents.
    """

    execution_path = ExecutionPath.ACP

    def __init__(self, launcher: Launcher, settings: Settings, warm: Warm) -> None:
        self._launcher = launcher
        self._sessions = AcpSessions(launcher, settings, warm)
        self._version: tuple[tuple[str, float], str | None] | None = None

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
        learned = self._sessions.learned
        options = learned.options
        return (
            AgentFacts(
                name,
                ExecutionPath.ACP,
                available=True,
                version=learned.version or await self._version_of(path),
                models=tuple(dict.fromkeys((*spec.models, *options.model.ids))),
                path=path,
                modes=options.mode.ids,
                thinking_options=options.thinking.ids,
                commands=learned.commands,
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

    async def _version_of(self, path: str) -> str | None:
        """What the program prints when asked for its version; asked again only when the program changed."""
        mark = (path, await asyncio.to_thread(os.path.getmtime, path))
        if self._version is None or self._version[0] != mark:
            self._version = (mark, await self._asked(path))
        return self._version[1]

    async def _asked(self, path: str) -> str | None:
        argv = self._launcher.spec.version_command or (path, "--version")
        try:
            guarded = await self._launcher.spawn(argv, cwd=Path("/"), worktree=None, network=False)
        except TurnError:
            return None
        assert guarded.stdout is not None
        try:
            async with asyncio.timeout(VERSION_SECONDS):
                said = await guarded.stdout.read(VERSION_BYTES)
        except TimeoutError:
            return None
        finally:
            await guarded.stop()
        match = _VERSION.search(said.decode("utf-8", "replace"))
        return match[0] if match else None
