"""Merging two trees over a base that is recorded, and saying where they clash.

Invariant: the merge base is what the caller names and nothing else: both sides are made commits on it, since real ancestry makes
a second approval conflict with the first. Nothing is written but objects. Omitted: whose trees these are, and what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from coder.change import ConflictFile
from coder.diff import RawRow, parse_conflicts, parse_merge, parse_raw
from coder.git.blobs import read_blobs, write_blobs
from coder.git.present import overlay
from coder.git.repository import Repository

_REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge: its tree, which has conflict markers where both sides clash, and the two synthetic commits it was made of."""

    tree: str
    ours: str
    theirs: str
    conflicts: tuple[ConflictFile, ...]


def rows_between(repository: Repository, old: str, new: str) -> tuple[RawRow, ...]:
    """The entries that differ between two trees or commits, renames as deletion and addition."""
    return parse_raw(repository.run("diff-tree", "-r", "-z", "--raw", "--no-renames", f"{old}^{{tree}}", f"{new}^{{tree}}").out)


def merge(repository: Repository, base: str, ours: str, theirs: str, names: tuple[str, str]) -> Merge:
    """Merge two trees (or commits) over a base commit.

    Args:
        names: what the sides are called in sentences and conflict markers.
    """
    left, right = (repository.commit_tree(f"{tree}^{{tree}}", base) for tree in (ours, theirs))
    answer = repository.run("merge-tree", "--write-tree", "-z", left, right, accept=(0, 1))
    merged = parse_merge(answer.out)
    if not answer.status:
        return Merge(merged.tree, left, right, ())
    rows = {row.path: row for row in rows_between(repository, left, merged.tree) if row.new_mode in _REGULAR and row.new_blob}
    marked = [path for path in merged.conflicted if path in rows]
    contents = dict(zip(marked, read_blobs(repository, [rows[path].new_blob or "" for path in marked]), strict=True))
    conflicts = []
    told = [path for paths, kind, _ in merged.messages if kind.startswith("CONFLICT") for path in paths]
    for path in merged.conflicted or tuple(dict.fromkeys(told)):
        remarks = [text for paths, kind, text in merged.messages if path in paths and kind.startswith("CONFLICT")]
        detail = " ".join(remarks).replace(left, names[0]).replace(right, names[1])
        conflicts.append(ConflictFile(path, detail, parse_conflicts(contents.get(path, b""), left, right)))
    # The markers bear the names of our commits, which say nothing to anybody.
    named = [
        content.replace(b" " + left.encode(), f" {names[0]}".encode()).replace(b" " + right.encode(), f" {names[1]}".encode())
        for content in contents.values()
    ]
    entries = {path: (blob, rows[path].new_mode) for path, blob in zip(marked, write_blobs(repository, named), strict=True)}
    return Merge(overlay(repository, merged.tree, entries), left, right, tuple(conflicts))
