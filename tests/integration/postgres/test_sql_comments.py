"""Comments by SQL: what a diff shows, drafts, one task of all of them, and carrying them to the next change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from queuebench import Bench, Node, Row, ending, make_change, refused, snapshot

A = b"""diff --git a/a.py b/a.py
index 1..2 100644
--- a/a.py
+++ b/a.py
@@ -1,4 +1,5 @@
 one
-two
+2
+2.5
 three
 diff --git a/x b/x
@@ -20,2 +21,2 @@ def f():
 twenty
--- not a header
+++ nor this
\\ No newline at end of file
"""
C = b"diff --git a/b.py b/c.py\nsimilarity index 100%\nrename from b.py\nrename to c.py\n"
LINES = "select old_line, new_line, words from coder.diff_lines(coder.file_diff(%s, %s))"
CARRY = "select coder.carry_comments(%s, %s, %s, %s, %s::jsonb)"


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


def turn(node: Node, tree: str, session: UUID | None = None, diff: bytes = A + C, **more: Any) -> Row:
    """A turn that leaves a change with this diff, of one file modified and one renamed."""
    project = node.bench.value("select id from projects") if session else node.bench.project()
    node.bench.add(project, "make it round", **({"session_id": session} if session else {}), **more)
    claimed = node.claim_one()
    if claimed.worktree is None:
        assert node.record_worktree(claimed)
    base, version = node.bench.one("select base_commit, base_version from session_worktrees where session_id = %s", claimed.session_id)
    (verdict,) = node.finish(ending(claimed, snapshot=snapshot(tree, base, version), diff=1), diffs=[diff])
    assert verdict.verdict == "ended"
    return node.bench.one("select * from pending_changes where task_id = %s", claimed.id)


@pytest.fixture
def change(node: Node) -> Row:
    return turn(node, "1" * 40, agent="opencode", model="m7")


def comment(bench: Bench, change: Row, path: str = "a.py", body: str = "Why?", **more: Any) -> UUID:
    named = "".join(f", {name} => %s" for name in more)
    return bench.value(f"select coder.comment(%s, %s, %s{named})", change.id, path, body, *more.values())


def row(bench: Bench, comment: UUID) -> Row:
    return bench.one("select * from coder.show_comment(%s)", comment)


def owed(bench: Bench) -> list[UUID]:
    return [each.session_id for each in bench.rows("select session_id from session_worktrees where comments_owed")]


def test_lines_are_those_the_diff_shows(bench: Bench, change: Row) -> None:
    assert [tuple(line) for line in bench.rows(LINES, change.id, 1)] == [
        (1, 1, " one"), (2, None, "-two"), (None, 2, "+2"), (None, 3, "+2.5"), (3, 4, " three"), (4, 5, " diff --git a/x b/x"),
        (20, 21, " twenty"), (21, None, "--- not a header"), (None, 22, "+++ nor this"),
    ]  # fmt: skip
    assert bench.rows(LINES, change.id, 2) == []


def test_each_file_has_its_own_part_in_its_own_encoding(bench: Bench, node: Node, change: Row) -> None:
    """Of a file whose type changed git writes two parts; a byte that is no text in one file garbles no other."""
    kind = b"diff --git a/k b/k\ndeleted file mode 120000\n@@ -1 +0,0 @@\n-\xe9\x00\n"
    kind += b"diff --git a/k b/k\nnew file mode 100644\n@@ -0,0 +1 @@\n+k\n"
    text = "diff --git a/t b/t\n@@ -1 +1 @@\n-a\n+é\n".encode()
    bench.forced("update pending_changes set diff = %s where id = %s", kind + text, change.id)
    bench.do("update change_files set operation = 'type_changed' where ordinal = 1")
    assert [line.words for line in bench.rows(LINES, change.id, 1)] == ["-é\x01", "+k"]
    assert [line.words for line in bench.rows(LINES, change.id, 2)] == ["-a", "+é"]


def test_a_comment_keeps_its_lines_and_what_stands_around_them(bench: Bench, change: Row) -> None:
    ear = bench.listen("frames", "decisions_new")
    new = row(bench, comment(bench, change, p_line=2, p_end_line=3, p_actor="ada"))
    assert ear.heard() == ["frames"]
    assert (new.state, new.author, new.path, new.side, new.line, new.end_line, new.outdated) == ("draft", "ada", "a.py", "new", 2, 3, False)
    assert new.code.split("\n") == [" one", "-two", "+2", "+2.5", " three", " diff --git a/x b/x"]
    old = row(bench, comment(bench, change, p_line=21, p_side="old"))
    assert old.code.split("\n") == [" twenty", "--- not a header", "+++ nor this"], "another hunk is another place"
    renamed = row(bench, comment(bench, change, "c.py", p_side="old"))
    assert (renamed.path, renamed.first_path, renamed.line, renamed.code) == ("c.py", "b.py", None, "")


@pytest.mark.parametrize(
    ("more", "sqlstate", "words"),
    [
        ({"path": "z.py"}, "CD404", "has no file 'z.py'"),
        ({"p_line": 6}, "CD422", "does not show line 6 of the new a.py"),
        ({"p_line": 5, "p_end_line": 21}, "CD422", "all of the lines 5 to 21"),
        ({"p_line": 2, "p_side": "both"}, "CD422", "not 'both'"),
        ({"p_line": 3, "p_end_line": 2}, "CD422", "2 is before 3"),
        ({"p_end_line": 2}, "CD422", "only the last"),
        ({"body": " \n"}, "CD422", "this one is empty"),
        ({"body": "x" * 65537}, "CD422", "65536 bytes; this one has 65537"),
        ({"p_line": 1, "path": "c.py"}, "CD422", "does not show line 1"),
    ],
)
def test_what_cannot_be_commented_on(bench: Bench, change: Row, more: dict[str, Any], sqlstate: str, words: str) -> None:
    with refused(sqlstate, words):
        comment(bench, change, **more)
    assert bench.rows("select from comments") == []


def test_drafts_are_their_authors(bench: Bench, change: Row) -> None:
    mine = comment(bench, change, p_actor="ada")
    for function in ("edit_comment(%s, 'x', p_actor => 'bob')", "delete_comment(%s, 'bob')", "resolve(%s, p_actor => 'bob')"):
        with refused("CD404", "There is no comment"):
            bench.do(f"select coder.{function}", mine)
    with refused("CD409", "is a draft"):
        bench.do("select coder.resolve(%s, p_actor => 'ada')", mine)
    with refused("CD422", "delete it"):
        bench.do("select coder.edit_comment(%s, ' ', 'ada')", mine)
    bench.do("select coder.edit_comment(%s, 'Because?', 'ada')", mine)
    assert (row(bench, mine).body, row(bench, mine).edited_at is not None) == ("Because?", True)
    bench.do("select coder.delete_comment(%s, 'ada')", mine)
    with refused("CD404"):
        bench.do("select coder.delete_comment(%s, 'ada')", mine)
    with refused("CD409", "no draft comments of ada"):
        bench.do("select coder.send(%s, p_actor => 'ada')", change.id)
    with refused("CD404", "There is no change"):
        bench.do("select coder.send(%s)", uuid4())


@pytest.mark.parametrize("query", ["update comments set body = 'x'", "delete from comments"])
def test_rows_are_written_by_functions_alone(bench: Bench, change: Row, query: str) -> None:
    comment(bench, change)
    with refused("CD422", "coder.comment(change, path, text)"):
        bench.do(query)


def test_drafts_are_sent_as_one_task_of_the_agent_with_file_line_and_code(bench: Bench, change: Row) -> None:
    comment(bench, change, body="Rename.\n", p_line=2, p_end_line=3, p_actor="ada")
    comment(bench, change, body="Is this moved only?", path="c.py", p_actor="ada")
    comment(bench, change, body="Why gone?", p_line=21, p_side="old", p_actor="ada")
    other = comment(bench, change, p_actor="bob")
    task = bench.task(bench.value("select coder.send(%s, ' Nearly there. ', 'ada')", change.id))
    assert (task.session_id, task.agent, task.model, task.state) == (change.session_id, "opencode", "m7", "pending")
    assert (
        task.input
        == f"""\
