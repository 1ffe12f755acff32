"""Where a reviewer's comment stands once the file it is about was changed. Pure.

Job: carry lines from one version of a file to another over the difference git found between the two. Invariant: a line is carried
only to a line with the same content, and lines that stood together are carried together or not at all. Omitted: who wrote what, and
renames, which git finds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from uuid import UUID

_HEADER = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


class CommentState(StrEnum):
    DRAFT = "draft"
    OPEN = "open"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Written:
    """A comment as it was written.

    Attributes:
        side: which commit `commit` is of its change: the base (`old`) or the snapshot (`new`).
        path: in that commit's tree.
        line, end_line: first and last line, from 1; None = the comment is about the file.
    """

    id: UUID
    side: Literal["old", "new"]
    commit: str
    path: bytes
    line: int | None
    end_line: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a comment stands in a later tree; a path of None: what it was about is gone."""

    id: UUID
    path: bytes | None = None
    line: int | None = None
    end_line: int | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """Lines that took the place of others; a count of 0 stands behind the line of its start, as git writes it."""

    old_start: int
    old_count: int
    new_start: int
    new_count: int


def replaced(patch: bytes) -> tuple[Replaced, ...]:
    """The hunks of a patch of one file without context (`git diff -U0`).

    Source: git-diff(1), "Generating patch text with -p", and the unified format's `@@ -l,s +l,s @@`.
    """
    return tuple(Replaced(int(found[1]), int(found[2] or b"1"), int(found[3]), int(found[4] or b"1")) for found in _HEADER.finditer(patch))


def carried(line: int, end_line: int, hunks: Sequence[Replaced]) -> tuple[int, int] | None:
    """Where lines are after a change of their file.

    Args:
        line, end_line: the first and the last, from 1, before the change.
        hunks: what was replaced, in order.

    Returns:
        The first and the last after it; None when one of them is gone, or when lines were put between them.
    """
    shift = 0
    for hunk in hunks:
        first = hunk.old_start + (hunk.old_count == 0)  # the line that what was put in now stands before
        behind = first + hunk.old_count
        if end_line < first:
            break
        if line < behind:
            return None
        shift += hunk.new_count - hunk.old_count
    return line + shift, end_line + shift


@dataclass(frozen=True, slots=True)
class Owed:
    """A session's comments that are to be carried to its present change.

    Attributes:
        repository: absolute path of the project's checkout.
        snapshot_commit, base_commit: of the change.
    """

    session_id: UUID
    project_id: UUID
    repository: str
    change_id: UUID
    snapshot_commit: str
    base_commit: str
    comments: tuple[Written, ...]
