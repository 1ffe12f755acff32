"""Ending turns: what is stored, who is fenced, how a task runs again, and how its session goes on."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from queuebench import Bench, Node, ending, make_change, snapshot

ENDED = [("completed", "complete"), ("failed", "failed"), ("cancelled", "cancelled"), ("interrupted", "interrupted")]


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


def verdicts(rows: list[object]) -> list[tuple[str, int | None]]:
    return sorted((row.verdict, row.task_id) for row in rows)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("state", "message"), ENDED)
def test_an_ending_is_stored_whole(bench: Bench, node: Node, state: str, message: str) -> None:
    task = bench.add(bench.project())
    claimed = node.claim_one()
    tools = [{"id": "1", "name": "run", "output": "ok"}]
    history = '[{"z":1,   "a": [2]}]'
    rows = node.finish(
        ending(
            claimed,
            state,
            error="why",
            notices=["n1"],
            text="hello",
            reasoning="hm",
            tool_calls=tools,
            model_history=history,
            execution_path="opencode",
            agent_used="opencode",
        )
    )
    assert verdicts(rows) == [("ended", task)]
    row = bench.task(task)
    assert (row.state, row.error, row.notices, row.output_summary) == (state, "why", ["n1"], "done")
    assert (row.input_tokens, row.cached_tokens, row.output_tokens, row.cost_tokens) == (10, 4, 2, 12)
    assert (row.execution_path, row.agent_used, row.epoch, row.node_id) == ("opencode", "opencode", claimed.epoch, node.id)
    assert row.ended_at >= row.claimed_at
    said = bench.message(task)
    assert (said.state, said.text, said.reasoning, said.tool_calls) == (message, "hello", "hm", tools)
    assert said.ended_at is not None
    chat = bench.one("select model_history::text as history, context_size from chats")
    assert (chat.history, chat.context_size) == (history, 12)


def test_an_ending_without_history_leaves_the_chat_s_alone(bench: Bench, node: Node) -> None:
    project = bench.project()
    bench.add(project)
    first = node.claim_one()
    node.finish(ending(first, model_history="[1]"))
    bench.add(project, session_id=first.session_id)
    node.finish(ending(node.claim_one(), "failed"))
    assert bench.value("select model_history::text from chats") == "[1]"


@pytest.mark.parametrize("how", ["reaped", "claimed again", "ended already"])
def test_an_ending_under_another_epoch_stores_nothing(bench: Bench, node: Node, how: str) -> None:
    task = bench.add(bench.project())
    claimed = node.claim_one()
    node.record_worktree(claimed)
    if how == "ended already":
        node.finish(ending(claimed))
    else:
        node.die()
        bench.do("select coder.reap()")
    if how == "claimed again":
        assert bench.node(node.host).claim_one().id == task

    def everything() -> list[object]:
        tables = ("tasks", "messages", "chats", "session_worktrees", "session_queue", "sessions", "pending_changes")
        return [bench.rows(f"select x::text from {table} x order by 1") for table in tables]

    before = everything()
    zombie = ending(claimed, text="zombie", model_history="[1]", snapshot=snapshot("1" * 40), diff=1, unsnapshotted=True)
    assert verdicts(node.finish(zombie, diffs=[b"diff"])) == [("fenced", task)]
    assert node.seen(claimed) == []
    assert node.record_worktree(claimed, "/elsewhere") is False
    assert everything() == before


def test_in_a_group_each_ending_stands_for_itself(bench: Bench, node: Node) -> None:
    project = bench.project()
    tasks = [bench.add(project) for _ in range(4)]
    claimed = {each.id: each for each in node.claim(4)}
    node.finish(ending(claimed[tasks[1]]))
    rows = node.finish(*[ending(claimed[task], "failed") for task in tasks])
    assert verdicts(rows) == [("ended", tasks[0]), ("ended", tasks[2]), ("ended", tasks[3]), ("fenced", tasks[1])]
    assert [bench.task(task).state for task in tasks] == ["failed", "completed", "failed", "failed"]
    assert bench.value("select count(*) from session_queue where state = 'idle'") == 4


def test_a_group_with_an_ending_the_database_refuses_stores_none_of_it(bench: Bench, node: Node) -> None:
    """The finisher then tries each alone."""
    project = bench.project()
    tasks = [bench.add(project) for _ in range(2)]
    first, second = node.claim(2)
    with pytest.raises(psycopg.errors.CheckViolation):
        node.finish(ending(first), ending(second, reason="nonsense"))
    assert {bench.task(task).state for task in tasks} == {"running"}
    assert verdicts(node.finish(ending(first))) == [("ended", first.id)]


@pytest.mark.parametrize(("reason", "attempts"), [("shutdown", 0), (None, 1)])
def test_a_task_put_back_keeps_its_place_and_a_drain_gives_the_attempt_back(
    bench: Bench, node: Node, reason: str | None, attempts: int
) -> None:
    project = bench.project()
    task = bench.add(project)
    session = bench.session_of(task)
    later = bench.add(project, session_id=session)
    claimed = node.claim_one()
    node.finish(ending(claimed, "pending", reason=reason))
    row = bench.task(task)
    assert (row.state, row.attempts, row.reason, row.ended_at, row.epoch, row.node_id) == ("pending", attempts, None, None, None, None)
    assert (bench.value("select count(*) from messages"), bench.queue(session).state) == (0, "ready")
    assert [node.run(1)[0] for _ in range(2)] == [task, later]


@pytest.mark.parametrize("closed", [False, True])
def test_a_task_whose_end_was_asked_for_does_not_run_again(bench: Bench, node: Node, closed: bool) -> None:
    """The drain was first to stop the turn; the person who cancelled must not see it start anew elsewhere."""
    task = bench.add(bench.project())
    claimed = node.claim_one()
    bench.do("select coder.close_session(%s)" if closed else "select coder.cancel(%s)", claimed.session_id if closed else task)
    assert verdicts(node.finish(ending(claimed, "pending"))) == [("ended", task)]
    row = bench.task(task)
    assert (row.state, row.reason) == ("cancelled", "session_closed" if closed else "user")
    assert row.ended_at is not None
    assert (bench.message(task).state, bench.queue(claimed.session_id).state) == ("cancelled", "idle")
    assert node.claim(5) == []


def test_what_was_seen_is_said_once_and_only_by_its_owner(bench: Bench, node: Node) -> None:
    project = bench.project()
    for _ in range(3):
        bench.add(project)
    claimed = node.claim(3)
    node.finish(ending(claimed[2]))
    assert sorted(node.seen(*claimed)) == sorted(each.id for each in claimed[:2])
    first = bench.task(claimed[0].id).first_event_at
    assert first is not None
    assert bench.task(claimed[2].id).first_event_at is None
    node.seen(claimed[0])
    assert bench.task(claimed[0].id).first_event_at == first


def test_ending_a_turn_waits_for_no_producer_and_misses_none(bench: Bench, node: Node) -> None:
    """The producer's transaction holds the session; the session is left over, and goes on with a later call."""
    project = bench.project()
    session = bench.session_of(bench.add(project))
    claimed = node.claim_one()
    bench.do("set lock_timeout = '1s'")
    with bench.connect() as producer:
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'next', %s)", [project, session])
        left = node.finish(ending(claimed))
        assert verdicts([row for row in left if row.verdict != "left"]) == [("ended", claimed.id)]
        left = [row for row in left if row.verdict == "left"]
        assert [(row.session_id, row.epoch) for row in left] == [(session, claimed.epoch)]
        assert bench.task(claimed.id).state == "completed"
        again = node.finish(left=left)
        assert [(row.verdict, row.session_id, row.epoch) for row in again] == [("left", session, claimed.epoch)]
        producer.commit()
    assert bench.queue(session).state == "running"
    assert node.finish(left=again) == []
    assert bench.queue(session).state == "ready"
    assert node.claim_one().input == "next"


