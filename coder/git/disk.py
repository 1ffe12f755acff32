"""What lies on disk below a root, reached without ever following a symbolic link.

Invariant: a path's parents are opened one by one with O_NOFOLLOW, so that a link planted in a path never leads a write out
of the root. Omitted: ownership, ACLs and extended attributes, which git does not record either.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from coder.change import display_path
from coder.errors import DiskFull, UnsafePath

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


_OUT = {b"", b".", b".."}
_GITS_OWN = re.compile(rb"\.git|git~1", re.IGNORECASE)


def require_safe(paths: Iterable[bytes]) -> None:
    """Refuse paths that lead out of the root, or into git's own directory on some file system; raises `UnsafePath`."""
    for path in paths:
        if any(part in _OUT or b"\0" in part or _GITS_OWN.fullmatch(part.rstrip(b" .")) for part in path.split(b"/")):
            raise UnsafePath(path=display_path(path))


class Kind(Enum):
    ABSENT = auto()
    FILE = auto()
    LINK = auto()
    DIRECTORY = auto()
    SPECIAL = auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was found at a path.

    Attributes:
        blocker: the first parent that is there but is no directory; the path itself is then absent.
        signature: changes whenever the file does (inode, size, mtime and ctime in ns); None when absent.
    """

    kind: Kind
    blocker: bytes | None = None
    signature: tuple[int, int, int, int] | None = None


def look(root: Path, path: bytes) -> Seen:
    """Say what lies at a path below a root; raises `UnsafePath` when its file system takes no name as long."""
    return look_all(root, (path,))[path]


def look_all(root: Path, paths: Iterable[bytes]) -> dict[bytes, Seen]:
    """What lies at many paths; each of their directories is looked at once. Raises as `look` does."""
    top = os.fsencode(root)
    barred: dict[bytes, Seen | None] = {}
    found = {}
    for path in paths:
        bar = None
        end = path.find(b"/")
        while end >= 0 and bar is None:
            directory = path[:end]
            if directory not in barred:
                barred[directory] = _bar(top, directory)
            bar = barred[directory]
            end = path.find(b"/", end + 1)
        found[path] = bar or _see(os.path.join(top, path), path)
    return found


def look_in(directory: int, name: bytes) -> Seen:
    """What lies at a name in an open directory."""
    return _see(name, name, directory)


def _bar(top: bytes, directory: bytes) -> Seen | None:
    """What all below a directory is seen as when it is none; None when it is one."""
    kind = _see(os.path.join(top, directory), directory).kind
    if kind is Kind.DIRECTORY:
        return None
    return Seen(Kind.ABSENT, blocker=None if kind is Kind.ABSENT else directory)


def _see(place: bytes, path: bytes, directory: int | None = None) -> Seen:
    try:
        found = os.stat(place, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return Seen(Kind.ABSENT)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UnsafePath(path=display_path(path)) from error
        raise
    return Seen(_kind(found.st_mode), signature=(found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


def directories(paths: Iterable[bytes]) -> set[bytes]:
    """The directories that paths lie in, and those above them; the root is empty."""
    found = {b""}
    for path in paths:
        while path := path.rpartition(b"/")[0]:
            if path in found:
                break
            found.add(path)
    return found


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISLNK(mode):
        return Kind.LINK
    return Kind.DIRECTORY if stat.S_ISDIR(mode) else Kind.SPECIAL


def files_below(root: Path, path: bytes) -> Iterator[bytes]:
    """The paths of all that is not a directory below a directory."""
    top = os.fsencode(root)
    for place, names, files in os.walk(os.path.join(top, path)):
        links = [name for name in names if os.path.islink(os.path.join(place, name))]
        for name in (*files, *links):
            yield os.path.relpath(os.path.join(place, name), top)


@contextmanager
def parent_of(root: Path, path: bytes, *, create: bool) -> Iterator[tuple[int, bytes]]:
    """Open the directory a path lies in.

    Args:
        create: make the directories that are missing.

    Yields:
        A descriptor of the directory and the path's last name.

    Raises:
        NotADirectoryError: a parent is a file or a link.
        FileNotFoundError: a parent is missing and `create` is false.
    """
    *parents, name = path.split(b"/")
    here = os.open(root, _DIRECTORY)
    try:
        for part in parents:
            if create:
                # Where something else than a directory is there already, the open below fails.
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
            below = os.open(part, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here, name
    finally:
        os.close(here)


def prune_empty_parents(root: Path, path: bytes) -> None:
    """Delete the directories above a deleted file that hold nothing any more; never the root."""
    parents = path.split(b"/")[:-1]
    while parents:
        try:
            with parent_of(root, b"/".join(parents), create=False) as (directory, name):
                os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            # Gone already: the one above may be empty for that very reason.
            parents.pop()
            continue
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
                return
            raise
        parents.pop()


def clear_empty_directory(root: Path, path: bytes) -> None:
    """Delete a directory that holds nothing but empty directories, if it is there; raises OSError when it holds more."""
    for place, _, _ in os.walk(os.path.join(os.fsencode(root), path), topdown=False):
        os.rmdir(place)


def remove_tree(directory: Path) -> None:
    """Delete a file, a link or a directory with all it holds, read-only directories included; gone already is fine."""
    if directory.is_symlink() or not directory.is_dir():
        directory.unlink(missing_ok=True)
        return
    os.chmod(directory, stat.S_IRWXU)
    for place, names, _ in os.walk(directory):
        for name in names:
            inner = os.path.join(place, name)
            if not os.path.islink(inner):
                os.chmod(inner, stat.S_IRWXU)
    shutil.rmtree(directory)


def copy_file(source_root: Path, target_root: Path, path: bytes) -> bool:
    """Copy one regular file to the same path below another root, permission bits included.

    Returns:
        Whether it was copied: False when the source is no regular file, or when anything lies at the target already.
    """
    if look(source_root, path).kind is not Kind.FILE or look(target_root, path) != Seen(Kind.ABSENT):
        return False
    with (
        parent_of(source_root, path, create=False) as (source, name),
        parent_of(target_root, path, create=True) as (target, _),
        open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source), "rb") as reader,
    ):
        mode = stat.S_IMODE(os.fstat(reader.fileno()).st_mode)
        made = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=target)
        with open(made, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            os.fchmod(made, mode)
    return True


def disk_error(error: OSError, where: Path) -> DiskFull | None:
    """The sentence for an `OSError` that means a full disk, None for any other."""
    return DiskFull(what="a worktree or a change", where=where) if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
