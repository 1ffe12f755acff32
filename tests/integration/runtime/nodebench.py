"""Real nodes on a real database, with agents that do what their prompt says and worktrees that note what is asked of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from agents.null import NullCommands, NullGuards

from coder.change import Approval, Found, Plan, Rest, Shift, Snapshot, Worktree
from coder.comments import Owed, Place
from coder.errors import Held, ProviderError
from coder.events import AgentEvent, Notice, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.host.logbook import FileLogbook
from coder.permission import Answer
from coder.ports import AgentFacts, Backend, Clock, LiveTurn, Turn, Wakeups
from coder.postgres.changes import PostgresChanges
from coder.postgres.frames import PostgresFrames
from coder.postgres.listener import Listener
from coder.postgres.permissions import PostgresPermissions
from coder.postgres.pool import open_pool
from coder.postgres.tasks import PostgresTasks
from coder.postgres.warming import PostgresWarming
from coder.runtime.clock import SystemClock
from coder.runtime.node import Node, Pace, Worlds
from coder.task import ExecutionPath, Project
from coder.warming import PromptCache

PATIENCE_SECONDS = 20.0
BASE = "0" * 40
QUICK = Pace(slots=8, poll=0.2, lease=30.0, beat=1.0, drain=10.0, silent=180.0, tool=3600.0, retention=1e9)


@dataclass
class Live:
    events: AsyncIterator[AgentEvent]
    tool: bool = False
    model_history: str | None = None

    def busy_with_tool(self) -> bool:
        return self.tool

    @property
    def agent_session(self) -> None: ...

    async def answer(self, request_id: str, answer: Answer) -> None: ...

    async def reconcile(self) -> bool:
        return False


@dataclass
class Agent:
    """A backend whose turns do what the first word of the prompt says.

    say · think · tool-then-say · wait (one event, then until let go) · mute (until let go) · tool (one runs until let go) ·
    fail · bug · remember (leaves a history) · stubborn (needs to be let go even to end)

    Attributes:
        order: what happened, as `start <prompt>` and `end <prompt>`.
        most: the largest number of turns at once, in all and per session.
    """

    name: str = "native"
    available: bool = True
    order: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    running: Counter[UUID] = field(default_factory=Counter)
    most: int = 0
    most_of_a_session: int = 0
    stopped: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def execution_path(self) -> ExecutionPath:
        return ExecutionPath.NATIVE if self.name == "native" else ExecutionPath.OPENCODE

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped += 1

    async def probe(self) -> tuple[AgentFacts, ...]:
        return (AgentFacts(self.name, self.execution_path, self.available),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        prompt = turn.prompt.splitlines()[-1]
        self.turns.append(turn)
        self.running[turn.session_id] += 1
        self.most = max(self.most, self.running.total())
        self.most_of_a_session = max(self.most_of_a_session, self.running[turn.session_id])
        self._note(f"start {prompt}")
        live = Live(iter(()))  # type: ignore[arg-type]
        live.events = self._play(prompt, live)
        try:
            yield live
        finally:
            if prompt.startswith("stubborn"):
                await self._gate(prompt).wait()
            self.running[turn.session_id] -= 1
            self._note(f"end {prompt}")

    async def _play(self, prompt: str, live: Live) -> AsyncIterator[AgentEvent]:
        verb = prompt.split()[0]
        if verb in ("mute", "stubborn"):
            await self._gate(prompt).wait()
        if verb == "fail":
            raise ProviderError("The provider answered 500 (overloaded); try again later.")
        if verb == "bug":
            raise ValueError("nobody foresaw this")
        if verb == "think":
            yield ReasoningDelta("hm")
        if verb == "tool":
            live.tool = True
            yield ToolCall("1", "run", '{"command": "make"}', "running")
            await self._gate(prompt).wait()
            live.tool = False
        yield TextDelta("working on it; ")
        if verb == "wait":
            self._note(f"spoke {prompt}")
            await self._gate(prompt).wait()
        if verb == "remember":
            live.model_history = '[{"role":"user","content":"remember"}]'
        yield TextDelta(f"done: {prompt}")
        yield Notice("an agent's notice")
        yield Usage(10, 4, 2, 12)

    def _gate(self, prompt: str) -> asyncio.Event:
        return self._gates.setdefault(prompt, asyncio.Event())

    def _note(self, what: str) -> None:
        self.order.append(what)
        self._changed.set()

    def let_go(self, prompt: str) -> None:
        self._gate(prompt).set()

    async def until(self, *happened: str) -> None:
        """Wait until all of this has happened."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not set(happened) <= set(self.order):
                self._changed.clear()
                await self._changed.wait()


