"""The words of the queue: tasks, their states, and how they end.

`TRANSITIONS` is the one table of the life of a task. `schema.sql` repeats it as a trigger,
`docs/lifecycle.md` draws it, and a test compares all three.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

from coder.change import Snapshot


class TaskState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


class Outcome(StrEnum):
    """What happens to a task; together with its state it decides the next state."""

    CLAIMED = "claimed"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    REQUEUED = "requeued"
    DISMISSED = "dismissed"


class Reason(StrEnum):
    """Why a task ended the way it did."""

    SHUTDOWN = "shutdown"
    CRASH = "crash"
    LEASE_LOST = "lease_lost"
    TIMEOUT = "timeout"
    USER = "user"
    DISMISSED = "dismissed"
    SESSION_CLOSED = "session_closed"
    NO_PROJECT_PATH = "no_project_path"
    NOT_A_REPOSITORY = "not_a_repository"
    NO_COMMIT = "no_commit"
    AGENT_UNAVAILABLE = "agent_unavailable"
    PROVIDER = "provider"
    TOOL_LOOP = "tool_loop"
    DISK = "disk"
    INTERNAL = "internal"


class ExecutionPath(StrEnum):
    NATIVE = "native"
    OPENCODE = "opencode"
    ACP = "acp"
    PTY = "pty"


TRANSITIONS: dict[tuple[TaskState, Outcome], TaskState] = {
    (TaskState.PENDING, Outcome.CLAIMED): TaskState.RUNNING,
    (TaskState.PENDING, Outcome.CANCELLED): TaskState.CANCELLED,
    (TaskState.RUNNING, Outcome.COMPLETED): TaskState.COMPLETED,
    (TaskState.RUNNING, Outcome.FAILED): TaskState.FAILED,
    (TaskState.RUNNING, Outcome.CANCELLED): TaskState.CANCELLED,
    (TaskState.RUNNING, Outcome.INTERRUPTED): TaskState.INTERRUPTED,
    (TaskState.RUNNING, Outcome.REQUEUED): TaskState.PENDING,
    (TaskState.INTERRUPTED, Outcome.DISMISSED): TaskState.CANCELLED,
    (TaskState.FAILED, Outcome.DISMISSED): TaskState.CANCELLED,
}

ENDED = frozenset({TaskState.COMPLETED, TaskState.FAILED, TaskState.CANCELLED, TaskState.INTERRUPTED})

SUMMARY_CHARACTERS = 500
INPUT_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class Project:
    """A git repository on a host, as a turn needs it.

    Attributes:
        permission_policy: a `permission.Policy`.
        network: whether its agents may reach the network.
    """

    id: UUID
    name: str
    path: str
    agent_fallback: str
    permission_policy: str = "allow_in_worktree"
    network: bool = True
    copy_globs: tuple[str, ...] = ()
    setup_command: str | None = None
    setup_timeout: timedelta = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a change that was approved or rejected, as an agent is told of it.

    Attributes:
        verdict: `approve` or `reject`.
        line, lines: where the hunk was in the snapshot and how long; None for the whole file.
    """

    path: str
    verdict: str
    line: int | None = None
    lines: int | None = None


@dataclass(frozen=True, slots=True)
class Remark:
    """A decision that the agent has not been told of yet: whose work, why, and what became of it.

    Attributes:
        work: `keep` or `discard` after a rejection; None after another decision.
        parts: those that were decided on, when it was not all of the change.
        kept: paths where that clashed with what they say by now: what was rejected is still there, or there are conflict markers.
        target: with what the worktree was brought up to date, after a rebase.
    """

    decision_id: UUID
    task_id: int
    reason: str | None
    work: str | None
    parts: tuple[Part, ...] = ()
    kept: tuple[str, ...] = ()
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One claimed task: what a turn needs to know, and the epoch that fences its writes.

    Attributes:
        attempt: which attempt this is, from 1.
        cwd: absolute directory the session works in, None for the project's root.
        remarks: what reviewers refused and no prompt has carried yet.
        model_history: the chat's provider messages as JSON text, None for a fresh chat.
        compacts: its answer is a summary of the chat, and all that the next chat knows.
    """

    id: int
    epoch: int
    attempt: int
    max_attempts: int
    session_id: UUID
    chat_id: UUID
    project: Project
    input: str
    agent: str | None
    model: str | None
    mode_id: str | None
    thinking_option_id: str | None
    timeout: timedelta | None
    cwd: str | None
    remarks: tuple[Remark, ...]
    model_history: str | None
    compacts: bool = False


@dataclass(frozen=True, slots=True)
class AgentSession:
    """A session of an agent's own, kept between turns.

    Attributes:
        id: the agent's id of it.
        config_hash: of what it was made with (model, mode, options); another one means another session.
        home: the agent's home directory it is stored in, by name; it can be resumed from there alone.
        status: `active`: left by a turn of this very node, whose process may still hold it; `stopped`: its process was
            ended cleanly since; `lost`: its node died, so nobody knows what state it is in.
    """

    id: str
    config_hash: str
    home: str
    status: Literal["active", "stopped", "lost"] = "active"


@dataclass(frozen=True, slots=True)
class Ending:
    """Everything that is stored when a turn ends, in one transaction, fenced by the task's epoch.

    Attributes:
        tool_calls: JSON text, a list.
        context_tokens: how full the chat's context is, None when not known.
        context_limit: how many tokens it can hold, None when not known.
        snapshot: what the worktree holds against its base; None when there is no worktree or it could not be read.
        snapshot_number: which of the session's snapshots it is.
        unsnapshotted: the worktree holds work that `snapshot` does not show.
        agent_session: the agent's own session to come back to, None where there is none.
        agent_started: whether the turn came as far as its agent; else what the agent keeps is as it was.
        asked: whether the agent asked for permission or an answer in this turn.
    """

    task: Task
    outcome: Outcome
    reason: Reason | None = None
    error: str | None = None
    notices: tuple[str, ...] = ()
    text: str = ""
    reasoning: str = ""
    tool_calls: str = "[]"
    summary: str = ""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    context_tokens: int | None = None
    context_limit: int | None = None
    model_history: str | None = None
    execution_path: ExecutionPath | None = None
    agent_used: str | None = None
    snapshot: Snapshot | None = None
    snapshot_number: int = 0
    unsnapshotted: bool = False
    agent_session: AgentSession | None = None
    agent_started: bool = False
    asked: bool = False

    @property
    def state(self) -> TaskState:
        return TRANSITIONS[TaskState.RUNNING, self.outcome]


class Verdict(StrEnum):
    """What became of an ending: stored, or why not."""

    ENDED = "ended"
    FENCED = "fenced"
    MOVED = "moved"
    APPLYING = "applying"


@dataclass(frozen=True, slots=True)
class Left:
    """A session that could not be advanced yet, since somebody holds its row; tried again with the next group."""

    session_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Stored:
    """The answer to a group of endings: a verdict per task id, and the sessions left over."""

    verdicts: dict[int, Verdict]
    left: tuple[Left, ...] = field(default=())
