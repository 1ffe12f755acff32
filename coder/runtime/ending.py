"""How a turn ends: from what happened to what is stored. Pure but for the types it holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from coder.change import Snapshot, Worktree
from coder.errors import CoderError, DiskFull
from coder.events import Notice
from coder.ports import Backend
from coder.routing import Route
from coder.runtime.inflight import Stop
from coder.runtime.narration import Narration
from coder.runtime.watchdog import Limits
from coder.task import AgentSession, Ending, Outcome, Reason, Task
from coder.transcript import Transcript, clean


@dataclass(slots=True)
class Course:
    """What one turn has come to so far."""

    task: Task
    known: Worktree | None
    transcript: Transcript
    narration: Narration
    route: Route | None = None
    backend: Backend | None = None
    worktree: Worktree | None = None
    guard: str | None = None
    seen: bool = False
    model_history: str | None = None
    agent_session: AgentSession | None = None
    agent_started: bool = False
    asked: bool = False
    notices: list[str] = field(default_factory=list)
    told: int = 0

    def tell_notices(self) -> None:
        """Let watchers know coder's own notices, as they know the agent's."""
        fresh, self.told = self.notices[self.told :], len(self.notices)
        self.narration.said((Notice(clean(notice)) for notice in fresh), self.transcript.usage)


@dataclass(frozen=True, slots=True)
class End:
    outcome: Outcome
    reason: Reason | None = None
    error: str | None = None


def stopped_end(why: Stop, course: Course, limits: Limits) -> End:
    """How a turn ends that was stopped from outside. Pure."""
    task = course.task
    if why is Stop.USER:
        return End(Outcome.CANCELLED, Reason.USER)
    if why is Stop.SHUTDOWN:
        if course.seen:
            return End(Outcome.INTERRUPTED, Reason.SHUTDOWN, "coder was stopped while this task ran; resume, retry or dismiss it.")
        return End(Outcome.REQUEUED, Reason.SHUTDOWN)
    if why is Stop.LEASE_LOST:
        if course.seen:
            return End(Outcome.INTERRUPTED, Reason.LEASE_LOST, "This node lost its lease while the task ran; resume, retry or dismiss it.")
        if task.attempt >= task.max_attempts:
            return End(Outcome.FAILED, Reason.LEASE_LOST, f"The lease was lost in all {task.attempt} attempts; see the log, then retry.")
        return End(Outcome.REQUEUED)
    if why is Stop.TIMEOUT:
        return End(
            Outcome.FAILED,
            Reason.TIMEOUT,
            f"The turn took longer than its timeout of {limits.whole:g} s; raise it, or ask for less at once.",
        )
    if why is Stop.SLOW_TOOL:
        return End(
            Outcome.FAILED, Reason.TIMEOUT, f"A tool ran longer than CODER_TOOL_SECONDS ({limits.tool:g} s); raise it, or ask for less."
        )
    return End(
        Outcome.FAILED,
        Reason.TIMEOUT,
        f"The agent was silent for CODER_INACTIVITY_SECONDS ({limits.silent:g} s); retry the task.",
    )


def ending_of(course: Course, end: End, snapshot: Snapshot | None, unsnapshotted: bool) -> Ending:
    """Everything the turn came to, as it is stored."""
    transcript, session = course.transcript, course.agent_session
    usage = transcript.usage
    return Ending(
        task=course.task,
        outcome=end.outcome,
        reason=end.reason,
        error=clean(end.error) if end.error else None,
        notices=(*map(clean, course.notices), *transcript.notices),
        text=transcript.text,
        reasoning=transcript.reasoning,
        tool_calls=transcript.tool_calls_json(),
        summary=transcript.summary(),
        input_tokens=usage.input_tokens,
        cached_tokens=usage.cached_tokens,
        output_tokens=usage.output_tokens,
        context_tokens=usage.context_tokens,
        context_limit=usage.context_limit,
        model_history=course.model_history,
        execution_path=course.backend.execution_path if course.backend else None,
        agent_used=course.route.agent if course.route else None,
        snapshot=snapshot,
        snapshot_number=course.worktree.snapshots + 1 if course.worktree else 0,
        unsnapshotted=unsnapshotted,
        agent_session=session if session is not None and clean(session.id) == session.id else None,
        agent_started=course.agent_started,
        asked=course.asked,
    )


def smaller(ending: Ending, error: Exception) -> Ending:
    """The same ending as `failed`, with the reason it could not be stored whole: first without its change, then without its words too."""
    sentence = error.message if isinstance(error, CoderError) else f"{type(error).__name__}: {error}"
    without_change = replace(
        ending,
        outcome=Outcome.FAILED,
        reason=Reason.DISK if isinstance(error, DiskFull) else Reason.INTERNAL,
        error=f"The end of this turn could not be stored whole ({clean(sentence)}); the work is still in the session's worktree.",
        snapshot=None,
        unsnapshotted=ending.snapshot is not None or ending.unsnapshotted,
    )
    if ending.snapshot is not None:
        return without_change
    return replace(without_change, notices=(), text="", reasoning="", tool_calls="[]", summary="", model_history=None)
