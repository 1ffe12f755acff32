"""What a snapshot becomes: the session's one open change, a superseding one, or none."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from queuebench import BASE, Bench, Node, ending, make_change, refused, snapshot


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


def changes(bench: Bench) -> list[tuple[str, str]]:
    rows = bench.rows("select state, snapshot_tree from pending_changes order by created_at")
    return [(row.state, row.snapshot_tree[:1]) for row in rows]


def test_a_change_tells_what_was_done(bench: Bench, node: Node) -> None:
    project = bench.project()
    task = bench.add(project, "\n  make it round\nand green")
    claimed = node.claim_one()
    node.record_worktree(claimed)
    taken = snapshot("1" * 40, number=4, warnings=["look at .gitignore"])
    node.finish(ending(claimed, "failed", snapshot=taken, diff=1, agent_used="opencode"), diffs=[b"caf\xe9 \xff\n"])
    change = bench.one("select * from pending_changes")
    assert (change.state, change.turn_outcome, change.agent, change.title) == ("pending", "failed", "opencode", "make it round")
    assert (change.task_id, change.project_id, change.session_id) == (task, project, claimed.session_id)
    assert (change.base_commit, change.base_version, change.snapshot_commit, change.fingerprint) == (
        BASE,
        1,
        "1" * 40,
        taken["fingerprint"],
    )
    assert (change.file_count, change.additions, change.deletions, change.warnings) == (2, 3, 1, ["look at .gitignore"])
    assert bytes(change.diff) == b"caf\xe9 \xff\n"
    files = bench.rows("select path, display, old_path, operation, additions, deletions from change_files order by ordinal")
    assert [tuple(each) for each in files] == [(b"a.py", "a.py", None, "modified", 3, 1), (b"c.py", "c.py", b"b.py", "renamed", 0, None)]
    tree = bench.one("select last_snapshot, snapshots from session_worktrees")
    assert tuple(tree) == ("1" * 40, 4)


@pytest.mark.parametrize(
    ("diff", "text"),
    [
        (b"plain", "plain"),
        ("käse".encode(), "käse"),
        (b"caf\xe9", "café"),
        (b"nul \x00 in \\000 it", "nul \ufffd in \\000 it"),
        (b"\x00\x00\\\x00\\\\000 \xc3\xa9", "\ufffd\ufffd\\\ufffd\\\\000 é"),
        (b"\x00 caf\xe9", "ï¿½ café"),
        (b"", ""),
    ],
)
def test_the_view_shows_any_diff_as_text(bench: Bench, node: Node, diff: bytes, text: str) -> None:
    """A diff is bytes: one with U+0000 in it (a text attribute on a binary file) must not break the list of changes."""
    change = make_change(node, bench.project())
    bench.forced("update pending_changes set diff = %s", diff)
    assert bench.value("select diff from changes where id = %s", change.id) == text


def test_a_newer_change_takes_the_older_one_s_place(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = make_change(node, project)
    second = make_change(node, project, "2" * 40, session_id=first.session_id)
    assert changes(bench) == [("superseded", "1"), ("pending", "2")]
    old = bench.one("select superseded_by, decided_at from pending_changes where id = %s", first.id)
    assert (old.superseded_by, old.decided_at is not None) == (second.id, True)


def test_a_turn_that_undid_everything_supersedes_with_nothing(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = make_change(node, project)
    bench.add(project, session_id=first.session_id)
    (row,) = node.finish(ending(node.claim_one(), snapshot=snapshot(BASE)))
    assert (row.verdict, row.change_id, changes(bench)) == ("ended", None, [("superseded", "1")])
    assert bench.value("select superseded_by from pending_changes") is None


def test_a_conflicted_change_is_superseded_too(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = make_change(node, project)
    bench.forced("update pending_changes set state = 'conflicted'")
    make_change(node, project, "2" * 40, session_id=first.session_id)
    assert changes(bench) == [("superseded", "1"), ("pending", "2")]


def test_what_was_just_rejected_and_is_kept_makes_no_new_change(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = make_change(node, project)
    bench.do("select coder.reject(%s, %s, 'no', 'keep')", first.id, first.fingerprint)
    for _ in range(2):
        bench.add(project, session_id=first.session_id)
        (row,) = node.finish(ending(node.claim_one(), snapshot=snapshot("1" * 40), diff=1), diffs=[b"d"])
        assert (row.verdict, row.change_id) == ("ended", None)
    make_change(node, project, "2" * 40, session_id=first.session_id)
    make_change(node, project, "1" * 40, session_id=first.session_id)
    assert changes(bench) == [("rejected", "1"), ("superseded", "2"), ("pending", "1")]


def test_the_rejected_tree_against_another_base_is_a_new_change(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = make_change(node, project)
    bench.do("select coder.reject(%s, %s, 'no', 'keep')", first.id, first.fingerprint)
    bench.do("update session_worktrees set base_commit = repeat('c', 40), base_version = 2")
    bench.add(project, session_id=first.session_id)
    node.finish(ending(node.claim_one(), snapshot=snapshot("1" * 40, "c" * 40, 2), diff=1), diffs=[b"d"])
    assert changes(bench) == [("rejected", "1"), ("pending", "1")]


def test_while_a_discard_is_owed_no_turn_makes_a_change(bench: Bench, node: Node) -> None:
    project = bench.project()
    first = make_change(node, project)
    bench.add(project, session_id=first.session_id)
    claimed = node.claim_one()
    decision = bench.value("select coder.reject(%s, %s, 'no', 'discard')", first.id, first.fingerprint)
    (row,) = node.finish(ending(claimed, snapshot=snapshot("2" * 40), diff=1), diffs=[b"d"])
    assert (row.change_id, changes(bench)) == (None, [("rejected", "1")])
    bench.do("select coder.discarded(%s, %s)", first.session_id, decision)
    assert tuple(bench.one("select discard_decision, last_snapshot from session_worktrees")) == (None, None)


def test_one_session_has_at_most_one_open_change(bench: Bench, node: Node) -> None:
    make_change(node, bench.project())
    columns = "session_id, project_id, task_id, agent, title, turn_outcome, base_commit, base_tree, base_version, snapshot_commit, " \
              "snapshot_tree, fingerprint, file_count, additions, deletions, diff"  # fmt: skip
    with refused("23505"):
        bench.do(f"insert into pending_changes ({columns}, state) select {columns}, 'conflicted' from pending_changes")
    with refused("23514"):
        bench.forced("update pending_changes set fingerprint = repeat('0', 64)")


def test_the_work_of_a_dead_node_becomes_its_change(bench: Bench, node: Node) -> None:
    project = bench.project()
    task = bench.add(project)
    claimed = node.claim_one()
    node.record_worktree(claimed)
    node.seen(claimed)
    node.die()
    bench.do("select coder.reap()")
    rescue = "select coder.rescue_change(%s, %s, %s::jsonb, %s)"
    moved, taken = (json.dumps(snapshot("1" * 40, version=version)) for version in (9, 1))
    assert bench.value(rescue, claimed.session_id, task, moved, b"d") == "moved"
    assert bench.value(rescue, claimed.session_id, task, taken, b"d") == "stored"
    change = bench.one("select * from pending_changes")
    assert (change.turn_outcome, change.agent, change.task_id) == ("interrupted", "native", task)
    assert bench.value(rescue, claimed.session_id, task, taken, b"d") == "gone"
    bench.forced("update pending_changes set state = 'applying'")
    bench.do("update session_worktrees set unsnapshotted_task = %s", task)
    assert bench.value(rescue, claimed.session_id, task, taken, b"d") == "applying"
