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
        nowhere: the agent's name, where it reaches its model over the network and nobody knows where that is.
    """

    def __init__(self, backend: Backend, sandbox: Sandbox, nowhere: str | None = None) -> None:
        self._backend = backend
        self._sandbox = sandbox
        self._nowhere = nowhere

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
        if self._nowhere is not None and not turn.network:
            raise AgentUnavailable(
                f"{self._nowhere} reaches its model over the network, which the project keeps its agents off, and where that model is, is "
                "not known; name its host and port in model_hosts of the agent's entry, use native, or switch the project's network on."
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
