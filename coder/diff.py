"""What git prints about differences, read into rows.

Job: the NUL-separated output of `git diff-tree` and `git merge-tree`, where the hunks of a patch are, and the conflict markers of
a merged file. Invariant: bytes in, rows out; a path is never decoded and never split at anything but NUL. Omitted: the lines of
the patch, which passes through as git wrote it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from coder.change import ConflictHunk, FileChange, Hunk, Operation

NO_MODE = "000000"
GITLINK = "160000"
# Lines of content begin with a blank, a sign or a backslash and those of a binary patch have no blanks, so these are never content.
_MARK = re.compile(rb"\n(?:diff --git |@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@)")

_OPERATIONS: dict[str, Operation] = {
    "A": "added",
    "D": "deleted",
    "M": "modified",
    "R": "renamed",
    "C": "copied",
    "T": "type_changed",
}


@dataclass(frozen=True, slots=True)
class RawRow:
    """One record of `git diff-tree --raw -z`; a blob is None where there is no file."""

    old_mode: str
    new_mode: str
    old_blob: str | None
    new_blob: str | None
    status: str
    path: bytes
    old_path: bytes | None = None


@dataclass(frozen=True, slots=True)
class Merged:
    """What `git merge-tree --write-tree -z` said.

    Attributes:
        tree: the merged tree; with conflicts it holds the files with markers.
        conflicted: paths with unmerged entries.
        messages: the paths, kind (`CONFLICT (contents)`, `Auto-merging`, …) and text of each remark.
    """

    tree: str
    conflicted: tuple[bytes, ...] = ()
    messages: tuple[tuple[tuple[bytes, ...], str, str], ...] = ()


def _field(out: bytes, at: int) -> tuple[bytes, int]:
    end = out.index(b"\0", at)
    return out[at:end], end + 1


def _blob(digits: str) -> str | None:
    return None if not digits.strip("0") else digits


def _raw_rows(out: bytes, at: int) -> tuple[list[RawRow], int]:
    rows = []
    while out[at : at + 1] == b":":
        head, at = _field(out, at)
        old_mode, new_mode, old_blob, new_blob, status = head[1:].decode().split(" ")
        path, at = _field(out, at)
        old_path = None
        if status[0] in "RC":
            old_path = path
            path, at = _field(out, at)
        rows.append(RawRow(old_mode, new_mode, _blob(old_blob), _blob(new_blob), status[0], path, old_path))
    return rows, at


def parse_raw(out: bytes) -> tuple[RawRow, ...]:
    """Read `git diff-tree -r -z --raw` of two trees (or `diff-index -z --raw`)."""
    return tuple(_raw_rows(out, 0)[0])


def parse_diff(out: bytes) -> tuple[tuple[FileChange, ...], bytes]:
    """Read `git diff-tree -r -z --raw --numstat -p` of two trees.

    Returns:
        One row per file, with its hunks, and the patch as git wrote it.

    Source: git-diff-tree(1), "Raw output format", and git-diff(1), "Other diff formats".
    """
    rows, at = _raw_rows(out, 0)
    files = []
    for row in rows:
        counts, at = _field(out, at)
        additions, deletions, path = counts.split(b"\t", 2)
        if not path:
            # A rename or copy names both sides in fields of their own.
            _, at = _field(out, at)
            _, at = _field(out, at)
        files.append(
            FileChange(
                path=row.path,
                operation=_OPERATIONS[row.status],
                additions=None if additions == b"-" else int(additions),
                deletions=None if deletions == b"-" else int(deletions),
                old_mode=row.old_mode,
                new_mode=row.new_mode,
                old_path=row.old_path,
            )
        )
    # One more NUL stands between the listing and the patch.
    patch = out[at + 1 :] if rows else b""
    sections = _sections(patch)
    return tuple(replace(file, hunks=_hunks_of(file, sections)) for file in files), patch


def _hunks_of(file: FileChange, sections: Iterator[tuple[Hunk, ...]]) -> tuple[Hunk, ...]:
    """The hunks of the next file in a patch; a changed type takes two sections, a deletion and a creation."""
    hunks = next(sections, ())
    if file.operation != "type_changed":
        return hunks
    next(sections, ())
    return ()


def _sections(patch: bytes) -> Iterator[tuple[Hunk, ...]]:
    """The hunks of each `diff --git` of a patch."""
    hunks: list[Hunk] = []
    line, counted = 1, 0
    marks = [*_MARK.finditer(patch), None]
    for mark, following in itertools.pairwise(marks):
        assert mark is not None, "only the last one is the end"
        if mark[1] is None:
            yield tuple(hunks)
            hunks = []
            continue
        start = mark.start() + 1
        line, counted = line + patch.count(b"\n", counted, start), start
        end = len(patch) if following is None else following.start() + 1
        old_start, old_lines, new_start, new_lines = (int(digits) if digits else 1 for digits in mark.groups())
        hunks.append(Hunk(old_start, old_lines, new_start, new_lines, line, patch.count(b"\n", start, end)))
    if patch:
        yield tuple(hunks)


def parse_merge(out: bytes) -> Merged:
    """Read `git merge-tree --write-tree -z`. Source: git-merge-tree(1), "Output"."""
    tree, at = _field(out, 0)
    conflicted: dict[bytes, None] = {}
    while at < len(out) and out[at : at + 1] != b"\0":
        entry, at = _field(out, at)
        conflicted[entry.partition(b"\t")[2]] = None
    at += 1
    messages = []
    while at < len(out):
        count, at = _field(out, at)
        paths = []
        for _ in range(int(count)):
            path, at = _field(out, at)
            paths.append(path)
        kind, at = _field(out, at)
        text, at = _field(out, at)
        messages.append((tuple(paths), kind.decode("utf-8", "replace"), text.decode("utf-8", "replace").strip()))
    return Merged(tree.decode(), tuple(conflicted), tuple(messages))


def parse_conflicts(merged: bytes, ours: str, theirs: str) -> tuple[ConflictHunk, ...]:
    """Find the conflicting regions of a merged file.

    Args:
        merged: the file with conflict markers (conflict style `merge`).
        ours, theirs: the labels git wrote behind the markers; only markers with these labels count, so that a file
            which itself talks about conflicts is read right.

    Returns:
        The regions in order; `line` counts from 1 and is that of the opening marker.
    """
    opening = re.compile(rb"(<{7,}) " + re.escape(ours.encode()) + rb"(:.*)?\r?")
    closing = re.compile(rb"(>{7,}) " + re.escape(theirs.encode()) + rb"(:.*)?\r?")
    hunks: list[ConflictHunk] = []
    sides: list[list[bytes]] = []
    size = start = 0
    for number, line in enumerate(merged.split(b"\n"), 1):
        if (opened := opening.fullmatch(line)) and not sides:
            size, start, sides = len(opened[1]), number, [[]]
        elif len(sides) == 1 and line.rstrip(b"\r") == b"=" * size:
            sides.append([])
        elif len(sides) == 2 and (closed := closing.fullmatch(line)) and len(closed[1]) == size:
            left, right = (b"".join(side).decode("utf-8", "replace") for side in sides)
            hunks.append(ConflictHunk(start, left, right))
            sides = []
        elif sides:
            sides[-1].append(line + b"\n")
    return tuple(hunks)
