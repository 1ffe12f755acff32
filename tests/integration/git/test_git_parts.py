"""Decisions on parts against git itself: what is approved, left and rejected is what `git apply` makes of those hunks."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from gitbench import SESSION, Bench, Tree, changed, lines
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from coder.change import Approval, DecidedFile, Rest, Snapshot, Worktree
from coder.errors import Conflict
from coder.git import GitWorktrees
from coder.task import Project

NAMES = ["a.txt", "dir/b.txt", "dir/deep/c ü.txt", "d\tx.txt", "e.txt"]
WORDS = st.sampled_from(["x\n", "y\n", "\n", "z\r\n", "diff --git a/e b/e\n", "@@ -1 +1 @@\n", "-- \n"])
Written = dict[bytes, tuple[str | None, str]]
Draw = Callable[[st.SearchStrategy[Any]], Any]
TEXTS = st.lists(WORDS, max_size=4).map("".join)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, tuple[bytes, int]]:
    """Files with some forty lines each, so that edits make hunks of their own."""
    found = {}
    for number, name in enumerate(draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))):
        body = "".join(f"{number}.{line}\n" for line in range(draw(st.sampled_from([0, 1, 12, 40]))))
        found[name] = ((body + draw(st.sampled_from(["", "no line feed"]))).encode(), draw(st.sampled_from([0o644, 0o755])))
    return found


def edited(draw: Draw, tree: Tree) -> None:
    """Edit, delete, move, add, change modes and types, as an agent might."""
    for name in list(tree.files()):
        place = tree.at(name)
        if place.is_symlink():
            continue
        what = draw(st.sampled_from(["edit", "edit", "edit", "leave", "delete", "move", "mode", "link", "binary"]))
        if what in ("edit", "move"):
            held = place.read_bytes().split(b"\n")
            for at in draw(st.lists(st.integers(0, max(0, len(held) - 1)), max_size=3)):
                held[at] = draw(TEXTS).encode() + held[at]
            place.write_bytes(b"\n".join(held))
        if what == "move":
            place.rename(place.with_name(f"moved {place.name}"))
        elif what == "delete":
            place.unlink()
        elif what == "mode":
            place.chmod(place.stat().st_mode ^ 0o111)
        elif what == "link":
            place.unlink()
            place.symlink_to(draw(st.sampled_from(["/etc/passwd", "../..", "nowhere"])))
        elif what == "binary":
            place.write_bytes(b"\0" + draw(st.binary(max_size=8)))
    if draw(st.booleans()):
        name = f"new {draw(st.integers(0, 3))}.txt"
        tree.at(name).unlink(missing_ok=True)  # it may be a link by now
        tree.write(name, draw(TEXTS) + "new\n")


def decided(draw: Draw, snapshot: Snapshot) -> tuple[DecidedFile, ...]:
    """A verdict on every part; at least one is no `leave`."""
    files = [DecidedFile(file, frozenset(), frozenset()) for file in snapshot.files]
    verdicts = draw(st.lists(st.sampled_from("arl"), min_size=sum(len(each.parts) for each in files), max_size=400))
    made = []
    for each in files:
        own = [(part, verdicts.pop()) for part in sorted(each.parts)]
        approved, rejected = (frozenset(part for part, verdict in own if verdict == letter) for letter in "ar")
        made.append(replace(each, approved=approved, rejected=rejected))
    return tuple(each for each in made if each.approved or each.rejected)


def patch_of(snapshot: Snapshot, chosen: dict[bytes, frozenset[int]], *, whole_only: bool) -> bytes:
    """The change's own diff with just these hunks; files of which nothing is taken are left out.

    Args:
        whole_only: a file that is not taken whole is named as it is called in the end, without its mode and old name.
    """
    out = []
    sections = iter(re.split(rb"(?m)^(?=diff --git )", snapshot.diff)[1:])
    for file in snapshot.files:
        section = next(sections) + (next(sections) if file.operation == "type_changed" else b"")
        if file.path not in chosen:
            continue
        header, *hunks = re.split(rb"(?m)^(?=@@ -)", section)
        if file.operation == "type_changed" or len(chosen[file.path]) == max(1, len(hunks)):
            out.append(section)
            continue
        if whole_only:
            named = re.search(rb"(?m)^\+\+\+ (.*)$", header)
            assert named is not None
            new = named[1].rstrip(b"\t")
            old = new.replace(b"b/", b"a/", 1)
            header = b"diff --git " + old + b" " + new + b"\n--- " + old + b"\n+++ " + new + b"\n"
        out += [header, *(hunk for number, hunk in enumerate(hunks, 1) if number in chosen[file.path])]
    return b"".join(out)


def applied(repo: Tree, commit: str, patch: bytes, *options: str) -> str:
    """The tree that `git apply` makes of a commit."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {"PATH": os.environ["PATH"], "GIT_INDEX_FILE": f"{scratch}/index"}
        run = {"cwd": repo.path, "check": True, "capture_output": True, "env": environment}
        subprocess.run(["git", "read-tree", commit], **run)  # type: ignore[call-overload]
        if patch:
            subprocess.run(["git", "apply", "--cached", "--whitespace=nowarn", *options, "-"], input=patch, **run)  # type: ignore[call-overload]
        return subprocess.run(["git", "write-tree"], **run).stdout.decode().strip()  # type: ignore[call-overload]


