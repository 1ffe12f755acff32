"""The life of a task as a table."""

from __future__ import annotations

from uuid import UUID

import pytest

from coder.task import ENDED, TRANSITIONS, Ending, Outcome, Project, Task, TaskState

ID = UUID(int=1)
TASK = Task(1, 2, 1, 3, ID, ID, Project(ID, "p", "/p", "native"), "x", None, None, None, None, None, None, (), None)


def test_every_state_is_reached_and_every_outcome_used() -> None:
    reached = set(TRANSITIONS.values()) | {TaskState.PENDING}
    assert reached == set(TaskState)
    assert {outcome for _, outcome in TRANSITIONS} == set(Outcome)


def test_what_has_ended_only_ever_becomes_dismissed() -> None:
    after = {(before, outcome, then) for (before, outcome), then in TRANSITIONS.items() if before in ENDED}
    assert {(outcome, then) for _, outcome, then in after} == {(Outcome.DISMISSED, TaskState.CANCELLED)}
    assert set(TaskState) - {TaskState.PENDING, TaskState.RUNNING} == ENDED


def test_a_task_only_starts_by_a_claim() -> None:
    assert [key for key, then in TRANSITIONS.items() if then is TaskState.RUNNING] == [(TaskState.PENDING, Outcome.CLAIMED)]


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED, Outcome.CANCELLED, Outcome.INTERRUPTED, Outcome.REQUEUED])
def test_an_ending_knows_its_state(outcome: Outcome) -> None:
    expected = {Outcome.REQUEUED: "pending"}.get(outcome, outcome.value)
    assert Ending(TASK, outcome).state == expected


@pytest.mark.parametrize("outcome", [Outcome.CLAIMED, Outcome.DISMISSED])
def test_no_turn_ends_with_what_is_no_ending(outcome: Outcome) -> None:
    with pytest.raises(KeyError):
        Ending(TASK, outcome).state  # noqa: B018 - reading it is the test
