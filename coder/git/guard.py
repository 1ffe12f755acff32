"""What an agent must not touch in the project's repository, as one digest.

Job: config, hooks, ignore and attribute rules of the repository, and its refs outside `refs/coder/`. Invariant: packing refs
does not change the digest, moving one does; no git process is started where refs are plain files, and no file is read again
unless it, or one beside it, may have changed, since this is asked twice a turn. Omitted: HEAD (whose moves show in no ref but
its branch's) and everything in the checkout itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path

from coder.git.repository import Repository

_FILES = ("config", "config.worktree", "info/exclude", "info/attributes", "info/grafts")
_STAMPED = tuple(b"/" + os.fsencode(name) for name in (*_FILES, "packed-refs"))
_OURS = b"refs/coder/"

# A file system may tell time in steps as coarse as this: a file that changed within the last step may change again unseen.
_COARSE_NS = 2_000_000_000

# Path, mode, inode, size, mtime and ctime of every file the digest is made of. No program sets a ctime.
_Stamp = tuple[bytes, int, int, int, int, int]


class Guard:
    """The digest of one repository, remembered together with the stamps of the files it was made of."""

    def __init__(self, project: Repository) -> None:
        self._project = project
        self._common = os.fsencode(project.common_dir)
        self._known: tuple[list[_Stamp], str] | None = None

    def digest(self) -> str:
        """The digest, in hex."""
        if os.path.isdir(self._common + b"/reftable"):
            return _digest(self._project)
        before = time.time_ns()
        # Before the reading: what changes in between has another stamp the next time.
        stamps = _stamps(self._common)
        if self._known is not None and self._known[0] == stamps:
            return self._known[1]
        digest = _digest(self._project)
        settled = all(max(stamp[4], stamp[5]) < before - _COARSE_NS for stamp in stamps)
        self._known = (stamps, digest) if settled else None
        return digest


def _stamps(common: bytes) -> list[_Stamp]:
    stamps: list[_Stamp] = []
    for name in _STAMPED:
        _stamp(common + name, stamps)
    _stamp_below(common + b"/hooks", stamps, deep=False)
    _stamp_below(common + b"/refs", stamps, without=b"coder")
    return stamps


def _stamp_below(directory: bytes, stamps: list[_Stamp], *, deep: bool = True, without: bytes | None = None) -> None:
    try:
        with os.scandir(directory) as entries:
            listed = sorted((entry.path, deep and entry.is_dir(follow_symlinks=False), entry.name) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        # Git removes the directories that packing empties.
        return
    for path, further, name in listed:
        if not further:
            _stamp(path, stamps)
        elif name != without:
            _stamp_below(path, stamps)


def _stamp(path: bytes, stamps: list[_Stamp]) -> None:
    """Add the stamp of a path, and for a link that of what it leads to; none for what is not there."""
    try:
        found = os.lstat(path)
        stamps.append((path, found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
        if stat.S_ISLNK(found.st_mode):
            found = os.stat(path)
            stamps.append((path, found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise


def _digest(project: Repository) -> str:
    common = project.common_dir
    digest = hashlib.sha256()
    for name in _FILES:
        _feed(digest, name.encode(), _content(common / name))
    hooks = common / "hooks"
    for hook in sorted(os.listdir(hooks)) if hooks.is_dir() else []:
        place = hooks / hook
        mode = b"%o" % place.lstat().st_mode
        _feed(digest, b"hook " + os.fsencode(hook), mode, os.fsencode(os.readlink(place)) if place.is_symlink() else b"", _content(place))
    for ref, target in sorted(_refs(project).items()):
        _feed(digest, ref, target)
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, *parts: bytes) -> None:
    for part in parts:
        digest.update(b"%d:" % len(part) + part)


def _content(place: Path) -> bytes:
    return b"=" + place.read_bytes() if place.is_file() else b"none"


def _refs(project: Repository) -> dict[bytes, bytes]:
    if (project.common_dir / "reftable").is_dir():
        lines = project.run("for-each-ref", "--format=%(objectname) %(refname)").out.splitlines()
    else:
        # A loose ref overrules the packed one of the same name.
        lines = [*_packed(project.common_dir / "packed-refs"), *_loose(project.common_dir / "refs")]
    refs = {ref: target for target, _, ref in (line.partition(b" ") for line in lines)}
    return {ref: target for ref, target in refs.items() if not ref.startswith(_OURS)}


def _packed(place: Path) -> list[bytes]:
    lines = place.read_bytes().splitlines() if place.is_file() else []
    return [line for line in lines if not line.startswith((b"#", b"^"))]


def _loose(refs: Path) -> list[bytes]:
    lines = []
    top = os.fsencode(refs.parent)
    for place, names, files in os.walk(os.fsencode(refs)):
        if place == os.fsencode(refs) and b"coder" in names:
            names.remove(b"coder")
        for name in files:
            path = os.path.join(place, name)
            try:
                with open(path, "rb") as file:
                    target = file.read().strip()
            except FileNotFoundError:
                # Packed between the listing and the reading; git writes the packed file first.
                continue
            if not name.endswith(b".lock"):
                lines.append(target.replace(b" ", b"") + b" " + os.path.relpath(path, top))
    return lines
