"""How a turn ends, from why it was stopped; what is stored of it, and the little that is stored when that cannot be."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from coder.change import Snapshot
from coder.errors import DiskFull
from coder.events import Notice, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.routing import Route
from coder.runtime.ending import Course, End, ending_of, smaller, stopped_end
from coder.runtime.inflight import Stop
from coder.runtime.watchdog import Limits
from coder.task import AgentSession, Outcome, Project, Reason, Task, TaskState
from coder.transcript import Transcript

ID = UUID(int=1)
TASK = Task(1, 2, 1, 3, ID, ID, Project(ID, "p", "/p", "native"), "x", None, None, None, None, None, None, (), None)
LIMITS = Limits(silent=180, tool=3600, whole=60)
SNAPSHOT = Snapshot("c", "a" * 40, 1, "d", "b" * 40, b"diff", ())


def course(*, seen: bool = True, task: Task = TASK) -> Course:
    return Course(task, None, Transcript(), None, route=Route("opencode"), seen=seen)  # type: ignore[arg-type]


@pytest.mark.parametrize(("why", "seen", "outcome", "reason"), [
    (Stop.USER, True, Outcome.CANCELLED, Reason.USER),
    (Stop.USER, False, Outcome.CANCELLED, Reason.USER),
    (Stop.SHUTDOWN, True, Outcome.INTERRUPTED, Reason.SHUTDOWN),
    (Stop.SHUTDOWN, False, Outcome.REQUEUED, Reason.SHUTDOWN),
    (Stop.LEASE_LOST, True, Outcome.INTERRUPTED, Reason.LEASE_LOST),
    (Stop.LEASE_LOST, False, Outcome.REQUEUED, None),
    (Stop.TIMEOUT, True, Outcome.FAILED, Reason.TIMEOUT),
    (Stop.SILENT, False, Outcome.FAILED, Reason.TIMEOUT),
    (Stop.SLOW_TOOL, True, Outcome.FAILED, Reason.TIMEOUT),
])  # fmt: skip
def test_why_a_turn_was_stopped_says_how_it_ends(why: Stop, seen: bool, outcome: Outcome, reason: Reason | None) -> None:
    end = stopped_end(why, course(seen=seen), LIMITS)
    assert (end.outcome, end.reason) == (outcome, reason)
    if outcome in (Outcome.FAILED, Outcome.INTERRUPTED):
        assert end.error is not None
        assert end.error.endswith(".")


def test_what_an_agent_said_last_is_stored_without_what_the_database_refuses() -> None:
    made = course()
    made.notices.append("it wrote a\0b")
    made.agent_session = AgentSession("its\0own", "hash", "0/agent")
    ending = ending_of(made, End(Outcome.FAILED, Reason.PROVIDER, "it said: \0 \ud800"), None, False)
    assert (ending.error, ending.notices) == ("it said: \ufffd \ufffd", ("it wrote a\ufffdb",))
    assert ending.agent_session is None, "a session of no name that can be stored is not gone on with"
    assert "\0" not in str(smaller(ending, ValueError("\0")).error)


def test_every_way_to_stop_a_turn_has_an_end() -> None:
    for why in Stop:
        assert stopped_end(why, course(), LIMITS).outcome in Outcome


@pytest.mark.parametrize(("why", "words"), [
    (Stop.TIMEOUT, "timeout of 60 s"),
    (Stop.SILENT, "CODER_INACTIVITY_SECONDS (180 s)"),
    (Stop.SLOW_TOOL, "CODER_TOOL_SECONDS (3600 s)"),
])  # fmt: skip
def test_a_limit_that_was_passed_is_named(why: Stop, words: str) -> None:
    assert words in str(stopped_end(why, course(), LIMITS).error)


def test_a_lease_lost_in_the_last_attempt_fails_the_task() -> None:
    end = stopped_end(Stop.LEASE_LOST, course(seen=False, task=replace(TASK, attempt=3)), LIMITS)
    assert (end.outcome, end.reason) == (Outcome.FAILED, Reason.LEASE_LOST)
    assert "all 3 attempts" in str(end.error)


def test_an_ending_holds_all_the_turn_came_to() -> None:
    turn = course()
    turn.notices.append("a notice of ours")
    for event in (
        TextDelta("It is "),
        TextDelta("round."),
        ReasoningDelta("hm"),
        ToolCall("1", "run", "{}", "completed", "ok", 0),
        Notice("one of the agent's"),
        Usage(10, 4, 2, 12),
        Usage(20, 8, 3, 25),
    ):
        turn.transcript.apply(event)
    ending = ending_of(turn, End(Outcome.COMPLETED), SNAPSHOT, False)
    assert (ending.text, ending.reasoning, ending.summary, ending.state) == ("It is round.", "hm", "It is round.", TaskState.COMPLETED)
    assert ending.notices == ("a notice of ours", "one of the agent's")
    assert (ending.input_tokens, ending.cached_tokens, ending.output_tokens, ending.context_tokens) == (30, 12, 5, 25)
    assert '"name": "run"' in ending.tool_calls.replace('":"', '": "')
    assert (ending.agent_used, ending.execution_path, ending.snapshot) == ("opencode", None, SNAPSHOT)


def test_what_cannot_be_stored_goes_without_its_change_first_and_without_its_words_then() -> None:
    turn = course()
    turn.transcript.apply(TextDelta("much"))
    whole = ending_of(turn, End(Outcome.COMPLETED), SNAPSHOT, False)
    without_change = smaller(whole, DiskFull(what="the database", where="PostgreSQL"))
    assert (without_change.outcome, without_change.reason, without_change.snapshot) == (Outcome.FAILED, Reason.DISK, None)
    assert (without_change.text, without_change.unsnapshotted) == ("much", True)
    assert "the work is still in the session's worktree" in str(without_change.error)
    least = smaller(without_change, ValueError("bad byte"))
    assert (least.reason, least.text, least.tool_calls, least.summary, least.model_history) == (Reason.INTERNAL, "", "[]", "", None)
    assert least.unsnapshotted
    assert "ValueError: bad byte" in str(least.error)


def test_a_turn_without_a_worktree_owes_none_a_snapshot() -> None:
    least = smaller(ending_of(course(), End(Outcome.FAILED, Reason.PROVIDER, "no"), None, False), ValueError("x"))
    assert not least.unsnapshotted
