"""Where a session's comments stand in its present change, as git sees it.

Job: for each commit that comments were written on, find their files in the change's own commit, and what was replaced in them.
Invariant: nothing is read but commits; the worktree may be in use meanwhile. Omitted: which of the files the change shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from coder.comments import Owed, Place, Written, carried, replaced
from coder.diff import GITLINK, RawRow, parse_raw
from coder.git.repository import Repository


def places(repository: Repository, owed: Owed) -> tuple[Place, ...]:
    """One place for each comment; what git no longer has the commit of is gone."""
    by_commit = sorted(owed.comments, key=lambda comment: (comment.commit, comment.side))
    return tuple(
        place
        for (commit, side), group in groupby(by_commit, key=lambda comment: (comment.commit, comment.side))
        for place in _carry(repository, commit, owed.base_commit if side == "old" else owed.snapshot_commit, list(group))
    )


def _carry(repository: Repository, commit: str, to: str, comments: list[Written]) -> Iterator[Place]:
    if commit == to:
        yield from (Place(comment.id, comment.path, comment.line, comment.end_line) for comment in comments)
    elif repository.resolve(commit) is None:
        yield from (Place(comment.id) for comment in comments)
    else:
        rows = parse_raw(repository.run("diff-tree", "-r", "-z", "-M", "--raw", "--no-ext-diff", commit, to).out)
        changed = {row.old_path or row.path: row for row in rows if row.status != "A"}
        for comment in comments:
            yield _place(repository, comment, changed.get(comment.path))


def _place(repository: Repository, comment: Written, row: RawRow | None) -> Place:
    """Args: row: what became of its file, None when nothing did."""
    path = comment.path if row is None else row.path
    if row is not None and (row.new_blob is None or row.old_blob is None or row.status == "T" or GITLINK in (row.old_mode, row.new_mode)):
        return Place(comment.id)
    if comment.line is None or comment.end_line is None or row is None or row.old_blob == row.new_blob:
        return Place(comment.id, path, comment.line, comment.end_line)
    form = ("-U0", "--text", "--no-ext-diff", "--no-textconv", "--no-color")
    patch = repository.run("diff", *form, str(row.old_blob), str(row.new_blob), accept=(0, 1)).out
    lines = carried(comment.line, comment.end_line, replaced(patch))
    return Place(comment.id) if lines is None else Place(comment.id, path, *lines)
