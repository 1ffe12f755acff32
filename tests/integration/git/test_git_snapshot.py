"""What a snapshot holds, whatever was done to the worktree's git."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gitbench import SESSION, Bench, Tree

from coder.change import FileChange, Snapshot, Worktree
from coder.errors import InternalError


def operations(snapshot: Snapshot) -> dict[bytes, str]:
    return {file.path: file.operation for file in snapshot.files}


async def test_nothing_changed(bench: Bench) -> None:
    worktree, _ = await bench.start()
    snapshot = await bench.worktrees.snapshot(worktree)
    assert snapshot.empty
    assert (snapshot.commit, snapshot.files, snapshot.diff, snapshot.warnings) == (worktree.base_commit, (), b"", ())
    assert bench.repo.git("for-each-ref", "--format=%(refname)", f"refs/coder/{SESSION}/") == f"refs/coder/{SESSION}/base"


async def test_every_kind_of_change(bench: Bench) -> None:
    bench.repo.write("bin", b"\0\1\2")
    bench.repo.at("link").symlink_to("a.txt")
    bench.repo.write("dir/only.txt", "x\n")
    bench.repo.write("was-file", "x\n")
    bench.repo.commit()
    worktree, tree = await bench.start()
    index = tree.git("ls-files", "--stage", "--debug")
    tree.at("a.txt").rename(tree.at("moved.txt"))
    tree.write("b.txt", "b\nmore\n", 0o755)
    tree.at("run.sh").chmod(0o644)
    tree.write("bin", b"\0\3")
    tree.write("empty", "")
    tree.write("new/deep.txt", "one\ntwo")
    tree.at("link").unlink()
    tree.write("link", "a file now\n")
    tree.at("out").symlink_to("/etc/passwd")
    tree.at("dangling").symlink_to("nowhere")
    shutil.rmtree(tree.at("dir"))
    tree.at("was-file").unlink()
    tree.write("was-file/inside", "y\n")
    snapshot, _ = await bench.snapshot(worktree)
    assert {replace(file, hunks=()) for file in snapshot.files} == {
        FileChange(b"moved.txt", "renamed", 0, 0, "100644", "100644", b"a.txt"),
        FileChange(b"b.txt", "modified", 1, 0, "100644", "100755"),
        FileChange(b"run.sh", "modified", 0, 0, "100755", "100644"),
        FileChange(b"bin", "modified", None, None, "100644", "100644"),
        FileChange(b"empty", "added", 0, 0, "000000", "100644"),
        FileChange(b"new/deep.txt", "added", 2, 0, "000000", "100644"),
        FileChange(b"link", "type_changed", 1, 1, "120000", "100644"),
        FileChange(b"out", "added", 1, 0, "000000", "120000"),
        FileChange(b"dangling", "added", 1, 0, "000000", "120000"),
        FileChange(b"dir/only.txt", "deleted", 0, 1, "100644", "000000"),
        FileChange(b"was-file", "deleted", 0, 1, "100644", "000000"),
        FileChange(b"was-file/inside", "added", 1, 0, "000000", "100644"),
    }
    lines = snapshot.diff.split(b"\n")
    assert {file.path: [lines[hunk.diff_line - 1] for hunk in file.hunks] for file in snapshot.files if file.hunks} == {
        b"b.txt": [b"@@ -1 +1,2 @@"],
        **{path: [b"@@ -0,0 +1 @@"] for path in (b"out", b"dangling", b"was-file/inside")},
        b"new/deep.txt": [b"@@ -0,0 +1,2 @@"],
        **{path: [b"@@ -1 +0,0 @@"] for path in (b"dir/only.txt", b"was-file")},
    }
    assert snapshot.warnings == ()
    assert bench.repo.git("rev-parse", f"refs/coder/{SESSION}/1") == snapshot.commit
    assert bench.repo.git("rev-parse", f"{snapshot.commit}^@") == worktree.base_commit
    # The patch is a real one: applied to the base it gives the snapshot.
    scratch = Tree(tree.path.with_name("scratch"))
    bench.repo.git("worktree", "add", "-q", "--detach", str(scratch.path), worktree.base_commit)
    scratch.path.with_name("patch").write_bytes(snapshot.diff)
    scratch.git("apply", "--index", "--binary", "../patch")
    assert scratch.git("write-tree") == snapshot.tree
    assert tree.git("ls-files", "--stage", "--debug") == index


async def test_a_second_snapshot_without_change_is_the_first(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("b.txt", "changed\n")
    first, worktree = await bench.snapshot(worktree)
    second, worktree = await bench.snapshot(worktree)
    assert second == first
    tree.write("b.txt", "changed again\n")
    third, worktree = await bench.snapshot(worktree)
    assert bench.repo.git("rev-parse", f"refs/coder/{SESSION}/3") == third.commit
    tree.write("b.txt", "b\n")
    assert (await bench.worktrees.snapshot(worktree)).empty


async def test_what_an_agent_does_with_its_git_does_not_matter(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write(".gitignore", "*.log\n")
    tree.write("staged.txt", "staged")
    tree.git("add", "staged.txt")
    tree.write("secret.log", "x")
    tree.git("add", "-f", "secret.log")
    tree.git("update-index", "--assume-unchanged", "b.txt")
    tree.git("update-index", "--skip-worktree", "a.txt")
    tree.write("b.txt", "hidden?\n")
    tree.write("a.txt", "hidden?\n")
    tree.git("checkout", "-q", "-b", "agents-branch")
    tree.write("committed.txt", "committed")
    tree.commit("an agent's commit")
    tree.git("rm", "-q", "--cached", "run.sh")
    expected = {b".gitignore": "added", b"staged.txt": "added", b"committed.txt": "added", b"a.txt": "modified", b"b.txt": "modified"}
    snapshot = await bench.worktrees.snapshot(worktree)
    assert operations(snapshot) == expected


async def test_stash_and_back(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("b.txt", "changed\n")
    tree.git("-c", "user.name=Agent", "-c", "user.email=a@b", "stash", "-q")
    assert (await bench.worktrees.snapshot(worktree)).empty
    tree.git("stash", "pop", "-q")
    assert operations(await bench.worktrees.snapshot(worktree)) == {b"b.txt": "modified"}


async def test_a_missing_or_corrupt_index_of_ours_is_made_again(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("b.txt", "changed\n")
    ours = tree.path.with_name(f"{SESSION}.index")
    first = await bench.worktrees.snapshot(worktree)
    for content in (None, b"", b"DIRC nonsense" * 100, ours.read_bytes()[:-40]):
        if content is None:
            ours.unlink()
        else:
            ours.unlink()
            ours.write_bytes(content)
        assert (await bench.worktrees.snapshot(worktree)).tree == first.tree
    assert {path.name for path in ours.parent.iterdir()} == {str(SESSION), f"{SESSION}.index"}


async def test_a_file_of_the_base_counts_though_ignored(bench: Bench) -> None:
    bench.repo.write(".gitignore", "dist/\n")
    bench.repo.write("dist/kept.js", "1\n")
    bench.repo.git("add", "-f", "dist/kept.js")
    bench.repo.commit()
    worktree, tree = await bench.start()
    tree.at("dist/kept.js").unlink()
    tree.write("dist/other.js", "ignored\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert operations(snapshot) == {b"dist/kept.js": "deleted"}
    tree.write("dist/kept.js", "2\n")
    snapshot, _ = await bench.snapshot(worktree)
    assert operations(snapshot) == {b"dist/kept.js": "modified"}


async def test_a_file_ignored_later_leaves_the_change(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("build/out.o", "x")
    snapshot, worktree = await bench.snapshot(worktree)
    assert operations(snapshot) == {b"build/out.o": "added"}
    tree.write(".gitignore", "build/\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert operations(snapshot) == {b".gitignore": "added"}
    assert tree.read("build/out.o") == b"x"


@pytest.mark.parametrize("place", [".gitignore", "sub/.gitignore"])
async def test_an_emptied_ignore_file_is_flagged(bench: Bench, place: str) -> None:
    bench.repo.write(place, "*.secret\n/cache/\n")
    bench.repo.commit()
    worktree, tree = await bench.start()
    folder = place.removesuffix(".gitignore")
    for n in range(6):
        tree.write(f"{folder}{n}.secret", "x")
    tree.write(f"{folder}cache/c", "x")
    tree.write(f"{folder}normal", "x")
    assert operations(await bench.worktrees.snapshot(worktree)) == {f"{folder}normal".encode(): "added"}
    tree.write(place, "")
    snapshot = await bench.worktrees.snapshot(worktree)
    (warning,) = snapshot.warnings
    assert "7 formerly ignored file(s)" in warning
    assert f"{folder}0.secret, {folder}1.secret" in warning
    assert "and 2 more" in warning
    assert "normal" not in warning


async def test_a_nested_repository_is_left_out_and_named(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("ok.txt", "ok")
    tree.write("full/x", "x")
    Tree(tree.at("full")).git("init", "-q")
    Tree(tree.at("full")).commit()
    tree.write("without-commit/x", "x")
    Tree(tree.at("without-commit")).git("init", "-q")
    for _ in range(2):
        snapshot, worktree = await bench.snapshot(worktree)
        assert operations(snapshot) == {b"ok.txt": "added"}
        assert [warning.partition(";")[0] for warning in snapshot.warnings] == [
            "A git repository was made inside the worktree at without-commit",
            "A git repository was made inside the worktree at full",
        ]
    shutil.rmtree(tree.at("full/.git"))
    assert operations((await bench.snapshot(worktree))[0]) == {b"ok.txt": "added", b"full/x": "added"}


async def test_a_repository_made_over_files_of_the_base_hides_nothing(bench: Bench) -> None:
    bench.repo.write("src/x", "x\n")
    bench.repo.commit()
    worktree, tree = await bench.start()
    inner = Tree(tree.at("src"))
    inner.git("init", "-q")
    inner.write("x", "changed\n")
    inner.write("new", "new\n")
    inner.commit()
    snapshot = await bench.worktrees.snapshot(worktree)
    assert operations(snapshot) == {b"src/x": "modified", b"src/new": "added"}


async def test_submodules_of_the_project_stay_out_of_the_change(bench: Bench, tmp_path: Path) -> None:
    library = Tree(tmp_path / "library")
    library.path.mkdir()
    library.git("init", "-q")
    library.write("l.txt", "l")
    library.commit()
    bench.repo.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library.path), "lib")
    bench.repo.commit()
    worktree, tree = await bench.start()
    assert (await bench.worktrees.snapshot(worktree)).empty
    tree.write("ok.txt", "ok")
    assert operations(await bench.worktrees.snapshot(worktree)) == {b"ok.txt": "added"}


async def test_a_submodule_its_config_ignores_is_shown_all_the_same(bench: Bench) -> None:
    repo = bench.repo
    repo.write("sub/inside", "1\n")
    inner = Tree(repo.at("sub"))
    inner.git("init", "-q")
    inner.commit()
    repo.write(".gitmodules", '[submodule "sub"]\n\tpath = sub\n\turl = ./sub\n\tignore = all\n')
    repo.git("add", "sub", ".gitmodules")
    repo.commit()
    worktree, tree = await bench.start()
    tree.write("sub/inside", "2\n")
    inner = Tree(tree.at("sub"))
    inner.git("init", "-q")
    moved = inner.commit()
    snapshot, _ = await bench.snapshot(worktree)
    assert [(file.path, file.new_mode) for file in snapshot.files] == [(b"sub", "160000")]
    assert tree.git("rev-parse", f"{snapshot.commit}:sub") == moved


async def test_a_file_git_cannot_take_is_named(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.at("b.txt").unlink()
    os.mkfifo(tree.at("b.txt"))
    tree.write("ok.txt", "ok")
    snapshot = await bench.worktrees.snapshot(worktree)
    assert operations(snapshot) == {b"ok.txt": "added"}
    assert snapshot.warnings == (
        "Git could not read some files, so this change lacks them: b.txt: can only add regular files, symbolic links or git-directories.",
    )


@pytest.mark.parametrize("how", ["removed", "edited", "own repository", "link"])
async def test_a_broken_link_to_git_is_put_right(bench: Bench, how: str, tmp_path: Path) -> None:
    worktree, tree = await bench.start()
    tree.write("ok.txt", "ok")
    link = tree.at(".git")
    right = link.read_bytes()
    link.unlink()
    if how == "edited":
        link.write_text(f"gitdir: {tmp_path}\n")
    elif how == "own repository":
        tree.git("init", "-q")
        tree.commit("everything in a repository of the agent's own")
    elif how == "link":
        link.symlink_to(tmp_path)
    snapshot = await bench.worktrees.snapshot(worktree)
    assert operations(snapshot) == {b"ok.txt": "added"}
    (warning,) = snapshot.warnings
    assert ".git was removed during the turn" in warning if how == "removed" else ".git was replaced during the turn" in warning
    assert link.read_bytes() == right
    assert (await bench.worktrees.snapshot(worktree)).warnings == ()


async def test_a_broken_record_of_git_is_put_right(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("ok.txt", "ok")
    record = bench.repo.path / ".git/worktrees" / str(SESSION)
    (record / "commondir").write_text("/nowhere\n")
    (record / "HEAD").write_text("rubbish")
    (record / "index").unlink()
    snapshot = await bench.worktrees.snapshot(worktree)
    assert operations(snapshot) == {b"ok.txt": "added"}
    assert len(snapshot.warnings) == 1
    assert tree.git("status", "--porcelain") == "?? ok.txt"


async def test_a_record_that_became_links_is_put_right_and_nothing_is_written_where_they_lead(bench: Bench, tmp_path: Path) -> None:
    worktree, tree = await bench.start()
    tree.write("ok.txt", "ok")
    record = bench.repo.path / ".git/worktrees" / str(SESSION)
    for name in ("commondir", "gitdir", "HEAD"):
        (tmp_path / name).write_text("mine")
        (record / name).unlink()
        (record / name).symlink_to(tmp_path / name)
    (record / "index").unlink()
    (record / "index").mkdir()
    assert operations(await bench.worktrees.snapshot(worktree)) == {b"ok.txt": "added"}
    record.rename(tmp_path / "moved")
    record.symlink_to(tmp_path / "moved")
    assert operations(await bench.worktrees.snapshot(worktree)) == {b"ok.txt": "added"}
    assert not record.is_symlink()
    assert [(tmp_path / name).read_text() for name in ("commondir", "gitdir", "HEAD")] == ["mine"] * 3


async def test_a_worktree_that_is_gone_is_not_a_change_that_deletes_everything(bench: Bench) -> None:
    worktree, tree = await bench.start()
    shutil.rmtree(tree.path)
    with pytest.raises(InternalError, match="is gone; the session's next turn makes it again"):
        await bench.worktrees.snapshot(worktree)


async def test_a_worktree_that_became_a_link_shows_nothing_of_what_it_leads_to_and_is_made_again(bench: Bench, tmp_path: Path) -> None:
    """Who serves the worktrees of all sessions can put one in its own place."""
    worktree, tree = await bench.start()
    tree.write("ok.txt", "ok")
    _, worktree = await bench.snapshot(worktree)
    private = Tree(tmp_path / "private")
    private.write("secret", "sesame")
    tree.path.rename(tmp_path / "moved")
    tree.path.symlink_to(private.path)
    with pytest.raises(InternalError, match="is gone; the session's next turn makes it again"):
        await bench.worktrees.snapshot(worktree)
    again = await bench.worktrees.ensure(bench.project, SESSION, worktree)
    assert operations(await bench.worktrees.snapshot(again)) == {b"ok.txt": "added"}
    assert not tree.path.is_symlink()
    assert private.files() == {"secret": b"sesame"}


@pytest.mark.parametrize("used", [False, True])
async def test_settings_that_an_agent_left_in_its_record_are_not_taken_up(bench: Bench, used: bool, tmp_path: Path) -> None:
    """A filter in them is a program that our git would run, once the repository takes settings from there."""
    ran = tmp_path / "ran"
    if used:
        bench.repo.git("config", "extensions.worktreeConfig", "true")
    worktree, tree = await bench.start()
    tree.write(".gitattributes", "* filter=trap\n")
    settings = bench.repo.path / ".git/worktrees" / str(SESSION) / "config.worktree"
    written = tmp_path / "settings" if used else settings
    written.write_text(f'[filter "trap"]\n\tclean = touch {ran}; cat\n')
    if used:
        settings.unlink(missing_ok=True)
        settings.symlink_to(written)
    again = await bench.worktrees.ensure(bench.project, SESSION, worktree)
    if not used:
        bench.repo.git("config", "extensions.worktreeConfig", "true")
    assert operations(await bench.worktrees.snapshot(again)) == {b".gitattributes": "added"}
    assert not ran.exists()


async def test_the_projects_hooks_and_fsmonitor_never_run(bench: Bench, tmp_path: Path) -> None:
    worktree, tree = await bench.start()
    before = await bench.worktrees.guard_state(worktree)
    trap = Tree(tmp_path / "trap")
    ran = tmp_path / "ran"
    for hook in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction", "fsmonitor", "post-commit"):
        trap.write(hook, f"#!/bin/sh\ntouch {ran}\n", 0o755)
    tree.git("config", "core.hooksPath", str(trap.path))
    tree.git("config", "core.fsmonitor", str(trap.at("fsmonitor")))
    tree.git("config", "diff.external", str(trap.at("fsmonitor")))
    ran.unlink(missing_ok=True)
    tree.write("b.txt", "changed\n")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, commit=True)
    await bench.worktrees.reset(worktree, worktree.base_commit)
    shutil.rmtree(tree.path)
    await bench.worktrees.ensure(bench.project, SESSION, worktree)
    assert not ran.exists()
    assert await bench.worktrees.guard_state(worktree) != before


async def test_after_the_base_moved_the_diff_holds_only_what_is_new(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("one.txt", "1\n")
    first, worktree = await bench.snapshot(worktree)
    tree.write("two.txt", "2\n")
    second, worktree = await bench.snapshot(worktree)
    moved = replace(worktree, base_commit=first.commit, base_version=2)
    again = await bench.worktrees.diff(moved, second.commit)
    assert (again.base_commit, again.base_version, again.tree) == (first.commit, 2, second.tree)
    assert operations(again) == {b"two.txt": "added"}
    assert b"one.txt" not in again.diff
    assert bench.repo.git("rev-parse", f"{again.commit}^@") == first.commit
    assert bench.repo.git("rev-parse", f"refs/coder/{SESSION}/rebased/2") == again.commit
    assert again.fingerprint != second.fingerprint
    assert await bench.worktrees.diff(moved, again.commit) == again
    assert (await bench.worktrees.diff(moved, first.commit)).empty
    taken = await bench.worktrees.snapshot(moved)
    assert operations(taken) == {b"two.txt": "added"}


async def test_the_users_rebase_does_not_change_the_diff(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("new.txt", "x\n")
    bench.repo.write("b.txt", "the user's\n")
    bench.repo.git("-c", "user.name=U", "-c", "user.email=u@u", "commit", "-qa", "--amend", "-m", "rewritten")
    bench.repo.git("reflog", "expire", "--expire=now", "--all")
    bench.repo.git("gc", "-q", "--prune=now")
    snapshot = await bench.worktrees.snapshot(worktree)
    assert operations(snapshot) == {b"new.txt": "added"}


async def test_reset_saves_and_goes_back(bench: Bench) -> None:
    bench.repo.write(".gitignore", "cache/\n")
    bench.repo.commit()
    worktree, tree = await bench.start()
    original = tree.files()
    tree.git("checkout", "-q", "-b", "agents")
    tree.write("cache/kept", "ignored")
    tree.write("new/untracked.txt", "u")
    tree.write("b.txt", "changed\n", 0o755)
    tree.at("a.txt").unlink()
    tree.write("a.txt/now/a/directory", "x")
    tree.git("add", "-A")
    tree.write("b.txt", "changed after staging\n")
    (bench.repo.path / ".git/worktrees" / str(SESSION) / "index.lock").touch()
    (bench.repo.path / ".git/worktrees" / str(SESSION) / "MERGE_HEAD").write_text(worktree.base_commit + "\n")
    ref = await bench.worktrees.reset(worktree, worktree.base_commit)
    assert ref == f"refs/coder/{SESSION}/discarded/1"
    assert tree.files() == {**original, "cache/kept": b"ignored"}
    assert not tree.at("new").exists()
    assert tree.git("status", "--porcelain") == ""
    assert tree.git("rev-parse", "HEAD") == worktree.base_commit
    assert tree.git("symbolic-ref", "-q", "HEAD", ok=False) == ""
    assert bench.repo.git("show", f"{ref}:b.txt") == "changed after staging"
    assert bench.repo.git("show", f"{ref}:a.txt/now/a/directory") == "x"
    assert (await bench.worktrees.snapshot(worktree)).empty
    assert await bench.worktrees.reset(worktree, worktree.base_commit) == f"refs/coder/{SESSION}/discarded/2"


async def test_reset_to_a_snapshot(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("one.txt", "1\n")
    first, worktree = await bench.snapshot(worktree)
    tree.at("one.txt").unlink()
    tree.write("two.txt", "2\n")
    await bench.worktrees.reset(worktree, first.commit)
    assert tree.read("one.txt") == b"1\n"
    assert not tree.at("two.txt").exists()
    assert tree.git("status", "--porcelain") == ""
    assert (await bench.worktrees.snapshot(worktree)).commit == first.commit


async def test_a_stored_worktree_of_another_process_works_the_same(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.write("one.txt", "1\n")
    first, worktree = await bench.snapshot(worktree)
    other = Bench(type(bench.worktrees)(bench.data), bench.repo, bench.project, bench.data)
    assert (await other.snapshot(worktree))[0] == first
    assert isinstance(worktree, Worktree)