def test_a_session_left_over_is_advanced_once_however_often_it_is_passed_in(bench: Bench, node: Node) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    claimed = node.claim_one()
    with bench.connect() as producer:
        producer.execute("insert into tasks (project_id, input, session_id) values (%s, 'next', %s)", [project, session])
        left = [row for row in node.finish(ending(claimed)) if row.verdict == "left"]
        producer.commit()
    assert bench.value("select coder.sweep(false)") == 1  # somebody else's sweep was first
    second = node.claim_one()
    assert node.finish(left=left) == []
    assert (bench.queue(session).state, bench.queue(session).epoch) == ("running", second.epoch)


def test_the_worktree_s_base_moved_meanwhile(bench: Bench, node: Node) -> None:
    project = bench.project()
    bench.add(project)
    claimed, bystander = node.claim_one(), bench.add(project)
    node.record_worktree(claimed)
    bench.do("update session_worktrees set base_version = 2, base_commit = repeat('c', 40)")
    other = node.claim_one()
    rows = node.finish(ending(claimed, snapshot=snapshot("1" * 40), diff=1), ending(other), diffs=[b"d"])
    assert verdicts(rows) == [("ended", bystander), ("moved", claimed.id)]
    assert bench.task(claimed.id).state == "running"
    rows = node.finish(ending(claimed, snapshot=snapshot("1" * 40, "c" * 40, 2), diff=1), diffs=[b"d"])
    assert verdicts(rows) == [("ended", claimed.id)]
    assert bench.value("select base_version from pending_changes") == 2


