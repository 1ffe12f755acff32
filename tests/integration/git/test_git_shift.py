"""Bringing a worktree along with a decision: what it holds, what it keeps, and what a kill leaves."""

from __future__ import annotations

import signal
from uuid import UUID

import pytest
from gitbench import LINES, SESSION, Bench, Tree, changed, lines, run_python

from coder.change import Shift, Worktree

DECISION = UUID(int=7)
KILLED = """
import os, signal, sys
from pathlib import Path
from uuid import UUID
from coder.change import Shift, Worktree
from coder.git import shift, worktrees
from coder.git.repository import Repository
data, repository, path, base, old, new, point = sys.argv[1:]
worktree = Worktree(UUID(int=0x11111111111141118111111111111111), UUID(path.split("/")[-2]), repository, path, base, "main")
run = Repository.run
def mortal(self, *words, **named):
    if words[0] == "read-tree" and "-u" in words:
        if point == "after":
            run(self, *words, **named)
        elif point == "within":
            run(self, *words, **named)
            Path(path, "a.txt").write_text("half")
            Path(path, "gone.txt").unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return run(self, *words, **named)
Repository.run = mortal
made = worktrees.GitWorktrees(Path(data))
shift.bring_along(made._snapshots, made._record_of(worktree), worktree, Shift(UUID(int=7), old, new))
"""


async def shifted(bench: Bench, worktree: Worktree, tree: Tree, content: dict[str, str | None], markers: str | None = None) -> Shift:
    """A shift from what the session was shown to the same with other content."""
    shown = (await bench.snapshot(worktree))[0].commit
    before = tree.files()
    for name, text in content.items():
        if text is None:
            tree.at(name).unlink()
        else:
            tree.write(name, text)
    wanted = (await bench.snapshot(worktree))[0].commit
    for name in content:
        if name in before:
            tree.write(name, before[name])
        else:
            tree.at(name).unlink(missing_ok=True)
    return Shift(DECISION, shown, wanted, markers)


async def test_files_are_brought_along_and_others_left_alone(bench: Bench) -> None:
    _, worktree, tree = await changed(bench, a=lines(l1="one", l9="nine"), new="new\n", b="agent\n")
    tree.git("add", "a.txt")
    index, head = tree.git("ls-files", "--stage"), tree.git("rev-parse", "HEAD")
    shift = await shifted(bench, worktree, tree, {"a.txt": lines(l9="nine"), "new.txt": None, "back.txt": "back\n"})
    tree.write("a.txt", lines(l1="one", l5="later", l9="nine"))
    tree.write("later.txt", "x\n")
    assert await bench.worktrees.shift(worktree, shift) == ()
    expected = {
        "a.txt": lines(l5="later", l9="nine"),
        "b.txt": "agent\n",
        "back.txt": "back\n",
        "later.txt": "x\n",
        "run.sh": "#!/bin/sh\n",
    }
    assert {name: content.decode() for name, content in tree.files().items()} == expected
    assert (tree.git("ls-files", "--stage"), tree.git("rev-parse", "HEAD")) == (index, head)
    assert bench.repo.git("show", f"refs/coder/{SESSION}/discarded/1:a.txt") + "\n" == lines(l1="one", l5="later", l9="nine")


@pytest.mark.parametrize(("markers", "content"), [(None, "mine\n"), ("there", "<<<<<<< there\none\n=======\nmine\n>>>>>>> the change\n")])
async def test_where_both_say_something_else(bench: Bench, markers: str | None, content: str) -> None:
    _, worktree, tree = await changed(bench, a=lines(l1="one"), b="agent\n")
    tree.write("a.txt", "line 1\n")
    shift = await shifted(bench, worktree, tree, {"a.txt": "one\n", "b.txt": "b\n"}, markers)
    tree.write("a.txt", "mine\n")
    assert await bench.worktrees.shift(worktree, shift) == (b"a.txt",)
    assert (tree.read("a.txt").decode(), tree.read("b.txt")) == (content, b"b\n")


async def test_nothing_to_bring_along_leaves_no_trace(bench: Bench) -> None:
    _, worktree, tree = await changed(bench, a=lines(l1="one"))
    shift = await shifted(bench, worktree, tree, {"a.txt": "".join(LINES)})
    tree.write("a.txt", "".join(LINES))
    refs = bench.repo.git("for-each-ref")
    assert await bench.worktrees.shift(worktree, shift) == ()
    assert bench.repo.git("for-each-ref") == refs


@pytest.mark.parametrize("point", ["before", "within", "after"])
async def test_killed_and_done_again(bench: Bench, point: str) -> None:
    _, worktree, tree = await changed(bench, a=lines(l1="one", l9="nine"), gone="x\n")
    shift = await shifted(bench, worktree, tree, {"a.txt": lines(l9="nine"), "back.txt": "back\n"})
    words = (str(bench.data), worktree.repository, worktree.path, worktree.base_commit, shift.old, shift.new, point)
    assert run_python(KILLED, *words) == -signal.SIGKILL
    assert await bench.worktrees.shift(worktree, shift) == ()
    assert await bench.worktrees.shift(worktree, shift) == ()
    assert tree.read("a.txt").decode() == lines(l9="nine")
    assert (tree.read("back.txt"), tree.read("gone.txt")) == (b"back\n", b"x\n")
