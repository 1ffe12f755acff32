"""Approvals: what is merged, what is refused, and what is left alone."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest
from gitbench import SESSION, Bench, Tree, changed, index_bytes, lines, written

from coder.change import Found
from coder.errors import CheckoutDirty, MergeConflict, WrongBranch
from coder.git import GitWorktrees


async def test_into_a_clean_checkout(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, a=lines(l1="one"), b=None, new="new\n")
    index, head = index_bytes(bench.repo), bench.repo.git("rev-parse", "HEAD")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert (plan.target, plan.old_commit, plan.new_commit, plan.branch) == ("checkout", head, None, None)
    assert [(file.path, file.old_mode, file.new_mode) for file in plan.files] == [
        (b"a.txt", "100644", "100644"),
        (b"b.txt", "100644", "000000"),
        (b"new.txt", "000000", "100644"),
    ]
    assert await bench.worktrees.examine(plan) == (Found.OLD, ())
    await bench.worktrees.carry_out(plan)
    assert bench.repo.files() == tree.files()
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())
    await bench.worktrees.carry_out(plan)
    assert bench.repo.files() == tree.files()
    assert index_bytes(bench.repo) == index
    assert bench.repo.git("rev-parse", "HEAD") == head
    assert bench.repo.git("cat-file", "-t", plan.keep_ref) == "commit"
    await bench.worktrees.forget(plan)
    assert bench.repo.git("rev-parse", "-q", "--verify", plan.keep_ref, ok=False) == ""
    await bench.worktrees.forget(plan)


async def test_a_plan_touches_nothing_and_survives_garbage_collection(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l1="one"))
    before, index = bench.repo.files(), index_bytes(bench.repo)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, commit=True))
    assert (bench.repo.files(), index_bytes(bench.repo), bench.repo.git("status", "--porcelain")) == (before, index, "")
    for ref in bench.repo.git("for-each-ref", "--format=%(refname)", f"refs/coder/{SESSION}").splitlines():
        bench.repo.git("update-ref", "-d", ref)
    bench.repo.git("gc", "-q", "--prune=now")
    await bench.worktrees.carry_out(plan)
    assert bench.repo.read("a.txt").decode() == lines(l1="one")


async def test_other_dirty_files_do_not_matter(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="changed\n")
    bench.repo.write("a.txt", "the user's\n")
    bench.repo.write("untracked.txt", "the user's\n")
    bench.repo.git("add", "a.txt")
    bench.repo.write("a.txt", "the user's, later\n")
    index = index_bytes(bench.repo)
    await bench.approve(worktree, snapshot)
    assert bench.repo.files() == {
        "a.txt": b"the user's, later\n",
        "b.txt": b"changed\n",
        "run.sh": b"#!/bin/sh\n",
        "untracked.txt": b"the user's\n",
    }
    assert index_bytes(bench.repo) == index


async def test_a_change_of_the_project_is_merged(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l10="agent"))
    bench.repo.write("a.txt", lines(l1="user"))
    bench.repo.write("later.txt", "x\n")
    bench.repo.commit()
    plan, _ = await bench.approve(worktree, snapshot)
    assert bench.repo.read("a.txt").decode() == lines(l1="user", l10="agent")
    assert [file.path for file in plan.files] == [b"a.txt"]
    assert bench.repo.git("status", "--porcelain") == " M a.txt"


async def test_two_approvals_on_the_same_lines_without_a_commit_in_between(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, a=lines(l5="first"), made="1\n", b=None)
    first, worktree = await bench.approve(worktree, snapshot)
    tree.write("a.txt", lines(l5="second"))
    tree.at("made.txt").unlink()
    tree.write("b.txt", "back\n")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, written=written(first))
    assert bench.repo.files() == tree.files()


async def test_two_approvals_on_the_same_lines_with_a_commit_in_between(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, a=lines(l5="first"))
    first, worktree = await bench.approve(worktree, snapshot)
    bench.repo.write("a.txt", lines(l5="first", l1="user"))
    bench.repo.commit("the user takes it, and more")
    tree.write("a.txt", lines(l5="second"))
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, written=written(first))
    assert bench.repo.read("a.txt").decode() == lines(l5="second", l1="user")


async def test_three_approvals_with_commits_of_ours(bench: Bench) -> None:
    worktree, tree = await bench.start()
    for n in range(3):
        tree.write("a.txt", lines(l5=f"round {n}"))
        snapshot, worktree = await bench.snapshot(worktree)
        _, worktree = await bench.approve(worktree, snapshot, commit=True)
    assert bench.repo.read("a.txt").decode() == lines(l5="round 2")
    assert bench.repo.git("status", "--porcelain") == ""
    assert bench.repo.git("rev-list", "--count", "HEAD") == "4"


async def test_a_commit_on_top_of_an_uncommitted_approval(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, a=lines(l5="first"), b="first\n")
    first, worktree = await bench.approve(worktree, snapshot)
    tree.write("a.txt", lines(l5="second"))
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, commit=True, written=written(first))
    assert bench.repo.git("show", "--format=", "--name-status", "HEAD") == "M\ta.txt"
    assert bench.repo.git("show", "HEAD:a.txt") + "\n" == lines(l5="second")
    # b.txt was approved without a commit and is none of this change's files.
    assert bench.repo.git("status", "--porcelain") == " M b.txt"


async def test_committed_under_the_repositorys_identity_else_under_ours(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, b="1\n")
    _, worktree = await bench.approve(worktree, snapshot, commit=True, message="Subject\n\nBody of Zoë\n")
    assert bench.repo.git("log", "-1", "--format=%an <%ae>|%cn|%B") == "coder <coder@localhost>|coder|Subject\n\nBody of Zoë"
    bench.repo.git("config", "user.name", "Grace")
    bench.repo.git("config", "user.email", "grace@example.org")
    tree.write("b.txt", "2\n")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, commit=True)
    assert bench.repo.git("log", "-1", "--format=%an <%ae>|%cn") == "Grace <grace@example.org>|Grace"
    assert bench.repo.git("log", "-g", "-1", "--format=%gs") == "coder: approve"


@pytest.mark.parametrize(
    ("author", "expected"),
    [
        ("ada", "ada <ada@localhost>"),
        ("Grace", "Grace <grace@example.org>"),
        ("Zoë <x>\n", "Zoë x <Zo-x@localhost>"),
        (" <.> ", "Grace <grace@example.org>"),
    ],
)
async def test_the_author_is_who_asked(bench: Bench, author: str, expected: str) -> None:
    bench.repo.git("config", "user.name", "Grace")
    bench.repo.git("config", "user.email", "grace@example.org")
    snapshot, worktree, _ = await changed(bench, b="1\n")
    await bench.approve(worktree, snapshot, commit=True, author=author)
    assert bench.repo.git("log", "-1", "--format=%an <%ae>|%cn <%ce>") == f"{expected}|Grace <grace@example.org>"


async def test_a_commit_leaves_what_the_user_staged(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n", new="new\n", a=None)
    bench.repo.write("staged.txt", "user\n")
    bench.repo.git("add", "staged.txt")
    bench.repo.write("run.sh", "user\n")
    await bench.approve(worktree, snapshot, commit=True)
    assert bench.repo.git("status", "--porcelain").splitlines() == [" M run.sh", "A  staged.txt"]
    assert bench.repo.git("show", "--format=", "--name-status", "HEAD").splitlines() == ["D\ta.txt", "M\tb.txt", "A\tnew.txt"]


async def test_a_file_staged_by_the_user_with_the_files_own_content_is_not_unstaged(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.write("b.txt", "staged by the user\n")
    bench.repo.git("add", "b.txt")
    bench.repo.write("b.txt", "b\n")
    await bench.approve(worktree, snapshot, commit=True)
    assert bench.repo.git("show", ":b.txt") == "staged by the user"
    assert bench.repo.git("show", "HEAD:b.txt") == "agent"


async def test_nothing_to_commit_makes_no_commit(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="same\n")
    bench.repo.write("b.txt", "same\n")
    head = bench.repo.commit()
    plan, _ = await bench.approve(worktree, snapshot, commit=True)
    assert (plan.files, plan.new_commit) == ((), None)
    assert bench.repo.git("rev-parse", "HEAD") == head
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())


async def test_a_conflict_changes_nothing_and_tells_where(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l2="agent", l9="agent too"), b=None)
    bench.repo.write("a.txt", lines(l2="user", l9="user too"))
    bench.repo.write("b.txt", "user\n")
    bench.repo.commit()
    before, index = bench.repo.files(), index_bytes(bench.repo)
    with pytest.raises(MergeConflict) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    facts = refused.value.facts
    assert refused.value.message.startswith("The change conflicts with the checkout in a.txt, b.txt; nothing was touched")
    assert (facts["files"], facts["target"]) == (["a.txt", "b.txt"], "the checkout")
    content, deletion = facts["conflicts"]
    assert (content.path, content.detail) == (b"a.txt", "CONFLICT (content): Merge conflict in a.txt")
    assert [(hunk.line, hunk.ours, hunk.theirs) for hunk in content.hunks] == [
        (2, "user\n", "agent\n"),
        (13, "user too\n", "agent too\n"),
    ]
    assert deletion.detail.startswith("CONFLICT (modify/delete): b.txt deleted in the change and modified in the checkout.")
    assert deletion.hunks == ()
    assert (bench.repo.files(), index_bytes(bench.repo)) == (before, index)
    assert bench.repo.git("for-each-ref", "refs/coder/plans") == ""


async def test_a_conflict_in_a_binary_and_in_an_added_file(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, bin="agent\0", new="agent\n")
    bench.repo.write("bin.txt", b"user\0")
    bench.repo.write("new.txt", b"user\n")
    bench.repo.commit()
    with pytest.raises(MergeConflict) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    binary, text = refused.value.facts["conflicts"]
    assert "Cannot merge binary files" in binary.detail
    assert binary.hunks == ()
    assert "add/add" in text.detail
    assert [(hunk.ours, hunk.theirs) for hunk in text.hunks] == [("user\n", "agent\n")]


@pytest.mark.parametrize("merge_style", ["merge", "diff3", "zdiff3"])
async def test_the_users_conflict_style_does_not_matter(bench: Bench, merge_style: str) -> None:
    bench.repo.git("config", "merge.conflictStyle", merge_style)
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.write("b.txt", "user\n")
    bench.repo.commit()
    with pytest.raises(MergeConflict) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert refused.value.facts["conflicts"][0].hunks[0].ours == "user\n"


async def test_work_of_the_user_in_a_file_of_the_change_refuses(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l1="agent"), b="agent\n", new="agent\n")
    bench.repo.write("b.txt", "user\n")
    bench.repo.write("new.txt", "user\n")
    before = bench.repo.files()
    with pytest.raises(CheckoutDirty) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert refused.value.message.startswith(f"The checkout {bench.repo.path} has uncommitted work in b.txt, new.txt; nothing was touched")
    assert refused.value.facts == {"path": str(bench.repo.path), "files": ["b.txt", "new.txt"]}
    assert bench.repo.files() == before


async def test_work_of_the_user_on_what_coder_wrote_refuses(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, b="first\n", a=None)
    first, worktree = await bench.approve(worktree, snapshot)
    tree.write("b.txt", "second\n")
    tree.write("a.txt", "again\n")
    snapshot, worktree = await bench.snapshot(worktree)
    bench.repo.write("b.txt", "first, and the user's\n")
    bench.repo.write("a.txt", "the user's\n")
    with pytest.raises(CheckoutDirty) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot, written=written(first)))
    assert refused.value.facts["files"] == ["a.txt", "b.txt"]


async def test_what_coder_wrote_is_only_remembered_by_being_told(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, b="first\n")
    first, worktree = await bench.approve(worktree, snapshot)
    tree.write("b.txt", "second\n")
    snapshot, worktree = await bench.snapshot(worktree)
    with pytest.raises(CheckoutDirty):
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert (await bench.worktrees.plan(bench.approval(worktree, snapshot, written=written(first)))).files


async def test_content_that_is_there_already_is_no_obstacle(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n", new="new\n")
    bench.repo.write("b.txt", "agent\n")
    plan, _ = await bench.approve(worktree, snapshot)
    assert [file.path for file in plan.files] == [b"new.txt"]


async def test_the_mode_counts_as_work(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.at("b.txt").chmod(0o755)
    with pytest.raises(CheckoutDirty):
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    bench.repo.git("config", "core.fileMode", "false")
    await bench.approve(worktree, snapshot)
    assert bench.repo.read("b.txt") == b"agent\n"


async def test_unmerged_entries_refuse(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    bench.repo.git("checkout", "-q", "-b", "other")
    bench.repo.write("b.txt", "other\n")
    bench.repo.commit()
    bench.repo.git("checkout", "-q", "main")
    bench.repo.write("b.txt", "main\n")
    bench.repo.commit()
    bench.repo.git("-c", "user.name=U", "-c", "user.email=u@u", "merge", "other", ok=False)
    bench.repo.write("b.txt", "main\n")
    with pytest.raises(CheckoutDirty, match=r"b\.txt \(a merge there is not resolved\)"):
        await bench.worktrees.plan(bench.approval(worktree, snapshot))


async def test_things_in_the_way_of_a_new_file_refuse(bench: Bench, tmp_path: Path) -> None:
    worktree, tree = await bench.start()
    tree.write("dir/deep/new.txt", "agent\n")
    tree.write("plain", "agent\n")
    snapshot, worktree = await bench.snapshot(worktree)
    approval = bench.approval(worktree, snapshot)
    outside = tmp_path / "outside"
    outside.mkdir()
    bench.repo.at("dir").symlink_to(outside)
    with pytest.raises(CheckoutDirty, match=r"dir \(it stands where the change needs a directory\)"):
        await bench.worktrees.plan(approval)
    bench.repo.at("dir").unlink()
    bench.repo.write("dir", "the user's file")
    with pytest.raises(CheckoutDirty, match=r"dir \(it stands"):
        await bench.worktrees.plan(approval)
    bench.repo.at("dir").unlink()
    bench.repo.write("plain/users.txt", "x")
    with pytest.raises(CheckoutDirty, match=r"plain/users\.txt \(the change puts a file at plain\)"):
        await bench.worktrees.plan(approval)
    bench.repo.at("plain/users.txt").unlink()
    bench.repo.at("plain/empty/below").mkdir(parents=True)
    await bench.worktrees.carry_out(await bench.worktrees.plan(approval))
    assert bench.repo.read("plain") == b"agent\n"
    assert bench.repo.read("dir/deep/new.txt") == b"agent\n"
    assert list(outside.iterdir()) == []


async def test_a_link_put_in_the_way_after_the_plan_is_not_followed(bench: Bench, tmp_path: Path) -> None:
    worktree, tree = await bench.start()
    tree.write("dir/new.txt", "agent\n")
    snapshot, worktree = await bench.snapshot(worktree)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    outside = tmp_path / "outside"
    outside.mkdir()
    bench.repo.at("dir").symlink_to(outside)
    with pytest.raises(CheckoutDirty):
        await bench.worktrees.carry_out(plan)
    assert list(outside.iterdir()) == []
    assert not list(bench.repo.at(".git").glob("coder-staging*"))


@pytest.mark.parametrize("work", ["user\n", "u\n"])
async def test_work_after_the_plan_is_not_overwritten(bench: Bench, work: str) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l1="agent"), b="agent\n")
    stamps = bench.repo.at("b.txt").stat()
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    bench.repo.write("b.txt", work)
    os.utime(bench.repo.at("b.txt"), ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert await bench.worktrees.examine(plan) == (Found.OTHER, (b"b.txt",))
    with pytest.raises(CheckoutDirty):
        await bench.worktrees.carry_out(plan)
    assert bench.repo.read("a.txt").decode() == lines()
    assert bench.repo.read("b.txt").decode() == work


async def test_a_file_the_user_renamed_takes_the_change(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l5="agent"))
    bench.repo.git("mv", "a.txt", "renamed.txt")
    bench.repo.commit()
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    assert [file.path for file in plan.files] == [b"renamed.txt"]
    bench.repo.write("renamed.txt", "the user's\n")
    with pytest.raises(CheckoutDirty, match=r"renamed\.txt"):
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    bench.repo.git("checkout", "-q", "renamed.txt")
    await bench.approve(worktree, snapshot)
    assert bench.repo.read("renamed.txt").decode() == lines(l5="agent")
    assert not bench.repo.at("a.txt").exists()


async def test_a_head_that_moved_after_the_plan_refuses_a_commit(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, commit=True))
    bench.repo.write("later.txt", "x")
    bench.repo.commit()
    assert await bench.worktrees.examine(plan) == (Found.OTHER, ())
    with pytest.raises(WrongBranch, match="approve again"):
        await bench.worktrees.carry_out(plan)
    assert bench.repo.read("b.txt") == b"b\n"


async def test_a_locked_index_refuses_a_commit_before_anything_is_written(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, commit=True))
    bench.repo.write(".git/index.lock", "")
    with pytest.raises(CheckoutDirty, match=r"index\.lock; wait or delete that file"):
        await bench.worktrees.carry_out(plan)
    assert await bench.worktrees.examine(plan) == (Found.OLD, ())
    bench.repo.at(".git/index.lock").unlink()
    await bench.worktrees.carry_out(plan)
    assert bench.repo.git("status", "--porcelain") == ""


async def test_work_on_top_of_our_commit_counts_as_done(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, b="agent\n")
    plan, _ = await bench.approve(worktree, snapshot, commit=True)
    bench.repo.write("later.txt", "x")
    bench.repo.commit()
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())
    head = bench.repo.git("rev-parse", "HEAD")
    await bench.worktrees.carry_out(plan)
    assert bench.repo.git("rev-parse", "HEAD") == head


async def test_a_moved_submodule_needs_a_commit(bench: Bench, tmp_path: Path) -> None:
    library = Tree(tmp_path / "library")
    library.path.mkdir()
    library.git("init", "-q")
    library.write("l.txt", "l")
    library.commit()
    bench.repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "lib")
    bench.repo.commit()
    worktree, tree = await bench.start()
    tree.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init")
    inner = Tree(tree.at("lib"))
    inner.write("l.txt", "newer")
    commit = inner.commit()
    snapshot, worktree = await bench.snapshot(worktree)
    assert snapshot.warnings == ()
    with pytest.raises(CheckoutDirty, match="moves the submodule lib"):
        await bench.worktrees.plan(bench.approval(worktree, snapshot))
    await bench.approve(worktree, snapshot, commit=True)
    assert commit in bench.repo.git("ls-tree", "HEAD", "lib")
    assert bench.repo.read("lib/l.txt") == b"l"


async def test_sessions_of_one_project_do_not_disturb_each_other(bench: Bench) -> None:
    first, first_tree = await bench.start()
    second, second_tree = await bench.start(uuid4())
    first_tree.write("a.txt", lines(l1="first"))
    second_tree.write("a.txt", lines(l10="second"))
    one, first = await bench.snapshot(first)
    other, second = await bench.snapshot(second)
    plan, _ = await bench.approve(first, one)
    await bench.approve(second, other, written=written(plan))
    assert bench.repo.read("a.txt").decode() == lines(l1="first", l10="second")


async def test_the_port_of_another_process_carries_out_a_stored_plan(bench: Bench) -> None:
    snapshot, worktree, tree = await changed(bench, b="agent\n")
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    await GitWorktrees(bench.data).carry_out(plan)
    assert bench.repo.files() == tree.files()