def tree_of(repo: Tree, commit: str) -> str:
    return repo.git("rev-parse", f"{commit}^{{tree}}")


def require_what_git_says(repo: Tree, worktree: Worktree, snapshot: Snapshot, parts: tuple[DecidedFile, ...], rest: Rest) -> None:
    """Base + approved = new base; snapshot - rejected = what is left; new base + the left diff = that again."""
    approved = patch_of(snapshot, {each.file.path: each.approved for each in parts if each.approved}, whole_only=False)
    rejected = patch_of(snapshot, {each.file.path: each.rejected for each in parts if each.rejected}, whole_only=True)
    assert tree_of(repo, rest.base) == rest.snapshot.base_tree == applied(repo, worktree.base_commit, approved)
    assert tree_of(repo, rest.snapshot.commit) == rest.snapshot.tree == applied(repo, snapshot.commit, rejected, "--reverse")
    assert applied(repo, rest.base, rest.snapshot.diff) == rest.snapshot.tree


# Shrinking would take many times as long as the rest.
@settings(max_examples=12, deadline=None, phases=set(Phase) - {Phase.shrink, Phase.explain}, suppress_health_check=list(HealthCheck))
@given(trees(), st.data())
async def test_random_trees_edits_and_decisions(files: dict[str, tuple[bytes, int]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        repo = Tree(Path(folder, "repo"))
        repo.path.mkdir()
        repo.git("init", "-q", "-b", "main")
        for name, (content, mode) in files.items():
            repo.write(name, content, mode)
        repo.write("kept", "x\n")
        repo.commit()
        project = Project(SESSION, "p", str(repo.path), "native")
        bench = Bench(GitWorktrees(Path(folder, "data")), repo, project, Path(folder, "data"))
        worktree, tree = await bench.start()
        written: Written = {}
        for _ in range(data.draw(st.integers(1, 3))):
            edited(data.draw, tree)
            snapshot, worktree = await bench.snapshot(worktree)
            parts = decided(data.draw, snapshot)
            if not parts:
                continue
            worktree = await one_decision(bench, tree, worktree, snapshot, parts, written)


async def one_decision(
    bench: Bench, tree: Tree, worktree: Worktree, snapshot: Snapshot, parts: tuple[DecidedFile, ...], written: Written
) -> Worktree:
    """What the reviewer does with a decision; answers the worktree with its base moved."""
    approval: Approval = bench.approval(worktree, snapshot, parts=parts, written=written, decision_id=uuid4())
    try:
        rest = await bench.worktrees.divide(approval)
    except Conflict:  # a file and a directory of one name: shown below
        return worktree
    require_what_git_says(bench.repo, worktree, snapshot, parts, rest)
    paths = tuple(path for each in parts if each.approved for path in (each.file.path, each.file.old_path) if path is not None)
    plan = await bench.worktrees.plan(replace(approval, snapshot_commit=rest.base, paths=paths))
    await bench.worktrees.carry_out(plan)
    written.update({file.path: (file.new_blob, file.new_mode) for file in plan.files})
    if rest.shift is not None:
        assert await bench.worktrees.shift(worktree, rest.shift) == ()
    worktree = replace(worktree, base_commit=rest.base, base_version=worktree.base_version + 1)
    # Byte for byte: the checkout holds the base, the worktree what is left on it.
    bench.repo.git("add", "-A")
    assert bench.repo.git("write-tree") == rest.snapshot.base_tree
    bench.repo.git("reset", "-q")
    left, worktree = await bench.snapshot(worktree)
    assert (left.tree, left.diff, left.fingerprint) == (rest.snapshot.tree, rest.snapshot.diff, rest.snapshot.fingerprint)
    return worktree


async def test_a_file_and_a_directory_of_one_name_go_together(bench: Bench) -> None:
    worktree, tree = await bench.start()
    tree.at("b.txt").unlink()
    tree.write("b.txt/inside", "x\n")
    snapshot, worktree = await bench.snapshot(worktree)
    by_path = {file.path: file for file in snapshot.files}
    one, all_of_it = frozenset({1}), frozenset[int]()
    inside = DecidedFile(by_path[b"b.txt/inside"], one, all_of_it)
    with pytest.raises(Conflict, match=r"go together: b.txt, b.txt/inside; decide the same") as refused:
        await bench.worktrees.divide(bench.approval(worktree, snapshot, parts=(inside,)))
    assert refused.value.code == "conflict"
    both = (inside, DecidedFile(by_path[b"b.txt"], one, all_of_it))
    assert (await bench.worktrees.divide(bench.approval(worktree, snapshot, parts=both))).snapshot.empty


async def test_the_rest_survives_garbage_collection(bench: Bench) -> None:
    snapshot, worktree, _ = await changed(bench, a=lines(l1="one"), b="agent\n")
    parts = (DecidedFile(snapshot.files[0], frozenset({1}), frozenset()),)
    rest = await bench.worktrees.divide(bench.approval(worktree, snapshot, parts=parts))
    bench.repo.git("gc", "-q", "--prune=now")
    assert bench.repo.git("cat-file", "-t", rest.base) == bench.repo.git("cat-file", "-t", rest.snapshot.commit) == "commit"
