"""Bringing a worktree's files along with a decision: the difference between two commits, merged into what they hold by now.

Invariant: what the files held is saved under a ref first, and what they are to hold is kept by another one before the first of
them is written, so that a killed run is finished by the next one, whatever it left half-written. Where both sides changed the same
lines, the worktree's file stays as it is, or gets conflict markers when the shift names its side. Omitted: the worktree's own index
and HEAD, which stay the agent's.
"""

from __future__ import annotations

from coder.change import Shift, Worktree
from coder.git.merge import merge
from coder.git.present import overlay, tree_entries
from coder.git.record import Record
from coder.git.repository import Repository
from coder.git.snapshot import Snapshots, own_index


def bring_along(snapshots: Snapshots, record: Record, worktree: Worktree, shift: Shift) -> tuple[bytes, ...]:
    """Merge a shift into the files of a worktree that nobody else uses.

    Returns:
        The paths where both sides clash: as they were, or with conflict markers.
    """
    repository, ref = record.repository, f"refs/coder/{worktree.session_id}/shift/{shift.decision_id}"
    saved = snapshots.save(record, worktree)
    if (begun := repository.resolve(ref)) is None:
        tree, clashing = _merged(repository, saved, shift)
        if tree == repository.line("rev-parse", f"{saved}^{{tree}}"):
            repository.run("update-ref", "-d", saved)
            return clashing
        # The ref stays: who finds it has come here before, and the same merge again might not give the same.
        begun = repository.commit_tree(tree, saved, message="\n".join(path.hex() for path in clashing))
        repository.run("update-ref", ref, begun)
    else:
        clashing = tuple(bytes.fromhex(line) for line in repository.line("log", "-1", "--format=%B", begun).split())
        # Of files that are half-written git can only tell by looking, which an index without their stamps makes it do.
        record.index.unlink(missing_ok=True)
    with own_index(record, f"{begun}^") as index:
        repository.run("read-tree", "--reset", "-u", begun, index=index)
    return clashing


def _merged(repository: Repository, held: str, shift: Shift) -> tuple[str, tuple[bytes, ...]]:
    """The tree the worktree is to have, and the paths where both sides clash."""
    merged = merge(repository, shift.old, shift.new, held, (shift.markers or "the decision", "the change"))
    clashing = tuple(each.path for each in merged.conflicts)
    if shift.markers or not clashing:
        return merged.tree, clashing
    return overlay(repository, merged.tree, tree_entries(repository, held, clashing)), clashing
