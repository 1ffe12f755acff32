"""A checkout as it is on disk, in git's words.

Job: what git would record for given paths, and trees made of a commit and some entries. Invariant: the user's own index is
neither read for this nor written; what a file hashes to goes through the path's filters, the way `git add` would do it.
Omitted: whether anything may be overwritten; `plan` decides that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from coder.diff import NO_MODE
from coder.git.disk import Kind, look
from coder.git.repository import Repository, temporary_index

# A blob and its mode, as `Approval.written` has them.
Entry = tuple[str | None, str]
ABSENT: Entry = (None, NO_MODE)
# A pipe, socket or device: nothing git could record, so equal to no entry of a tree.
SPECIAL: Entry = (None, "special")


def tree_entries(repository: Repository, treeish: str, paths: Iterable[bytes]) -> dict[bytes, Entry]:
    """The entries of a tree at given paths, `ABSENT` where it has none."""
    wanted = dict.fromkeys(paths, ABSENT)
    for line in repository.run("ls-tree", "-r", "-z", "--full-tree", treeish).out.split(b"\0"):
        head, _, path = line.partition(b"\t")
        if path in wanted:
            mode, _, blob = head.decode().split(" ")
            wanted[path] = (blob, mode)
    return wanted


def disk_entries(repository: Repository, reference: Mapping[bytes, Entry]) -> dict[bytes, Entry]:
    """What git would record for paths as they are on disk; the blobs are written.

    Args:
        reference: the entries to compare with. They matter where a file's content does not settle them: line ends that were
            committed as CRLF, and modes and links on a file system that has none.
    """
    seen = {path: look(repository.top, path).kind for path in reference}
    found = {path: SPECIAL if kind is Kind.SPECIAL else ABSENT for path, kind in seen.items()}
    files = [path for path, kind in seen.items() if kind in (Kind.FILE, Kind.LINK)]
    if not files:
        return found
    with temporary_index() as index:
        put_entries(repository, index, {path: reference[path] for path in files if reference[path][0]})
        repository.run("update-index", "--add", "--remove", "--replace", "-z", "--stdin", stdin=b"\0".join(files), index=index)
        for line in repository.run("ls-files", "--stage", "-z", index=index).out.split(b"\0"):
            head, _, path = line.partition(b"\t")
            if path in found:
                mode, blob, _ = head.decode().split(" ")
                found[path] = (blob, mode)
    return found


def matching(repository: Repository, expected: Mapping[bytes, Entry]) -> set[bytes]:
    """The paths whose content on disk git takes for the expected entry."""
    found = disk_entries(repository, expected)
    return {path for path, entry in expected.items() if found[path] == entry}


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