@dataclass
class Notebook:
    """Worktrees that are no directories: they note every call, answer what they are told to, and fail as they are told to.

    Attributes:
        trees: what a session's worktree holds, as a tree id; the base where nothing is said.
        faults: what a call by this name raises.
        found: what `examine` answers.
        held: sessions whose worktree somebody else uses.
        place: the directory of every worktree, None for one that is not there.
    """

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    trees: dict[UUID, str] = field(default_factory=dict)
    faults: dict[str, Exception] = field(default_factory=dict)
    found: Found = Found.NEW
    others: tuple[bytes, ...] = ()
    kept: tuple[bytes, ...] = ()
    held: set[UUID] = field(default_factory=set)
    guard: str = ""
    paused: asyncio.Event | None = None
    place: str | None = None
    _holding: set[UUID] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def names(self) -> list[str]:
        return [call[0] for call in self.calls if call[0] not in ("hold", "guard_state")]

    async def did(self, *names: str) -> None:
        """Wait until so much was done, and see that it was just this: what follows a stored fact comes after it."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.names()) < len(names):
                self._changed.clear()
                await self._changed.wait()
        assert self.names() == list(names)

    async def _do(self, name: str, *about: Any) -> None:
        self.calls.append((name, *about))
        self._changed.set()
        if name == "carry_out" and self.paused is not None:
            await self.paused.wait()
        if name in self.faults:
            raise self.faults[name]

    @asynccontextmanager
    async def hold(self, session_id: UUID) -> AsyncIterator[None]:
        await self._do("hold", session_id)
        if session_id in self.held or session_id in self._holding:
            raise Held(session=session_id)
        self._holding.add(session_id)
        try:
            yield
        finally:
            self._holding.discard(session_id)

    async def ensure(self, project: Project, session_id: UUID, known: Worktree | None) -> Worktree:
        await self._do("ensure", session_id)
        return known or Worktree(session_id, project.id, project.path, self.place or f"/srv/worktrees/{session_id}", BASE, "main")

    async def guard_state(self, worktree: Worktree) -> str:
        await self._do("guard_state")
        return self.guard

    async def snapshot(self, worktree: Worktree) -> Snapshot:
        await self._do("snapshot", worktree.session_id)
        return self._taken(worktree, self.trees.get(worktree.session_id, worktree.base_commit))

    async def diff(self, worktree: Worktree, commit: str) -> Snapshot:
        await self._do("diff", worktree.base_version)
        return self._taken(worktree, commit)

    def _taken(self, worktree: Worktree, tree: str) -> Snapshot:
        return Snapshot(worktree.base_commit, worktree.base_commit, worktree.base_version, tree, tree, b"diff", ())

    async def reset(self, worktree: Worktree, to_commit: str) -> str:
        await self._do("reset", to_commit)
        self.trees.pop(worktree.session_id, None)
        return "refs/coder/saved"

    async def shift(self, worktree: Worktree, shift: Shift) -> tuple[bytes, ...]:
        await self._do("shift", shift.old, shift.new)
        self.trees[worktree.session_id] = shift.new
        return self.kept

    async def divide(self, approval: Approval) -> Rest:
        """What is approved is tree 7…, what is left beside it 8…; that all is approved or rejected makes them one."""
        await self._do("divide")
        approved, rejected = (any(getattr(each, of) for each in approval.parts) for of in ("approved", "rejected"))
        base = "7" * 40 if approved else approval.worktree.base_commit
        left = "8" * 40 if any(each.parts - each.approved - each.rejected for each in approval.parts) else base
        snapshot = Snapshot(base, base, approval.worktree.base_version + 1, left, left, b"rest", ())
        return Rest(base, snapshot, Shift(approval.decision_id, approval.snapshot_commit, left) if rejected else None)

    async def plan(self, approval: Approval) -> Plan:
        await self._do("plan", approval)
        return Plan(approval.target, "/srv/shop", "refs/coder/plan", approval.branch)

    async def carry_out(self, plan: Plan) -> None:
        await self._do("carry_out", plan)

    async def examine(self, plan: Plan) -> tuple[Found, tuple[bytes, ...]]:
        await self._do("examine")
        return self.found, self.others

    async def forget(self, plan: Plan) -> None:
        await self._do("forget")

    async def remove(self, worktree: Worktree) -> str | None:
        await self._do("remove", worktree.session_id)
        return None

    async def strays(self, known_projects: Collection[UUID], retention: float) -> list[Path]:
        return []

    async def orphans(self, project: Project, known_sessions: Collection[UUID]) -> list[Path]:
        return []

    async def remove_orphan(self, project: Project | None, path: Path) -> None: ...

    async def places(self, owed: Owed) -> tuple[Place, ...]:
        await self._do("places", owed)
        return tuple(Place(comment.id, comment.path, comment.line, comment.end_line) for comment in owed.comments)


class House:
    """A database, a project in it, and nodes started on request; everything is stopped at the end.

    Attributes:
        agents: the backends of every node that is started from now on.
    """

    def __init__(self, dsn: str, folder: Path, stack: AsyncExitStack) -> None:
        self.dsn = dsn
        self._folder = folder
        self._stack = stack
        self.agent = Agent()
        self.agents: dict[str, Backend] = {"native": self.agent}
        self.notebook = Notebook()
        self.host = uuid4()
        self.clock: Clock = SystemClock()
        self.cache: PromptCache | None = None
        self.wakeups: Callable[[], Wakeups] = lambda: Listener(dsn, SystemClock())
        self.wrap: Callable[[PostgresTasks], Any] = lambda store: store
        self.sql: asyncpg.Connection[Any]
        self.project: UUID

    async def open(self) -> None:
        self.sql = await asyncpg.connect(self.dsn)
        self._stack.push_async_callback(self._close)
        self.project = await self.sql.fetchval("insert into projects (name, path) values ('shop', '/srv/shop') returning id")

    async def _close(self) -> None:
        self.sql.terminate()

    async def node(self, pace: Pace = QUICK, host: UUID | None = None) -> Node:
        """Start a node; it is stopped at the end of the test, if it was not before."""
        queue = await open_pool(self.dsn, size=4)
        lease = await open_pool(self.dsn, size=1)
        self._stack.callback(queue.terminate)
        self._stack.callback(lease.terminate)
        store = PostgresTasks(queue, lease)
        host = host or self.host
        await store.register_host(host, "here")
        worlds = Worlds(
            tasks=self.wrap(store),
            changes=PostgresChanges(queue),
            worktrees=self.notebook,  # type: ignore[arg-type]
            backends=self.agents,
            guards=NullGuards(),
            wakeups=self.wakeups(),
            logbook=FileLogbook(self._folder),
            clock=self.clock,
            commands=NullCommands(),
            permissions=PostgresPermissions(queue),
            frames=PostgresFrames(queue),
            warming=PostgresWarming(queue),
            cache=self.cache,
        )
        node = Node(worlds, pace, host, lambda _: None)
        await node.start()
        self._stack.push_async_callback(self._stop, node)
        return node

    async def _stop(self, node: Node) -> None:
        for gate in self.agent._gates.values():
            gate.set()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await node.stop()

    async def add(self, input: str, **columns: Any) -> int:
        names = ["project_id", "input", *columns]
        places = ", ".join(f"${place + 1}" for place in range(len(names)))
        query = f"insert into tasks ({', '.join(names)}) values ({places}) returning id"
        return int(await self.sql.fetchval(query, self.project, input, *columns.values()))

    async def session_of(self, task: int) -> UUID:
        session: UUID = await self.sql.fetchval("select session_id from tasks where id = $1", task)
        return session

    async def task(self, task: int) -> asyncpg.Record:
        return await self.sql.fetchrow("select * from tasks where id = $1", task)

    async def message(self, task: int) -> asyncpg.Record:
        return await self.sql.fetchrow("select * from messages where task_id = $1 and role = 'assistant'", task)

    async def until(self, query: str, *values: Any, connection: asyncpg.Connection[Any] | None = None) -> Any:
        """Ask until the answer is true; there is no notification for every fact."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (answer := await (connection or self.sql).fetchval(query, *values)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            return answer

    async def ended(self, *tasks: int) -> list[str]:
        """The states of these tasks, once all of them have ended and their sessions know."""
        await self.until(
            "select bool_and(t.ended_at is not null and not (q.state = 'running' and q.running_task = t.id)) "
            "from tasks t join session_queue q using (session_id) where t.id = any ($1)",
            list(tasks),
        )
        return [(await self.task(task))["state"] for task in tasks]


@asynccontextmanager
async def house_on(dsn: str, folder: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        house = House(dsn, folder, stack)
        await house.open()
        yield house
