"""The ports: what the clockwork in `runtime/` needs of the worlds, as Protocols.

An adapter implements one of them; nothing else crosses between the worlds. Those of worktrees, changes and decisions are in
`change_ports`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from coder.change import Worktree
from coder.events import AgentEvent, Command, PermissionRequest, Question
from coder.permission import Answer, Rule, Ruling
from coder.routing import Said
from coder.task import AgentSession, Ending, ExecutionPath, Left, Stored, Task
from coder.transcript import Spill


class Clock(Protocol):
    """Time, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds that only ever grow, suspended time included."""
        ...

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellable."""
        ...


async def nothing_earlier() -> str:
    """The conversation before a first turn."""
    return ""


class Bell(Protocol):
    """Rings until it is cleared."""

    def clear(self) -> None: ...

    async def wait(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Turn:
    """One prompt to a backend.

    Attributes:
        prompt: what the agent is told, remarks of reviewers included.
        worktree: absolute root of the session's worktree.
        cwd: absolute directory inside it where the agent starts.
        model: as the task names it; empty or None = the default.
        model_history: the chat's provider messages as JSON text, None for a fresh chat.
        log: file that collects what the agent prints beside its answer; whoever writes first makes its folder.
        network: whether the project lets its agents reach the network.
        agent_session: the agent's own session as it was left after an earlier turn of this chat, None when there is none.
        earlier: reads the conversation so far, as text to prime an agent with that does not remember it; empty at its beginning.
        compacts: the answer is a summary of the chat, and `model_history` becomes that of the chat that goes on with it.
        hurry: set when somebody wants no more waiting for the model's endpoint; whoever waits clears it first.
    """

    task_id: int
    epoch: int
    session_id: UUID
    chat_id: UUID
    prompt: str
    worktree: Path
    cwd: Path
    model: str | None
    mode_id: str | None
    thinking_option_id: str | None
    model_history: str | None
    log: Path
    network: bool = True
    agent_session: AgentSession | None = None
    earlier: Callable[[], Awaitable[str]] = nothing_earlier
    hurry: Bell | None = None
    compacts: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Ids of running tasks: those to end, and those whose request is to be sent again now."""

    cancel: set[int]
    retry: set[int]


class LiveTurn(Protocol):
    """A turn that runs.

    `events` ends when the turn has ended well and raises a `TurnError` when it failed.
    `model_history` is the provider messages as JSON text as far as they are complete, None where
    the backend keeps its own. `agent_session` is the agent's own session to come back to in the next turn, None where
    there is none or it is not to be resumed. All may be read after the context was left.
    """

    @property
    def events(self) -> AsyncIterator[AgentEvent]: ...

    @property
    def model_history(self) -> str | None: ...

    @property
    def agent_session(self) -> AgentSession | None: ...

    def busy_with_tool(self) -> bool:
        """Whether a tool runs at this moment: the inactivity clock stands still meanwhile."""
        ...

    async def answer(self, request_id: str, answer: Answer) -> None:
        """Answer a `PermissionRequest` or `Question`; one that the agent no longer waits for is ignored."""
        ...

    async def reconcile(self) -> bool:
        """Ask the agent itself how far it is, before it is given up as silent; True when that brought new events."""
        ...


@dataclass(frozen=True, slots=True)
class AgentFacts:
    """What a probe found of one agent.

    Attributes:
        detail: a sentence: why it is not available, or what is odd about it.
        path: where its program is.
        install: the command that installs it, for one that is missing.
        unfinished: more is being found out; ask again in a while.
    """

    agent: str
    execution_path: ExecutionPath
    available: bool
    version: str | None = None
    detail: str = ""
    models: tuple[str, ...] = ()
    path: str | None = None
    modes: tuple[str, ...] = ()
    thinking_options: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()
    install: str | None = None
    unfinished: bool = False


class Backend(Protocol):
    """A way to run a turn. Leaving the context of `run_turn` ends the agent's work, at once and for good."""

    @property
    def execution_path(self) -> ExecutionPath: ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Close what is kept warm; tolerates never-started and stopped-twice."""
        ...

    async def probe(self) -> tuple[AgentFacts, ...]: ...

    def run_turn(self, turn: Turn) -> AbstractAsyncContextManager[LiveTurn]: ...


@dataclass(frozen=True, slots=True)
class Claimed:
    """A task this node has to run, and its session's worktree as far as it is recorded."""

    task: Task
    worktree: Worktree | None


class TaskStore(Protocol):
    """The queue. Every call raises `Unavailable` when the database cannot be reached."""

    async def register(self, node: UUID, host: UUID, lease: float) -> None: ...

    async def claim(self, node: UUID, host: UUID, count: int) -> list[Claimed]: ...

    async def mark_seen(self, tasks: list[Task]) -> set[int]:
        """From here on these never run again by themselves; answers the ids that are still this node's."""
        ...

    async def record_worktrees(self, host: UUID, worktrees: list[tuple[Task, Worktree]]) -> set[int]:
        """Bind sessions to their worktrees and the host; answers the ids of the tasks that are still this node's."""
        ...

    async def worktree_of(self, session_id: UUID) -> Worktree | None: ...

    async def finish(self, endings: list[Ending], left: list[Left]) -> Stored: ...

    async def wanted(self, node: UUID) -> Wanted:
        """What people want of this node's running tasks; that one is to be tried again at once is said to one caller."""
        ...

    async def beat(self, node: UUID, lease: float) -> bool:
        """Renew the lease, on a connection of its own; False = this node was reaped."""
        ...

    async def leave(self, node: UUID) -> None: ...

    async def crashed(self, node: UUID, host: UUID) -> None:
        """A node of this host whose process is known to be gone: its tasks may be recovered at once."""
        ...

    async def reap(self, node: UUID | None = None, epochs: Collection[int] = ()) -> int:
        """Recover the work of dead nodes, and of a live `node` what it does not know of: all but these epochs."""
        ...

    async def sweep(self, deep: bool) -> int: ...

    async def next_due(self) -> float | None:
        """Seconds until the next scheduled session is due, None when there is none."""
        ...

    async def agent_session_of(self, task: Task, agent: str) -> AgentSession | None:
        """What this agent itself keeps of the task's chat, `lost` unless this node or a clean stop left it."""
        ...

    async def agents_stopped(self, node: UUID, agents: Collection[str]) -> None:
        """The processes of these agents were ended cleanly: what they keep can be relied on by whoever comes."""
        ...

    async def said_before(self, task: Task, most: int) -> list[Said]:
        """The latest messages of the task's chat before its own, oldest first, of at least `most` bytes if there are."""
        ...

    async def record_agents(self, host: UUID, facts: tuple[AgentFacts, ...]) -> None: ...

    async def forget_agents(self, host: UUID, others_than: Collection[str]) -> None:
        """Drop what is recorded of agents that this host's nodes do not know any more."""
        ...

    async def probe_wanted(self, host: UUID) -> datetime | None:
        """When somebody last wanted this host's agents to be looked for again."""
        ...


@dataclass(frozen=True, slots=True)
class Asked:
    """A request or question of an agent as it is stored, and the answer if there is one already."""

    id: UUID
    answer: Answer | None


class PermissionStore(Protocol):
    """What agents ask, and what is answered. Every call raises `Unavailable` when the database cannot be reached."""

    async def rules(self, project: UUID, session: UUID) -> tuple[Rule, ...]:
        """What people allowed for good in this session and in its project."""
        ...

    async def ask(self, task: Task, agent: str, asked: PermissionRequest | Question, wait: float, ruling: Ruling | None) -> Asked:
        """Record what an agent asks, with the ruling that answers it; without one a person has `wait` seconds to.

        What an interrupted run of the task asked as well is taken over, with its answer. Raises `Fenced`.
        """
        ...

    async def answers(self, asked: Collection[UUID]) -> dict[UUID, Answer]:
        """Those of these that are answered."""
        ...

    async def settle(self, asked: UUID, task: Task, ruling: Ruling) -> Answer | None:
        """Answer by a ruling unless a person was faster; answers what holds now, None when somebody is just at it."""
        ...

    async def told(self, asked: UUID, task: Task) -> None:
        """The agent is about to be told the answer; it counts for nothing else any more. Raises `Fenced`."""
        ...


class Logbook(Protocol):
    """The files of a turn on this host."""

    def path(self, task_id: int) -> Path:
        """The file that collects what the agent prints beside its answer; whoever writes first makes its folder."""
        ...

    async def spill(self, task_id: int, spill: Spill) -> None:
        """Write what was too long to store beside that file."""
        ...


class Guards(Protocol):
    """The guardians of this node's agents, which end them when the node does not renew their deadline."""

    def renew(self, deadline: float) -> None:
        """Let agents live until `deadline` on `Clock.monotonic`."""
        ...

    def kill_all_now(self) -> None: ...

    async def stop_all(self) -> None: ...


class Wakeups(Protocol):
    """Doorbells: a channel rang, or the connection that listens was made anew. They carry no truth."""

    def on(self, channel: str, ring: Callable[[], None]) -> None: ...

    def on_hint(self, channel: str, ring: Callable[[str], None]) -> None:
        """The same, with what the notification says beside the bell; empty = look at everything."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Door(Protocol):
    """What people ask and do, each a named statement of `postgres/door.sql` that answers JSON rows.

    Errors arrive as the `CoderError` whose code the database raised (`NotFound`, `InvalidInput`, `Conflict`, `Stale`,
    `Superseded`), or `Unavailable` when the database cannot be reached.
    """

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]: ...

    async def row(self, statement: str, **parameters: Any) -> dict[str, Any]:
        """The only row; raises `NotFound` when there is none."""
        ...

    async def blob(self, statement: str, **parameters: Any) -> bytes:
        """The only value of the only row, as bytes; raises `NotFound` when there is none."""
        ...

    async def settled(self, decision_id: UUID, seconds: float) -> dict[str, Any]:
        """The decision once it is done or failed, or as it is when the time is over."""
        ...


class SyncDoor(Protocol):
    """The same door for the command line, without an event loop."""

    def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]: ...

    def row(self, statement: str, **parameters: Any) -> dict[str, Any]: ...

    def blob(self, statement: str, **parameters: Any) -> bytes: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `coder doctor`: what was looked at, whether it is well, what was found, and the cure."""

    subject: str
    ok: bool
    found: str
    cure: str = ""
