"""Ignored files that a fresh worktree gets a copy of."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from gitbench import SESSION, Bench, Tree


@pytest.fixture
def full(bench: Bench, tmp_path: Path) -> Bench:
    repo = bench.repo
    repo.write(".gitignore", "node_modules/\n.env*\n/secret/\n*.key\nlink*\n")
    repo.commit()
    repo.write(".env", "TOKEN=1\n", 0o600)
    repo.write("sub/.env.local", "x\n")
    repo.write("node_modules/a/index.js", "a\n")
    repo.write("node_modules/.bin/tool", "t\n", 0o755)
    repo.write("secret/.env", "s\n")
    repo.write("secret/other", "o\n")
    repo.write("untracked.txt", "not ignored\n")
    outside = Tree(tmp_path / "outside")
    outside.write("x.key", "far\n")
    repo.at("link.key").symlink_to(outside.at("x.key"))
    repo.at("linked").symlink_to(outside.path)
    return bench


def with_globs(bench: Bench, *globs: str) -> Bench:
    bench.project = replace(bench.project, copy_globs=globs)
    return bench


async def test_without_globs_nothing_is_copied(full: Bench) -> None:
    worktree, tree = await full.start()
    assert worktree.copied == ()
    assert ".env" not in tree.files()


async def test_globs_and_the_include_file(full: Bench) -> None:
    full.repo.write(".worktreeinclude", "# for node\nnode_modules\n!node_modules/.bin/tool\n")
    worktree, tree = await with_globs(full, ".env*").start()
    assert worktree.copied == (b".env", b"node_modules", b"secret/.env", b"sub/.env.local")
    assert tree.read(".env") == b"TOKEN=1\n"
    assert tree.at(".env").stat().st_mode & 0o777 == 0o600
    assert os.access(tree.at("node_modules/.bin/tool"), os.X_OK)
    assert not tree.at("secret/other").exists()


async def test_only_ignored_regular_files_inside_are_copied(full: Bench) -> None:
    worktree, tree = await with_globs(full, "*").start()
    assert worktree.copied == (b".env", b"node_modules", b"secret", b"sub/.env.local")
    assert not {"untracked.txt", "link.key", "linked", "linked/x.key"} & tree.files().keys()


async def test_copied_files_are_in_no_snapshot_whatever_the_agent_does(full: Bench) -> None:
    worktree, tree = await with_globs(full, ".env*", "node_modules").start()
    tree.write(".gitignore", "")
    tree.write(".env", "TOKEN=2\n")
    tree.write("node_modules/a/new.js", "n")
    tree.git("add", "-A", "-f")
    tree.write("new.env", "not copied")
    snapshot, worktree = await full.snapshot(worktree)
    assert {file.path for file in snapshot.files} == {b".gitignore", b"new.env"}
    await full.worktrees.reset(worktree, worktree.base_commit)
    assert tree.read(".env") == b"TOKEN=2\n"


async def test_copied_files_that_stay_ignored_are_nothing_to_be_warned_of(full: Bench) -> None:
    full.repo.write("secret/[odd]*?", "o\n")
    worktree, tree = await with_globs(full, ".env*", "node_modules", "secret").start()
    tree.write("a.txt", "changed\n")
    snapshot, _ = await full.snapshot(worktree)
    assert {file.path for file in snapshot.files} == {b"a.txt"}
    assert snapshot.warnings == ()


async def test_ignored_files_of_the_checkout_that_a_change_would_expose_are_named(full: Bench) -> None:
    worktree, tree = await with_globs(full, ".env*").start()
    tree.write(".gitignore", "node_modules/\nsecret/\nlink*\n")
    snapshot, worktree = await full.snapshot(worktree)
    (warning,) = snapshot.warnings
    assert warning.startswith("An ignore file was changed so that 2 ignored file(s) of the checkout would no longer be ignored there: ")
    assert ".env, sub/.env.local; once this is approved" in warning
    tree.write(".gitignore", "node_modules/\n.env*\n/secret/\n*.key\nlink*\n*.more\n")
    snapshot, worktree = await full.snapshot(worktree)
    assert ([file.path for file in snapshot.files], snapshot.warnings) == ([b".gitignore"], ())
    tree.at(".gitignore").unlink()
    snapshot, _ = await full.snapshot(worktree)
    assert "node_modules/" in "".join(snapshot.warnings)


async def test_found_again_without_being_known_they_are_still_left_out(full: Bench) -> None:
    with_globs(full, ".env*")
    worktree, tree = await full.start()
    tree.write(".env", "changed by hand\n")
    again = await full.worktrees.ensure(full.project, SESSION, None)
    assert again.copied == worktree.copied
    assert tree.read(".env") == b"changed by hand\n"


async def test_a_tracked_file_is_never_left_out(full: Bench) -> None:
    full.repo.git("add", "-f", "sub/.env.local")
    full.repo.commit()
    full.repo.git("rm", "-q", "--cached", "sub/.env.local")
    worktree, tree = await with_globs(full, ".env*").start()
    assert worktree.copied == (b".env", b"secret/.env")
    tree.write("sub/.env.local", "changed\n")
    assert [file.path for file in (await full.worktrees.snapshot(worktree)).files] == [b"sub/.env.local"]


async def test_made_again_they_are_copied_again(full: Bench) -> None:
    with_globs(full, ".env*")
    worktree, tree = await full.start()
    shutil.rmtree(tree.path)
    full.repo.write("sub/.env.later", "later\n")
    again = await full.worktrees.ensure(full.project, SESSION, worktree)
    assert again.copied == (b".env", b"secret/.env", b"sub/.env.later", b"sub/.env.local")
    assert tree.read(".env") == b"TOKEN=1\n"


async def test_odd_names(full: Bench) -> None:
    names = [b"*.key", b":(top)x.key", b"new\nline.key", b"\xff.key", b"-dash.key", b" space .key", b"dir with [x]/a.key"]
    for name in names:
        full.repo.write(name, "odd")
    worktree, tree = await with_globs(full, "*.key").start()
    assert set(worktree.copied) == set(names)
    tree.write(".gitignore", "")
    tree.write("other.key2", "x")
    snapshot = await full.worktrees.snapshot(worktree)
    assert {file.path for file in snapshot.files} == {b".gitignore", b"other.key2"}


async def test_a_checkout_that_git_cannot_look_through_loses_no_work(full: Bench) -> None:
    worktree, tree = await with_globs(full, ".env*").start()
    tree.write(".gitignore", "")
    (full.repo.path / ".git/index").write_bytes(b"rubbish")
    snapshot, _ = await full.snapshot(worktree)
    assert b".gitignore" in [file.path for file in snapshot.files]
    assert any("of the checkout would no longer be ignored there: .env" in warning for warning in snapshot.warnings), "known as a copy"
