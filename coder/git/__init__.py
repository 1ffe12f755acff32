"""The world of git: worktrees, snapshots and approvals, over the `git` program."""

from coder.git.worktrees import GitWorktrees

__all__ = ["GitWorktrees"]