Nearly there.

Comments of a reviewer on the change of task {change.task_id}; do what each of them asks for:

1. a.py, lines 2 to 3:

     one
    -two
    +2
    +2.5
     three
     diff --git a/x b/x

Rename.

2. a.py, line 21, as it was before the change:

     twenty
    --- not a header
    +++ nor this

Why gone?

3. c.py, the whole file:

Is this moved only?"""
    )
    rows = {each.state: each for each in bench.rows("select c.* from comments k, coder.show_comment(k.id) c")}
    assert (rows["open"].task_id, rows["draft"].id) == (task.id, other)
    with refused("CD409", "was sent with task"):
        bench.do("select coder.delete_comment(%s, 'ada')", rows["open"].id)
    bench.do("select coder.cancel(%s)", task.id)
    with refused("CD409", "carries comments"):
        bench.do("delete from tasks where id = %s", task.id)


def test_what_comments_ask_for_is_still_about_the_same(bench: Bench, node: Node, change: Row) -> None:
    comment(bench, change, p_actor="ada")
    task = bench.value("select coder.send(%s, 'Nearly there.', 'ada')", change.id)
    claimed = node.claim_one()
    node.finish(ending(claimed, snapshot=snapshot("2" * 40), diff=1), diffs=[A + C])
    assert bench.value("select title from pending_changes where task_id = %s", task) == change.title == "make it round"


def test_drafts_are_sent_once(bench: Bench, change: Row) -> None:
    for n in range(5):
        comment(bench, change, body=f"n{n}", p_actor="ada")

    def send(_: int) -> str:
        with Bench(bench.dsn) as person:
            try:
                return str(person.value("select coder.send(%s, p_actor => 'ada')", change.id))
            except psycopg.Error as error:
                return str(error)

    with ThreadPoolExecutor(4) as people:
        answers = list(people.map(send, range(4)))
    assert sum(answer.isdigit() for answer in answers) == 1
    assert sum("no draft comments" in answer for answer in answers) == 3
    (task,) = bench.rows("select input from tasks where state = 'pending'")
    assert all(f"n{n}" in task.input for n in range(5))


def test_what_cannot_be_sent_stays_a_draft(bench: Bench, change: Row) -> None:
    for _ in range(17):
        comment(bench, change, body="x" * 65000, p_actor="ada")
    with refused("CD422", "17 comments have", "1048576"):
        bench.do("select coder.send(%s, p_actor => 'ada')", change.id)
    bench.do("select coder.delete_comment(id, 'ada') from comments limit 16")
    bench.do("select coder.close_session(%s)", change.session_id)
    with refused("CD409", "is closed"):
        bench.do("select coder.send(%s, p_actor => 'ada')", change.id)
    assert bench.value("select count(*) from comments where task_id is null") == 1


def test_a_comment_is_resolved_and_opened_again(bench: Bench, change: Row) -> None:
    sent = comment(bench, change, p_actor="ada")
    bench.do("select coder.send(%s, p_actor => 'ada')", change.id)
    bench.do("select coder.resolve(%s, p_actor => 'bob')", sent)
    bench.do("select coder.resolve(%s, p_actor => 'eve')", sent)
    assert (row(bench, sent).state, row(bench, sent).resolved_by) == ("resolved", "bob")
    bench.do("select coder.resolve(%s, false)", sent)
    assert (row(bench, sent).state, row(bench, sent).resolved_by) == ("open", None)
    with refused("CD422", "null is neither"):
        bench.do("select coder.resolve(%s, null)", sent)


def places(*rows: tuple[UUID, str | None, int | None]) -> str:
    return json.dumps([{"id": str(id), "path": path and path.encode().hex(), "line": line, "end_line": line} for id, path, line in rows])


def test_the_next_change_wants_the_comments(bench: Bench, node: Node, change: Row) -> None:
    assert owed(bench) == []
    kept, gone, elsewhere = comment(bench, change, p_line=2), comment(bench, change, p_line=3), comment(bench, change)
    before = comment(bench, change, "c.py", p_side="old")
    ear = bench.listen("decisions_new", "frames")
    after = turn(node, "2" * 40, change.session_id)
    assert owed(bench) == [change.session_id]
    assert ear.heard() == ["decisions_new"]
    assert row(bench, kept).change_id == change.id, "until a node has carried it"
    found = places((kept, "a.py", 9), (gone, None, None), (elsewhere, "z.py", None), (before, "b.py", None))
    commits = (after.snapshot_commit, after.base_commit)
    assert bench.value(CARRY, change.session_id, change.id, *commits, found) is False, "that change was superseded"
    assert bench.value(CARRY, change.session_id, after.id, change.snapshot_commit, after.base_commit, found) is False
    assert bench.value(CARRY, change.session_id, after.id, *commits, places((kept, "a.py", 9))) is False, "more are owed"
    assert owed(bench) == [change.session_id]
    assert bench.value(CARRY, change.session_id, after.id, *commits, found) is True
    assert owed(bench) == []
    seen = {each: row(bench, each) for each in (kept, gone, elsewhere, before)}
    assert {each.change_id for each in seen.values()} == {after.id}
    assert [(each.path, each.line, each.outdated) for each in seen.values()] == [
        ("a.py", 9, False), ("a.py", 3, True), ("a.py", None, True), ("c.py", None, False)]  # fmt: skip
    assert {each.first_change_id for each in seen.values()} == {change.id}
    assert [each.first_line for each in seen.values()] == [2, 3, None, None]
    assert ear.heard() == ["frames"]


def test_one_that_somebody_is_editing_is_carried_later(bench: Bench, node: Node, change: Row) -> None:
    first = comment(bench, change, p_actor="ada")
    person = bench.connect()
    person.execute("select coder.edit_comment(%s, 'slowly', 'ada')", (first,))
    after = turn(node, "2" * 40, change.session_id)
    arguments = (change.session_id, after.id, after.snapshot_commit, after.base_commit, places((first, "a.py", None)))
    assert bench.value(CARRY, *arguments) is False
    person.commit()
    assert bench.value(CARRY, *arguments) is True
    assert (row(bench, first).change_id, row(bench, first).body) == (after.id, "slowly")


def test_a_change_that_was_superseded_can_still_be_commented_on(bench: Bench, node: Node, change: Row) -> None:
    after = turn(node, "2" * 40, change.session_id)
    ear = bench.listen("decisions_new")
    late = comment(bench, change, p_line=2)
    assert (row(bench, late).change_id, owed(bench), ear.heard()) == (change.id, [change.session_id], ["decisions_new"])
    comment(bench, after, p_line=2)
    make_change(node, change.project_id)
    assert owed(bench) == [change.session_id]
