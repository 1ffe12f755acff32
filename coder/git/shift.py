"""Bringing a worktree's files along with a decision: the difference between two commits, merged into what they hold by now.

Invariant: what the files held is saved under a ref first, and what they are to hold is kept by another one before the first of
them is written, so that a killed run is finished by the next one, whatever it left half-written. Where both sides changed the same
lines, the worktree's file stays as it is. Omitted: the worktree's own index and HEAD, which stay the agent's.
"""

from __future__ import annotations

from coder.change import Shift, Worktree
from coder.diff import parse_merge
from coder.git.present import overlay, tree_entries
from coder.git.record import Record
from coder.git.repository import Repository
from coder.git.snapshot import Snapshots, own_index


def bring_along(snapshots: Snapshots, record: Record, worktree: Worktree, shift: Shift) -> tuple[bytes, ...]:
    """Merge a shift into the files of a worktree that nobody else uses.

    Returns:
        The paths that stay as they are, since they say something else by now.
    """
    repository, ref = record.repository, f"refs/coder/{worktree.session_id}/shift/{shift.decision_id}"
    if (begun := repository.resolve(ref)) is None:
        held = snapshots.save(record, worktree)
        tree, kept = _merged(repository, held, shift)
        if tree == repository.line("rev-parse", f"{held}^{{tree}}"):
            repository.run("update-ref", "-d", held)
            return kept
        begun = repository.commit_tree(tree, held, message="\n".join(path.hex() for path in kept))
        repository.run("update-ref", ref, begun)
    else:
        kept = tuple(bytes.fromhex(line) for line in repository.line("log", "-1", "--format=%B", begun).split())
        # Of files that are half-written git can only tell by looking, which an index without their stamps makes it do.
        record.index.unlink(missing_ok=True)
    with own_index(record, f"{begun}^") as index:
        repository.run("read-tree", "--reset", "-u", begun, index=index)
    repository.run("update-ref", "-d", ref)
    return kept


def _merged(repository: Repository, held: str, shift: Shift) -> tuple[str, tuple[bytes, ...]]:
    """The tree the worktree is to have, and the paths where the shift does not fit into it."""
    ours, theirs = (repository.commit_tree(f"{commit}^{{tree}}", shift.old) for commit in (held, shift.new))
    merged = parse_merge(repository.run("merge-tree", "--write-tree", "-z", ours, theirs, accept=(0, 1)).out)
    kept = merged.conflicted
    return overlay(repository, merged.tree, tree_entries(repository, held, kept)) if kept else merged.tree, kept
