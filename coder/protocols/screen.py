"""The screen of a terminal: a grid of cells that a program writes to, and the text of the rows that leave it at the top.

Invariant: memory is bounded by the grid; writing is linear in what is written. A row is told once, unless the program
writes to it again after that.

Omitted on purpose: colours and styles, the mouse, titles, what programs ask the terminal for; a terminal nobody looks at
has no answers.
"""

from __future__ import annotations

from collections.abc import Iterable

from coder.protocols.row import Row, width

_MARKS = 16
"""Characters in one cell: a letter and the marks upon it."""


class Screen:
    """A screen with a cursor. Coordinates begin at 0; all numbers may be anything, what lies outside is brought inside."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.height = rows
        self.rows = [Row() for _ in range(rows)]
        self.x = 0
        self.y = 0
        self.wrap = True
        self.insert = False
        self._top, self._bottom = 0, rows - 1
        self._saved = (0, 0)
        self._behind: tuple[list[Row], int, int] | None = None
        self._left: list[str] = []

    def take_settled(self) -> str:
        """The text that has left the screen since the last call."""
        text, self._left = "".join(self._left), []
        return text

    def settle(self) -> str:
        """The text above the cursor that has not changed since the last call, and was not told."""
        told: list[str] = []
        steady = True
        for row in [] if self._behind else self.rows[: self.y]:
            text = row.text()
            steady = steady and row.seen == text
            if steady and row.told != text:
                row.told = text
                told.append(text)
            row.seen = text
        return "".join(told)

    def rest(self) -> str:
        """All that is still to be told, at the end; what stands on an alternate screen as well."""
        shown: list[Row] = []
        for rows, y in ((self._behind[0], self._behind[2]), (self.rows, self.y)) if self._behind else ((self.rows, self.y),):
            last = max((number for number, row in enumerate(rows) if row.cells), default=0)
            shown += rows[: max(last, y) + 1]
        text = "".join(row.text() for row in shown if row.told != row.text())
        return text.removesuffix("\n")

    def write_lines(self, lines: list[str]) -> bool:
        """Write more lines of plain narrow text than the screen has, at once; False when that cannot be done, and nothing is.

        The same as drawing them one by one, for most of them without a row. It can be done at the beginning of an empty
        rest of the screen.
        """
        if self.insert or self.x or (self._top, self._bottom) != (0, self.height - 1) or len(lines) < self.height:
            return False
        if any(row.cells or row.wraps for row in self.rows[self.y :]) or max(map(len, lines)) > self.columns:
            return False
        stay = len(lines) - (self.height - 1)
        if self._behind is None:
            self._left += [text for row in self.rows[: self.y] if row.told != (text := row.text())]
            self._left += [line.rstrip(" ") + "\n" for line in lines[:stay]]
        self.rows = [Row(line) for line in (*lines[stay:], "")]
        self.y = self._bottom
        return True

    def draw(self, text: str) -> None:
        """Write printable text at the cursor."""
        if text.isascii():
            self._draw_narrow(text)
            return
        for character in text:
            cells = width(character)
            if cells == 0:
                self._mark(character)
            elif cells == 1:
                self._draw_narrow(character)
            else:
                if self.x + 2 > self.columns:
                    self._wrap()
                self._put((character, ""))

    def _draw_narrow(self, text: str) -> None:
        start = 0
        while start < len(text):
            if self.x >= self.columns:
                self._wrap()
            piece = text[start : start + self.columns - self.x]
            self._put(piece)
            start += len(piece)

    def _wrap(self) -> None:
        if self.wrap:
            self.rows[self.y].wraps = True
            self.x = 0
            self.line_feed()
        else:
            self.x = max(0, self.columns - 2)

    def _put(self, cells: str | tuple[str, ...]) -> None:
        row = self.rows[self.y]
        row.pad(self.x)
        end = self.x + len(cells)
        if self.insert:
            row.cut(self.x, self.x)
            row.cells[self.x : self.x] = cells
            row.cut(self.columns, self.columns)
            del row.cells[self.columns :]
        else:
            if self.x < len(row.cells):
                row.cut(self.x, end)
            row.cells[self.x : end] = cells
        self.x = end

    def _mark(self, character: str) -> None:
        row = self.rows[self.y]
        place = self.x - 1
        if 0 <= place < len(row.cells):
            if row.cells[place] == "" and place:
                place -= 1
            if len(row.cells[place]) < _MARKS:
                row.cells[place] += character

    def line_feed(self) -> None:
        """One row down; at the lower margin everything moves up."""
        if self.y == self._bottom:
            self.scroll_up(1)
        elif self.y < self.height - 1:
            self.y += 1

    def reverse_line_feed(self) -> None:
        if self.y == self._top:
            self.scroll_down(1)
        elif self.y > 0:
            self.y -= 1

    def scroll_up(self, count: int) -> None:
        """Move the rows between the margins up; those that leave are told."""
        for _ in range(min(count, self._bottom - self._top + 1)):
            row = self.rows.pop(self._top)
            self.rows.insert(self._bottom, Row())
            if self._behind is None and row.told != (text := row.text()):
                self._left.append(text)

    def scroll_down(self, count: int) -> None:
        for _ in range(min(count, self._bottom - self._top + 1)):
            del self.rows[self._bottom]
            self.rows.insert(self._top, Row())

    def insert_lines(self, count: int) -> None:
        if self._top <= self.y <= self._bottom:
            for _ in range(min(count, self._bottom - self.y + 1)):
                del self.rows[self._bottom]
                self.rows.insert(self.y, Row())
            self.x = 0

    def delete_lines(self, count: int) -> None:
        if self._top <= self.y <= self._bottom:
            for _ in range(min(count, self._bottom - self.y + 1)):
                del self.rows[self.y]
                self.rows.insert(self._bottom, Row())
            self.x = 0

    def move_to(self, x: int | None = None, y: int | None = None) -> None:
        """Put the cursor somewhere; None leaves a coordinate as it is."""
        self.x = min(max(self.x if x is None else x, 0), self.columns - 1)
        self.y = min(max(self.y if y is None else y, 0), self.height - 1)

    def move(self, right: int = 0, down: int = 0) -> None:
        """Move the cursor; up and down it stops at a margin it is within."""
        x = min(self.x, self.columns - 1) + right
        y = self.y + down
        if down < 0 and self.y >= self._top:
            y = max(y, self._top)
        if down > 0 and self.y <= self._bottom:
            y = min(y, self._bottom)
        self.move_to(x, y)

    def tab(self, count: int = 1) -> None:
        stop = (self.x // 8 + count) * 8 if count > 0 else (-(-self.x // 8) + count) * 8
        self.move_to(stop)

    def erase_in_line(self, how: int) -> None:
        """From the cursor on (0), up to it (1), or all (2)."""
        row = self.rows[self.y]
        if how == 0:
            row.cut(self.x, self.x)
            del row.cells[self.x :]
            row.wraps = False
        elif how == 1:
            end = min(self.x + 1, self.columns)
            row.pad(end)
            row.cut(0, end)
            row.cells[:end] = " " * end
        elif how == 2:
            row.cells.clear()
            row.wraps = False

    def erase_in_display(self, how: int) -> None:
        """From the cursor on (0), up to it (1), or all (2, 3)."""
        if how in (0, 1):
            self.erase_in_line(how)
        gone: Iterable[int] = {0: range(self.y + 1, self.height), 1: range(self.y), 2: range(self.height), 3: range(self.height)}.get(
            how, ()
        )
        for number in gone:
            self.rows[number] = Row()

    def erase_characters(self, count: int) -> None:
        row = self.rows[self.y]
        end = min(self.x + count, len(row.cells))
        if self.x < end:
            row.cut(self.x, end)
            row.cells[self.x : end] = " " * (end - self.x)

    def insert_characters(self, count: int) -> None:
        row = self.rows[self.y]
        if self.x < len(row.cells):
            row.cut(self.x, self.x)
            row.cells[self.x : self.x] = " " * min(count, self.columns - self.x)
            row.cut(self.columns, self.columns)
            del row.cells[self.columns :]

    def delete_characters(self, count: int) -> None:
        row = self.rows[self.y]
        row.cut(self.x, self.x + count)
        del row.cells[self.x : self.x + count]

    def set_margins(self, top: int, bottom: int) -> None:
        """Let only the rows from `top` to `bottom` scroll; what is no range means all."""
        whole = not 0 <= top < bottom < self.height
        self._top, self._bottom = (0, self.height - 1) if whole else (top, bottom)
        self.move_to(0, 0)

    def save_cursor(self) -> None:
        self._saved = (self.x, self.y)

    def restore_cursor(self) -> None:
        self.move_to(*self._saved)

    def use_alternate(self, alternate: bool) -> None:
        """Change to a screen of its own, whose text is not told, or back to the one before."""
        if alternate and self._behind is None:
            self._behind = (self.rows, self.x, self.y)
            self.rows = [Row() for _ in range(self.height)]
        elif not alternate and self._behind is not None:
            self.rows, self.x, self.y = self._behind
            self._behind = None
        self._top, self._bottom = 0, self.height - 1

    def reset(self) -> None:
        self.use_alternate(False)
        self.erase_in_display(2)
        self.move_to(0, 0)
        self.wrap, self.insert = True, False
