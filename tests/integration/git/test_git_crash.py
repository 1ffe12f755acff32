"""kill -9 anywhere in an approval: what is there afterwards is told, and a second run ends the same as one that never died."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gitbench import Bench, Tree, run_python

from coder.change import Found, Plan, Snapshot, Worktree

# One interpreter; each copy of the repository gets a fork of it that kills itself at its own point.
SCRIPT = """
import os, pickle, signal, sys
from coder.git import apply
from coder.git.repository import Repository, open_repository

plans = pickle.load(open(sys.argv[1], "rb"))
for point, plan in enumerate(plans):
    child = os.fork()
    if child == 0:
        left = point
        def mortal(call):
            def wrapped(*arguments, **named):
                global left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return call(*arguments, **named)
            return wrapped
        repository = open_repository(plan.repository, "demo")
        for name in ("replace", "unlink", "mkdir", "rmdir", "symlink"):
            setattr(os, name, mortal(getattr(os, name)))
        Repository.run = mortal(Repository.run)
        apply.carry_out(repository, plan)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status) or point)
sys.exit(255)
"""
POINTS = 80


async def rich_change(bench: Bench) -> tuple[Snapshot, Worktree, Tree]:
    repo = bench.repo
    repo.write("was-file", "x\n")
    repo.write("was-dir/one", "1\n")
    repo.write("was-dir/deep/two", "2\n")
    repo.at("was-link").symlink_to("was-dir")
    repo.write("leaving/alone", "x\n")
    repo.commit()
    worktree, tree = await bench.start()
    tree.write("a.txt", "changed\n")
    tree.at("b.txt").unlink()
    tree.at("was-file").unlink()
    tree.write("was-file/inside", "y\n", 0o755)
    shutil.rmtree(tree.at("was-dir"))
    tree.write("was-dir", "a file now\n")
    tree.at("was-link").unlink()
    tree.write("was-link/inside", "z\n")
    shutil.rmtree(tree.at("leaving"))
    tree.write("new/deep/file", "n\n")
    tree.at("new/link").symlink_to("../a.txt")
    snapshot, worktree = await bench.snapshot(worktree)
    return snapshot, worktree, tree


def killed_copies(tmp_path: Path, repo: Tree, plan: Plan) -> list[Plan]:
    """One copy of the repository per point at which the run was killed."""
    plans = [replace(plan, repository=str(tmp_path / "copies" / str(point))) for point in range(POINTS)]
    for copy in plans:
        shutil.copytree(repo.path, copy.repository, symlinks=True)
    (tmp_path / "plans").write_bytes(pickle.dumps(plans))
    points = run_python(SCRIPT, str(tmp_path / "plans"))
    assert 15 < points < POINTS
    return plans[:points]


@pytest.mark.parametrize("commit", [False, True])
async def test_killed_anywhere_in_a_checkout(bench: Bench, tmp_path: Path, commit: bool) -> None:
    snapshot, worktree, tree = await rich_change(bench)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, commit=commit))
    found = set()
    for copy in killed_copies(tmp_path, bench.repo, plan):
        repo = Tree(Path(copy.repository))
        before, paths = await bench.worktrees.examine(copy)
        found.add(before)
        assert paths == ()
        await bench.worktrees.carry_out(copy)
        assert await bench.worktrees.examine(copy) == (Found.NEW, ())
        assert repo.files() == tree.files()
        assert not repo.at("leaving").exists()
        assert repo.at("was-file/inside").stat().st_mode & 0o111
        assert not list(repo.at(".git").glob("coder-staging*"))
        if commit:
            assert repo.git("status", "--porcelain") == ""
            assert repo.git("rev-parse", "main") == plan.new_commit
    # With a commit the last step is the branch itself, so a run that was killed was never through.
    assert found == {Found.OLD, Found.MIXED} | (set() if commit else {Found.NEW})


async def test_killed_anywhere_in_a_branch(bench: Bench, tmp_path: Path) -> None:
    snapshot, worktree, tree = await rich_change(bench)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch="made"))
    copies = [replace(plan, repository=str(tmp_path / "copies" / str(point))) for point in range(10)]
    for copy in copies:
        shutil.copytree(bench.repo.path, copy.repository, symlinks=True)
    (tmp_path / "plans").write_bytes(pickle.dumps(copies))
    points = run_python(SCRIPT, str(tmp_path / "plans"))
    assert 0 < points < len(copies)
    for copy in copies[:points]:
        assert await bench.worktrees.examine(copy) in ((Found.OLD, ()), (Found.NEW, ()))
        await bench.worktrees.carry_out(copy)
        assert await bench.worktrees.examine(copy) == (Found.NEW, ())
    assert tree.files() != bench.repo.files()


async def test_killed_and_edited_meanwhile(bench: Bench, tmp_path: Path) -> None:
    snapshot, worktree, _ = await rich_change(bench)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    for copy in killed_copies(tmp_path, bench.repo, plan)[::4]:
        repo = Tree(Path(copy.repository))
        repo.write("a.txt", "the user's meanwhile\n")
        assert await bench.worktrees.examine(copy) == (Found.OTHER, (b"a.txt",))
        await bench.worktrees.forget(copy)
        assert not list(repo.at(".git").glob("coder-staging*"))
        assert repo.read("a.txt") == b"the user's meanwhile\n"
