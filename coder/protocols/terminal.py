"""Text of a program that believes it writes to a terminal: its bytes in, what a person would have read out.

Progress bars that write over themselves come out as they were left, the alternate screen of full-screen programs does not
come out at all, long lines come out whole. Rows come out when they leave the screen at the top, when they have not changed for a
moment (`settle`), and at the end (`close`).

Invariant: how the bytes are cut into pieces makes no difference; no bytes raise; memory is bounded and time is linear.

Not pyte: it is 15 to 25 times slower (0.35 MB/s where this one does 5 to 8), raises on `ESC [ ? 1 A` and other sequences that occur, and
has neither an alternate screen nor the lines that scrolled off. The tests compare this one with it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable

from coder.protocols.screen import Screen

COLUMNS, ROWS = 200, 50

_TOKEN = re.compile(
    r"(?P<text>[^\x00-\x1f\x7f-\x9f]+)"
    r"|(?P<lines>[\r\n]+)"
    r"|\x1b\[(?P<parameters>[0-?]{0,64})(?P<between>[ -/]{0,4})(?P<final>[@-~])"
    r"|(?P<string>\x1b[\]PX^_])"
    r"|\x1b(?P<set>[ -/]{1,4})(?P<choice>[0-~])"
    r"|\x1b(?P<single>[0-Z\\`-~])"
    r"|(?P<broken>\x1b\[[0-?]{0,64}[ -/]{0,4}|\x1b[ -/]{0,4})"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])"
)
_PLAIN_LINES = re.compile(r"(?:[ -~]*\r*\n){60,}")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,4}|[ -/]{0,4})\Z")
_END_OF_STRING = re.compile(r"[\x07\x18\x1a\n]|\x1b\\|\x1b(?=[^\\])")
"""A title or another string for the terminal also ends at a line's end: noise that looks like the beginning of one takes no more."""

_DRAWING = str.maketrans("`afgijklmnopqrstuvwxyz{|}~", "◆▒°±␤┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·")


