"""What people do about tasks that ended badly, and with whole sessions: retry, resume, dismiss, close, reopen, hold on failure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from queuebench import Bench, Node, Row, ending, make_change, refused

ENDED_BADLY = ["failed", "cancelled", "interrupted"]


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


def ended(bench: Bench, node: Node, state: str, project: UUID | None = None, **columns: object) -> Row:
    """A task that has come to this state, and has another one waiting behind it."""
    task = bench.add(project or bench.project(), **columns)
    bench.add(bench.task(task).project_id, "the next one", session_id=bench.session_of(task))
    node.finish(ending(node.claim_one(), state))
    return bench.task(task)


def test_an_interrupted_task_holds_its_session_and_the_others_let_it_go(bench: Bench, node: Node) -> None:
    project = bench.project()
    for state, after in (("interrupted", "held"), ("failed", "ready"), ("cancelled", "ready"), ("completed", "ready")):
        task = ended(bench, node, state, project)
        queue = bench.queue(task.session_id)
        assert (queue.state, queue.held_by) == (after, task.id if after == "held" else None)
        node.run(5)


def test_a_session_can_hold_on_failure(bench: Bench, node: Node) -> None:
    project = bench.project()
    task = bench.add(project)
    session = bench.session_of(task)
    bench.do("update sessions set on_failure = 'hold' where id = %s", session)
    later = bench.add(project, session_id=session)
    node.finish(ending(node.claim_one(), "failed"))
    assert (bench.queue(session).state, bench.queue(session).held_by) == ("held", task)
    assert node.claim(5) == []
    assert bench.value("select coder.dismiss(%s)", task) == "cancelled"
    assert (bench.task(task).state, bench.task(task).reason) == ("cancelled", "dismissed")
    assert node.run(5) == [later]


@pytest.mark.parametrize("state", ENDED_BADLY)
def test_retry_puts_a_copy_at_the_head(bench: Bench, node: Node, state: str) -> None:
    old = ended(bench, node, state, priority=4, agent="x", model="m", labels=["l"], workspace_id="w")
    ear = bench.listen("tasks_new")
    again = bench.task(bench.value("select coder.retry(%s)", old.id))
    same = ("project_id", "session_id", "input", "agent", "model", "labels", "priority", "max_attempts", "timeout")
    assert all(getattr(again, name) == getattr(old, name) for name in same)
    assert (again.retry_of, again.state, again.attempts, again.opens_session) == (old.id, "pending", 0, False)
    assert bench.task(old.id).state == state
    assert "tasks_new" in ear.heard()
    assert node.claim_one().id == again.id


def test_retries_of_two_tasks_both_go_before_what_waits(bench: Bench, node: Node) -> None:
    first = ended(bench, node, "failed")
    second = bench.task(node.run(1)[0])
    third = bench.add(first.project_id, "third", session_id=first.session_id)
    again = bench.value("select coder.retry(%s)", first.id)
    with refused("CD409", f"Task {second.id} is completed"):
        bench.do("select coder.retry(%s)", second.id)
    assert [node.run(1), node.run(1)] == [[again], [third]]


def test_resume_tells_the_agent_to_continue(bench: Bench, node: Node) -> None:
    old = ended(bench, node, "interrupted")
    again = bench.task(bench.value("select coder.resume(%s)", old.id))
    assert again.input.startswith("You were interrupted while working on the task below.")
    assert again.input.endswith("\n\nfix it")
    assert bench.queue(old.session_id).state == "ready"
    assert node.claim_one().id == again.id


@pytest.mark.parametrize("input", ["x" * 1_048_576, "ü" * 524_288, "x" * 900_000])
def test_resuming_a_long_task_keeps_as_much_of_it_as_fits(bench: Bench, node: Node, input: str) -> None:
    old = ended(bench, node, "interrupted", input=input)
    again = bench.task(bench.value("select coder.resume(%s)", old.id)).input
    assert 1_048_576 - 300 < len(again.encode()) <= 1_048_576 or again.endswith("\n" + input)


@pytest.mark.parametrize("state", ["failed", "cancelled", "completed", "pending", "running"])
def test_only_interrupted_tasks_are_resumed(bench: Bench, node: Node, state: str) -> None:
    task = bench.add(bench.project())
    claimed = node.claim_one() if state != "pending" else None
    if claimed is not None and state != "running":
        node.finish(ending(claimed, state))
    with refused("CD409", f"Task {task} is {state}"):
        bench.do("select coder.resume(%s)", task)
    if state in ("completed", "pending", "running"):
        with refused("CD409", f"Task {task} is {state}"):
            bench.do("select coder.retry(%s)", task)
    if state != "failed":
        with refused("CD409", f"Task {task} is {state}"):
            bench.do("select coder.dismiss(%s)", task)
    assert bench.value("select count(*) from tasks") == 1


@pytest.mark.parametrize("function", ["retry", "resume", "dismiss", "cancel"])
def test_a_task_that_does_not_exist(bench: Bench, function: str) -> None:
    with refused("CD404", "There is no task 77", "select id, state from tasks"):
        bench.do(f"select coder.{function}(77)")
    with refused("CD404", "There is no task"):
        bench.do(f"select coder.{function}(null)")


def test_a_task_is_run_again_once_at_a_time(bench: Bench, node: Node) -> None:
    old = ended(bench, node, "interrupted")
    again = bench.value("select coder.retry(%s)", old.id)
    for function in ("retry", "resume"):
        with refused("CD409", f"Task {old.id} is already being run again, as task {again}"):
            bench.do(f"select coder.{function}(%s)", old.id)
    node.finish(ending(node.claim_one(), "failed"))
    third = bench.value("select coder.retry(%s)", old.id)
    assert bench.task(third).retry_of == old.id


def test_dismiss_lets_the_session_go_on_and_keeps_the_worktree_s_work(bench: Bench, node: Node) -> None:
    old = ended(bench, node, "interrupted")
    ear = bench.listen("tasks_new")
    assert bench.value("select coder.dismiss(%s)", old.id) == "cancelled"
    row = bench.task(old.id)
    assert (row.state, row.reason, row.ended_at) == ("cancelled", "dismissed", old.ended_at)
    assert (bench.queue(old.session_id).state, bench.queue(old.session_id).held_by) == ("ready", None)
    assert ear.heard() == ["tasks_new"]
    with refused("CD409", f"Task {old.id} is cancelled"):
        bench.do("select coder.dismiss(%s)", old.id)


def test_a_task_added_to_a_held_session_waits_with_it(bench: Bench, node: Node) -> None:
    old = ended(bench, node, "interrupted")
    bench.add(old.project_id, "more", session_id=old.session_id, priority=9)
    assert bench.queue(old.session_id).state == "held"
    assert (node.claim(5), bench.value("select coder.sweep(true)")) == ([], 0)


def test_closing_cancels_what_waits_stops_what_runs_and_lets_go_what_holds(bench: Bench, node: Node) -> None:
    project = bench.project()
    running = bench.add(project)
    session = bench.session_of(running)
    waiting = [bench.add(project, session_id=session) for _ in range(2)]
    later = bench.add(project, session_id=session, run_at=datetime(2099, 1, 1, tzinfo=UTC))
    claimed = node.claim_one()
    ear = bench.listen("tasks_cancel")
    bench.do("select coder.close_session(%s)", session)
    assert ear.heard() == ["tasks_cancel"]
    assert [(bench.task(each).state, bench.task(each).reason) for each in (*waiting, later)] == [("cancelled", "session_closed")] * 3
    assert (bench.task(running).state, bench.task(running).cancel_requested_at is not None) == ("running", True)
    node.finish(ending(claimed, "cancelled"))
    assert (bench.task(running).state, bench.task(running).reason) == ("cancelled", "session_closed")
    assert (bench.queue(session).state, bench.value("select status from sessions")) == ("idle", "closed")

    held = ended(bench, node, "interrupted", project)
    bench.do("select coder.close_session(%s)", held.session_id)
    assert (bench.task(held.id).state, bench.task(held.id).reason) == ("cancelled", "session_closed")
    assert (bench.queue(held.session_id).state, bench.queue(held.session_id).held_by) == ("idle", None)
    assert ear.heard() == []


def test_a_turn_interrupted_in_a_closed_session_does_not_hold_it(bench: Bench, node: Node) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    claimed = node.claim_one()
    bench.do("select coder.close_session(%s)", session)
    node.finish(ending(claimed, "interrupted"))
    assert bench.queue(session).state == "idle"
    with refused("CD409", "is closed"):
        bench.do("select coder.retry(%s)", claimed.id)


def test_closing_and_reopening_twice_is_no_error(bench: Bench, node: Node) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    bench.do("select coder.close_session(%s)", session)
    closed = bench.value("select closed_at from sessions")
    bench.do("select coder.close_session(%s)", session)
    assert bench.value("select closed_at from sessions") == closed
    for _ in range(2):
        bench.do("select coder.reopen_session(%s)", session)
        assert tuple(bench.one("select status, closed_at from sessions")) == ("idle", None)
    again = bench.add(project, session_id=session)
    assert node.run(5) == [again]


def test_a_session_reopened_while_its_turn_runs_is_active(bench: Bench, node: Node) -> None:
    session = bench.session_of(bench.add(bench.project()))
    claimed = node.claim_one()
    bench.do("select coder.close_session(%s)", session)
    bench.do("select coder.reopen_session(%s)", session)
    assert bench.value("select status from sessions") == "active"
    node.finish(ending(claimed, "cancelled"))
    assert (bench.value("select status from sessions"), bench.task(claimed.id).reason) == ("idle", "user")


def test_reopening_brings_back_a_worktree_that_was_removed(bench: Bench, node: Node) -> None:
    """Else it would be made again, but counted as one nobody knows."""
    change = make_change(node, bench.project())
    bench.do("select coder.close_session(%s)", change.session_id)
    bench.do("update session_worktrees set removed_at = now()")
    bench.do("select coder.reopen_session(%s)", change.session_id)
    assert bench.value("select removed_at from session_worktrees") is None


@pytest.mark.parametrize("function", ["close_session", "reopen_session"])
def test_a_session_that_does_not_exist(bench: Bench, function: str) -> None:
    with refused("CD404", "There is no session", "select id, title from sessions"):
        bench.do(f"select coder.{function}(%s)", uuid4())


def test_a_project_is_added_under_a_good_name_and_an_absolute_path(bench: Bench) -> None:
    assert bench.one("select * from coder.add_project('shop.2_x-y', '/srv/shop', null)").name == "shop.2_x-y"
    for name in ("", "-x", "a b", "a" * 101, "ä", None):
        with refused("CD422", "A project is named by"):
            bench.do("select coder.add_project(%s, '/srv', null)", name)
    for path in ("srv", "", None, "~/x"):
        with refused("CD422", "absolute"):
            bench.do("select coder.add_project('bank', %s, null)", path)
    with refused("CD409", "already a project shop.2_x-y"):
        bench.do("select coder.add_project('shop.2_x-y', '/srv', null)")
