"""Deciding on a change, and how a node carries the decision out: checks, exclusivity, takeover, settling."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from queuebench import Bench, Node, Row, ending, make_change, refused, snapshot

CLAIM = "select * from coder.claim_decision(%s, %s)"
BEGIN = "select coder.begin_applying(%s, %s, '{\"files\": []}')"
SETTLE = "select coder.settle_decision(%s, %s, %s, %s, %s::jsonb, %s, %s::jsonb, %s::jsonb)"
WRITTEN = '[{"path": "612e7079", "blob": "aa", "mode": "100644"}, {"path": "622e7079", "blob": null, "mode": "000000"}]'


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


@pytest.fixture
def change(bench: Bench, node: Node) -> Row:
    return make_change(node, bench.project())


def approve(bench: Bench, change: Row, **options: Any) -> UUID:
    named = "".join(f", {name} => %s" for name in options)
    return bench.value(f"select coder.approve(%s, %s{named})", change.id, change.fingerprint, *options.values())


def claim(node: Node) -> Row | None:
    rows = node.bench.rows(CLAIM, node.id, node.host)
    return rows[0] if rows else None


def settle(bench: Bench, claimed: Row, outcome: str, state: str | None, error: str | None = None, written: str = "[]") -> bool:
    return bench.value(SETTLE, claimed.id, claimed.epoch, outcome, error, '{"n": 1}', state, "[]", written)


def state(bench: Bench, change: Row) -> str:
    return bench.value("select state from pending_changes where id = %s", change.id)


def test_an_approval_is_queued_and_rings(bench: Bench, change: Row) -> None:
    ear = bench.listen("decisions_new")
    decision = approve(bench, change, p_actor="ada", p_reason="  nice ")
    row = bench.one("select * from decisions where id = %s", decision)
    assert (row.kind, row.state, row.target, row.branch, row.commit, row.actor, row.reason) == (
        "approve", "queued", "checkout", None, False, "ada", "nice")  # fmt: skip
    assert (state(bench, change), ear.heard()) == ("pending", ["decisions_new"])


def test_an_approval_into_a_branch_gets_a_name(bench: Bench, node: Node, change: Row) -> None:
    with refused("CD422", "branch is empty"):
        approve(bench, change, p_target="branch", p_branch=" ")
    approve(bench, change, p_target="branch")
    assert bench.value("select branch from decisions") == f"coder/{str(change.session_id)[:8]}"
    other = make_change(node, change.project_id)
    approve(bench, other, p_target="branch", p_branch=" feature/x ")
    assert bench.value("select branch from decisions where change_id = %s", other.id) == "feature/x"


@pytest.mark.parametrize("function", ["approve", "reject"])
def test_only_what_was_shown_can_be_decided_on(bench: Bench, node: Node, change: Row, function: str) -> None:
    query = f"select coder.{function}(%s, %s)"
    with refused("CD404", "There is no change", "select id, title from changes"):
        bench.do(query, uuid4(), change.fingerprint)
    for fingerprint in ("0" * 64, "", None):
        with pytest.raises(psycopg.Error) as caught:
            bench.do(query, change.id, fingerprint)
        assert (caught.value.sqlstate, caught.value.diag.message_detail) == ("CD410", change.fingerprint)
    newer = make_change(node, change.project_id, "2" * 40, session_id=change.session_id)
    with pytest.raises(psycopg.Error) as caught:
        bench.do(query, change.id, change.fingerprint)
    assert (caught.value.sqlstate, caught.value.diag.message_detail) == ("CD411", str(newer.id))
    assert f"hange {newer.id} took its place." in str(caught.value.diag.message_primary)
    bench.forced("update pending_changes set state = 'applying' where id = %s", newer.id)
    with refused("CD409", "being applied right now"):
        bench.do(query, newer.id, newer.fingerprint)
    for decided in ("approved", "rejected"):
        bench.forced("update pending_changes set state = %s where id = %s", decided, newer.id)
        with refused("CD411", f"is {decided}, so it can no longer be decided on"):
            bench.do(query, newer.id, newer.fingerprint)
    assert bench.value("select count(*) from decisions") == 0


@pytest.mark.parametrize(
    "options",
    [{"p_target": "moon"}, {"p_target": None}, {"p_branch": "b"}, {"p_target": "branch", "p_commit": True}],
)
def test_an_approval_that_makes_no_sense_is_refused(bench: Bench, change: Row, options: dict[str, object]) -> None:
    with refused("CD422"):
        approve(bench, change, **options)
    assert bench.value("select count(*) from decisions") == 0


def test_a_change_is_decided_on_once_at_a_time(bench: Bench, node: Node, change: Row) -> None:
    approve(bench, change)
    for function in ("approve", "reject"):
        with refused("CD409", "already decided", "still being carried out"):
            bench.do(f"select coder.{function}(%s, %s)", change.id, change.fingerprint)
    claimed = claim(node)
    assert settle(bench, claimed, "conflict", "conflicted", "they differ")
    assert state(bench, change) == "conflicted"
    assert approve(bench, change)


def test_of_two_at_once_one_decides(bench: Bench, change: Row) -> None:
    people = [bench.connect(autocommit=True) for _ in range(4)]

    def decide(number: int) -> str:
        function = ("approve", "reject")[number % 2]
        try:
            people[number].execute(f"select coder.{function}(%s, %s)", [change.id, change.fingerprint])
        except psycopg.Error as error:
            return error.sqlstate or ""
        return "decided"

    with ThreadPoolExecutor(4) as pool:
        answers = sorted(pool.map(decide, range(4)))
    assert answers[-1] == "decided"
    assert set(answers[:3]) <= {"CD409", "CD411"}
    assert bench.value("select count(*) from decisions") == 1


def test_a_rejection_is_done_at_once(bench: Bench, node: Node, change: Row) -> None:
    ear = bench.listen("decisions_new")
    decision = bench.value("select coder.reject(%s, %s, ' too red ', p_actor => 'ada')", change.id, change.fingerprint)
    row = bench.one("select * from decisions where id = %s", decision)
    assert (row.state, row.outcome, row.work, row.reason, row.actor) == ("done", "rejected", "keep", "too red", "ada")
    assert (state(bench, change), ear.heard(), claim(node)) == ("rejected", [], None)
    assert bench.value("select discard_decision from session_worktrees") is None


def test_a_rejection_that_discards_marks_the_worktree_and_rings(bench: Bench, change: Row) -> None:
    ear = bench.listen("decisions_new")
    with refused("CD422", '"keep" or "discard"'):
        bench.do("select coder.reject(%s, %s, null, 'burn')", change.id, change.fingerprint)
    decision = bench.value("select coder.reject(%s, %s, null, 'discard')", change.id, change.fingerprint)
    assert (bench.value("select discard_decision from session_worktrees"), ear.heard()) == (decision, ["decisions_new"])


def test_a_decision_locks_the_worktree_before_the_change(bench: Bench, change: Row) -> None:
    """The order of finish and of the reviewer; the other way round two of them could wait for each other."""
    person = bench.connect(autocommit=True)
    with bench.connect() as turn, ThreadPoolExecutor(1) as pool:
        turn.execute("select from session_worktrees where session_id = %s for update", [change.session_id])
        deciding = pool.submit(person.execute, "select coder.reject(%s, %s)", [change.id, change.fingerprint])
        turn.execute("set lock_timeout = '2s'")
        for _ in range(500):
            if bench.value("select cardinality(pg_blocking_pids(%s)) > 0", person.info.backend_pid):
                break
            bench.do("select pg_sleep(0.01)")
        turn.execute("select from pending_changes where id = %s for update", [change.id])
        turn.commit()
        deciding.result(20)
    assert state(bench, change) == "rejected"


def test_a_node_gets_all_an_approval_needs(bench: Bench, node: Node, change: Row) -> None:
    decision = approve(bench, change, p_commit=True)
    bench.do("insert into checkout_files values (%s, 'a.py', 'aa', '100644'), (%s, 'z.py', 'bb', '100644')", *[change.project_id] * 2)
    claimed = claim(node)
    assert claimed is not None
    assert (claimed.id, claimed.decision["commit"], claimed.change["id"]) == (decision, True, str(change.id))
    assert "diff" not in claimed.change
    assert claimed.worktree["path"] == "/srv/worktrees/1"
    assert sorted(bytes.fromhex(path) for path in claimed.paths) == [b"a.py", b"b.py", b"c.py"]
    assert claimed.written == {b"a.py".hex(): ["aa", "100644"]}
    row = bench.one("select state, node_id, epoch from decisions")
    assert tuple(row) == ("running", node.id, claimed.epoch)


def test_only_the_worktree_s_host_takes_the_decision(bench: Bench, change: Row) -> None:
    approve(bench, change)
    assert claim(bench.node()) is None


def test_decisions_of_a_project_run_one_at_a_time_and_in_order(bench: Bench, node: Node, change: Row) -> None:
    second = make_change(node, change.project_id)
    elsewhere = make_change(node, bench.project("bank"))
    decisions = [approve(bench, each) for each in (change, second, elsewhere)]
    first, other, none = claim(node), claim(bench.node(node.host)), claim(bench.node(node.host))
    assert (first.id, other.id, none) == (decisions[0], decisions[2], None)
    settle(bench, first, "approved", "approved")
    assert claim(node).id == decisions[1]


def test_two_nodes_never_begin_with_one_project_at_once(bench: Bench, node: Node, change: Row) -> None:
    second = make_change(node, change.project_id)
    approve(bench, change), approve(bench, second)
    other = bench.connect(autocommit=True)
    with bench.connect() as first, ThreadPoolExecutor(1) as pool:
        assert len(first.execute(CLAIM, [node.id, node.host]).fetchall()) == 1
        waiting = pool.submit(lambda: other.execute(CLAIM, [bench.node(node.host).id, node.host]).fetchall())
        first.commit()
        assert waiting.result(20) == []


def test_a_dead_node_s_decision_is_taken_over_with_its_plan(bench: Bench, node: Node, change: Row) -> None:
    approve(bench, change)
    first = claim(node)
    assert bench.value(BEGIN, first.id, first.epoch) == "applying"
    heir = bench.node(node.host)
    assert claim(heir) is None
    node.die()
    bench.do("select coder.reap()")
    taken = claim(heir)
    assert (taken.id, taken.decision["plan"], taken.change["state"]) == (first.id, {"files": []}, "applying")
    assert taken.epoch > first.epoch
    assert bench.value(BEGIN, first.id, first.epoch) == "fenced"
    assert settle(bench, first, "approved", "approved") is False
    assert state(bench, change) == "applying"
    assert bench.value(BEGIN, taken.id, taken.epoch) == "applying"
    assert settle(bench, taken, "approved", "approved") is True


def test_a_node_takes_up_again_what_it_had_to_drop_itself(bench: Bench, node: Node, change: Row) -> None:
    """It carries out one at a time: a decision that it asks for while one of its own runs is one it lost hold of."""
    approve(bench, change)
    first = claim(node)
    again = claim(node)
    assert (again.id, again.epoch > first.epoch) == (first.id, True)
    assert settle(bench, first, "approved", "approved") is False


def test_what_changed_before_the_plan_was_stored_is_not_applied(bench: Bench, node: Node, change: Row) -> None:
    approve(bench, change)
    claimed = claim(node)
    make_change(node, change.project_id, "2" * 40, session_id=change.session_id)
    assert bench.value(BEGIN, claimed.id, claimed.epoch) == "superseded"
    bench.forced("update pending_changes set state = 'rejected' where state = 'pending'")
    other = "base_tree = repeat('9', 40), fingerprint = encode(sha256(convert_to(repeat('9', 40) || ':' || snapshot_tree, 'UTF8')), 'hex')"
    bench.forced(f"update pending_changes set state = 'pending', superseded_by = null, {other} where id = %s", change.id)
    assert bench.value(BEGIN, claimed.id, claimed.epoch) == "stale"
    assert bench.value("select plan from decisions") is None


def test_an_approval_moves_the_base_and_remembers_what_was_written(bench: Bench, node: Node, change: Row) -> None:
    approve(bench, change)
    claimed = claim(node)
    bench.value(BEGIN, claimed.id, claimed.epoch)
    assert settle(bench, claimed, "approved", "approved", written=WRITTEN)
    tree = bench.one("select base_commit, base_version from session_worktrees")
    assert tuple(tree) == (change.snapshot_commit, 2)
    row = bench.one("select state, outcome, error, facts, plan, ended_at from decisions")
    assert (row.state, row.outcome, row.facts, row.plan) == ("done", "approved", {"n": 1}, {"files": []})
    written = bench.rows("select path, blob, mode from checkout_files order by path")
    assert [tuple(each) for each in written] == [(b"a.py", "aa", "100644"), (b"b.py", None, "000000")]
    assert bench.value("select decided_at from pending_changes") is not None


@pytest.mark.parametrize(
    ("outcome", "becomes", "after"),
    [("conflict", "conflicted", "conflicted"), ("checkout_dirty", "pending", "pending"), ("checkout_dirty", None, "applying")],
)
def test_a_refused_approval_leaves_base_and_change_open(
    bench: Bench, node: Node, change: Row, outcome: str, becomes: str | None, after: str
) -> None:
    approve(bench, change)
    claimed = claim(node)
    bench.value(BEGIN, claimed.id, claimed.epoch)
    assert settle(bench, claimed, outcome, becomes, "because")
    row = bench.one("select state, outcome, error, plan from decisions")
    assert tuple(row) == ("failed", outcome, "because", None)
    assert (state(bench, change), bench.value("select base_version from session_worktrees")) == (after, 1)
    assert settle(bench, claimed, "approved", "approved") is False


def test_settling_leaves_a_change_alone_that_somebody_superseded(bench: Bench, node: Node, change: Row) -> None:
    approve(bench, change)
    claimed = claim(node)
    make_change(node, change.project_id, "2" * 40, session_id=change.session_id)
    assert settle(bench, claimed, "superseded", "pending")
    assert state(bench, change) == "superseded"


PARTS = json.dumps(
    [
        {"path": "a.py", "hunk": 2, "verdict": "approve"},
        {"path": "c.py", "verdict": "reject"},
        {"path": "a.py", "hunk": 1, "verdict": "leave"},
    ]
)


def test_a_decision_on_parts_is_one_row_and_leaves_the_rest_open(bench: Bench, node: Node, change: Row) -> None:
    bench.do("update change_files set hunks = '[[1,1,1,1,5,2],[9,1,9,4,7,6]]' where display = 'a.py'")
    decision = bench.value("select coder.decide(%s, %s, %s, p_actor => 'ada', p_reason => 'no')", change.id, change.fingerprint, PARTS)
    with refused("CD409", "already decided"):
        bench.value("select coder.decide(%s, %s, %s)", change.id, change.fingerprint, PARTS)
    claimed = claim(node)
    (first, second) = claimed.decision["parts"]
    assert first == {"file": 1, "path": "a.py", "hunk": 2, "verdict": "approve", "line": 9, "lines": 4}
    assert second == {"file": 2, "path": "c.py", "hunk": None, "verdict": "reject", "line": None, "lines": None}
    assert {ordinal: file["path"] for ordinal, file in claimed.files.items()} == {"1": b"a.py".hex(), "2": b"c.py".hex()}
    assert bench.value(BEGIN, claimed.id, claimed.epoch) == "applying"

    left = snapshot("8" * 40, "7" * 40, 2, 0)
    rest = {"base": "7" * 40, "snapshot": left, "shift": {"decision": str(decision), "old": "1" * 40, "new": "8" * 40}}
    settle = "select coder.settle_decision(%s, %s, 'approved', null, '{}', 'approved', '[]', '[]', %s, %s)"
    assert bench.value(settle, claimed.id, claimed.epoch, json.dumps(rest), b"the rest")
    worktree = bench.one("select base_commit, base_version, last_snapshot, shifts from session_worktrees")
    assert tuple(worktree) == ("7" * 40, 2, "8" * 40, [rest["shift"]])
    rows = bench.rows("select id, state, superseded_by, fingerprint, diff from pending_changes order by created_at")
    assert [row.state for row in rows] == ["approved", "pending"]
    assert (rows[0].superseded_by, rows[1].fingerprint, rows[1].diff) == (rows[1].id, left["fingerprint"], b"the rest")
    shown = bench.one("select actor, parts, left_change_id from coder.show_decision(%s)", decision)
    told = [{"path": "a.py", "hunk": 2, "verdict": "approve"}, {"path": "c.py", "hunk": None, "verdict": "reject"}]
    assert tuple(shown) == ("ada", told, rows[1].id)
    with refused("CD411", str(rows[1].id)):
        bench.do("select coder.approve(%s, %s)", change.id, change.fingerprint)

    bench.add(change.project_id, session_id=change.session_id)
    (remark,) = node.claim_one().remarks
    assert (remark["reason"], remark["work"], len(remark["parts"]), remark["kept"]) == ("no", None, 2, None)
    bench.do("select coder.shifted(%s, %s, %s)", change.session_id, decision, ["c.py"])
    assert bench.value("select shifts from session_worktrees") == []
    assert bench.value("select facts from decisions") == {"kept": ["c.py"]}


def test_an_undo_is_refused_while_something_stands_on_it(bench: Bench, node: Node, change: Row) -> None:
    with refused("CD409", str(change.id), "only an approved one"):
        bench.do("select coder.undo(%s)", change.id)
    with refused("CD404", "There is no change"):
        bench.do("select coder.undo(%s)", uuid4())

    def approved(each: Row) -> None:
        approve(bench, each)
        claimed = claim(node)
        bench.value(BEGIN, claimed.id, claimed.epoch)
        assert settle(bench, claimed, "approved", "approved")

    approved(change)
    later = make_change(node, change.project_id, "2" * 40, session_id=change.session_id)
    approved(later)
    with refused("CD409", f"{later.id} was approved on top of change {change.id}"):
        bench.do("select coder.undo(%s)", change.id)
    bench.do("select coder.undo(%s)", later.id)
    with refused("CD409", "already undoing"):
        bench.do("select coder.undo(%s)", later.id)


def test_nothing_is_decided_and_no_turn_ends_while_an_undo_is_carried_out(bench: Bench, node: Node, change: Row) -> None:
    approve(bench, change)
    claimed = claim(node)
    bench.value(BEGIN, claimed.id, claimed.epoch)
    settle(bench, claimed, "approved", "approved")
    waits = make_change(node, change.project_id, "2" * 40, session_id=change.session_id)
    bench.do("select coder.undo(%s)", change.id)
    undo = claim(node)
    assert (undo.decision["kind"], undo.content) == ("undo", waits.snapshot_commit)
    begin = "select coder.begin_applying(%s, %s, '{}', %s)"
    assert bench.value(begin, undo.id, undo.epoch, "9" * 40) == "moved"
    assert bench.value(begin, undo.id, undo.epoch, undo.content) == "applying"
    with refused("CD409", "being undone right now"):
        bench.do("select coder.reject(%s, %s)", waits.id, waits.fingerprint)
    bench.add(change.project_id, session_id=change.session_id)
    running = node.claim_one()
    (verdict,) = node.finish(ending(running, snapshot=snapshot("3" * 40, change.snapshot_commit, 2), diff=1), diffs=[b"d"])
    assert verdict.verdict == "applying"
    assert settle(bench, undo, "checkout_dirty", "pending", "because")
    assert state(bench, change) == "approved"
    (verdict,) = node.finish(ending(running, snapshot=snapshot("3" * 40, change.snapshot_commit, 2), diff=1), diffs=[b"d"])[:1]
    assert verdict.verdict == "ended"


def test_a_rebase_moves_the_base_and_queues_what_the_agent_is_to_resolve(bench: Bench, node: Node, change: Row) -> None:
    decision = bench.value("select coder.rebase(%s, %s, 'branch', 'main', true)", change.id, change.fingerprint)
    claimed = claim(node)
    assert (claimed.decision["kind"], claimed.decision["branch"], claimed.decision["resolve"]) == ("rebase", "main", True)
    bench.value(BEGIN, claimed.id, claimed.epoch)
    left = snapshot("8" * 40, "7" * 40, 2, 0, ["look"])
    shift = {"decision": str(decision), "old": "b" * 40, "new": "7" * 40, "markers": "branch main"}
    rest = {"base": "7" * 40, "snapshot": left, "shift": shift, "task": "Resolve it."}
    settle = "select coder.settle_decision(%s, %s, 'rebased', null, '{}', 'superseded', '[]', '[]', %s, %s)"
    assert bench.value(settle, claimed.id, claimed.epoch, json.dumps(rest), b"d")
    rows = bench.rows("select state, warnings, superseded_by is not null as followed from pending_changes order by created_at")
    assert [tuple(row) for row in rows] == [("superseded", [], True), ("pending", ["look"], False)]
    task = node.claim_one()
    assert (task.input, task.session_id, task.worktree["shifts"]) == ("Resolve it.", change.session_id, [shift])
    assert [(remark["target"], remark["parts"]) for remark in task.remarks] == [("branch main", [])]


def test_a_closed_session_has_no_agent_to_resolve_anything(bench: Bench, node: Node, change: Row) -> None:
    bench.do("select coder.close_session(%s)", change.session_id)
    with refused("CD409", "is closed", "reopen"):
        bench.do("select coder.rebase(%s, %s, p_resolve => true)", change.id, change.fingerprint)
    bench.do("select coder.rebase(%s, %s)", change.id, change.fingerprint)


def test_in_order_the_first_failure_skips_those_behind_it(bench: Bench, node: Node, change: Row) -> None:
    others = [make_change(node, change.project_id), make_change(node, bench.project("bank"))]
    named = [{"change_id": str(each.id), "fingerprint": each.fingerprint} for each in (change, *others)]
    for bad, words in (("[]", "name at least one"), ('[{"change_id": "x"}]', "named by its id")):
        with refused("CD422", words):
            bench.do("select coder.approve_in_order(%s)", bad)
    made = bench.value("select coder.approve_in_order(%s, p_actor => 'ada')", json.dumps(named))
    first = claim(node)
    assert (first.id, claim(bench.node(node.host))) == (made[0], None), "also what is of another project waits"
    settle(bench, first, "approved", "approved")
    second = claim(node)
    assert second.id == made[1]
    assert settle(bench, second, "conflict", "conflicted", "because")
    rows = bench.rows("select id, state, outcome, actor from decisions order by created_at")
    assert [tuple(row) for row in rows] == [
        (made[0], "done", "approved", "ada"),
        (made[1], "failed", "conflict", "ada"),
        (made[2], "failed", "skipped", "ada"),
    ]
    assert claim(node) is None
    assert state(bench, others[1]) == "pending"
