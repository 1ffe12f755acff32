"""Every move that the tables of docs/lifecycle.md draw is made by the functions of schema.sql, and no other move ever is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from queuebench import BASE, Bench, Node, Row, ending, make_change, snapshot
from test_queue_model import People

from coder.task import TRANSITIONS, TaskState
from tests.structure.lifecycle import AGENT_SESSION, CHANGE, DECISION, PERMISSION, QUEUE

Moves = set[tuple[str, str]]
NOTE = """
create table moves (kind text, before text, after text);
create function note_move() returns trigger language plpgsql as $$
begin
    insert into moves values (tg_table_name, case when tg_op = 'INSERT' then '[*]' else old.state end, new.state);
    return null;
end $$;
create trigger zz_moves after insert or update on tasks for each row execute function note_move();
create trigger zz_moves after insert or update on pending_changes for each row execute function note_move();
create trigger zz_moves after insert or update on decisions for each row execute function note_move();
create trigger zz_moves after insert or update on session_queue for each row execute function note_move();
create trigger zz_moves after insert or update on permissions for each row execute function note_move();
create function note_status() returns trigger language plpgsql as $$
begin
    insert into moves values (tg_table_name, case when tg_op = 'INSERT' then '[*]' else old.status end, new.status);
    return null;
end $$;
create trigger zz_moves after insert or update on agent_sessions for each row execute function note_status();
"""
DRAWN: dict[str, Moves] = {
    "tasks": {(str(before), str(after)) for (before, _), after in TRANSITIONS.items()} | {("[*]", str(TaskState.PENDING))},
    "pending_changes": {(before, after) for before, after, _ in CHANGE},
    "decisions": {(before, after) for before, after, _ in DECISION},
    "session_queue": {(before, after) for before, after, _ in QUEUE},
    "permissions": {(before, after) for before, after, _ in PERMISSION},
    "agent_sessions": {(before, after) for before, after, _ in AGENT_SESSION},
}


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        bench.do(NOTE)
        yield bench


def made(bench: Bench, kind: str) -> Moves:
    """The moves of one kind; staying where one is, is none, except for a decision that changes hands."""
    rows = bench.rows("select distinct before, after from moves where kind = %s", kind)
    return {(row.before, row.after) for row in rows if row.before != row.after or (kind == "decisions" and row.after == "running")}


def lives_of_tasks(bench: Bench, node: Node) -> None:
    project = bench.project()
    for state in ("completed", "failed", "cancelled", "interrupted", "pending"):
        task = bench.add(project)
        claimed = node.claim_one()
        node.finish(ending(claimed, state))
        if state in ("failed", "interrupted"):
            bench.do("select coder.dismiss(%s)", task)
        elif state == "pending":
            bench.do("select coder.cancel(%s)", task)


def lives_of_sessions(bench: Bench, node: Node) -> None:
    project = bench.value("select id from projects")
    far = "2099-01-01"

    def claimed_task(**columns: object) -> Row:
        bench.add(project, priority=9, **columns)
        return node.claim_one()

    first = claimed_task()
    session = first.session_id
    later = bench.add(project, session_id=session, run_at=far)
    node.finish(ending(first))  # running -> scheduled
    bench.do("update tasks set run_at = null where id = %s", later)  # scheduled -> ready
    bench.do("update tasks set run_at = %s where id = %s", far, later)  # ready -> scheduled
    bench.do("select coder.cancel(%s)", later)  # scheduled -> idle
    bench.add(project, session_id=session, run_at=far)  # idle -> scheduled
    bench.do("select coder.close_session(%s)", session)
    for more in ({}, {"run_at": far}, None):
        held = claimed_task()
        if more is not None:
            bench.add(project, session_id=held.session_id, **more)
        node.finish(ending(held, "interrupted"))
        bench.do("select coder.dismiss(%s)", held.id)  # held -> ready, scheduled, idle
        bench.do("select coder.close_session(%s)", held.session_id)
    task = bench.add(project)
    bench.do("select coder.cancel(%s)", task)  # ready -> idle
    bench.add(project, session_id=bench.session_of(task))  # idle -> ready
    node.run(1)
    both = claimed_task()
    bench.add(project, session_id=both.session_id)
    node.finish(ending(both))  # running -> ready
    node.run(1)
    bench.add(project, run_at=far)


def lives_of_changes(bench: Bench, node: Node) -> None:
    project = bench.project("bank")
    settle = "select coder.settle_decision(%s, %s, %s, null, '{}', %s, '[]', '[]')"

    def decide(change: Row, outcome: str, becomes: str, *, begin: bool = True, other: bool = False, parts: str | None = None) -> None:
        asked = "coder.decide(%s, %s, %s)" if parts else "coder.approve(%s, %s)"
        bench.do(f"select {asked}", change.id, change.fingerprint, *([parts] if parts else []))
        claimed = bench.one("select id, epoch from coder.claim_decision(%s, %s)", node.id, node.host)
        if other:
            claimed = bench.one("select id, epoch from coder.claim_decision(%s, %s)", node.id, node.host)
        if begin:
            bench.do("select coder.begin_applying(%s, %s, '{}')", claimed.id, claimed.epoch)
        bench.do(settle, claimed.id, claimed.epoch, outcome, becomes)

    first = make_change(node, project, priority=9)
    decide(first, "checkout_dirty", "pending")  # applying -> pending
    decide(first, "conflict", "conflicted", begin=False)  # pending -> conflicted
    decide(first, "conflict", "conflicted", other=True)  # conflicted -> applying -> conflicted
    decide(first, "approved", "approved")
    decide(make_change(node, project, priority=9), "rebased", "superseded")
    bench.do("select coder.undo(%s)", first.id)
    undo = bench.one("select id, epoch, content from coder.claim_decision(%s, %s)", node.id, node.host)
    bench.do("select coder.begin_applying(%s, %s, '{}', %s)", undo.id, undo.epoch, undo.content)
    bench.do(settle, undo.id, undo.epoch, "undone", "undone")  # approved -> undone
    decide(make_change(node, project, priority=9), "rejected", "rejected", parts='[{"path": "a.py", "verdict": "reject"}]')
    for state in ("pending", "conflicted"):
        change = make_change(node, project, priority=9)
        if state == "conflicted":
            decide(change, "conflict", "conflicted", begin=False)
        bench.do("select coder.reject(%s, %s)", change.id, change.fingerprint)
        change = make_change(node, project, "2" * 40, session_id=change.session_id, priority=9)
        if state == "conflicted":
            decide(change, "conflict", "conflicted", begin=False)
        bench.add(project, session_id=change.session_id, priority=9)
        node.finish(ending(node.claim_one(), snapshot=snapshot(BASE)))


def lives_of_permissions(bench: Bench, node: Node) -> None:
    bench.add(bench.value("select id from projects where name = 'shop'"), priority=9)
    claimed = node.claim_one()
    asked = {"agent": "a", "kind": "permission", "tool": "t", "asked_for": "other", "title": "x", "paths": [], "choices": []}

    def ask(number: int) -> UUID:
        request = json.dumps(asked | {"request_id": str(number), "several": False})
        return bench.value("select id from coder.ask(%s, %s, %s, '{}', '1 h', null)", claimed.id, claimed.epoch, request)

    bench.do("select coder.allow(%s)", ask(1))
    bench.do("select coder.allow(%s, 'session')", ask(2))
    bench.do("select coder.deny(%s)", ask(3))
    ask(4)
    node.finish(ending(claimed, asked=True))


def lives_of_agent_sessions(bench: Bench, node: Node) -> None:
    task = bench.add(bench.value("select id from projects where name = 'shop'"), priority=9)
    session = bench.session_of(task)
    kept = {"id": "s", "config_hash": "h", "home": "o", "status": "active"}

    def turn(left: object) -> None:
        node.finish(ending(node.claim_one(), agent_used="a", execution_path="acp", agent_session=left))
        bench.add(bench.value("select id from projects where name = 'shop'"), session_id=session, priority=9)

    stop = "update agent_sessions set status = 'stopped' where status = 'active'"  # as tasks.sql has it
    for left, then in ((kept, stop), (kept, None), ({}, None), (kept, stop), ({}, None)):
        turn(left)
        if then is not None:
            bench.do(then)


def test_every_move_that_is_drawn_is_made_and_no_other(bench: Bench) -> None:
    node = bench.node()
    lives_of_tasks(bench, node)
    lives_of_sessions(bench, node)
    lives_of_changes(bench, node)
    lives_of_permissions(bench, node)
    lives_of_agent_sessions(bench, node)
    for kind, drawn in DRAWN.items():
        assert made(bench, kind) == drawn, kind


def test_whatever_people_and_nodes_do_only_moves_that_are_drawn_are_made(bench: Bench) -> None:
    machine = type("Machine", (People,), {"bench": bench})
    checks = list(HealthCheck)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=checks, database=None)
    )
    for kind in ("tasks", "session_queue"):
        assert made(bench, kind) <= DRAWN[kind], kind
