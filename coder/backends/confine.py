"""Confinement: opening files for a model without ever leaving the worktree.

Invariant: the kernel is only ever given one path component at a time, relative to a directory that was itself reached
that way, with O_NOFOLLOW: whatever a process swaps behind our back, no open leaves the root. A symlink is followed by
reading it and walking again from the root; `..` never reaches the kernel. `.git` is refused at any depth.

Omitted on purpose: commands. What a shell command touches is not confined here.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

_HOPS = 40  # as many symlinks as Linux follows in one path (path_resolution(7))


class Refused(Exception):
    """A sentence to the model: what it asked for is not done, and why."""


class Confined:
    """A worktree as a model sees it.

    Args:
        root: absolute path of the worktree; nothing outside it can be reached.
        cwd: absolute directory inside it that relative paths start from.
    """

    def __init__(self, root: Path, cwd: Path) -> None:
        self.root = root
        self._real = root.resolve()  # how `pwd` spells it where the root lies behind a symlink
        self._cwd = PurePosixPath(cwd).relative_to(root).parts

    def parts(self, path: str) -> tuple[str, ...]:
        """A path's components below the root, `..` taken away by its spelling.

        Raises:
            Refused: the path leads out of the worktree or into `.git`.
        """
        if not path or "\x00" in path:
            raise Refused("The path is empty or holds a NUL character; give a path inside the worktree.")
        given = PurePosixPath(path)
        if not given.is_absolute():
            return self._joined(list(self._cwd), given.parts, path)
        below = self._below(given)
        if below is None:
            raise Refused(f"{path} is outside the worktree {self.root}; only paths inside it can be used.")
        return self._joined([], below, path)

    def real(self, path: str) -> str:
        """The path below the root of something that exists, once its symlinks are followed; `.` for the root itself.

        Raises as `parent` does, and OSError where there is nothing.
        """
        with self._walked(path, create=False) as (directory, parts):
            os.stat(parts[-1] if parts else ".", dir_fd=directory, follow_symlinks=False)
            return "/".join(parts) or "."

    @contextmanager
    def parent(self, path: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The directory a path lies in, as an open descriptor, and the name in it, which is no symlink.

        The root itself is `.` in its own directory. The name need not exist.

        Args:
            create: make directories that are missing on the way.

        Raises:
            Refused: the path leads out of the worktree or into `.git`.
            OSError: a directory on the way does not exist or cannot be opened.
        """
        with self._walked(path, create) as (directory, parts):
            yield directory, parts[-1] if parts else "."

    @contextmanager
    def _walked(self, path: str, create: bool) -> Iterator[tuple[int, tuple[str, ...]]]:
        parts = self.parts(path)
        for _ in range(_HOPS):
            directory, done = self._descend(parts[:-1], create)
            try:
                link = _link(directory, parts[done]) if parts else None
                if link is None and done >= len(parts) - 1:
                    yield directory, parts
                    return
            finally:
                os.close(directory)
            if link is not None:  # else it was swapped under us: walk again
                parts = self._followed(parts[:done], link, parts[done + 1 :], path)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open an existing regular file or directory; never blocks on a FIFO or a device.

        Raises:
            Refused: out of the worktree, into `.git`, or neither file nor directory.
            OSError: as open(2).
        """
        with self.parent(path) as (directory, name):
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=directory)
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return fd
        os.close(fd)
        raise Refused(f"{path} is neither a file nor a directory (a device, socket or pipe); it cannot be opened.")

    def store(self, path: str, content: bytes, *, mode: int | None = None) -> None:
        """Put a file in place whole or not at all; makes missing directories.

        Args:
            mode: its mode; None = that of the one that was there.

        Raises:
            Refused: out of the worktree, into `.git`, or something there is no regular file.
            OSError: as open(2) and rename(2).
        """
        with self.parent(path, create=True) as (directory, name):
            try:
                found = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            except FileNotFoundError:
                found = None
            if found is not None and not stat.S_ISREG(found):
                raise Refused(f"{path} is no regular file; it cannot be written.")
            temporary = f".{secrets.token_hex(8)}.tmp"
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666, dir_fd=directory)
            try:
                with open(fd, "wb") as file:
                    file.write(content)
                    if mode is not None or found is not None:
                        os.fchmod(fd, mode if mode is not None else stat.S_IMODE(found or 0))
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
            except BaseException:
                os.unlink(temporary, dir_fd=directory)
                raise

    def _descend(self, directories: tuple[str, ...], create: bool) -> tuple[int, int]:
        """Walk down as far as there are real directories; answers the last one, open, and how many were walked."""
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for done, name in enumerate(directories):
            try:
                if create:
                    _make(fd, name)
                step = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR) and _link(fd, name) is not None:
                    return fd, done
                os.close(fd)
                raise
            os.close(fd)
            fd = step
        return fd, len(directories)

    def _followed(self, before: tuple[str, ...], link: str, rest: tuple[str, ...], path: str) -> tuple[str, ...]:
        target = PurePosixPath(link)
        if not target.is_absolute():
            return self._joined(list(before), (*target.parts, *rest), path)
        below = self._below(target)
        if below is None:
            raise Refused(f"{path} is a symlink that leads out of the worktree (to {link}); it is not followed.")
        return self._joined([], (*below, *rest), path)

    def _below(self, absolute: PurePosixPath) -> tuple[str, ...] | None:
        for root in (self.root, self._real):
            if absolute.is_relative_to(root):
                return absolute.relative_to(root).parts
        return None

    def _joined(self, start: list[str], rest: tuple[str, ...], path: str) -> tuple[str, ...]:
        for name in rest:
            if name == "..":
                if not start:
                    raise Refused(f"{path} leads out of the worktree {self.root}; only paths inside it can be used.")
                start.pop()
            else:
                start.append(name)
        if any(name.lower() == ".git" for name in start):
            raise Refused(f"{path} is git's own; read history with git commands instead, and leave .git alone.")
        return tuple(start)


def _link(directory: int, name: str) -> str | None:
    """Where the symlink of that name points, None when it is none or does not exist."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return None
        raise


def _make(directory: int, name: str) -> None:
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        return
