"""The reaper loses nothing: dirty, unapproved, of unknown projects, and killed anywhere in the middle."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from gitbench import SESSION, Bench, Tree, run_python

from coder.errors import Held, InternalError, NoProjectPath

# Each session's worktree is removed by a fork that kills itself at its own point, before the call it would make there.
SCRIPT = """
import os, pathlib, shutil, signal, sys
from uuid import UUID
from coder.change import Worktree
from coder.git import GitWorktrees, keeper, record
from coder.git.repository import Repository

data, repository, base, project, *sessions = sys.argv[1:]
for point, session in enumerate(sessions):
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
        worktrees = GitWorktrees(pathlib.Path(data))
        for name in ("rename", "replace", "unlink", "rmdir", "link"):
            setattr(os, name, mortal(getattr(os, name)))
        Repository.run = mortal(Repository.run)
        keeper.Keeper.keep = mortal(keeper.Keeper.keep)
        record.remove_tree = mortal(record.remove_tree)
        path = f"{data}/worktrees/{project}/{session}"
        worktrees._remove(Worktree(UUID(session), UUID(project), repository, path, base, "main"))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status) or point)
sys.exit(255)
"""
POINTS = 40


def held(bench: Bench, session: UUID) -> set[str]:
    """What is in the file `work.txt` of every ref of a session."""
    refs = bench.repo.git("for-each-ref", "--format=%(refname)", f"refs/coder/{session}/").splitlines()
    return {bench.repo.git("show", f"{ref}:work.txt", ok=False) for ref in refs}


async def test_killed_anywhere_in_a_removal_the_work_is_in_a_ref_or_in_its_place(bench: Bench) -> None:
    sessions = [uuid4() for _ in range(POINTS)]
    trees = {}
    for session in sessions:
        worktree, tree = await bench.start(session)
        tree.write("work.txt", f"of {session}")
        tree.write("deep/er/file", "x")
        trees[session] = tree
    base = worktree.base_commit
    points = run_python(SCRIPT, str(bench.data), str(bench.repo.path), base, str(bench.project.id), *map(str, sessions))
    assert 8 < points < POINTS
    for session in sessions[:points]:
        tree = trees[session]
        there = tree.at("work.txt").exists() and tree.read("work.txt").decode()
        assert f"of {session}" in held(bench, session) or there == f"of {session}"
    # Whoever comes next finishes it, and then every one of them is in a ref.
    for session in sessions[:points]:
        known, _ = await bench.start(session) if trees[session].path.is_dir() else (None, None)
        if known is not None:
            await bench.worktrees.remove(known)
        assert f"of {session}" in held(bench, session)
    untouched = sessions[points + 1 :]
    for path in await bench.worktrees.orphans(bench.project, untouched):
        await bench.worktrees.remove_orphan(bench.project, path)
    place = trees[sessions[0]].path.parent
    assert {path.name.partition(".")[0] for path in place.iterdir()} == set(map(str, untouched))


async def test_an_unapproved_change_that_is_removed_is_in_its_snapshot_and_comes_back(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("work.txt", "waits for a decision")
    snapshot, worktree = await bench.snapshot(worktree)
    tree.write("late.txt", "written after the snapshot")
    saved = await bench.worktrees.remove(worktree)
    assert saved is not None
    assert bench.repo.git("show", f"{saved}:late.txt") == "written after the snapshot"
    again = await bench.worktrees.ensure(bench.project, SESSION, worktree)
    assert Tree(Path(again.path)).read("work.txt") == b"waits for a decision"
    assert (await bench.worktrees.snapshot(again)).fingerprint == snapshot.fingerprint


async def test_worktrees_of_unknown_projects_go_after_a_while_into_a_ref(bench: Bench) -> None:
    _, tree = await bench.start()
    tree.write("work.txt", "of another database")
    old = time.time() - 3600
    for path in tree.path.parent.iterdir():
        os.utime(path, (old, old))
    assert await bench.worktrees.strays({bench.project.id}, 60) == []
    assert await bench.worktrees.strays(set(), 7200) == []
    assert await bench.worktrees.strays({uuid4()}, 60) == [tree.path]
    async with bench.worktrees.hold(SESSION):
        with pytest.raises(Held):
            await bench.worktrees.remove_orphan(None, tree.path)
    saved = await bench.worktrees.remove_orphan(None, tree.path)
    assert saved == f"refs/coder/{SESSION}/discarded/1"
    assert held(bench, SESSION) >= {"of another database"}
    assert not tree.path.exists()
    assert str(tree.path) not in bench.repo.git("worktree", "list")


@pytest.mark.parametrize("broken", ["no link", "a link elsewhere", "repository gone", "no worktree"])
async def test_a_stray_that_leads_nowhere_stays(bench: Bench, broken: str) -> None:
    _, tree = await bench.start()
    tree.write("work.txt", "only here")
    path = tree.path
    if broken == "no link":
        tree.at(".git").unlink()
    elif broken == "a link elsewhere":
        tree.write(".git", f"gitdir: {bench.repo.path}/.git/worktrees/other\n")
    elif broken == "repository gone":
        shutil.move(bench.repo.path, bench.repo.path.with_name("away"))
    else:
        path = path.with_name("notes")
        path.mkdir()
    with pytest.raises((InternalError, NoProjectPath)):
        await bench.worktrees.remove_orphan(None, path)
    assert tree.read("work.txt") == b"only here"
    assert path.is_dir()
