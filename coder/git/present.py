"""A checkout as it is on disk, in git's words.

Job: which paths hold what git would record as a given entry, and trees made of a commit and some entries. Invariant: the user's own
index is neither read for this nor written; what a file hashes to goes through the path's filters, the way `git add` would do it.
Omitted: whether anything may be overwritten; `plan` decides that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from coder.diff import NO_MODE, RawRow, parse_raw
from coder.git.disk import Kind, Seen
from coder.git.repository import Repository, temporary_index

# A blob and its mode, as `Approval.written` has them.
Entry = tuple[str | None, str]
ABSENT: Entry = (None, NO_MODE)


def rows_between(repository: Repository, old: str, new: str) -> tuple[RawRow, ...]:
    """The entries that differ between two trees or commits, renames as deletion and addition."""
    return parse_raw(repository.run("diff-tree", "-r", "-z", "--raw", "--no-renames", f"{old}^{{tree}}", f"{new}^{{tree}}").out)


def tree_entries(repository: Repository, treeish: str, paths: Iterable[bytes]) -> dict[bytes, Entry]:
    """The entries of a tree at given paths, `ABSENT` where it has none."""
    wanted = dict.fromkeys(paths, ABSENT)
    if not wanted:
        return wanted
    for line in repository.run("ls-tree", "-r", "-z", "--full-tree", treeish).out.split(b"\0"):
        head, _, path = line.partition(b"\t")
        if path in wanted:
            mode, _, blob = head.decode().split(" ")
            wanted[path] = (blob, mode)
    return wanted


def matching(repository: Repository, expected: Mapping[bytes, Entry], seen: Mapping[bytes, Seen]) -> set[bytes]:
    """The paths whose content on disk git takes for the expected entry.

    The entry matters where a file's content does not settle it: line ends that were committed as CRLF, and modes and links on a
    file system that has none.

    Args:
        seen: what lies at these paths.
    """
    # Git records no directory.
    same = {path for path, entry in expected.items() if entry == ABSENT and seen[path].kind in (Kind.ABSENT, Kind.DIRECTORY)}
    files = {path: entry for path, entry in expected.items() if entry[0] and seen[path].kind in (Kind.FILE, Kind.LINK)}
    if not files:
        return same
    with temporary_index() as index:
        put_entries(repository, index, files)
        # Its words are no list of paths: a name may hold a line end.
        differing = repository.run("update-index", "--refresh", index=index, accept=(0, 1)).status
        names = repository.run("diff-files", "-z", "--name-only", "--no-renames", index=index).out.split(b"\0") if differing else ()
        return same | (files.keys() - set(names))


def overlay(repository: Repository, treeish: str, entries: Mapping[bytes, Entry]) -> str:
    """A tree like another one, with some entries put in, or taken out where they are `ABSENT`."""
    if not entries:
        return repository.line("rev-parse", "--verify", f"{treeish}^{{tree}}")
    with temporary_index() as index:
        repository.run("read-tree", treeish, index=index)
        put_entries(repository, index, entries)
        return repository.line("write-tree", index=index)


def put_entries(repository: Repository, index: Path, entries: Mapping[bytes, Entry]) -> None:
    """Put entries into an index, deletions first, so that a file may take a directory's place and the other way round."""
    if entries:
        gone = [f"0 {repository.zeros}\t".encode() + path for path, (blob, _) in entries.items() if blob is None]
        there = [f"{mode} {blob}\t".encode() + path for path, (blob, mode) in entries.items() if blob is not None]
        repository.run("update-index", "--add", "--replace", "-z", "--index-info", stdin=b"\0".join([*gone, *there]) + b"\0", index=index)
