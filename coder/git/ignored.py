"""Ignored files: which ones a fresh worktree gets a copy of, and which ones an edited ignore file hides or exposes.

Invariant: git alone decides what a pattern matches; nothing here reads a pattern. Only regular files that git ignores are
ever copied. Omitted: ignore rules outside the work tree (info/exclude, the user's own) that change; `guard` sees those.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path

from coder.git.blobs import read_blobs
from coder.git.disk import Kind, copy_file, look
from coder.git.repository import Repository

INCLUDE_FILE = ".worktreeinclude"


def is_ignore_file(path: bytes) -> bool:
    return path.rpartition(b"/")[2] == b".gitignore"


def hidden_files(repository: Repository, index: Path, added: Collection[bytes]) -> list[bytes]:
    """Of files an index has beyond the base, those that the ignore files on disk ignore by now."""
    listed = repository.run("ls-files", "-z", "--cached", "--ignored", "--exclude-standard", index=index).out
    return [path for path in _split(listed) if path in added]


def ignored_files(project: Repository) -> list[bytes]:
    """What git ignores in a checkout: files, and directories that are ignored as such, with a slash at their end.

    None where git cannot look through it: that is its owner's matter, and no reason to lose what a turn has done.
    """
    form = ("--porcelain", "-z", "--ignored=matching", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    answer = project.run("status", *form, accept=range(256))
    return [line[3:] for line in _split(answer.out) if line.startswith(b"!! ")]


def ignored_by(repository: Repository, tree: str, paths: Iterable[bytes]) -> list[bytes]:
    """Of some paths, those that the ignore files of a tree ignore."""
    entries = [line.partition(b"\t") for line in _split(repository.run("ls-tree", "-r", "-z", tree).out)]
    rules = {path: head.split(b" ")[2] for head, _, path in entries if is_ignore_file(path)}
    with tempfile.TemporaryDirectory(prefix="coder-ignore-") as name:
        place = Path(name)
        for path, content in zip(rules, read_blobs(repository, [blob.decode() for blob in rules.values()]), strict=True):
            target = os.path.join(os.fsencode(place), path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)
        # An index that does not exist: git would otherwise read ignore files it misses on disk from the worktree's index.
        answer = repository.run(
            *("check-ignore", "--no-index", "-z", "--stdin"),
            stdin=b"\0".join(paths),
            index=place / ".git-index",
            work_tree=place,
            accept=(0, 1),
        )
    return list(_split(answer.out))


def copy_ignored(project: Repository, target: Repository, globs: Iterable[str]) -> tuple[bytes, ...]:
    """Copy the ignored files that a project wants in its worktrees; what is there already is left alone.

    Args:
        project: the project's checkout.
        target: the worktree.
        globs: gitignore-style lines, to which those of `.worktreeinclude` are added.

    Returns:
        What a snapshot must leave out: the files, or the topmost ignored directory where all of it was copied.
    """
    lines = [os.fsencode(line) for line in globs]
    if look(project.top, os.fsencode(INCLUDE_FILE)).kind is Kind.FILE:
        lines.append((project.top / INCLUDE_FILE).read_bytes())
    if not lines:
        return ()
    with tempfile.NamedTemporaryFile(prefix="coder-include-") as patterns:
        patterns.write(b"\n".join(lines) + b"\n")
        patterns.flush()
        listing = ("ls-files", "-z", "--others", "--ignored")
        wanted = set(_split(project.run(*listing, f"--exclude-from={patterns.name}").out))
        if not wanted:
            return ()
        ignored = set(_split(project.run(*listing, "--exclude-standard").out))
    wanted &= ignored
    copied = {path for path in sorted(wanted) if copy_file(project.top, target.top, path)}
    if there := {path for path in wanted - copied if look(target.top, path).kind is Kind.FILE}:
        # Copied by an earlier attempt, unless the commit itself has a file there.
        copied |= there - set(_split(target.run("ls-files", "-z", "--cached").out))
    return tuple(sorted(_collapse(project, copied, ignored - copied)))


def _collapse(project: Repository, copied: set[bytes], left: set[bytes]) -> set[bytes]:
    """Name a directory instead of its files where git ignores it and all of it was copied: node_modules is one path."""
    whole = {parent for path in copied for parent in _parents(path)} - {parent for path in left for parent in _parents(path)}
    if whole:
        stdin = b"\0".join(path + b"/" for path in sorted(whole))
        # With the index in play, git does not call a directory ignored that holds tracked files.
        answer = project.run("check-ignore", "-z", "--stdin", stdin=stdin, accept=(0, 1))
        whole = {path.rstrip(b"/") for path in _split(answer.out)}
    return {next((parent for parent in _parents(path) if parent in whole), path) for path in copied}


def _parents(path: bytes) -> list[bytes]:
    parts = path.split(b"/")
    return [b"/".join(parts[:depth]) for depth in range(1, len(parts))]


def _split(out: bytes) -> Iterable[bytes]:
    return (path for path in out.split(b"\0") if path)
