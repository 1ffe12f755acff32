"""Checks by SQL: when one is queued, who may run it, what ends it, and when a failure becomes a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from queuebench import Bench, Node, Row, ending, make_change, refused, snapshot

CLAIM = "select * from coder.claim_checks(%s, %s, %s)"
SETTLE = "select coder.settle_check(%s, %s, %s, %s, %s, %s, %s)"


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


@pytest.fixture
def project(bench: Bench) -> UUID:
    project = bench.project()
    bench.do("update projects set check_command = 'make test', check_timeout = '90 s', auto_fix = 1")
    return project


def checks(bench: Bench) -> list[Row]:
    return bench.rows("select * from checks order by created_at")


def claim(node: Node, count: int = 9) -> list[Row]:
    return node.bench.rows(CLAIM, node.id, node.host, count)


def settle(node: Node, claimed: Row, state: str = "failed", code: int | None = 1, *, output: str = "boo\n", fixable: bool = True) -> bool:
    detail = None if state == "queued" else f"ended with exit code {code}"
    return node.bench.value(SETTLE, claimed.id, claimed.epoch, state, code, detail, output, fixable)


def fix(bench: Bench) -> Row | None:
    found = bench.rows("select t.* from tasks t join checks k on k.fix_task = t.id")
    return found[0] if found else None


def test_a_turn_that_leaves_a_change_queues_a_check(bench: Bench, node: Node, project: UUID) -> None:
    ear = bench.listen("decisions_new")
    change = make_change(node, project)
    (row,) = checks(bench)
    assert (row.change_id, row.task_id, row.command, row.state, row.fixes) == (change.id, change.task_id, "make test", "queued", 0)
    assert ear.heard() == ["decisions_new"]
    (claimed,) = claim(node)
    assert (claimed.id, claimed.task_id, claimed.seconds, claimed.network, claimed.worktree) == (
        row.id, change.task_id, 90.0, True, "/srv/worktrees/1")  # fmt: skip
    assert claim(node) == []
    bench.do("update projects set check_command = null")
    bench.do("insert into tasks (project_id, input) values (%s, 'x')", project)
    make_change(node, project)
    assert len(checks(bench)) == 1


def test_a_check_waits_for_the_session_to_rest_and_runs_on_its_host(bench: Bench, node: Node, project: UUID) -> None:
    change = make_change(node, project)
    assert claim(bench.node()) == [], "the worktree is on another host"
    bench.do("update session_worktrees set shifts = '[{}]'")
    assert claim(node) == [], "rejected parts leave the worktree first"
    bench.do("update session_worktrees set shifts = '[]'")
    bench.add(project, "more", session_id=change.session_id)
    assert claim(node) == [], "its next turn comes first"
    claimed = node.claim_one()
    assert claim(node) == []
    node.finish(ending(claimed, snapshot=snapshot("2" * 40), diff=1), diffs=[b""])
    old, new = checks(bench)
    assert (old.state, old.detail) == ("skipped", "the change was superseded before it was checked")
    assert [each.id for each in claim(node)] == [new.id]


def test_a_rejected_change_is_not_checked(bench: Bench, node: Node, project: UUID) -> None:
    change = make_change(node, project)
    bench.do("select coder.reject(%s, %s)", change.id, change.fingerprint)
    assert [(row.state, row.detail) for row in checks(bench)] == [("skipped", "the change was rejected before it was checked")]
    with refused("CD409", "is rejected"):
        bench.do("select coder.check(%s)", change.id)


def test_a_running_check_is_unwanted_once_its_session_goes_on(bench: Bench, node: Node, project: UUID) -> None:
    change = make_change(node, project)
    (claimed,) = claim(node)
    unwanted = "select coder.unwanted_checks(%s)"
    assert bench.rows(unwanted, node.id) == []
    bench.do("update session_worktrees set shifts = '[{}]'")
    assert [row[0] for row in bench.rows(unwanted, node.id)] == [claimed.id], "rejected parts are to leave the worktree"
    bench.do("update session_worktrees set shifts = '[]'")
    bench.add(project, "more", session_id=change.session_id)
    assert [row[0] for row in bench.rows(unwanted, node.id)] == [claimed.id]
    assert bench.rows(unwanted, uuid4()) == []
    assert settle(node, claimed, "skipped", None)
    assert bench.rows(unwanted, node.id) == []
    assert fix(bench) is None


def test_a_dead_nodes_check_is_run_again_and_its_own_words_are_fenced(bench: Bench, node: Node, project: UUID) -> None:
    make_change(node, project)
    (first,) = claim(node)
    node.die()
    assert settle(node, first) is False, "its lease is over"
    other = bench.node(node.host)
    assert claim(other) == []
    bench.do("select coder.reap()")
    (second,) = claim(other)
    assert (second.id, second.epoch > first.epoch) == (first.id, True)
    assert settle(node, first) is False
    assert settle(other, second, "queued", None)
    assert [(row.state, row.node_id, row.started_at) for row in checks(bench)] == [("queued", None, None)]
    (third,) = claim(other)
    assert settle(other, third, "passed", 0)
    assert settle(other, third) is False
    assert [(row.state, row.exit_code, row.ended_at is not None) for row in checks(bench)] == [("passed", 0, True)]


def test_a_failure_becomes_the_next_task_of_the_same_agent(bench: Bench, node: Node, project: UUID) -> None:
    change = make_change(node, project, agent="opencode", model="m7", mode_id="build")
    (claimed,) = claim(node)
    ear = bench.listen("frames", "tasks_new")
    assert settle(node, claimed, output="\n" + "x" * 9000 + "\nlast line\n\n")
    assert set(ear.heard()) == {"frames", "tasks_new"}
    task = fix(bench)
    assert task is not None
    assert (task.session_id, task.agent, task.model, task.mode_id) == (change.session_id, "opencode", "m7", "build")
    assert task.input.startswith(
        "The project's check failed on your change: `make test` ended with exit code 1. Correct the work so that it passes."
    )
    assert task.input.endswith("xxx\n    last line")
    assert len(task.input) < 6500
    claimed = node.claim_one()
    node.finish(ending(claimed, snapshot=snapshot("2" * 40), diff=1), diffs=[b""])
    (again,) = claim(node)
    assert [row.fixes for row in checks(bench)] == [0, 1]
    assert bench.value("select title from pending_changes where task_id = %s", task.id) == change.title
    assert settle(node, again)
    assert [row.fix_task for row in checks(bench)] == [task.id, None], "auto_fix is 1"


def test_the_task_of_a_failure_is_kept(bench: Bench, node: Node, project: UUID) -> None:
    make_change(node, project)
    settle(node, claim(node)[0])
    task = fix(bench)
    assert task is not None
    bench.do("select coder.cancel(%s)", task.id)
    with refused("CD409", "was made of a failed check"):
        bench.do("delete from tasks where id = %s", task.id)


@pytest.mark.parametrize("plans", ["off", "not fixable", "waiting task", "closed", "cancelled turn", "decided"])
def test_a_failure_is_left_to_people(bench: Bench, node: Node, project: UUID, plans: str) -> None:
    change = make_change(node, project)
    (claimed,) = claim(node)
    if plans == "off":
        bench.do("update projects set auto_fix = 0")
    elif plans == "waiting task":
        bench.add(project, "more", session_id=change.session_id)
    elif plans == "closed":
        bench.do("select coder.close_session(%s)", change.session_id)
    elif plans == "cancelled turn":
        bench.forced("update tasks set state = 'cancelled', reason = 'user' where id = %s", change.task_id)
    elif plans == "decided":
        bench.forced("update pending_changes set state = 'approved' where id = %s", change.id)
    assert settle(node, claimed, fixable=plans != "not fixable")
    assert [row.state for row in checks(bench)] == ["failed"]
    assert fix(bench) is None


def test_a_check_is_run_again_on_demand(bench: Bench, node: Node, project: UUID) -> None:
    change = make_change(node, project)
    with refused("CD409", "is being checked already"):
        bench.do("select coder.check(%s)", change.id)
    (claimed,) = claim(node)
    settle(node, claimed, "passed", 0)
    again = bench.value("select coder.check(%s)", change.id)
    assert [row.id for row in claim(node)] == [again]
    with refused("CD404", "There is no change"):
        bench.do("select coder.check(%s)", uuid4())
    bench.do("select coder.set_project('shop', p_check_command => ' ')")
    bench.forced("update checks set state = 'passed', ended_at = now()")
    with refused("CD409", "has no check command"):
        bench.do("select coder.check(%s)", change.id)


@pytest.mark.parametrize(
    ("given", "words"), [({"p_auto_fix": 21}, "not 21 times"), ({"p_auto_fix": -1}, "not -1"), ({"p_check_timeout": "-1 s"}, "more than 0")]
)
def test_what_a_project_cannot_be_set_to(bench: Bench, project: UUID, given: dict[str, Any], words: str) -> None:
    with refused("CD422", words):
        bench.do(f"select coder.set_project('shop', {', '.join(f'{name} => %s' for name in given)})", *given.values())
