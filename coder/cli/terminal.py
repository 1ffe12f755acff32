"""A terminal by the key: a screen of its own, keys as they are pressed, and one line that is typed into."""

from __future__ import annotations

import codecs
import os
import re
import select
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.cells import cell_len

from coder.cli.screen import visible
from coder.cli.sheet_view import fit
from coder.errors import InvalidInput

KEY = re.compile(r"\x1b\[[0-9;]*[A-Za-z~]|\x1bO[A-Z]|.", re.DOTALL)
NAMES = {
    "\x1b[A": "up", "\x1bOA": "up", "\x1b[B": "down", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down", "\x1b": "escape",
    "\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x03": "interrupt", "\x04": "end", "\x15": "wipe",
}  # fmt: skip
LOOK_SECONDS = 0.5
"""How often the terminal's size is looked at."""
ESCAPE_SECONDS = 0.05
PIECE_BYTES = 4096
TYPED_COLUMNS = 20
"""What a question leaves for its answer."""


def size_of_terminal() -> os.terminal_size:
    """Columns and rows; as it really is, whatever COLUMNS and LINES say, which nobody corrects when a window changes."""
    columns, rows = os.get_terminal_size(sys.stdout.fileno())
    return os.terminal_size((columns or 80, rows or 24))


def ending(text: str, columns: int) -> str:
    """As much of a text's end as fits."""
    while cell_len(text) > columns:
        text = text[1:]
    return text


class Terminal:
    """Args: draw: the screen for a width and a height, as a terminal takes it."""

    def __init__(self, draw: Callable[[int, int], str]) -> None:
        self._draw = draw
        self._drawn: os.terminal_size | None = None
        self._typed: deque[str] = deque()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take the terminal over; whatever happens, it is given back as it was.

        Raises:
            InvalidInput: there is none.
        """
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise InvalidInput("A review needs a terminal; elsewhere use `coder change show --hunks` and `coder change approve --hunk`.")
        before = termios.tcgetattr(sys.stdin)
        mine = termios.tcgetattr(sys.stdin)
        mine[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, mine)
        self._put("\x1b[?1049h\x1b[?25l")
        try:
            yield
        finally:
            self._put("\x1b[?25h\x1b[?1049l")
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def draw(self) -> None:
        self._drawn = size_of_terminal()
        self._put(self._draw(self._drawn.columns, self._drawn.lines))

    def key(self) -> str:
        """The next key: a character, or the name of another; the screen is drawn anew when its size changes meanwhile.

        Raises:
            EOFError: the terminal is gone.
        """
        while not self._typed:
            if select.select([sys.stdin], [], [], LOOK_SECONDS)[0]:
                self._read()
            elif size_of_terminal() != self._drawn:  # not since the key is waited for: it may have changed while the screen was drawn
                self.draw()
        key = self._typed.popleft()
        return NAMES.get(key, key)

    def ask(self, question: str) -> str | None:
        """A line that is typed at the bottom of the screen; None when it was given up."""
        text = ""
        while True:
            size = size_of_terminal()
            asked = fit(question, max(1, size.columns - TYPED_COLUMNS))
            room = max(1, size.columns - cell_len(asked) - 1)
            self._put(f"\x1b[{size.lines};1H\x1b[K{asked}{ending(visible(text), room)}\x1b[?25h")
            key = self.key()
            if key in ("enter", "escape", "interrupt", "end"):
                self._put("\x1b[?25l")
                return text if key == "enter" else None
            if key == "backspace":
                text = text[:-1]
            elif key == "wipe":
                text = ""
            elif len(key) == 1 and key.isprintable():
                text += key

    def _read(self) -> None:
        text = self._piece()
        while text.endswith("\x1b") and select.select([sys.stdin], [], [], ESCAPE_SECONDS)[0]:
            text += self._piece()  # the rest of a key that came in two pieces
        self._typed += KEY.findall(text)

    def _piece(self) -> str:
        try:
            piece = os.read(sys.stdin.fileno(), PIECE_BYTES)
        except OSError as error:
            raise EOFError from error
        if not piece:
            raise EOFError
        return self._decoder.decode(piece)

    @staticmethod
    def _put(text: str) -> None:
        sys.stdout.buffer.write(text.encode(sys.stdout.encoding, "replace"))
        sys.stdout.buffer.flush()
