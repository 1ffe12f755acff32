"""Hostile changes: applied inside the project, or refused whole; never a byte outside."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from gitbench import Bench, Tree, written

from coder.change import Plan, PlannedFile, Snapshot, Worktree
from coder.errors import CheckoutDirty, CoderError, InternalError, UnsafePath
from coder.git import apply
from coder.git.repository import open_repository

Signature = dict[str, tuple[int, int, int, int, int]]
PARTS = [*b"..|.||.git|.GIT|.git |git~1|link|flink|dir|a.txt|new|\xff\n|hooks|config|objects|outside".split(b"|"), b"x" * 300]
HONEST = [b"link", b"flink", b"dir", b"a.txt", b"new", b"hooks"]
MODES = ["100644", "100755", "120000", "160000", "040000", "100777"]
ABSENT: tuple[str | None, str] = (None, "000000")


def signature(*places: Path) -> Signature:
    """Everything about what lies there that writing would change."""
    found = {}
    for place in places:
        for folder, names, files in os.walk(place):
            for name in (".", *names, *files):
                full = os.path.join(folder, name)
                seen = os.lstat(full)
                found[full] = (seen.st_ino, seen.st_mode, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)
    return found


def crafted(repo: Tree, entries: list[tuple[str, bytes, str]]) -> str:
    """A commit of a tree that git itself would not make: (mode, name, object) as they are."""
    content = b"".join(f"{mode} ".encode() + name + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    command = ["git", "hash-object", "-t", "tree", "-w", "--stdin", "--literally"]
    tree = subprocess.run(command, cwd=repo.path, input=content, capture_output=True, check=True).stdout.decode().strip()
    return repo.git("-c", "user.name=x", "-c", "user.email=x@y", "commit-tree", tree, "-m", "x", "-p", "HEAD")


def blob(repo: Tree, content: bytes) -> str:
    command = ["git", "hash-object", "-w", "--stdin"]
    return subprocess.run(command, cwd=repo.path, input=content, capture_output=True, check=True).stdout.decode().strip()


def tree_id(repo: Tree, commit: str) -> str:
    return repo.git("rev-parse", f"{commit}^{{tree}}")


@pytest.mark.parametrize("target", ["checkout", "branch"])
@pytest.mark.parametrize("name", [b"..", b".", b".git", b".GIT", b"git~1", b".git .", b"/etc", b"../up", b"a/../../up"])
async def test_trees_that_git_would_not_make_are_refused_whole(bench: Bench, name: bytes, target: str) -> None:
    worktree, _ = await bench.start()
    held = blob(bench.repo, b"hostile\n")
    folder = tree_id(bench.repo, crafted(bench.repo, [("100644", b"up", held)]))
    commit = crafted(bench.repo, [("40000", name, folder), ("100644", b"z.txt", held)])
    before, outside = bench.repo.files(), signature(bench.repo.path.parent / "data")
    form = {"snapshot_commit": commit, "paths": (), "target": target, "branch": "made" if target == "branch" else None}
    snapshot = Snapshot(worktree.base_commit, "", 1, commit, "", b"", ())
    with pytest.raises((UnsafePath, InternalError)):
        await bench.worktrees.plan(bench.approval(worktree, snapshot, **form))
    assert (bench.repo.files(), bench.repo.git("branch", "--list", "made")) == (before, "")
    assert signature(bench.repo.path.parent / "data") == outside
    assert not (bench.repo.path.parent / "up").exists()


async def test_a_mode_that_git_does_not_keep_is_one_that_it_does(bench: Bench) -> None:
    worktree, _ = await bench.start()
    held = blob(bench.repo, b"hostile\n")
    commit = crafted(bench.repo, [("100777", b"all", held), ("100600", b"own", held)])
    snapshot = Snapshot(worktree.base_commit, "", 1, commit, "", b"", ())
    await bench.approve(worktree, snapshot)
    assert {name: oct(bench.repo.at(name).stat().st_mode & 0o777) for name in ("all", "own")} == {"all": "0o755", "own": "0o644"}


async def test_odd_but_honest_files_arrive_as_they_are(bench: Bench) -> None:
    worktree, tree = await bench.start()
    odd = {
        "A": b"upper\n", "a": b"lower\n", "Dir/x": b"1\n", "dir/x": b"2\n", "crlf": b"1\r\n2\r\n", "cr": b"1\r2\r", "bare": b"no line feed",
        "nul": b"\0\r\n", "-rf": b"x\n", "a\nb": b"x\n", "--\"'": b"x\n", "..git": b"x\n", ".gitx/y": b"x\n",
    }  # fmt: skip
    for name, content in odd.items():
        tree.write(name, content)
    tree.at("a.txt").chmod(0o777)
    tree.at("out").symlink_to("/etc")
    tree.at("up").symlink_to("../../..")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot)
    assert bench.repo.files() == tree.files()
    assert bench.repo.at("a.txt").stat().st_mode & 0o777 == 0o755
    assert os.readlink(bench.repo.at("up")) == "../../.."


async def test_what_lies_behind_a_link_of_an_approved_change_is_not_written(bench: Bench, tmp_path: Path) -> None:
    """One change puts a link where the other one has a directory."""
    (tmp_path / "outside").mkdir()
    worktree, tree = await bench.start()
    tree.at("dir").symlink_to(tmp_path / "outside")
    snapshot, worktree = await bench.snapshot(worktree)
    plan, _ = await bench.approve(worktree, snapshot)
    tree.at("dir").unlink()
    tree.write("dir/inside", "x\n")
    snapshot, worktree = await bench.snapshot(worktree)
    with pytest.raises(CoderError):
        await bench.approve(worktree, snapshot)
    assert os.listdir(tmp_path / "outside") == []
    assert plan.files[0].new_mode == "120000"


# --- generated plans


def scene(folder: Path) -> Tree:
    """A project with links that lead out of it, and things outside that must stay as they are."""
    (folder / "outside" / "sub").mkdir(parents=True)
    (folder / "outside" / "file").write_text("precious\n")
    (folder / "up").write_text("precious\n")
    repo = Tree(folder / "project")
    repo.path.mkdir()
    repo.git("init", "-q", "-b", "main")
    repo.write("a.txt", "a\n")
    repo.write("dir/x", "x\n")
    repo.at("link").symlink_to("../outside")
    repo.at("flink").symlink_to("../outside/file")
    repo.commit()
    return repo


def generated(dice: random.Random, blobs: list[str], number: int, repo: Tree) -> Plan:
    files = []
    for _ in range(dice.choice([1, 1, 2, 4])):
        path = b"/".join(dice.choices(PARTS if dice.random() < 0.7 else HONEST, k=dice.choice([1, 2, 2, 3, 4])))
        if dice.random() < 0.05:
            path = os.fsencode(repo.path.parent) + b"/outside/" + path
        old = ABSENT if dice.random() < 0.7 else (dice.choice(blobs), dice.choice(MODES))
        new = ABSENT if dice.random() < 0.2 else (dice.choice(blobs), dice.choice(MODES))
        files.append(PlannedFile(path, *old, *new))
    return Plan("checkout", str(repo.path), f"refs/coder/plans/{number}", files=tuple(files))


def fuzz(folder: Path, count: int, seed: int) -> Counter[str]:
    """Carry out so many generated plans; answers how they ended."""
    repo = scene(folder)
    repository = open_repository(str(repo.path), "p")
    blobs = [blob(repo, content) for content in (b"hostile\n", b"../outside", b"../outside/file", b"..", b"")]
    guarded = (folder / "outside", repo.path / ".git" / "hooks", repo.path / ".git" / "refs" / "heads")
    files = [folder / "up", *(repo.path / ".git" / name for name in ("config", "HEAD", "index"))]
    before = (signature(*guarded), [file.read_bytes() for file in files], sorted(os.listdir(folder)))
    dice, ends = random.Random(seed), Counter[str]()
    for number in range(count):
        for name, target in (("link", "../outside"), ("flink", "../outside/file")):
            if not repo.at(name).is_symlink() or os.readlink(repo.at(name)) != target:
                subprocess.run(["rm", "-rf", str(repo.at(name))], check=True)
                repo.at(name).symlink_to(target)
        plan = generated(dice, blobs, number, repo)
        try:
            apply.carry_out(repository, plan)
            ends["applied"] += 1
        except CoderError as error:
            ends[error.code] += 1
        after = (signature(*guarded), [file.read_bytes() for file in files], sorted(os.listdir(folder)))
        assert after == before, f"plan {number} of seed {seed} wrote outside: {plan.files}"
    return ends


def test_generated_plans_write_nothing_outside(tmp_path: Path) -> None:
    ends = fuzz(tmp_path, 1000, time.time_ns())
    assert ends["applied"] > 10
    assert ends["unsafe_path"] > 400


@pytest.mark.long
def test_a_hundred_thousand_generated_plans_write_nothing_outside(tmp_path: Path) -> None:
    ends = fuzz(tmp_path, 100_000, time.time_ns())
    print(dict(ends))
    assert ends.total() == 100_000
    assert ends["applied"] > 1000


# --- large ones


async def test_a_file_of_200_mb(bench: Bench) -> None:
    worktree, tree = await bench.start()
    os.truncate(tree.write("large", ""), 200 << 20)
    tree.write("small", "x\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert len(snapshot.diff) < 2 << 20
    await bench.approve(worktree, snapshot)
    assert bench.repo.at("large").stat().st_size == 200 << 20
    assert bench.repo.read("small") == b"x\n"


async def many(bench: Bench, count: int) -> tuple[Worktree, Snapshot, Plan]:
    worktree, tree = await bench.start()
    for number in range(count):
        tree.write(f"d{number % 100}/f{number}", f"{number}\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert len(snapshot.files) == count
    plan, worktree = await bench.approve(worktree, snapshot)
    assert bench.repo.files() == tree.files()
    return worktree, snapshot, plan


async def test_five_thousand_files(bench: Bench) -> None:
    await many(bench, 5_000)


@pytest.mark.long
async def test_a_hundred_thousand_files(bench: Bench) -> None:
    """And out again, which is refused in few words as long as they are nobody's."""
    worktree, snapshot, plan = await many(bench, 100_000)
    back = {"snapshot_commit": snapshot.base_commit, "paths": ()}
    with pytest.raises(CheckoutDirty) as refused:
        await bench.worktrees.plan(bench.approval(worktree, snapshot, **back))
    assert len(refused.value.message) < 1000
    plan = await bench.worktrees.plan(bench.approval(worktree, snapshot, written=written(plan), **back))
    await bench.worktrees.carry_out(plan)
    assert len(bench.repo.files()) == 3
