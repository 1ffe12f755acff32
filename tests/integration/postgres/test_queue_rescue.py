"""Recovering what dead nodes left, and healing sessions that nobody advanced."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import pytest
from queuebench import Bench, Node, Row, ending

REAP = "select * from coder.reap()"
LEAVE = "delete from nodes where id = %s and not exists (select from session_queue where owner = nodes.id)"


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


def reap(bench: Bench) -> list[tuple[int, str, UUID]]:
    return [tuple(row) for row in bench.rows(REAP)]


def running(bench: Bench, node: Node, *, seen: bool = False, **columns: object) -> Row:
    """A turn that runs on the node."""
    bench.add(columns.pop("project", None) or bench.project(), **columns)  # type: ignore[arg-type]
    claimed = node.claim_one()
    if seen:
        node.seen(claimed)
    return claimed


def test_nobody_touches_the_tasks_of_a_node_that_lives(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    assert reap(bench) == []
    assert bench.task(claimed.id).state == "running"


def test_what_nobody_saw_anything_of_runs_again_by_itself(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    later = bench.add(bench.task(claimed.id).project_id, session_id=claimed.session_id)
    ear = bench.listen("tasks_new")
    node.die()
    assert reap(bench) == [(claimed.id, "pending", claimed.session_id)]
    row = bench.task(claimed.id)
    assert (row.state, row.attempts, row.epoch, row.node_id, row.ended_at, row.reason) == ("pending", 1, None, None, None, None)
    assert (bench.value("select count(*) from messages"), bench.queue(claimed.session_id).state) == (0, "ready")
    assert ear.heard() == ["tasks_new"]
    assert bench.value("select count(*) from nodes") == 0
    other = bench.node()
    again = other.claim_one()
    assert (again.id, again.attempts) == (claimed.id, 2)
    other.finish(ending(again))
    assert other.run(1) == [later]


@pytest.mark.parametrize("crashed", [True, False])
def test_what_was_seen_is_interrupted_and_holds_its_session(bench: Bench, node: Node, crashed: bool) -> None:
    claimed = running(bench, node, seen=True)
    node.record_worktree(claimed)
    bench.add(bench.task(claimed.id).project_id, session_id=claimed.session_id)
    if crashed:
        bench.do("update nodes set crashed = true, lease_until = '-infinity' where id = %s", node.id)
    else:
        node.die()
    assert reap(bench) == [(claimed.id, "interrupted", claimed.session_id)]
    row = bench.task(claimed.id)
    assert (row.state, row.reason) == ("interrupted", "crash" if crashed else "lease_lost")
    assert row.error.startswith("The dispatcher that ran this task died")
    assert (bench.message(claimed.id).state, bench.queue(claimed.session_id).state) == ("interrupted", "held")
    assert bench.value("select unsnapshotted_task from session_worktrees") == claimed.id
    assert bench.node().claim(5) == []


def test_attempts_that_are_used_up_fail_the_task(bench: Bench) -> None:
    bench.add(bench.project(), max_attempts=2)
    for state in ("pending", "failed"):
        node = bench.node()
        claimed = node.claim_one()
        node.die()
        assert [row[1] for row in reap(bench)] == [state]
    row = bench.task(claimed.id)
    assert (row.attempts, row.reason) == (2, "lease_lost")
    assert row.error.startswith("The dispatcher died 2 times while starting this task")
    assert (bench.message(claimed.id).state, bench.queue(claimed.session_id).state) == ("failed", "idle")


def test_a_failed_task_of_a_dead_node_holds_a_session_that_holds_on_failure(bench: Bench, node: Node) -> None:
    claimed = running(bench, node, max_attempts=1)
    bench.do("update sessions set on_failure = 'hold'")
    node.die()
    reap(bench)
    assert (bench.queue(claimed.session_id).state, bench.queue(claimed.session_id).held_by) == ("held", claimed.id)


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("closed", [True, False])
def test_a_task_whose_end_was_asked_for_is_cancelled(bench: Bench, node: Node, seen: bool, closed: bool) -> None:
    claimed = running(bench, node, seen=seen)
    bench.do("select coder.close_session(%s)" if closed else "select coder.cancel(%s)", claimed.session_id if closed else claimed.id)
    node.die()
    assert reap(bench) == [(claimed.id, "cancelled", claimed.session_id)]
    assert (bench.task(claimed.id).state, bench.task(claimed.id).reason) == ("cancelled", "session_closed" if closed else "user")
    assert (bench.message(claimed.id).state, bench.queue(claimed.session_id).state) == ("cancelled", "idle")


def test_a_turn_that_ended_but_whose_session_was_left_over_is_only_advanced(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    with bench.connect() as producer:
        values = [bench.task(claimed.id).project_id, claimed.session_id]
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'next', %s)", values)
        assert [row.verdict for row in node.finish(ending(claimed))] == ["ended", "left"]
        producer.commit()
    node.die()
    assert reap(bench) == []
    assert (bench.task(claimed.id).state, bench.queue(claimed.session_id).state) == ("completed", "ready")


def test_a_session_somebody_holds_is_recovered_by_the_next_reap(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    node.die()
    with bench.connect() as producer:
        values = [bench.task(claimed.id).project_id, claimed.session_id]
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'next', %s)", values)
        bench.do("set lock_timeout = '1s'")
        assert reap(bench) == []
        producer.commit()
    assert reap(bench) == [(claimed.id, "pending", claimed.session_id)]


def test_a_node_that_leaves_with_nothing_to_do_is_gone_and_one_with_tasks_waits_for_its_lease(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    bench.do(LEAVE, node.id)
    assert bench.value("select count(*) from nodes") == 1
    node.finish(ending(claimed))
    bench.do(LEAVE, node.id)
    assert bench.value("select count(*) from nodes") == 0


def test_a_beat_renews_the_lease_and_tells_a_node_that_was_reaped(bench: Bench, node: Node) -> None:
    bench.do("update nodes set lease_until = clock_timestamp() + '1 s'")
    until = bench.value("select coder.beat(%s, '15 s')", node.id)
    assert until == bench.value("select lease_until from nodes")
    assert bench.value("select %s > clock_timestamp() + interval '14 s'", until)
    node.die()
    reap(bench)
    assert bench.value("select coder.beat(%s, '15 s')", node.id) is None


def test_two_reapers_at_once_recover_each_task_once(bench: Bench) -> None:
    project = bench.project()
    dead = bench.node()
    tasks = [bench.add(project) for _ in range(5)]
    dead.claim(5)
    dead.die()
    with bench.connect() as first:
        assert sorted(row[0] for row in first.execute(REAP)) == tasks
        bench.do("set lock_timeout = '1s'")
        assert reap(bench) == []
        first.commit()
    assert reap(bench) == []
    assert sorted(each.id for each in bench.node().claim(9)) == tasks


def test_a_node_gives_back_what_it_was_given_but_never_heard_of(bench: Bench, node: Node) -> None:
    """The answer to a claim was lost: the node lives, and so does its lease."""
    project = bench.project()
    tasks = [bench.add(project) for _ in range(3)]
    heard, unheard, seen = node.claim_one(), node.claim_one(), node.claim_one()
    node.seen(seen)
    other = bench.node()
    theirs = bench.add(project)
    assert other.claim_one().id == theirs
    rows = bench.rows("select * from coder.reap(%s, %s)", node.id, [heard.epoch])
    assert sorted((row.task_id, row.state) for row in rows) == [(unheard.id, "pending"), (seen.id, "interrupted")]
    assert [bench.task(task).state for task in (*tasks, theirs)] == ["running", "pending", "interrupted", "running"]
    assert bench.value("select count(*) from nodes") == 2
    rows = bench.rows("select * from coder.reap(%s)", node.id)
    assert [(row.task_id, row.state) for row in rows] == [(heard.id, "pending")]
    assert bench.rows("select * from coder.reap(%s, '{}')", other.id)[0].task_id == theirs


@pytest.mark.parametrize(("lives", "reason"), [(True, "internal"), (False, "lease_lost")])
def test_what_a_node_lost_sight_of_and_what_it_lost_with_its_lease_are_told_apart(
    bench: Bench, node: Node, lives: bool, reason: str
) -> None:
    claimed = running(bench, node, seen=True)
    if not lives:
        node.die()
    rows = bench.rows("select * from coder.reap(%s, %s)", node.id, [] if lives else [claimed.epoch])
    assert [(row.task_id, row.state) for row in rows] == [(claimed.id, "interrupted")]
    assert bench.task(claimed.id).reason == reason


@pytest.mark.parametrize("how", ["unknown", "over"])
def test_a_node_without_a_lease_claims_nothing(bench: Bench, node: Node, how: str) -> None:
    """Its tasks would run without an owner."""
    task = bench.add(bench.project())
    if how == "over":
        node.die()
    else:
        node.id = uuid4()
    assert node.claim(5) == []
    assert (bench.task(task).state, bench.queue(bench.session_of(task)).state) == ("pending", "ready")


def test_the_sweep_advances_a_session_whose_task_ended_without_it(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    bench.do("set coder.actor = 'node'")
    bench.do("update tasks set state = 'completed', answer_state = 'complete', ended_at = now() where id = %s", claimed.id)
    assert bench.value("select coder.sweep(false)") == 1
    assert bench.queue(claimed.session_id).state == "idle"


def test_the_sweep_advances_a_session_whose_task_belongs_to_another_claim(bench: Bench, node: Node) -> None:
    claimed = running(bench, node)
    bench.do("update session_queue set epoch = epoch - 1")
    assert bench.value("select coder.sweep(false)") == 1
    # The index still says that the task runs, so nothing of the session starts twice.
    assert bench.queue(claimed.session_id).state == "idle"
    assert node.claim(5) == []


@pytest.mark.parametrize("state", ["idle", "scheduled"])
def test_the_deep_sweep_finds_a_forgotten_session(bench: Bench, node: Node, state: str) -> None:
    task = bench.add(bench.project())
    session = bench.session_of(task)
    bench.do("update session_queue set state = %s, ready_at = '2099-01-01'", state)
    ear = bench.listen("tasks_new")
    assert bench.value("select coder.sweep(false)") == 0
    assert bench.value("select coder.sweep(true)") == 1
    assert (bench.queue(session).state, ear.heard()) == ("ready", ["tasks_new"])
    assert node.run(5) == [task]


def test_the_sweep_finds_nothing_where_all_is_well(bench: Bench, node: Node) -> None:
    project = bench.project()
    running(bench, node, project=project)
    bench.add(project)
    bench.add(project, run_at="2099-01-01")
    held = bench.add(project, priority=9)
    claimed = node.claim_one()
    assert claimed.id == held
    node.finish(ending(claimed, "interrupted"))
    bench.add(project, session_id=claimed.session_id)
    before = bench.rows("select q::text from session_queue q order by session_id")
    assert bench.value("select coder.sweep(true)") == 0
    assert bench.rows("select q::text from session_queue q order by session_id") == before
    assert reap(bench) == []


def test_a_sweep_leaves_what_somebody_holds(bench: Bench) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    bench.do("update session_queue set state = 'idle'")
    with bench.connect() as producer:
        producer.execute("select from session_queue for update")
        bench.do("set lock_timeout = '1s'")
        assert bench.value("select coder.sweep(true)") == 0
    assert bench.value("select coder.sweep(true)") == 1
    assert bench.queue(session).state == "ready"


def test_a_node_is_not_reaped_by_one_with_another_idea_of_the_time(bench: Bench, node: Node) -> None:
    """Only the database's clock counts; a session's time zone is no other time."""
    claimed = running(bench, node)
    bench.do("set timezone = 'Pacific/Kiritimati'")
    assert reap(bench) == []
    assert bench.value("select count(*) from nodes where id = %s", node.id) == 1
    assert bench.task(claimed.id).state == "running"
    assert bench.rows("select * from nodes where id = %s", uuid4()) == []
