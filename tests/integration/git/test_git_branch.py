"""Branches: which one an approval moves, and which ones it must not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from gitbench import Bench, changed, index_bytes

from coder.change import Found
from coder.errors import MergeConflict, WrongBranch


async def test_into_a_new_branch_and_again(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, b="agent\n")
    bench.repo.write("later.txt", "on main\n")
    head = bench.repo.commit()
    bench.repo.write("b.txt", "dirty, but nobody minds\n")
    before, index = bench.repo.files(), index_bytes(bench.repo)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch="review/x", message="One"))
    assert (plan.old_commit, plan.files, plan.branch) == (None, (), "review/x")
    assert await bench.worktrees.examine(plan) == (Found.OLD, ())
    for _ in range(2):
        await bench.worktrees.carry_out(plan)
        assert await bench.worktrees.examine(plan) == (Found.NEW, ())
    assert bench.repo.git("log", "--format=%s %P", "-1", "review/x") == f"One {head}"
    assert bench.repo.git("show", "review/x:b.txt") == "agent"
    assert bench.repo.git("show", "review/x:later.txt") == "on main"
    tree.write("b.txt", "agent again\n")
    worktree = replace(worktree, base_commit=snapshot.commit)
    snapshot, worktree = await bench.snapshot(worktree)
    second, _ = await bench.approve(worktree, snapshot, target="branch", branch="review/x", message="Two")
    assert second.old_commit == plan.new_commit
    assert bench.repo.git("log", "--format=%s", "-2", "review/x").splitlines() == ["Two", "One"]
    assert (bench.repo.files(), index_bytes(bench.repo)) == (before, index)


async def test_a_branch_that_moved_after_the_plan(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.git("branch", "side")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch="side"))
    moved = bench.repo.git("-c", "user.name=U", "-c", "user.email=u@u", "commit-tree", "-m", "x", "HEAD^{tree}")
    bench.repo.git("update-ref", "refs/heads/side", moved)
    assert await bench.worktrees.examine(plan) == (Found.OTHER, ())
    with pytest.raises(WrongBranch, match="Branch side"):
        await bench.worktrees.carry_out(plan)
    bench.repo.git("branch", "-D", "side")
    assert await bench.worktrees.examine(plan) == (Found.OTHER, ())
    assert bench.repo.git("branch", "--list", "side") == ""


async def test_a_conflict_with_a_branch(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.write("b.txt", "user\n")
    bench.repo.commit()
    with pytest.raises(MergeConflict) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch="new"))
    assert refused.value.facts["target"] == "branch new"


@pytest.mark.parametrize("name", ["main", "linked", "rebased", "", "-x", "a..b", "with space", "HEAD", "@", "nul\0"])
async def test_branches_that_may_not_be_moved(bench: Bench, tmp_path: Path, name: str) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.git("worktree", "add", "-q", "-b", "linked", str(tmp_path / "linked"))
    bench.repo.git("branch", "rebased")
    bench.repo.write(".git/rebase-merge/head-name", "refs/heads/rebased\n")
    with pytest.raises(WrongBranch):
        await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch=name))


async def test_a_branch_checked_out_after_the_plan_is_not_moved(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.git("branch", "side")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch="side"))
    bench.repo.git("checkout", "-q", "side")
    with pytest.raises(WrongBranch, match="is checked out in"):
        await bench.worktrees.carry_out(plan)
    assert bench.repo.git("status", "--porcelain") == ""


async def test_a_branch_below_another_ones_name(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.git("branch", "side")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, target="branch", branch="side/below"))
    with pytest.raises(WrongBranch, match="cannot lock ref"):
        await bench.worktrees.carry_out(plan)


async def test_another_branch_refuses(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.git("checkout", "-q", "-b", "side")
    with pytest.raises(WrongBranch, match="is on branch side, but the session started from branch main") as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert refused.value.facts == {"expected": "main", "actual": "side"}
    bench.repo.git("checkout", "-q", "--detach")
    with pytest.raises(WrongBranch, match=r"no branch \(detached HEAD\)") as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert refused.value.facts == {"expected": "main", "actual": None}
    await bench.approve(replace(worktree, base_branch=None), snapshot)
    assert bench.repo.read("b.txt") == b"agent\n"


async def test_an_empty_change(bench: Bench) -> None:
    worktree, _ = await bench.start()
    snapshot, worktree = await bench.snapshot(worktree)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert plan.files == ()
    await bench.worktrees.carry_out(plan)
    branch, _ = await bench.approve(worktree, snapshot, target="branch", branch="new")
    assert bench.repo.git("rev-parse", "new") == worktree.base_commit == branch.new_commit
