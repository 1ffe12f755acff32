"""Parts of a file's change: what the file is with some of its hunks and without the others. Pure.

A hunk says which lines it spans on either side; between hunks both sides are equal. So any choice of hunks is put together from
the two contents themselves, without a patch being applied, and what does not fit is noticed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from coder.change import Hunk


def splice(old: bytes, new: bytes, hunks: Sequence[Hunk], taken: Collection[int]) -> bytes:
    """A file's old content with some hunks of its change.

    Args:
        old, new: the content before and after the change.
        hunks: of the change, in order.
        taken: numbers of those to take, from 1.

    Raises:
        ValueError: the hunks are not those between these contents.
    """
    old_lines, new_lines = _Lines(old), _Lines(new)
    pieces = []
    old_at = new_at = 0
    for number, hunk in enumerate(hunks, 1):
        old_start, new_start = _before(hunk.old_start, hunk.old_lines), _before(hunk.new_start, hunk.new_lines)
        pieces.append(_same(old_lines.span(old_at, old_start), new_lines.span(new_at, new_start), number))
        old_at, new_at = old_start + hunk.old_lines, new_start + hunk.new_lines
        pieces.append(new_lines.span(new_start, new_at) if number in taken else old_lines.span(old_start, old_at))
    pieces.append(_same(old_lines.span(old_at, old_lines.count), new_lines.span(new_at, new_lines.count), len(hunks) + 1))
    return b"".join(pieces)


def _before(start: int, lines: int) -> int:
    """How many lines stand before a side of a hunk; of an empty side, its start is the line before it."""
    return start - 1 if lines else start


def _same(old: bytes, new: bytes, number: int) -> bytes:
    if old != new:
        raise ValueError(f"before hunk {number} the two contents differ")
    return old


class _Lines:
    """A content by its lines, which end at a line feed and nowhere else; the last one may lack it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._starts = [0]
        at = content.find(b"\n")
        while at >= 0:
            self._starts.append(at + 1)
            at = content.find(b"\n", at + 1)
        if self._starts[-1] < len(content):
            self._starts.append(len(content))

    @property
    def count(self) -> int:
        return len(self._starts) - 1

    def span(self, start: int, end: int) -> bytes:
        """The lines after the first `start` ones, up to the `end`-th."""
        if not 0 <= start <= end <= self.count:
            raise ValueError(f"lines {start + 1} to {end} are not in a content of {self.count}")
        return self._content[self._starts[start] : self._starts[end]]
