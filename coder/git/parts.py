"""A change decided in part: the base with what was approved, and the snapshot without what was rejected.

Job: trees for both, and the difference that is left between them. Invariant: approved, left and rejected parts together are the
change that was shown, since all three are cut from it at the hunks that were shown. A file's mode and its new name go with its
first part that is taken. Omitted: bringing the approved parts anywhere (`plan`) and the worktree along (`snapshot`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from coder.change import Approval, DecidedFile, Rest, Shift, Snapshot, display_path
from coder.errors import Conflict, InternalError
from coder.git.blobs import read_blobs, write_blobs
from coder.git.present import Entry, overlay, rows_between
from coder.git.repository import Repository
from coder.git.snapshot import difference
from coder.parts import splice

Entries = dict[bytes, Entry]


def divide(repository: Repository, approval: Approval) -> Rest:
    """Work out what a decision on parts leaves; the commits it names are kept below `refs/coder/<session>/parts/<decision>`.

    Raises:
        Conflict: one part cannot be taken or left without another one; facts `files`.
    """
    worktree, shown = approval.worktree, approval.snapshot_commit
    rows = rows_between(repository, worktree.base_commit, shown)
    sides = (
        {row.path: (row.old_blob, row.old_mode) for row in rows},
        {row.path: (row.new_blob, row.new_mode) for row in rows},
    )
    approved = {each: each.approved for each in approval.parts if each.approved}
    rejected = {each: each.parts - each.rejected for each in approval.parts if each.rejected}
    base_tree = _with(repository, worktree.base_commit, sides[0], _entries(repository, approved, *sides))
    left_tree = _with(repository, shown, sides[1], _entries(repository, rejected, *sides))
    place = f"refs/coder/{worktree.session_id}/parts/{approval.decision_id}"
    base = worktree.base_commit
    if approved:
        base = repository.commit_tree(base_tree, base)
        repository.run("update-ref", f"{place}/base", base)
    left = repository.commit_tree(left_tree, base)
    repository.run("update-ref", f"{place}/left", left)
    files, patch = difference(repository, base_tree, left_tree, repository.git_dir / "coder-no-index")
    snapshot = Snapshot(base, base_tree, worktree.base_version + 1, left, left_tree, patch, files)
    return Rest(base, snapshot, Shift(approval.decision_id, shown, left) if rejected else None)


def _entries(repository: Repository, taken: Mapping[DecidedFile, Collection[int]], before: Entries, after: Entries) -> Entries:
    """What files are with just these parts of their change."""
    entries: Entries = {}
    spliced = []
    for each, parts in taken.items():
        side = after if parts else before
        entries.update((path, side[path]) for path in (each.file.path, each.file.old_path) if path is not None)
        if parts and parts != each.parts:
            spliced.append(each)
    blobs = [blob or "" for each in spliced for blob in (before[each.file.old_path or each.file.path][0], after[each.file.path][0])]
    contents = read_blobs(repository, blobs)
    made = []
    for each, old, new in zip(spliced, contents[::2], contents[1::2], strict=True):
        try:
            made.append(splice(old, new, each.file.hunks, taken[each]))
        except ValueError as error:
            raise InternalError(
                f"The hunks of {display_path(each.file.path)} are not those of its diff ({error}); decide on the file as a whole."
            ) from error
    for each, blob in zip(spliced, write_blobs(repository, made), strict=True):
        entries[each.file.path] = (blob, after[each.file.path][1])
    return entries


def _with(repository: Repository, commit: str, there: Entries, entries: Entries) -> str:
    """The tree of a commit with some entries, and with nothing else changed by that."""
    tree = overlay(repository, commit, entries)
    wanted = {path: entry for path, entry in entries.items() if entry != there[path]}
    found = {row.path: (row.new_blob, row.new_mode) for row in rows_between(repository, commit, tree)}
    if wrong := sorted(found.items() ^ wanted.items(), key=lambda item: item[0]):
        files = list(dict.fromkeys(display_path(path) for path, _ in (*wrong, *wanted.items())))
        raise Conflict(
            f"A file and a directory of the same name cannot both be there, so these go together: {', '.join(files)}; "
            "decide the same on all of them.",
            files=files,
        )
    return tree
