"""Server-sent events: bytes as they come, whole data lines out. Pure.

Invariant: however the bytes are cut, the same events come out; a line beyond the bound is never kept, only its beginning.
Only `data:` matters here: event names, ids and comments are left out, and so is data over several lines, which JSON does not need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

LINE_BYTES = 16 * 1_048_576
HEAD_BYTES = 4_096


@dataclass(frozen=True, slots=True)
class TooLong:
    """What is left of an event beyond the bound: its beginning."""

    head: bytes


class EventStream:
    """Cuts one connection's bytes into events.

    Args:
        longest: bytes of the longest line that is kept.
    """

    def __init__(self, longest: int = LINE_BYTES) -> None:
        self._longest = longest
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes | TooLong]:
        """The data of every event that ends in this chunk."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._keep(chunk[start:end])
            if (line := self._take()) is not None:
                yield line
            start = end + 1
        self._keep(chunk[start:])

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= self._longest:
            if piece:
                self._pieces.append(piece)
        elif len(self._pieces) != 1 or len(self._pieces[0]) != HEAD_BYTES:
            self._pieces = [b"".join((*self._pieces, piece[:HEAD_BYTES]))[:HEAD_BYTES]]

    def _take(self) -> bytes | TooLong | None:
        line = b"".join(self._pieces)
        size, self._size, self._pieces = self._size, 0, []
        if not line.startswith(b"data:"):
            return None
        return line[5:].strip() if size <= self._longest else TooLong(line[5:])
