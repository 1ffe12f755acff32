"""What is at a path that somebody names, before a project is made of it."""

from __future__ import annotations

import os
from pathlib import Path

from coder.errors import InvalidInput
from coder.git.process import execute


def find_checkout(path: str) -> dict[str, str | None]:
    """The checkout that a directory lies in.

    Args:
        path: an absolute directory on this host.

    Returns:
        `path`: its top level, `branch`: the one it is on, None when detached.

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
    return {"path": top, "branch": os.fsdecode(head.out).removesuffix("\n") if head.status == 0 else None}
