"""Merging two trees over a base that is recorded, and saying where they clash.

Invariant: the merge base is what the caller names and nothing else: both sides are made commits on it, since real ancestry makes
a second approval conflict with the first. Nothing is written but objects. Omitted: whose trees these are, and what follows.
"""

from __future__ import annotations

from dataclasses import dataclass

from coder.change import ConflictFile
from coder.diff import parse_conflicts, parse_merge
from coder.git.blobs import read_blobs, write_blobs
from coder.git.present import overlay, rows_between
from coder.git.repository import Repository

_REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class Merge:
    """A merge: its tree, which has conflict markers where both sides clash, and the two commits it was made of."""

    tree: str
    ours: str
    theirs: str
    conflicts: tuple[ConflictFile, ...]


def merge(repository: Repository, base: str, ours: str, theirs: str, names: tuple[str, str]) -> Merge:
    """Merge a commit with a tree (or commit) over a base commit.

    Args:
        ours: the tree; where it is still the base's, there is nothing to merge.
        theirs: the commit.
        names: what the sides are called in sentences and conflict markers.
    """
    bases, left, right = repository.trees(base, ours, theirs)
    if left == bases:
        return Merge(right, base, theirs, ())
    left, right = (repository.commit_tree(tree, base) for tree in (left, right))
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