def test_an_ending_waits_while_the_session_s_change_is_applied(bench: Bench, node: Node) -> None:
    project = bench.project()
    change = make_change(node, project)
    bench.do("select coder.approve(%s, %s)", change.id, change.fingerprint)
    decision = bench.one("select * from coder.claim_decision(%s, %s)", node.id, node.host)
    bench.add(project, session_id=change.session_id)
    claimed = node.claim_one()
    assert bench.value("select coder.begin_applying(%s, %s, '{}')", decision.id, decision.epoch) == "applying"
    again = ending(claimed, snapshot=snapshot("2" * 40), diff=1)
    assert verdicts(node.finish(again, diffs=[b"d"])) == [("applying", claimed.id)]
    bench.do("select coder.settle_decision(%s, %s, 'approved', null, '{}', 'approved', '[]', '[]')", decision.id, decision.epoch)
    assert verdicts(node.finish(again, diffs=[b"d"])) == [("moved", claimed.id)]
    fresh = snapshot("2" * 40, bench.value("select base_commit from session_worktrees"), 2)
    assert verdicts(node.finish(again | {"snapshot": fresh}, diffs=[b"d"])) == [("ended", claimed.id)]
    assert [row.state for row in bench.rows("select state from pending_changes order by created_at")] == ["approved", "pending"]


def test_work_that_no_change_shows_is_remembered(bench: Bench, node: Node) -> None:
    bench.add(bench.project())
    claimed = node.claim_one()
    node.record_worktree(claimed)
    node.finish(ending(claimed, "failed", reason="disk", unsnapshotted=True))
    assert bench.value("select unsnapshotted_task from session_worktrees") == claimed.id


@pytest.mark.parametrize(("state", "after"), [("completed", "ready"), ("interrupted", "held")])
def test_the_node_that_ended_a_turn_is_not_rung_for_what_it_will_look_at_anyway(bench: Bench, node: Node, state: str, after: str) -> None:
    project = bench.project()
    session = bench.session_of(bench.add(project))
    bench.add(project, session_id=session)
    claimed = node.claim_one()
    ear = bench.listen("tasks_new")
    node.finish(ending(claimed, state))
    assert (bench.queue(session).state, ear.heard()) == (after, [])
