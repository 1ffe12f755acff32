"""An agent that asks: for permission, for an answer, for patience. What it was told is what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from nodebench import PATIENCE_SECONDS, House

from coder.events import AgentEvent, Choice, Command, Commands, PermissionRequest, Plan, PlanEntry, Question, RetryScheduled, TextDelta
from coder.permission import Answer
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import AgentSession, ExecutionPath

OPEN = "select id from permissions where state = 'requested' order by requested_at limit 1"


@dataclass
class Talk:
    """One turn of it."""

    turn: Turn
    agent_session: AgentSession | None = None
    news: list[bool] = field(default_factory=list)
    told: dict[str, asyncio.Future[Answer]] = field(default_factory=dict)
    reconciled: int = 0
    events: AsyncIterator[AgentEvent] = field(init=False)
    model_history: None = None

    def busy_with_tool(self) -> bool:
        return False

    async def answer(self, request_id: str, answer: Answer) -> None:
        self.expect(request_id).set_result(answer)

    async def reconcile(self) -> bool:
        self.reconciled += 1
        return self.news.pop() if self.news else False

    def expect(self, request_id: str) -> asyncio.Future[Answer]:
        return self.told.setdefault(request_id, asyncio.get_running_loop().create_future())


@dataclass
class Asker:
    """A backend whose turns do what the last line of the prompt says.

    ask TITLE (outside the worktree) · edit PATH · fetch URL · two TITLE (and another, at once) · question TEXT · retry SECONDS (then
    until let go) · wait (until let go) · earlier (says what was said before) · say

    Attributes:
        keeps: what it leaves of a turn to come back to.
        probing: what the probe waits for.
    """

    name: str = "goose"
    execution_path: ExecutionPath = ExecutionPath.ACP
    keeps: AgentSession | None = None
    news: tuple[bool, ...] = ()
    probing: asyncio.Event | None = None
    found: AgentFacts | Exception | None = None
    probes: int = 0
    talks: list[Talk] = field(default_factory=list)
    left: int = 0
    stop_fails: bool = False
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        if self.stop_fails:
            raise OSError("it would not")

    async def probe(self) -> tuple[AgentFacts, ...]:
        self.probes += 1
        if self.probing is not None:
            await self.probing.wait()
        if isinstance(self.found, Exception):
            raise self.found
        return (self.found or AgentFacts(self.name, self.execution_path, True),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        talk = Talk(turn, news=list(self.news))
        talk.events = self._play(talk)
        self.talks.append(talk)
        try:
            yield talk
        finally:
            talk.agent_session = self.keeps
            self.left += 1

    async def _play(self, talk: Talk) -> AsyncIterator[AgentEvent]:
        verb, _, rest = talk.turn.prompt.splitlines()[-1].partition(" ")
        yield Commands((Command("init", "Write AGENTS.md"),))
        yield Plan((PlanEntry("look", "in_progress"),))
        if verb in ("ask", "two"):
            yield PermissionRequest("1", "bash", "execute", rest, '{"command": 1}', ("/etc/hosts",))
            if verb == "two":
                yield PermissionRequest("2", "bash", "execute", f"{rest} too", "{}", ("/etc/hosts",))
                yield TextDelta(said(await talk.expect("2")) + ", ")
            yield TextDelta(said(await talk.expect("1")))
        elif verb == "edit":
            yield PermissionRequest("1", "edit", "edit", rest, "{}", (rest,))
            yield TextDelta(said(await talk.expect("1")))
        elif verb == "fetch":
            yield PermissionRequest("1", "webfetch", "fetch", rest)
            yield TextDelta(said(await talk.expect("1")))
        elif verb == "question":
            yield Question("1", rest, (Choice("red"), Choice("blue", "as the sky")))
            yield TextDelta(said(await talk.expect("1")))
        elif verb == "retry":
            yield RetryScheduled(0, float(rest), "slow down", "429")
        elif verb == "earlier":
            yield TextDelta(await talk.turn.earlier())
        else:
            yield TextDelta(rest)
        if verb in ("retry", "wait", "edit"):
            await self.gate.wait()
        yield TextDelta(".")

    async def begun(self, turns: int) -> Talk:
        """The latest turn once there were so many."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.talks) < turns:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return self.talks[turns - 1]


def said(answer: Answer) -> str:
    return f"yes{''.join(f' {each}' for each in answer.answers)}" if answer.allow else f"no: {answer.message}"


def with_asker(house: House) -> Asker:
    asker = Asker()
    house.agents["goose"] = asker
    return asker
