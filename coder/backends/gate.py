"""What stands before every backend: no turn runs that the sandbox cannot hold as it must, and one that runs unconfined says so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from coder.backends.sandbox import Sandbox
from coder.errors import AgentUnavailable
from coder.events import AgentEvent, Notice
from coder.permission import Answer
from coder.ports import AgentFacts, Backend, LiveTurn, Turn
from coder.task import AgentSession, ExecutionPath


class Gated:
    """A backend behind the sandbox's gate, itself a `Backend`.

    Args:
        needs_network: the agent's name, where it reaches its model over the network itself.
    """

    def __init__(self, backend: Backend, sandbox: Sandbox, needs_network: str | None = None) -> None:
        self._backend = backend
        self._sandbox = sandbox
        self._needs_network = needs_network

    @property
    def execution_path(self) -> ExecutionPath:
        return self._backend.execution_path

    async def start(self) -> None:
        await self._backend.start()

    async def stop(self) -> None:
        await self._backend.stop()

    async def probe(self) -> tuple[AgentFacts, ...]:
        return await self._backend.probe()

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        """Raises AgentUnavailable where the turn cannot be confined and has to be, or its agent could not work so."""
        self._sandbox.check(turn.network)
        if self._needs_network is not None and not turn.network:
            raise AgentUnavailable(
                f"{self._needs_network} reaches its model over the network, which the project keeps its agents off; "
                "use native, for which coder asks the model, or switch the project's network on."
            )
        async with self._backend.run_turn(turn) as live:
            yield live if self._sandbox.notice is None else Noted(live, self._sandbox.notice)


class Noted:
    """A turn that says one thing more, after the first that its agent says: nothing is seen before the agent was."""

    def __init__(self, live: LiveTurn, notice: str) -> None:
        self._live = live
        self._events = self._noted(notice)

    @property
    def events(self) -> AsyncIterator[AgentEvent]:
        return self._events

    @property
    def model_history(self) -> str | None:
        return self._live.model_history

    @property
    def agent_session(self) -> AgentSession | None:
        return self._live.agent_session

    def busy_with_tool(self) -> bool:
        return self._live.busy_with_tool()

    async def answer(self, request_id: str, answer: Answer) -> None:
        await self._live.answer(request_id, answer)

    async def reconcile(self) -> bool:
        return await self._live.reconcile()

    async def _noted(self, notice: str) -> AsyncIterator[AgentEvent]:
        said = False
        async for event in self._live.events:
            yield event
            if not said:
                said = True
                yield Notice(notice)
