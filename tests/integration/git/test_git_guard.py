"""What an agent must not touch shows in the digest; what is everyday does not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from gitbench import Bench, Tree

from coder.git import guard


def _hook(repo: Tree, tree: Tree) -> None:
    repo.write(".git/hooks/pre-push", "#!/bin/sh\n", 0o755)


def _executable_hook(repo: Tree, tree: Tree) -> None:
    repo.at(".git/hooks/sample").chmod(0o755)


TOUCHED: dict[str, Callable[[Tree, Tree], object]] = {
    "config": lambda repo, tree: tree.git("config", "user.name", "Mallory"),
    "hook": _hook,
    "hook made executable": _executable_hook,
    "exclude": lambda repo, tree: repo.write(".git/info/exclude", "*.secret\n"),
    "attributes": lambda repo, tree: repo.write(".git/info/attributes", "* filter=evil\n"),
    "branch": lambda repo, tree: tree.git("branch", "mallory"),
    "branch moved": lambda repo, tree: tree.git("update-ref", "refs/heads/other", "HEAD~"),
    "branch deleted": lambda repo, tree: tree.git("branch", "-D", "other"),
    "tag": lambda repo, tree: tree.git("tag", "v1"),
    "packed tag deleted": lambda repo, tree: tree.git("tag", "-d", "packed"),
    "stash": lambda repo, tree: (tree.write("a.txt", "x"), tree.git("-c", "user.name=M", "-c", "user.email=m@m", "stash", "-q")),
}

EVERYDAY: dict[str, Callable[[Tree, Tree], object]] = {
    "nothing": lambda repo, tree: None,
    "packing": lambda repo, tree: repo.git("pack-refs", "--all"),
    "commit in the worktree": lambda repo, tree: (tree.write("x", "x"), tree.commit()),
    "files": lambda repo, tree: tree.write("x", "x"),
    "refs of ours": lambda repo, tree: repo.git("update-ref", "refs/coder/x/1", "HEAD"),
    "collecting garbage": lambda repo, tree: repo.git("gc", "-q"),
}


@pytest.fixture(params=["too young", "settled"])
async def pair(bench: Bench, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Tree]:
    if request.param == "settled":
        # Every file counts as old enough for its stamp to be trusted.
        monkeypatch.setattr(guard, "_COARSE_NS", -(1 << 40))
    bench.repo.git("tag", "packed")
    bench.repo.git("pack-refs", "--all")
    bench.repo.write("second.txt", "2")
    bench.repo.commit()
    bench.repo.git("branch", "other")
    bench.repo.write(".git/hooks/sample", "x", 0o644)
    _, tree = await bench.start()
    return bench, tree


@pytest.mark.parametrize("what", TOUCHED)
async def test_touched(pair: tuple[Bench, Tree], what: str) -> None:
    bench, tree = pair
    worktree, _ = await bench.start()
    before = await bench.worktrees.guard_state(worktree)
    TOUCHED[what](bench.repo, tree)
    assert await bench.worktrees.guard_state(worktree) != before


@pytest.mark.parametrize("what", EVERYDAY)
async def test_everyday(pair: tuple[Bench, Tree], what: str) -> None:
    bench, tree = pair
    worktree, _ = await bench.start()
    before = await bench.worktrees.guard_state(worktree)
    EVERYDAY[what](bench.repo, tree)
    assert await bench.worktrees.guard_state(worktree) == before


async def test_our_own_work_does_not_show(bench: Bench) -> None:
    worktree, tree = await bench.start()
    before = await bench.worktrees.guard_state(worktree)
    tree.write("new.txt", "x")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.worktrees.reset(worktree, snapshot.commit)
    assert await bench.worktrees.guard_state(worktree) == before


async def test_refs_in_a_reftable_are_asked_of_git(bench: Bench) -> None:
    worktree, tree = await bench.start()
    bench.repo.at(".git/reftable").mkdir()
    before = await bench.worktrees.guard_state(worktree)
    tree.git("update-ref", f"refs/coder/{worktree.session_id}/9", "HEAD")
    assert await bench.worktrees.guard_state(worktree) == before
    tree.git("tag", "v1")
    assert await bench.worktrees.guard_state(worktree) != before


@pytest.mark.parametrize(("age", "seen"), [(1, True), (60, False)])
async def test_only_a_stamp_that_is_old_is_trusted(bench: Bench, monkeypatch: pytest.MonkeyPatch, age: int, seen: bool) -> None:
    worktree, _ = await bench.start()
    changed = time.time_ns() - age * 1_000_000_000
    # A file system so coarse that a second change leaves the stamp as it is.
    monkeypatch.setattr(guard, "_stamps", lambda common: [(b"config", 0o100644, 1, 1, changed, changed)])
    before = await bench.worktrees.guard_state(worktree)
    bench.repo.git("config", "user.name", "Mallory")
    assert (await bench.worktrees.guard_state(worktree) != before) is seen
