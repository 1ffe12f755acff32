"""The PTY backend: an agent that is a command, run once a turn in a pseudo-terminal in the worktree.

Invariant: nothing runs between turns; whoever leaves `run_turn` leaves no process behind.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coder.backends.launcher import Launcher
from coder.backends.version import Version
from coder.config import Settings
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import ExecutionPath


class PtyBackend:
    """One agent that is a command, as the port `Backend`."""

    execution_path = ExecutionPath.PTY

    def __init__(self, launcher: Launcher, settings: Settings) -> None:
        self._launcher = launcher
        self._settings = settings
        self._prepared: set[bool] = set()
        self._version = Version(launcher)

    async def start(self) -> None:
        """Nothing is kept warm."""

    async def stop(self) -> None:
        """Nothing is kept warm."""

    async def probe(self) -> tuple[AgentFacts, ...]:
        """Whether the program is there, and what version it says it is."""
        name, spec = self._launcher.name, self._launcher.spec
        program = self._launcher.program()
        default = (self._settings.default_model or "").strip()
        models = tuple(dict.fromkeys(model for model in (default, *spec.models) if model))
        if program is None:
            detail = f"there is no program {spec.command[0]} on the PATH"
            return (AgentFacts(name, ExecutionPath.PTY, False, detail=detail, models=models, install=spec.install or None),)
        version, detail = await self._version.of(program)
        return (AgentFacts(name, ExecutionPath.PTY, True, version=version, detail=detail, models=models, path=program),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        from coder.backends.pty_turn import PtyTurn

        live = PtyTurn(turn, self._prepare(turn.network), self._settings)
        try:
            yield live
        finally:
            await live.leave()

    def _prepare(self, network: bool) -> Launcher:
        """Make the agent's home once, so that a login it has renewed since is not overwritten with the user's older one."""
        launcher = self._launcher.of(network)
        if network not in self._prepared:
            launcher.prepare()
            self._prepared.add(network)
        return launcher
