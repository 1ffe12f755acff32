"""A disk that is full, a second file system in the checkout, and git that is not what it should be."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gitbench import SESSION, Bench

from coder.change import Found
from coder.errors import DiskFull, InternalError
from coder.git.repository import open_repository

FULL = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from coder.errors import DiskFull
from coder.git import GitWorktrees
from coder.task import Project

data, path, project_id, session = sys.argv[1:]
project = Project(id=UUID(project_id), name="demo", path=path, agent_fallback="native")
try:
    asyncio.run(GitWorktrees(Path(data)).ensure(project, UUID(session), None))
except DiskFull as full:
    left = [str(place.relative_to(data)) for place in Path(data).rglob("*") if not place.is_dir()]
    print(full.message, left)
"""


def on_a_small_disk(directory: Path, script: str, *arguments: str) -> str:
    """Run a script with a file system of one megabyte at a directory that nobody else sees; skips where none can be had."""
    mount = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(directory)]
    try:
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
            pytest.skip("this machine gives no file system to an unprivileged process")
    except FileNotFoundError:
        pytest.skip("this machine has no unshare")
    return subprocess.run([*command, sys.executable, "-c", script, *arguments], capture_output=True, check=True, text=True).stdout


async def test_no_space_for_a_worktree_leaves_nothing_half_made(bench: Bench) -> None:
    bench.repo.write("large", os.urandom(3_000_000))
    bench.repo.commit()
    bench.data.mkdir()
    said = on_a_small_disk(bench.data, FULL, str(bench.data), bench.project.path, str(bench.project.id), str(SESSION))
    assert said.startswith("No space is left for git's objects and files of")
    assert said.endswith("[]\n")
    assert str(SESSION) not in bench.repo.git("worktree", "list")


async def test_gits_own_words_about_a_full_disk(bench: Bench) -> None:
    repository = open_repository(bench.project.path, "demo")
    alias = "alias.full=!echo 'fatal: write error: No space left on device' >&2; exit 128"
    with pytest.raises(DiskFull, match=f"free some on the disk of {bench.repo.path}"):
        repository.run("-c", alias, "full")


async def test_an_error_of_git_is_a_sentence(bench: Bench) -> None:
    worktree, _ = await bench.start()
    with pytest.raises(InternalError, match=r"`git rev-list` failed in .* with status 128: bad object 4b825dc642cb6eb9"):
        await bench.worktrees.diff(worktree, "4b825dc642cb6eb9a060e54bf8d69288fbee4905")


async def test_git_is_missing(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InternalError, match=r"install git 2\.38 or newer"):
        await bench.start()


async def test_a_checkout_over_two_file_systems(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worktree, tree = await bench.start()
    tree.write("sub/tool", "#!/bin/sh\n", 0o755)
    tree.at("sub/link").symlink_to("tool")
    tree.write("b.txt", "changed\n")
    snapshot, worktree = await bench.snapshot(worktree)
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot))
    rename = os.replace
    crossed = []

    def as_across_a_mount(source: str | bytes, target: str | bytes, **places: int) -> None:
        if b"coder-staging" in os.fsencode(source) and b"/" in os.fsencode(source):
            crossed.append(source)
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, target, **places)

    monkeypatch.setattr(os, "replace", as_across_a_mount)
    # What a run that was killed in the middle of a copy leaves is used up by the next one.
    bench.repo.write(f"sub/.coder-coder-staging-{plan.keep_ref.rpartition('/')[2]}", "half")
    await bench.worktrees.carry_out(plan)
    assert len(crossed) == 3
    assert bench.repo.files() == tree.files()
    assert os.access(bench.repo.at("sub/tool"), os.X_OK)
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())
