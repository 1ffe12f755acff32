"""What people may change of a task with plain SQL: edit one that waits, ask for the end of one, delete one that has ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from queuebench import Bench, ending, make_change, refused

CANCEL = "update tasks set cancel_requested_at = now() where id = %s"


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def test_a_pending_task_can_be_edited(bench: Bench) -> None:
    project = bench.project()
    task = bench.add(project)
    bench.do("update tasks set input = 'do that', agent = 'opencode', model = 'm', labels = '{x}', max_attempts = 5 where id = %s", task)
    row = bench.task(task)
    assert (row.input, row.agent, row.model, row.labels, row.max_attempts) == ("do that", "opencode", "m", ["x"], 5)
    for input in ("", " ", "x" * 1_048_577):
        with refused("CD422"):
            bench.do("update tasks set input = %s where id = %s", input, task)
    for bad, value in (("max_attempts", 0), ("timeout", timedelta(0)), ("position", "NaN")):
        with refused("23514"):
            bench.do(f"update tasks set {bad} = %s where id = %s", value, task)


def test_an_edited_priority_orders_the_sessions(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    first, second = bench.add(project), bench.add(project)
    bench.do("update tasks set priority = 9 where id = %s", second)
    assert node.run() == [second]
    assert node.run() == [first]


def test_an_edited_position_orders_the_session(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    first = bench.add(project)
    second = bench.add(project, session_id=bench.session_of(first))
    bench.do("update tasks set position = %s where id = %s", first - 1, second)
    assert node.run() == [second]
    assert node.run() == [first]


def waiting_behind_a_turn(bench: Bench) -> tuple[Any, int, list[int]]:
    """A node at work on a session, its task, and three that wait behind it."""
    node, first = bench.node(), bench.add(bench.project())
    session = bench.session_of(first)
    return node, first, [bench.add(bench.task(first).project_id, session_id=session) for _ in range(3)]


def order(bench: Bench, session: object) -> list[int]:
    return [row.id for row in bench.rows("select id from tasks where session_id = %s and waiting order by position", session)]


def test_what_waits_is_moved_within_its_session(bench: Bench) -> None:
    node, first, (a, b, c) = waiting_behind_a_turn(bench)
    claimed, session = node.claim_one(), bench.session_of(first)
    move = "select coder.move_queued(%s, %s, %s)"
    for task, before, after in ((c, a, [c, a, b]), (c, None, [a, b, c]), (a, c, [b, a, c]), (a, c, [b, a, c]), (c, b, [c, b, a])):
        assert bench.value(move, session, task, before) == task
        assert order(bench, session) == after
    next_one = bench.add(bench.task(first).project_id, session_id=session)
    assert order(bench, session) == [c, b, a, next_one]
    node.die()  # what ran is the head again, whoever was put before the others meanwhile
    bench.rows("select * from coder.reap()")
    assert order(bench, session) == [claimed.id, c, b, a, next_one]


def test_moved_again_and_again_the_order_stays_exact(bench: Bench) -> None:
    node, first, waiting = waiting_behind_a_turn(bench)
    node.claim_one()
    session, random = bench.session_of(first), Random(7)
    for turn in range(400):
        task = waiting.pop(0 if turn < 100 else random.randrange(3))  # first round and round: always into the same gap
        at = 2 if turn < 100 else random.randrange(3)
        waiting.insert(at, task)
        bench.do("select coder.move_queued(%s, %s, %s)", session, task, waiting[at + 1] if at < 2 else None)
        assert order(bench, session) == waiting


def test_what_cannot_be_moved(bench: Bench) -> None:
    node, first, (a, b, _) = waiting_behind_a_turn(bench)
    node.claim_one()
    session, other = bench.session_of(first), bench.add(bench.task(first).project_id)
    before = order(bench, session)
    for task, to, code, words in (
        (first, a, "CD409", "running"),
        (a, first, "CD409", "running"),
        (a, a, "CD422", "itself"),
        (a, other, "CD404", f"no task {other} in session"),
        (other, a, "CD404", f"no task {other} in session"),
        (b, 10**9, "CD404", "no task"),
    ):
        with refused(code, words):
            bench.do("select coder.move_queued(%s, %s, %s)", session, task, to)
    with refused("CD404", "no task"):
        bench.do("select coder.move_queued(%s, %s)", uuid4(), a)
    assert order(bench, session) == before


def test_a_priority_is_set_of_what_waits_and_orders_the_sessions(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    first, second = bench.add(project), bench.add(project)
    assert bench.value("select coder.set_priority(%s, 5)", second) == second
    assert bench.queue(bench.session_of(second)).priority == 5
    for number, word in ((40_000, "40000"), (None, "null")):
        with refused("CD422", "-32768 to 32767", word):
            bench.do("select coder.set_priority(%s, %s)", second, number)
    assert node.run() == [second]
    with refused("CD409", f"Task {second} is completed"):
        bench.do("select coder.set_priority(%s, 5)", second)
    with refused("CD404", "no task"):
        bench.do("select coder.set_priority(%s, 5)", 10**9)
    assert node.run() == [first]


def test_an_edited_run_at_moves_the_session_and_rings_when_it_is_due(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    task = bench.add(project)
    session = bench.session_of(task)
    later = datetime(2099, 1, 1, tzinfo=UTC)
    ear = bench.listen("tasks_new")
    bench.do("update tasks set run_at = %s where id = %s", later, task)
    assert (bench.queue(session).state, bench.queue(session).ready_at) == ("scheduled", later)
    assert node.claim(5) == []
    assert ear.heard() == []
    bench.do("update tasks set run_at = null where id = %s", task)
    assert bench.queue(session).state == "ready"
    assert ear.heard() == ["tasks_new"]


@pytest.mark.parametrize("state", ["running", "completed", "failed", "cancelled", "interrupted"])
def test_a_task_that_no_longer_waits_cannot_be_edited(bench: Bench, state: str) -> None:
    task = bench.add(bench.project())
    node = bench.node()
    claimed = node.claim_one()
    if state != "running":
        node.finish(ending(claimed, state))
    for column, value in (
        ("input", "else"),
        ("agent", "x"),
        ("model", "x"),
        ("priority", 3),
        ("position", 0),
        ("run_at", datetime.now(UTC)),
    ):
        with refused("CD409", f"Task {task} is {state}", "no longer be edited"):
            bench.do(f"update tasks set {column} = %s where id = %s", value, task)
    bench.do("update tasks set labels = '{looked-at}' where id = %s", task)
    assert (bench.task(task).labels, bench.task(task).state) == (["looked-at"], state)


@pytest.mark.parametrize("state", ["running", "completed", "failed", "cancelled", "interrupted", "nonsense"])
def test_the_state_is_never_set_by_hand(bench: Bench, state: str) -> None:
    task = bench.add(bench.project())
    with refused("CD422", "set by coder alone", f"coder.cancel({task})"):
        bench.do("update tasks set state = %s where id = %s", state, task)
    assert bench.task(task).state == "pending"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("attempts", 1),
        ("epoch", 1),
        ("node_id", uuid4()),
        ("project_id", uuid4()),
        ("session_id", uuid4()),
        ("claimed_at", datetime.now(UTC)),
        ("first_event_at", datetime.now(UTC)),
        ("ended_at", datetime.now(UTC)),
        ("created_at", datetime.now(UTC)),
        ("reason", "user"),
        ("error", "none"),
        ("notices", ["n"]),
        ("output_summary", "x"),
        ("input_tokens", 1),
        ("cached_tokens", 1),
        ("output_tokens", 1),
        ("cost_tokens", 1),
        ("execution_path", "acp"),
        ("agent_used", "x"),
        ("retry_of", 1),
        ("opens_session", False),
    ],
)
def test_columns_that_coder_writes_are_not_editable(bench: Bench, column: str, value: object) -> None:
    task = bench.add(bench.project())
    with refused("CD422", "written by coder alone"):
        bench.do(f"update tasks set {column} = %s where id = %s", value, task)


def test_fewer_attempts_than_were_made_neither_break_the_claim_nor_hold_the_task(bench: Bench) -> None:
    project = bench.project()
    task = bench.add(project)
    crashing = bench.node()
    crashing.claim_one()
    crashing.die()
    bench.do("select coder.reap()")
    assert (bench.task(task).state, bench.task(task).attempts) == ("pending", 1)
    bench.do("update tasks set max_attempts = 1 where id = %s", task)
    other = bench.add(project)
    assert sorted(each.id for each in bench.node().claim(5)) == [task, other]
    assert (bench.task(task).attempts, bench.task(task).max_attempts) == (1, 1)


def test_a_pending_task_is_cancelled_at_once_without_any_dispatcher(bench: Bench) -> None:
    project = bench.project()
    task = bench.add(project)
    session = bench.session_of(task)
    ear = bench.listen("tasks_cancel")
    bench.do(CANCEL, task)
    row = bench.task(task)
    assert (row.state, row.reason, row.ended_at is not None) == ("cancelled", "user", True)
    assert (bench.queue(session).state, bench.value("select status from sessions")) == ("idle", "idle")
    assert ear.heard() == []
    assert bench.node().claim(5) == []


def test_cancelling_the_head_lets_the_next_one_go(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    first = bench.add(project, priority=5)
    session = bench.session_of(first)
    second = bench.add(project, session_id=session)
    assert bench.value("select coder.cancel(%s)", first) == "cancelled"
    assert (bench.queue(session).state, bench.queue(session).priority) == ("ready", 0)
    assert node.run(5) == [second]


def test_cancelling_a_running_task_rings_its_dispatcher_once(bench: Bench) -> None:
    task = bench.add(bench.project())
    node = bench.node()
    claimed = node.claim_one()
    ear = bench.listen("tasks_cancel")
    assert bench.value("select coder.cancel(%s)", task) == "running"
    assert ear.heard() == ["tasks_cancel"]
    asked = bench.task(task).cancel_requested_at
    assert bench.value("select coder.cancel(%s)", task) == "running"
    assert (bench.task(task).cancel_requested_at, ear.heard()) == (asked, [])
    assert [row.verdict for row in node.finish(ending(claimed, "cancelled"))] == ["ended"]
    assert (bench.task(task).state, bench.task(task).reason) == ("cancelled", "user")


def test_many_tasks_are_cancelled_with_one_statement(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    tasks = [bench.add(project) for _ in range(4)]
    node.run(1)
    node.claim_one()
    bench.do("update tasks set cancel_requested_at = now() where project_id = %s", project)
    assert [bench.task(task).state for task in tasks] == ["completed", "running", "cancelled", "cancelled"]
    assert [bench.task(task).cancel_requested_at is not None for task in tasks] == [False, True, True, True]


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "interrupted"])
def test_what_has_ended_cannot_be_cancelled(bench: Bench, state: str) -> None:
    task = bench.add(bench.project())
    node = bench.node()
    node.finish(ending(node.claim_one(), state))
    with refused("CD409", f"Task {task} has already ended ({state})"):
        bench.do("select coder.cancel(%s)", task)
    bench.do(CANCEL, task)
    assert (bench.task(task).state, bench.task(task).cancel_requested_at) == (state, None)


def test_cancelling_an_unknown_task_is_refused(bench: Bench) -> None:
    with refused("CD404", "There is no task 99"):
        bench.do("select coder.cancel(99)")


def test_a_cancel_while_somebody_holds_the_session_waits_for_nobody_and_is_placed_later(bench: Bench) -> None:
    """A producer's open transaction holds the session's queue row; the next claim puts right what the cancel could not."""
    project, node = bench.project(), bench.node()
    task = bench.add(project)
    session = bench.session_of(task)
    with bench.connect() as producer:
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'more', %s)", [project, session])
        bench.do("set lock_timeout = '1s'")
        assert bench.value("select coder.cancel(%s)", task) == "cancelled"
        producer.rollback()
    assert bench.queue(session).state == "ready"
    assert node.claim(5) == []
    assert bench.queue(session).state == "idle"


def test_a_run_at_moved_up_while_somebody_holds_the_session_is_found_by_the_deep_sweep(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    far = datetime(2099, 1, 1, tzinfo=UTC)
    task = bench.add(project, run_at=far)
    session = bench.session_of(task)
    with bench.connect() as producer:
        producer.execute("insert into tasks (project_id, input, session_id, run_at) values (%s, 'more', %s, %s)", [project, session, far])
        bench.do("update tasks set run_at = null where id = %s", task)
        producer.commit()
    assert bench.value("select coder.sweep(true)") == 1
    assert node.run(5) == [task]
    assert bench.value("select coder.sweep(true)") == 0


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_task_that_has_not_ended_is_not_deleted(bench: Bench, state: str) -> None:
    task = bench.add(bench.project())
    if state == "running":
        bench.node().claim_one()
    with refused("CD409", f"Task {task} is {state}", f"coder.cancel({task})"):
        bench.do("delete from tasks where id = %s", task)


def test_a_task_that_holds_its_session_is_not_deleted(bench: Bench) -> None:
    """Else nobody could ever let the session go on."""
    task = bench.add(bench.project())
    node = bench.node()
    node.finish(ending(node.claim_one(), "interrupted"))
    with refused("CD409", f"Task {task}", "holds its session", f"coder.dismiss({task})"):
        bench.do("delete from tasks where id = %s", task)
    bench.do("select coder.dismiss(%s)", task)
    bench.do("delete from tasks where id = %s", task)
    assert bench.value("select count(*) from messages") == 0


def test_deleting_an_ended_task_takes_its_messages_along_but_never_a_change(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    task = bench.add(project)
    node.run()
    bench.do("delete from tasks where id = %s", task)
    assert bench.value("select count(*) from messages") == 0
    change = make_change(node, project)
    with refused("CD409", "made a change"):
        bench.do("delete from tasks where id = %s", change.task_id)


def test_the_state_of_a_change_is_set_by_decisions_alone(bench: Bench) -> None:
    change = make_change(bench.node(), bench.project())
    for table in ("pending_changes", "changes"):
        with refused("CD422", "coder.approve"):
            bench.do(f"update {table} set state = 'approved' where id = %s", change.id)
    assert bench.value("select state from changes") == "pending"


@pytest.mark.parametrize("state", ["applying", "conflicted", "approved", "rejected", "superseded"])
def test_the_state_of_a_change_is_never_set_by_hand(bench: Bench, state: str) -> None:
    change = make_change(bench.node(), bench.project())
    with refused("CD422", f"Change {change.id} is written by coder alone", "coder.approve"):
        bench.do("update pending_changes set state = %s where id = %s", state, change.id)
    assert bench.value("select state from pending_changes") == "pending"


@pytest.mark.parametrize("edit", ["diff = 'another'", "snapshot_tree = base_tree", "title = 'nicer'", "created_at = now()"])
def test_what_a_reviewer_reads_is_never_changed_by_hand(bench: Bench, edit: str) -> None:
    change = make_change(bench.node(), bench.project())
    with refused("CD422", f"Change {change.id} is written by coder alone", "coder.approve"):
        bench.do(f"update pending_changes set {edit}")


@pytest.mark.parametrize("edit", ["status = 'closed', closed_at = now()", "status = 'active'"])
def test_the_status_of_a_session_is_never_set_by_hand(bench: Bench, edit: str) -> None:
    """A session closed so would go on with the tasks that wait in it."""
    session = bench.session_of(bench.add(bench.project()))
    bench.forced("update sessions set status = 'idle'")
    with refused("CD422", f"The status of session {session} is set by coder alone", "coder.close_session", "coder.reopen_session"):
        bench.do(f"update sessions set {edit}")
    bench.do("select coder.close_session(%s)", session)
    bench.do("select coder.reopen_session(%s)", session)
    assert bench.value("select status from sessions") == "idle"


def test_a_session_with_tasks_is_not_deleted(bench: Bench) -> None:
    session = bench.session_of(bench.add(bench.project()))
    with refused("23503"):
        bench.do("delete from sessions where id = %s", session)
