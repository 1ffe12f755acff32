"""What is at a path that somebody names, before a project is made of it."""

from __future__ import annotations

import os
from pathlib import Path

from coder.errors import InvalidInput
from coder.git.process import execute
from coder.git.repository import DEFAULT_REMOTE


def find_checkout(path: str) -> dict[str, str | None]:
    """The checkout that a directory lies in.

    Args:
        path: an absolute directory on this host.

    Returns:
        `path`: its top level, `branch`: the one it is on, None when detached, `remote`: where branches are pushed, None without one.

    Raises:
        InvalidInput: there is no directory, no repository with a checkout, or no commit.
        InternalError: git could not be started.
    """
    if not os.path.isabs(path):
        raise InvalidInput(f"The path of a project is absolute; {path!r} is not.", field="path")
    if not os.path.isdir(path):
        raise InvalidInput(f"{path} is not a directory; name the root of a git repository.", field="path")
    inside = execute(Path(path), ("rev-parse", "--show-toplevel"), None, {})
    if inside.status != 0:
        raise InvalidInput(
            f"{path} is not a git repository with a checkout; run `git init` there, or name another directory.", field="path"
        )
    top = os.fsdecode(inside.out).removesuffix("\n")
    if execute(Path(top), ("rev-parse", "--verify", "--quiet", "HEAD^{commit}"), None, {}).status != 0:
        raise InvalidInput(
            f"The repository {top} has no commit yet; commit something there first, a worktree starts from a commit.", field="path"
        )
    head = execute(Path(top), ("symbolic-ref", "--quiet", "--short", "HEAD"), None, {})
    branch = os.fsdecode(head.out).removesuffix("\n") if head.status == 0 else None
    return {"path": top, "branch": branch, "remote": _remote(Path(top))}


def _remote(top: Path) -> str | None:
    """The remote that `Repository.push` pushes to, if there is one of that name."""
    chosen = execute(top, ("config", "--get", "remote.pushDefault"), None, {})
    name = os.fsdecode(chosen.out).strip() or DEFAULT_REMOTE
    return name if execute(top, ("config", "--get", f"remote.{name}.url"), None, {}).status == 0 else None
