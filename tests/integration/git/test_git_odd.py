"""Names, line ends, modes and kinds of file that break naive code, through the whole way: snapshot, plan, carry out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from gitbench import Bench, Tree, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coder.change import Found
from coder.git.disk import remove_tree

NAMES = [
    b"new\nline",
    b"tab\there",
    b"caf\xc3\xa9",
    b"latin\xe9",
    b"\xff\xfe",
    b"-dash",
    b"--output=x",
    b":(top)x",
    b":!x",
    b"*",
    b"[ab]?",
    b" lead and trail ",
    b'quo"te',
    b"back\\slash",
    b"#hash",
    b"!bang",
    b"dir with space/in\nside/f",
    b"=======",
    b"x" * 200,
]


async def test_odd_names_all_the_way(bench: Bench) -> None:
    for number, name in enumerate(NAMES):
        if number % 3:
            bench.repo.write(name, f"old {number}\n")
    bench.repo.commit()
    worktree, tree = await bench.start()
    for number, name in enumerate(NAMES):
        if number % 3 == 2:
            tree.at(name).unlink()
        else:
            tree.write(name, f"new {number}\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert {file.path for file in snapshot.files} | {file.old_path for file in snapshot.files if file.old_path} == set(NAMES)
    plan, worktree = await bench.approve(worktree, snapshot)
    assert bench.repo.files() == tree.files()
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())
    for name in NAMES:
        tree.write(name, "again\n")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, commit=True, written=written(plan))
    assert bench.repo.files() == tree.files()
    assert bench.repo.git("status", "--porcelain") == ""


SHAPES: dict[str, Callable[[Tree], object]] = {
    "file": lambda tree: tree.write("x", "content\n"),
    "executable": lambda tree: tree.write("x", "content\n", 0o755),
    "empty": lambda tree: tree.write("x", ""),
    "binary": lambda tree: tree.write("x", bytes(range(256)) * 40),
    "link to directory": lambda tree: tree.at("x").symlink_to("d"),
    "dangling link": lambda tree: tree.at("x").symlink_to("nowhere"),
    "link out of the tree": lambda tree: tree.at("x").symlink_to("/etc"),
    "directory": lambda tree: (tree.write("x/one", "1\n"), tree.write("x/deep/two", "2\n")),
    "directory with link": lambda tree: (tree.write("x/one", "1\n"), tree.at("x/up").symlink_to("..")),
    "nothing": lambda tree: None,
}


def shape(tree: Tree, what: str) -> None:
    remove_tree(tree.at("x"))
    SHAPES[what](tree)


@pytest.mark.parametrize("after", SHAPES)
async def test_any_shape_becomes_any_other(bench: Bench, after: str) -> None:
    bench.repo.write("d/f", "f\n")
    bench.repo.commit()
    for before in SHAPES:
        shape(bench.repo, before)
        bench.repo.git("add", "-A")
        bench.repo.git("-c", "user.name=U", "-c", "user.email=u@u", "commit", "-q", "--allow-empty", "-m", before)
        worktree, tree = await bench.start(uuid4())
        shape(tree, after)
        snapshot, worktree = await bench.snapshot(worktree)
        assert snapshot.empty == (bench.repo.files() == tree.files() and {before, after} != {"file", "executable"})
        plan, worktree = await bench.approve(worktree, snapshot)
        assert bench.repo.files() == tree.files()
        assert await bench.worktrees.examine(plan) == (Found.NEW, ())
        assert bench.repo.at("x").is_dir() == tree.at("x").is_dir()
        if after in ("file", "executable"):
            assert os.access(bench.repo.at("x"), os.X_OK) == (after == "executable")
        # And back again, over what coder wrote and nobody committed.
        shape(tree, before)
        snapshot, worktree = await bench.snapshot(worktree)
        await bench.approve(worktree, snapshot, written=written(plan))
        assert bench.repo.git("status", "--porcelain") == ""


@pytest.mark.parametrize("how", ["autocrlf", "attributes", "new attributes"])
async def test_line_ends_of_the_checkout_are_kept(bench: Bench, how: str) -> None:
    repo = bench.repo
    if how == "autocrlf":
        repo.git("config", "core.autocrlf", "true")
    elif how == "attributes":
        repo.write(".gitattributes", "*.txt text eol=crlf\n")
        repo.commit()
    for name in ("a.txt", "b.txt"):
        repo.at(name).unlink()
    repo.git("checkout", "-q", "--", "a.txt", "b.txt")
    worktree, tree = await bench.start()
    if how == "new attributes":
        tree.write(".gitattributes", "*.txt text eol=crlf\n")
        tree.write("sub/.gitattributes", "*.txt text eol=lf\n")
        tree.write("sub/lf.txt", "one\ntwo\n")
    tree.write("b.txt", "one\r\ntwo\r\n")
    tree.write("new.txt", "new\r\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert b"\r" not in snapshot.diff
    plan, worktree = await bench.approve(worktree, snapshot)
    assert repo.read("b.txt") == b"one\r\ntwo\r\n"
    assert repo.read("new.txt") == b"new\r\n"
    if how == "new attributes":
        assert repo.read("sub/lf.txt") == b"one\ntwo\n"
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())
    tree.write("b.txt", "three\r\n")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot, written=written(plan), commit=True)
    assert repo.read("b.txt") == b"three\r\n"
    assert "b.txt" not in repo.git("status", "--porcelain")


async def test_crlf_committed_as_such_under_autocrlf(bench: Bench) -> None:
    repo = bench.repo
    repo.write("crlf.txt", "one\r\ntwo\r\n")
    repo.write("lf.txt", "one\ntwo\n")
    repo.commit()
    repo.git("config", "core.autocrlf", "input")
    worktree, tree = await bench.start()
    tree.write("crlf.txt", "one\r\nthree\r\n")
    tree.write("lf.txt", "one\nthree\n")
    snapshot, worktree = await bench.snapshot(worktree)
    plan, worktree = await bench.approve(worktree, snapshot)
    assert repo.read("crlf.txt") == b"one\r\nthree\r\n"
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())


async def test_a_filter_of_the_users_is_run(bench: Bench) -> None:
    bench.repo.git("config", "filter.rot.clean", "tr a-z n-za-m")
    bench.repo.git("config", "filter.rot.smudge", "tr a-z n-za-m")
    bench.repo.git("config", "filter.rot.required", "true")
    bench.repo.write(".gitattributes", "*.rot filter=rot\n")
    bench.repo.write("f.rot", "hello\n")
    bench.repo.commit()
    worktree, tree = await bench.start()
    assert tree.read("f.rot") == b"hello\n"
    tree.write("f.rot", "world\n")
    snapshot, worktree = await bench.snapshot(worktree)
    assert bench.repo.git("show", f"{snapshot.commit}:f.rot") == "jbeyq"
    plan, _ = await bench.approve(worktree, snapshot)
    assert bench.repo.read("f.rot") == b"world\n"
    assert await bench.worktrees.examine(plan) == (Found.NEW, ())


async def test_writing_through_a_link_changes_nothing_outside_the_change(bench: Bench, tmp_path: Path) -> None:
    outside = Tree(tmp_path / "outside")
    outside.write("f", "outside\n")
    bench.repo.at("out").symlink_to(outside.path)
    bench.repo.commit()
    worktree, tree = await bench.start()
    tree.write("out/f", "written through the link\n")
    assert (await bench.worktrees.snapshot(worktree)).empty
    tree.at("out").unlink()
    tree.write("out/f", "a directory of its own\n")
    outside.write("f", "outside\n")
    snapshot, worktree = await bench.snapshot(worktree)
    await bench.approve(worktree, snapshot)
    assert outside.read("f") == b"outside\n"
    assert bench.repo.read("out/f") == b"a directory of its own\n"


FILES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join),
    st.sampled_from([b"1\n", b"2\n", b"", b"-> a", b"\0bin"]),
    max_size=5,
)


def fill(tree: Tree, files: dict[str, bytes]) -> None:
    """Make the tree hold exactly these files as far as they can stand beside each other."""
    for entry in tree.path.iterdir():
        if entry.name != ".git":
            remove_tree(entry)
    for name in sorted(files):
        parents = ["/".join(name.split("/")[:n]) for n in range(1, len(name.split("/")))]
        if any(parent in files for parent in parents):
            continue
        if files[name].startswith(b"-> "):
            tree.at(name).parent.mkdir(parents=True, exist_ok=True)
            tree.at(name).symlink_to(os.fsdecode(files[name][3:]))
        else:
            tree.write(name, files[name])


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(before=FILES, first=FILES, second=FILES)
def test_any_two_changes_after_each_other(
    bench: Bench, before: dict[str, bytes], first: dict[str, bytes], second: dict[str, bytes]
) -> None:
    async def walk() -> None:
        bench.repo.git("reset", "-q", "--hard")
        bench.repo.git("clean", "-fdq")
        fill(bench.repo, before)
        bench.repo.git("add", "-A")
        bench.repo.git("-c", "user.name=U", "-c", "user.email=u@u", "commit", "-q", "--allow-empty", "-m", "before")
        worktree, tree = await bench.start(uuid4())
        plans = []
        for content in (first, second):
            fill(tree, content)
            snapshot, worktree = await bench.snapshot(worktree)
            plan, worktree = await bench.approve(worktree, snapshot, written=written(*plans))
            plans.append(plan)
            assert bench.repo.files() == tree.files()

    asyncio.run(walk())
