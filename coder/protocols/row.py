"""A row of a terminal's screen: cells with characters of one or two cells' width, and the marks upon them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache


@lru_cache(4096)
def width(character: str) -> int:
    """Cells that a character takes: 0, 1 or 2."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


class Row:
    """One row of cells.

    Attributes:
        cells: a character with its marks each; the second cell of a wide one is empty. Shorter than the screen where nothing was written.
        wraps: whether its line goes on in the next row.
        told: its text as it was told, None before that.
        seen: its text when `settle` last looked, None before that.
    """

    __slots__ = ("cells", "seen", "told", "wraps")

    def __init__(self, text: str = "") -> None:
        self.cells: list[str] = list(text)
        self.wraps = False
        self.told: str | None = None
        self.seen: str | None = None

    def text(self) -> str:
        """As it is shown, with the end of its line if that is in it."""
        text = "".join(self.cells)
        return text if self.wraps else text.rstrip(" ") + "\n"

    def pad(self, size: int) -> None:
        if len(self.cells) < size:
            self.cells += " " * (size - len(self.cells))

    def cut(self, start: int, end: int) -> None:
        """Make both edges of a range of cells whole: half of a wide character becomes a space."""
        for edge in (start, end):
            if 0 < edge < len(self.cells) and self.cells[edge] == "":
                self.cells[edge - 1] = self.cells[edge] = " "
