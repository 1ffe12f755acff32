"""Claiming: which sessions, in which order, for which host; what a claim opens; who never waits for whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from queuebench import CLAIM, Bench, Node, ending, make_change


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


def test_a_claim_answers_all_a_turn_needs_and_opens_its_messages(bench: Bench, node: Node) -> None:
    project = bench.project()
    task = bench.add(project, agent="opencode", model="m", mode_id="plan", thinking_option_id="high", timeout=timedelta(minutes=5))
    session = bench.session_of(task)
    claimed = node.claim_one()
    asked = (claimed.id, claimed.input, claimed.agent, claimed.model, claimed.mode_id, claimed.thinking_option_id, claimed.timeout)
    assert asked == (task, "fix it", "opencode", "m", "plan", "high", timedelta(minutes=5))
    assert (claimed.session_id, claimed.attempts, claimed.max_attempts) == (session, 1, 3)
    assert (claimed.remarks, claimed.model_history, claimed.worktree, claimed.cwd) == ([], None, None, None)
    assert (claimed.project["id"], claimed.project["name"]) == (str(project), "shop")
    row, queue = bench.task(task), bench.queue(session)
    assert (row.state, row.epoch, row.node_id, row.attempts) == ("running", claimed.epoch, node.id, 1)
    assert (queue.state, queue.owner, queue.epoch, queue.running_task) == ("running", node.id, claimed.epoch, task)
    said = bench.rows("select role, state, text, chat_id, id from messages order by ordinal")
    assert [(each.role, each.state, each.text) for each in said] == [("user", "complete", "fix it"), ("assistant", "streaming", "")]
    assert {each.chat_id for each in said} == {claimed.chat_id}


def test_sessions_run_by_priority_and_then_by_waiting_time(bench: Bench, node: Node) -> None:
    project = bench.project()
    old, new, low = bench.add(project), bench.add(project), bench.add(project, priority=-1)
    high = bench.add(project, priority=5)
    assert [node.run(1)[0] for _ in range(4)] == [high, old, new, low]
    assert node.claim(1) == []


def test_a_session_s_priority_is_the_highest_of_what_it_could_run_now(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = bench.add(project)
    session = bench.session_of(first)
    rival = bench.add(project, priority=3)
    urgent = bench.add(project, session_id=session, priority=9)
    bench.add(project, session_id=session, priority=20, run_at=datetime(2099, 1, 1, tzinfo=UTC))
    # The urgent task pulls its session forward, but not itself before its elder.
    assert [node.run(1)[0] for _ in range(3)] == [first, urgent, rival]


def test_within_a_session_only_position_counts_and_one_runs_at_a_time(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = bench.add(project)
    session = bench.session_of(first)
    rest = [bench.add(project, session_id=session, priority=number) for number in range(3)]
    claimed = node.claim(10)
    assert [each.id for each in claimed] == [first]
    assert node.claim(10) == []
    node.finish(ending(claimed[0]))
    assert [node.run(1)[0] for _ in range(3)] == rest


def test_a_claim_takes_no_more_than_it_was_asked_for(bench: Bench, node: Node) -> None:
    project = bench.project()
    tasks = [bench.add(project) for _ in range(5)]
    assert sorted(each.id for each in node.claim(2)) == tasks[:2]
    assert node.claim(0) == []
    assert sorted(each.id for each in node.claim(10)) == tasks[2:]


def test_a_busy_session_s_backlog_does_not_delay_others(bench: Bench, node: Node) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    bench.do("insert into tasks (project_id, session_id, input) select %s, %s, 'n' from generate_series(1, 2000)", project, session)
    node.claim_one()
    other = bench.add(project)
    assert [each.id for each in node.claim(50)] == [other]


def test_a_node_claims_what_any_host_may_do_and_what_is_its_own(bench: Bench, node: Node) -> None:
    other = bench.node()
    free, mine, theirs = bench.project("free"), bench.project("mine", node.host), bench.project("theirs", other.host)
    low, own, foreign = bench.add(free), bench.add(mine, priority=1), bench.add(theirs, priority=2)
    urgent = bench.add(free, priority=5)
    assert {each.id for each in node.claim(2)} == {urgent, own}
    assert [each.id for each in node.claim(5)] == [low]
    assert [each.id for each in other.claim(5)] == [foreign]


def test_a_worktree_binds_its_session_to_the_host(bench: Bench, node: Node) -> None:
    other = bench.node()
    project = bench.project()
    session = bench.session_of(bench.add(project))
    claimed = node.claim_one()
    assert node.record_worktree(claimed)
    node.finish(ending(claimed))
    bench.add(project, session_id=session)
    assert other.claim(5) == []
    assert node.claim_one().worktree["path"] == "/srv/worktrees/1"


def test_another_host_s_session_shows_what_it_waits_for(bench: Bench, node: Node) -> None:
    task = bench.add(bench.project("theirs", bench.node(lease="-1 s").host))
    here = bench.add(bench.project("here"))
    waits = "select waiting_for from coder.show_task(%s)"
    assert (bench.value(waits, task), bench.value(waits, here)) == ("host", "dispatcher")
    assert bench.value("select waiting_for_host from coder.show_session(%s)", bench.session_of(task)) is True
    assert bench.value(waits, bench.add(bench.project("later"), run_at=datetime(2099, 1, 1, tzinfo=UTC))) == "run_at"
    claimed = node.claim_one()
    behind = bench.add(bench.task(here).project_id, session_id=claimed.session_id)
    assert (bench.value(waits, here), bench.value(waits, behind)) == (None, "session")
    node.finish(ending(claimed, "interrupted"))
    assert bench.value(waits, behind) == "decision"


def test_a_task_before_its_time_is_not_seen_and_blocks_nobody(bench: Bench, node: Node) -> None:
    project = bench.project()
    soon = bench.value("select clock_timestamp() + interval '300 ms'")
    first = bench.add(project, run_at=soon)
    session = bench.session_of(first)
    second = bench.add(project, session_id=session)
    assert node.run(5) == [second]
    assert (bench.queue(session).state, bench.queue(session).ready_at) == ("scheduled", soon)
    assert node.claim(5) == []
    bench.do("select pg_sleep_until(%s)", soon)
    ear = bench.listen("tasks_new")
    assert bench.value("select coder.sweep(false)") == 1
    assert (bench.queue(session).state, ear.heard()) == ("ready", ["tasks_new"])
    assert node.run(5) == [first]


def test_a_retried_task_starts_before_what_came_after_it(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = bench.add(project)
    session = bench.session_of(first)
    second, third = bench.add(project, session_id=session), bench.add(project, session_id=session)
    node.finish(ending(node.claim_one(), "failed"))
    assert node.run(1) == [second]
    again = bench.value("select coder.retry(%s)", first)
    assert [node.run(1)[0] for _ in range(2)] == [again, third]


def test_epochs_only_grow(bench: Bench, node: Node) -> None:
    project = bench.project()
    for _ in range(5):
        bench.add(project)
    claimed = node.claim(3) + node.claim(3)
    assert len({each.epoch for each in claimed}) == 5
    assert max(each.epoch for each in claimed[:3]) < min(each.epoch for each in claimed[3:])


def test_a_second_attempt_uses_the_same_messages_again(bench: Bench, node: Node) -> None:
    bench.add(bench.project())
    first = node.claim_one()
    message = bench.message(first.id).id
    node.finish(ending(first, "pending", text="half"))
    second = node.claim_one()
    assert (bench.message(second.id).id, second.chat_id, second.attempts) == (message, first.chat_id, 1)
    assert (bench.message(second.id).state, bench.message(second.id).text, bench.message(second.id).ended_at) == ("streaming", "", None)
    assert bench.value("select count(*) from messages") == 2


def test_a_turn_continues_the_newest_open_chat_unless_another_is_named(bench: Bench, node: Node) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    first = node.claim_one()
    node.finish(ending(first, model_history='[{"b": 1, "a": 2}]'))
    newer = bench.value("insert into chats (session_id) values (%s) returning id", session)
    bench.add(project, session_id=session)
    second = node.claim_one()
    assert (second.chat_id, second.model_history) == (newer, None)
    node.finish(ending(second))
    bench.add(project, session_id=session, chat_id=first.chat_id)
    third = node.claim_one()
    assert (third.chat_id, third.model_history) == (first.chat_id, '[{"b": 1, "a": 2}]')
    node.finish(ending(third))
    bench.do("update chats set closed_at = now()")
    bench.add(project, session_id=session)
    fourth = node.claim_one()
    assert fourth.chat_id not in (first.chat_id, newer)
    assert bench.value("select count(*) from chats") == 3


def test_the_directory_of_the_session_goes_before_the_workspace_s(bench: Bench, node: Node) -> None:
    project = bench.project()
    bench.add(project, workspace_id="team")
    bench.do("update workspaces set default_cwd = '/srv/shop/api' where id = 'team'")
    claimed = node.claim_one()
    assert claimed.cwd == "/srv/shop/api"
    bench.do("update sessions set cwd = '/srv/shop/web'")
    bench.add(project, session_id=claimed.session_id)
    node.finish(ending(claimed))
    assert node.claim_one().cwd == "/srv/shop/web"


def test_a_rejection_is_told_once_to_the_next_turn_that_ends(bench: Bench, node: Node) -> None:
    project = bench.project()
    change = make_change(node, project)
    bench.do("select coder.reject(%s, %s, 'too red', 'keep', 'ada')", change.id, change.fingerprint)
    bench.add(project, session_id=change.session_id)
    claimed = node.claim_one()
    assert [(each["task"], each["reason"], each["work"]) for each in claimed.remarks] == [(change.task_id, "too red", "keep")]
    node.finish(ending(claimed, "pending"))
    claimed = node.claim_one()
    assert len(claimed.remarks) == 1
    node.finish(ending(claimed))
    bench.add(project, session_id=change.session_id)
    assert node.claim_one().remarks == []
    assert bench.value("select told_task from decisions") == claimed.id


def test_a_session_whose_tasks_are_gone_is_put_to_rest_by_the_claim(bench: Bench, node: Node) -> None:
    project = bench.project()
    task = bench.add(project)
    session = bench.session_of(task)
    bench.do("update tasks set cancel_requested_at = now()")
    bench.do("update session_queue set state = 'ready'")
    assert node.claim(5) == []
    assert (bench.queue(session).state, bench.value("select status from sessions")) == ("idle", "idle")


def test_a_claim_goes_around_sessions_and_heads_that_somebody_holds(bench: Bench, node: Node) -> None:
    project = bench.project()
    held, edited, free = bench.add(project, priority=5), bench.add(project, priority=4), bench.add(project)
    with bench.connect() as producer, bench.connect() as editor:
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'x', %s)", [project, bench.session_of(held)])
        editor.execute("update tasks set input = 'y' where id = %s", [edited])
        assert [each.id for each in node.claim(5)] == [free]
        assert bench.queue(bench.session_of(edited)).state == "ready"
        editor.commit()
        assert [(each.id, each.input) for each in node.claim(5)] == [(edited, "y")]
        producer.commit()
    assert [each.id for each in node.claim(5)] == [held]


def test_many_claimers_never_share_a_task(bench: Bench) -> None:
    project = bench.project()
    for _ in range(10):
        session = bench.session_of(bench.add(project))
        bench.do("insert into tasks (project_id, session_id, input) select %s, %s, 'n' from generate_series(1, 9)", project, session)
    nodes = [bench.node() for _ in range(6)]
    connections = [bench.connect(autocommit=True) for _ in nodes]

    def claim_once(number: int) -> list[int]:
        claimed = connections[number].execute(CLAIM, [nodes[number].id, nodes[number].host, 4]).fetchall()
        return [each.id for each in claimed]

    with ThreadPoolExecutor(len(nodes)) as pool:
        taken = [task for tasks in pool.map(claim_once, range(len(nodes))) for task in tasks]
    assert len(taken) == len(set(taken)) == 10
    assert bench.value("select count(*) from tasks where state = 'running'") == 10


def test_recording_a_worktree_waits_for_no_producer_and_binds_the_session_all_the_same(bench: Bench, node: Node) -> None:
    """A producer may keep its transaction open for a minute; the turn must not start that late."""
    other = bench.node()
    project = bench.project()
    session = bench.session_of(bench.add(project))
    claimed = node.claim_one()
    with bench.connect() as producer:
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'x', %s)", [project, session])
        bench.do("set lock_timeout = '1s'")
        assert node.record_worktree(claimed)
        producer.commit()
    node.finish(ending(claimed))
    assert bench.queue(session).host_id == node.host
    assert other.claim(5) == []
    assert len(node.claim(5)) == 1


@pytest.mark.parametrize("what", ["the worktree is recorded", "the change is stored"])
def test_closing_a_session_never_deadlocks_with_its_turn(bench: Bench, node: Node, what: str) -> None:
    session = bench.session_of(bench.add(bench.project()))
    claimed = node.claim_one()
    person = bench.connect(autocommit=True)
    with bench.connect() as turn, ThreadPoolExecutor(1) as pool:
        turn.execute("select from tasks where id = %s for update", [claimed.id])
        closing = pool.submit(person.execute, "select coder.close_session(%s)", [session])
        wait_until_blocked(bench, person)
        if what == "the worktree is recorded":
            values = [claimed.id, claimed.epoch, node.host, "b" * 40]
            turn.execute("select coder.record_worktree(%s, %s, %s, '/srv/shop', '/srv/w', %s, null, '{}')", values)
        else:
            values = [session, claimed.id, json.dumps({"empty": True, "commit": "b" * 40, "number": 1})]
            turn.execute("insert into session_worktrees (session_id, project_id, host_id, repository, path, base_commit) "
                         "select id, project_id, %s, '/srv', '/srv/w', repeat('b', 40) from sessions", [node.host])  # fmt: skip
            turn.execute("select coder.store_change(%s, %s, 'completed', 'native', %s::jsonb, '')", values)
        turn.commit()
        closing.result(20)
    assert (bench.value("select status from sessions"), bench.task(claimed.id).cancel_requested_at is not None) == ("closed", True)


def wait_until_blocked(bench: Bench, connection: psycopg.Connection[object]) -> None:
    """Return when the server says that this connection waits for a lock."""
    for _ in range(1000):
        if bench.value("select cardinality(pg_blocking_pids(%s)) > 0", connection.info.backend_pid):
            return
        bench.do("select pg_sleep(0.01)")
    raise AssertionError("it never waited for anything")
