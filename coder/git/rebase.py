"""Putting a session's work on its target as it is by now: "update from target".

Job: the target's content as the session's next base, and the shown snapshot merged onto it. Invariant: neither the target nor the
worktree is touched here; the worktree is brought along at the turn boundary (`shift`). Omitted: the commits of the target's history;
the base is content.
"""

from __future__ import annotations

from coder.change import Approval, Rest, Shift, Snapshot, display_path
from coder.errors import NoCommit
from coder.git.merge import Merge, merge
from coder.git.plan import CHECKOUT, present_tree, require_branch, require_no_conflict
from coder.git.present import rows_between
from coder.git.repository import Repository
from coder.git.snapshot import difference


def rebase(repository: Repository, approval: Approval) -> Rest:
    """Work out what a change is on its target as it is by now; commits are kept below `refs/coder/<session>/parts/<decision>`.

    Raises:
        MergeConflict: both sides edit the same lines, and the agent is not to resolve it; facts as of `make_plan`.
        CheckoutDirty, WrongBranch, NoCommit: as of `make_plan`.
    """
    worktree = approval.worktree
    start, tree, name = _target(repository, approval)
    merged = merge(repository, worktree.base_commit, tree, approval.snapshot_commit, (name, "the change"))
    if not approval.resolve:
        require_no_conflict(merged, name)
    place = f"refs/coder/{worktree.session_id}/parts/{approval.decision_id}"
    base_tree = repository.line("rev-parse", f"{tree}^{{tree}}")
    base = repository.commit_tree(base_tree, start)
    repository.run("update-ref", f"{place}/base", base)
    left = repository.commit_tree(merged.tree, base)
    repository.run("update-ref", f"{place}/left", left)
    files, patch = difference(repository, base_tree, merged.tree, repository.git_dir / "coder-no-index")
    version = worktree.base_version + 1
    snapshot = Snapshot(base, base_tree, version, left, merged.tree, patch, files, _warnings(merged))
    shift = Shift(approval.decision_id, worktree.base_commit, base, name)
    return Rest(base, snapshot, shift, tuple(display_path(each.path) for each in merged.conflicts))


def _target(repository: Repository, approval: Approval) -> tuple[str, str, str]:
    """The commit a target stands on, its content, and what it is called."""
    head = repository.resolve("HEAD")
    if head is None:
        raise NoCommit(path=repository.top, project=approval.worktree.project_id)
    if approval.target == "branch":
        tip = repository.resolve(f"refs/heads/{approval.branch}") or head
        return tip, tip, f"branch {approval.branch}"
    require_branch(repository, approval)
    rows = rows_between(repository, approval.worktree.base_commit, approval.snapshot_commit)
    tree, _ = present_tree(repository, approval, head, {*approval.paths, *(row.path for row in rows)}, rows)
    return head, tree, CHECKOUT


def _warnings(merged: Merge) -> tuple[str, ...]:
    if not merged.conflicts:
        return ()
    files = ", ".join(display_path(each.path) for each in merged.conflicts)
    return (
        f"Both the target and the agent edited the same lines of {files}, which have conflict markers now; the agent is to resolve them.",
    )
