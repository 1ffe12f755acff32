"""Comments carried from one snapshot to the next, by a real git."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from gitbench import SESSION, Bench

from coder.change import Snapshot
from coder.comments import Owed, Place, Written


def written(commit: str, path: str, line: int | None = None, end: int | None = None, side: str = "new") -> Written:
    return Written(uuid4(), side, commit, path.encode(), line, end or line)  # type: ignore[arg-type]


async def place(bench: Bench, to: Snapshot, comment: Written) -> tuple[str, int | None, int | None] | None:
    owed = Owed(SESSION, bench.project.id, str(bench.repo.path), UUID(int=1), to.commit, to.base_commit, (comment,))
    (found,) = await bench.worktrees.places(owed)
    assert found.id == comment.id
    if found == Place(comment.id):
        return None
    assert found.path is not None
    return found.path.decode(), found.line, found.end_line


async def test_lines_follow_edits_renames_and_moves_of_the_base(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("a.txt", tree.read("a.txt").replace(b"line 5\n", b"five\nfive and a half\n"))
    first, worktree = await bench.snapshot(worktree)
    five = written(first.commit, "a.txt", 5, 6)
    before = written(first.base_commit, "a.txt", 9, side="old")
    tree.write("a.txt", b"zero\n" + tree.read("a.txt").replace(b"line 9\n", b"nine\n"))
    second, worktree = await bench.snapshot(worktree)
    assert await place(bench, second, five) == ("a.txt", 6, 7)
    assert await place(bench, second, before) == ("a.txt", 9, 9), "the base is the same"
    tree.at("a.txt").rename(tree.at("renamed.txt"))
    third, worktree = await bench.snapshot(worktree)
    assert await place(bench, third, five) == ("renamed.txt", 6, 7)
    tree.write("renamed.txt", tree.read("renamed.txt").replace(b"five and a half", b"5.5"))
    fourth, worktree = await bench.snapshot(worktree)
    assert await place(bench, fourth, five) is None
    assert await place(bench, fourth, written(first.commit, "a.txt")) == ("renamed.txt", None, None), "the file is still there"
    _, worktree = await bench.approve(worktree, fourth)
    tree.write("b.txt", "bb\n")
    fifth, worktree = await bench.snapshot(worktree)
    assert await place(bench, fifth, before) is None, "line 9 was replaced in what is the base by now"
    assert await place(bench, fifth, written(first.base_commit, "a.txt", 10, side="old")) == ("renamed.txt", 12, 12)


async def test_lines_that_come_back_are_found_again(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("a.txt", tree.read("a.txt").replace(b"line 5\n", b"five\n"))
    first, worktree = await bench.snapshot(worktree)
    comment, content = written(first.commit, "a.txt", 5), tree.read("a.txt")
    tree.write("a.txt", content.replace(b"five\n", b"5\n"))
    second, worktree = await bench.snapshot(worktree)
    assert await place(bench, second, comment) is None
    tree.write("a.txt", b"top\n" + content)
    third, worktree = await bench.snapshot(worktree)
    assert await place(bench, third, comment) == ("a.txt", 6, 6)


async def test_what_is_gone_is_gone(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "one\ntwo\n")
    tree.write("kind.txt", "one\n")
    first, worktree = await bench.snapshot(worktree)
    for name in ("new.txt", "kind.txt"):
        tree.at(name).unlink()
    tree.at("kind.txt").symlink_to("a.txt")
    tree.write("b.txt", "bb\n")
    second, worktree = await bench.snapshot(worktree)
    for comment in (written(first.commit, "new.txt", 2), written(first.commit, "new.txt"), written(first.commit, "kind.txt", 1)):
        assert await place(bench, second, comment) is None
    assert await place(bench, second, written("f" * 40, "b.txt", 1)) is None, "nobody has this commit any more"


@pytest.mark.parametrize("content", [b"a\r\nb\r\n", b"a\nb", b"\xff\xfe\nb\n", b"@@ -1 +1 @@\n-- b\n"])
async def test_odd_contents(bench: Bench, content: bytes) -> None:
    worktree, tree = await bench.start()
    tree.write(b"odd \xff.txt", content)
    first, worktree = await bench.snapshot(worktree)
    tree.write(b"odd \xff.txt", b"@@ -7,0 +9 @@\n" + content)
    second, worktree = await bench.snapshot(worktree)
    owed = Owed(SESSION, bench.project.id, str(bench.repo.path), UUID(int=1), second.commit, second.base_commit,
                (Written(uuid4(), "new", first.commit, b"odd \xff.txt", 2, 2),))  # fmt: skip
    (found,) = await bench.worktrees.places(owed)
    assert (found.path, found.line) == (b"odd \xff.txt", 3)
