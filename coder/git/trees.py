"""The tree that some changed entries make of another tree. Pure but for the reading and writing it is handed.

Invariant: only the trees above a changed entry are read and written; what lies beside it keeps its place as it is. A directory
that loses its last entry goes too. Omitted: whether the entries are valid; git looks at every tree it writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coder.diff import RawRow

_TREE = b"40000"


@dataclass(frozen=True, slots=True)
class _Entry:
    mode: bytes
    oid: bytes


@dataclass(slots=True)
class _Changes:
    """What changes in one directory."""

    gone: list[bytes] = field(default_factory=list)
    there: dict[bytes, _Entry] = field(default_factory=dict)
    below: dict[bytes, _Changes] = field(default_factory=dict)

    def at(self, path: bytes) -> tuple[_Changes, bytes]:
        *parents, name = path.split(b"/")
        here = self
        for parent in parents:
            here = here.below.setdefault(parent, _Changes())
        return here, name


def directories_of(rows: Iterable[RawRow]) -> int:
    """How many directories have a changed entry in them."""
    return len({path.rpartition(b"/")[0] for row in rows for path in (row.path, row.old_path) if path is not None})


def changed_tree(base: str, rows: Iterable[RawRow], read: Callable[[str], bytes], write: Callable[[bytes], str]) -> str:
    """Make the tree.

    Args:
        base: the tree the rows were compared with.
        read: a tree's content.
        write: stores a tree's content and answers its id.

    Raises:
        ValueError: the rows do not fit the tree.
    """
    changes = _Changes()
    for row in rows:
        if row.status not in "ADMRT":
            raise ValueError(f"a row of status {row.status} says nothing about a tree")
        for path in {row.old_path or row.path} if row.status in "DR" else ():
            directory, name = changes.at(path)
            directory.gone.append(name)
        if row.new_blob is not None:
            directory, name = changes.at(row.path)
            directory.there[name] = _Entry(row.new_mode.encode(), bytes.fromhex(row.new_blob))
    return _changed(base, changes, read, write) or write(b"")


def _changed(base: str | None, changes: _Changes, read: Callable[[str], bytes], write: Callable[[bytes], str]) -> str | None:
    entries = _parse(read(base), len(base) // 2) if base else {}
    for name in changes.gone:
        if entries.pop(name, _Entry(_TREE, b"")).mode == _TREE:
            raise ValueError(f"the tree {base} has no file {name!r}")
    for name, below in changes.below.items():
        known = entries.pop(name, None)
        if known is not None and known.mode != _TREE:
            raise ValueError(f"the tree {base} has no directory {name!r}")
        if tree := _changed(known.oid.hex() if known else None, below, read, write):
            entries[name] = _Entry(_TREE, bytes.fromhex(tree))
    for name, entry in changes.there.items():
        if (known := entries.get(name)) is not None and known.mode == _TREE:
            raise ValueError(f"the tree {base} has a directory {name!r} in a file's place")
        entries[name] = entry
    # Git sorts a directory as if its name ended with a slash.
    ordered = sorted(entries.items(), key=lambda item: item[0] + b"/" if item[1].mode == _TREE else item[0])
    return write(b"".join(b"%b %b\0%b" % (entry.mode, name, entry.oid) for name, entry in ordered)) if ordered else None


def _parse(content: bytes, size: int) -> dict[bytes, _Entry]:
    entries = {}
    at = 0
    while at < len(content):
        space = content.index(b" ", at)
        end = content.index(b"\0", space)
        entries[content[space + 1 : end]] = _Entry(content[at:space], content[end + 1 : end + 1 + size])
        at = end + 1 + size
    return entries
