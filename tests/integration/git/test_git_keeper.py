"""The git processes that stay: what they write is what git writes, they are replaced when they must be, and they outlive nobody."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from gitbench import Bench, Tree

from coder.errors import InternalError
from coder.git.keeper import Keeper, _Pair
from coder.git.repository import CODER, Repository, open_repository

REF = "refs/coder/x/1"


@pytest.fixture
def repository(repo: Tree) -> Repository:
    return open_repository(str(repo.path), "demo")


@pytest.fixture
def tree(repository: Repository) -> str:
    return repository.line("rev-parse", "HEAD^{tree}")


def keep(keeper: Keeper, repository: Repository, tree: str) -> str:
    head = repository.resolve("HEAD") or ""
    commit = keeper.keep(tree, head, REF)
    assert repository.resolve(REF) == commit
    assert repository.line("rev-list", "--no-walk", "--no-commit-header", "--format=%T %P %s", commit) == f"{tree} {head} coder"
    return commit


def resting(keeper: Keeper) -> _Pair:
    (pair,) = keeper._resting
    return pair


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_the_commit_is_the_one_commit_tree_makes(tmp_path: Path, form: str) -> None:
    repo = Tree(tmp_path / "formed")
    repo.path.mkdir()
    repo.git("init", "-q", f"--object-format={form}")
    repo.write("a", "a")
    repo.commit()
    repository = open_repository(str(repo.path), "demo")
    tree = repository.line("rev-parse", "HEAD^{tree}")
    commit = keep(Keeper(repository), repository, tree)
    when = repository.line("log", "-1", "--format=%ad", "--date=raw", commit)
    repository.run("update-ref", "-d", REF)
    dates = {"GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    who = {
        f"GIT_{role}_{what}": text for role in ("AUTHOR", "COMMITTER") for what, text in (("NAME", "coder"), ("EMAIL", "coder@localhost"))
    }
    head = repository.resolve("HEAD") or ""
    assert repository.commit_tree(tree, head, message="coder\n", environment={**CODER, **dates}) == commit
    repo.git("fsck", "--strict")


def test_one_pair_does_for_many(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    first = resting(keeper)
    keep(keeper, repository, repository.line("mktree"))
    assert resting(keeper) is first
    assert first.uses == 2


@pytest.mark.parametrize("which", ["_objects", "_refs"])
def test_a_killed_process_is_made_up_for(repository: Repository, tree: str, which: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    killed = resting(keeper)
    process = getattr(killed, which)
    process.kill()
    process.wait()
    keep(keeper, repository, repository.line("mktree"))
    assert keeper._resting == []
    keep(keeper, repository, tree)
    assert resting(keeper) is not killed


def test_a_changed_config_has_new_processes(repository: Repository, repo: Tree, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    first = resting(keeper)
    repo.git("config", "core.compression", "0")
    keep(keeper, repository, tree)
    assert resting(keeper) is not first


def test_often_used_processes_are_replaced(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    resting(keeper).uses = 999
    keep(keeper, repository, tree)
    assert keeper._resting == []


def test_what_git_refuses_is_said_in_its_words(repository: Repository, repo: Tree, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    repo.write(f".git/{REF}.lock", "")
    with pytest.raises(InternalError, match=r"1\.lock"):
        keeper.keep(tree, repository.resolve("HEAD") or "", REF)
    repo.at(f".git/{REF}.lock").unlink()
    keep(keeper, repository, tree)


def test_processes_end_with_their_keeper(repository: Repository, tree: str) -> None:
    keeper = Keeper(repository)
    keep(keeper, repository, tree)
    processes = (resting(keeper)._objects, resting(keeper)._refs)
    assert [process.poll() for process in processes] == [None, None]
    del keeper
    gc.collect()
    assert [process.returncode for process in processes] == [0, 0]


async def test_snapshots_share_them(bench: Bench) -> None:
    worktree, tree = await bench.start()
    for content in ("one\n", "two\n", "three\n"):
        tree.write("a.txt", content)
        snapshot, worktree = await bench.snapshot(worktree)
        assert tree.git("rev-parse", f"refs/coder/{worktree.session_id}/{worktree.snapshots}") == snapshot.commit
    (keeper,) = bench.worktrees._snapshots._keepers.values()
    assert resting(keeper).uses == 3


_DYING = """
import os, signal, sys
from coder.git.keeper import Keeper
from coder.git.repository import open_repository
repository = open_repository(sys.argv[1], "demo")
keeper = Keeper(repository)
keeper.keep(repository.line("rev-parse", "HEAD^{tree}"), repository.resolve("HEAD"), "refs/coder/x/1")
(pair,) = keeper._resting
print(pair._objects.pid, pair._refs.pid, flush=True)
sys.stdin.read()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux tells when somebody else's process ended")
def test_processes_end_however_we_die(repo: Tree) -> None:
    dying = subprocess.Popen([sys.executable, "-c", _DYING, str(repo.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert dying.stdin is not None
    assert dying.stdout is not None
    descriptors = [os.pidfd_open(int(pid)) for pid in dying.stdout.readline().split()]
    dying.stdin.close()
    assert dying.wait() == -signal.SIGKILL
    dying.stdout.close()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 10)[0] == [descriptor]
        os.close(descriptor)