class Terminal:
    """A terminal without anybody in front of it."""

    def __init__(self, columns: int = COLUMNS, rows: int = ROWS) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._screen = Screen(columns, rows)
        self._pending = ""
        self._in_string = False
        self._drawing = False
        self._last = ""
        self._keys: dict[str, Callable[[], None]] = {
            "\x08": lambda: self._screen.move(-1),
            "\x09": self._screen.tab,
            "\x0b": self._screen.line_feed,
            "\x0c": self._screen.line_feed,
            "7": self._screen.save_cursor,
            "8": self._screen.restore_cursor,
            "D": self._screen.line_feed,
            "E": self._next_line,
            "M": self._screen.reverse_line_feed,
            "c": self._screen.reset,
        }
        self._moves = self._sequences()

    def feed(self, content: bytes) -> str:
        """Take what the program wrote; answers the text that is settled by it."""
        self._read(self._decoder.decode(content))
        return self._screen.take_settled()

    def settle(self) -> str:
        """Answers the text above the cursor that is as it was at the last call; call it every now and then."""
        return self._screen.settle()

    def close(self) -> str:
        """The rest; nothing is fed after it."""
        self._read(self._decoder.decode(b"", final=True))
        return self._screen.take_settled() + self._screen.rest()

    def _read(self, text: str) -> None:
        text = self._pending + text
        unfinished = _UNFINISHED.search(text, max(0, len(text) - 80))
        end = unfinished.start() if unfinished else len(text)
        self._pending = text[end:]
        place = 0 if self._in_string or self._drawing else self._read_plain(text, end)
        while place < end:
            place = self._skip(text, place, end) if self._in_string else self._carry_out(text, place, end)

    def _read_plain(self, text: str, end: int) -> int:
        """Most output is many plain lines: write those after the first line's end at once; answers how far that was."""
        first = text.find("\n", 0, end) + 1
        lines = _PLAIN_LINES.match(text, first, end)
        if not lines or self._carry_out(text, 0, first) != first or self._in_string:
            return first if lines else 0
        written = self._screen.write_lines([line.rstrip("\r") for line in lines[0].split("\n")[:-1]])
        return lines.end() if written else first

    def _skip(self, text: str, place: int, end: int) -> int:
        """Go to the end of a string for the terminal, if it is there."""
        found = _END_OF_STRING.search(text, place, end)
        if found is None:
            return end
        self._in_string = False
        return found.start() if found[0] in ("\n", "\x1b") else found.end()

    def _carry_out(self, text: str, place: int, end: int) -> int:
        """Do what the text says, up to a string for the terminal; answers how far that was."""
        screen = self._screen
        for token in _TOKEN.finditer(text, place, end):
            kind = token.lastgroup
            if kind == "text":
                self._last = token[0][-1]
                screen.draw(token[0].translate(_DRAWING) if self._drawing else token[0])
            elif kind == "lines":
                for key in token[0]:
                    if key == "\n":
                        screen.line_feed()
                    else:
                        screen.x = 0
            elif kind == "final":
                self._control(token["parameters"], token["between"], token["final"])
            elif kind == "string":
                self._in_string = True
                return token.end()
            elif kind == "choice":
                if token["set"] == "(":
                    self._drawing = token["choice"] == "0"
            elif kind in ("single", "control") and (act := self._keys.get(token[kind])):
                act()
        return end

    def _next_line(self) -> None:
        self._screen.x = 0
        self._screen.line_feed()

    def _control(self, parameters: str, between: str, final: str) -> None:
        """A control sequence; those that are not known, or not about text, do nothing."""
        if between or parameters[:1] in ("<", "=", ">"):
            return
        numbers = [int(number[:6]) if number.isdecimal() else 0 for number in parameters.lstrip("?").split(";")]
        if final in "hl":
            for number in numbers:
                self._mode(number, parameters.startswith("?"), final == "h")
        elif not parameters.startswith("?") or final in "JK":
            act = self._moves.get(final)
            if act is not None:
                act(numbers[0], numbers[1] if len(numbers) > 1 else 0)

    def _mode(self, number: int, private: bool, on: bool) -> None:
        screen = self._screen
        if private and number == 7:
            screen.wrap = on
        elif private and number in (47, 1047, 1049):
            screen.use_alternate(on)
        elif not private and number == 4:
            screen.insert = on

    def _repeat(self, count: int) -> None:
        """Draw the last character again; no more than a row of it, or a few bytes would be the work of ten thousand."""
        if self._last:
            self._screen.draw(self._last * min(count, self._screen.columns))

    def _sequences(self) -> dict[str, Callable[[int, int], None]]:
        """What each control sequence does, by its last character, with its first two numbers (0 = not given)."""
        screen = self._screen

        def to_column(n: int, _: int) -> None:
            screen.move_to(max(n, 1) - 1)

        def to_place(row: int, column: int) -> None:
            screen.move_to(max(column, 1) - 1, max(row, 1) - 1)

        def to_line(down: int) -> None:
            screen.move(down=down)
            screen.move_to(0)

        return {
            "@": lambda n, _: screen.insert_characters(max(n, 1)),
            "A": lambda n, _: screen.move(down=-max(n, 1)),
            "B": lambda n, _: screen.move(down=max(n, 1)),
            "C": lambda n, _: screen.move(max(n, 1)),
            "D": lambda n, _: screen.move(-max(n, 1)),
            "E": lambda n, _: to_line(max(n, 1)),
            "F": lambda n, _: to_line(-max(n, 1)),
            "G": to_column,
            "`": to_column,
            "H": to_place,
            "f": to_place,
            "I": lambda n, _: screen.tab(max(n, 1)),
            "J": lambda n, _: screen.erase_in_display(n),
            "K": lambda n, _: screen.erase_in_line(n),
            "L": lambda n, _: screen.insert_lines(max(n, 1)),
            "M": lambda n, _: screen.delete_lines(max(n, 1)),
            "P": lambda n, _: screen.delete_characters(max(n, 1)),
            "S": lambda n, _: screen.scroll_up(max(n, 1)),
            "T": lambda n, _: screen.scroll_down(max(n, 1)),
            "X": lambda n, _: screen.erase_characters(max(n, 1)),
            "Z": lambda n, _: screen.tab(-max(n, 1)),
            "a": lambda n, _: screen.move(max(n, 1)),
            "b": lambda n, _: self._repeat(max(n, 1)),
            "d": lambda n, _: screen.move_to(None, max(n, 1) - 1),
            "e": lambda n, _: screen.move(down=max(n, 1)),
            "r": lambda top, bottom: screen.set_margins(max(top, 1) - 1, (bottom or screen.height) - 1),
            "s": lambda *_: screen.save_cursor(),
            "u": lambda *_: screen.restore_cursor(),
        }
