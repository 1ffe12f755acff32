"""The terminal nobody looks at: what comes out of it, and when; pyte is the judge of where a cursor goes."""

from __future__ import annotations

import time
from itertools import pairwise

import pyte
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from coder.protocols.screen import Screen
from coder.protocols.terminal import Terminal

ESC = "\x1b["


def shown(*pieces: str | bytes, columns: int = 40, rows: int = 5) -> str:
    terminal = Terminal(columns, rows)
    settled = [terminal.feed(piece.encode() if isinstance(piece, str) else piece) for piece in pieces]
    return "".join([*settled, terminal.close()])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("one\r\ntwo\r\n", "one\ntwo\n"),
        ("no end", "no end"),
        ("", ""),
        ("\r\n\r\n  indented\r\n\r\nafter a gap\r\n", "\n\n  indented\n\nafter a gap\n"),
        (f"{ESC}31mred{ESC}0m {ESC}1;38;5;12mbold{ESC}m\r\n", "red bold\n"),
        (" 10%\r 50%\r100%\r\ndone", "100%\ndone"),
        (f"downloading 1/3{ESC}2K\rdownloading 3/3\r\n", "downloading 3/3\n"),
        (f"a\r\nb\r\nc{ESC}2A\rA{ESC}2B\rC", "A\nb\nC"),
        (f"spinner |{ESC}D/{ESC}Ddone", "spinner done"),
        ("back\b\b\bxx", "bxxk"),
        ("a\tb", "a       b"),
        (f"x{ESC}3Cy", "x   y"),
        (f"keep{ESC}?1049h{ESC}H full screen {ESC}2J{ESC}?1049l this\r\n", "keep this\n"),
        (f"before{ESC}?1049hstill there", "before\n      still there"),
        ("\x1b]0;a title\x07text\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "textlink"),
        ("\x1bP1$r0m\x1b\\after a device string", "after a device string"),
        ("\x1b]never ended\nnext line", "\nnext line"),
        ("\x1b(0lqk\x1b(B", "┌─┐"),
        (f"ab{ESC}3b", "abbbb"),
        (f"gone{ESC}2J{ESC}Hnew", "new"),
        (f"abcdef{ESC}3D{ESC}K", "abc"),
        (f"abcdef\r{ESC}2P{ESC}1@", " cdef"),
        (f"{ESC}?1A{ESC}?6n{ESC}>4;2m{ESC}1;2;3;4Hx{ESC}?1;2ry", " xy"),
        (f"{ESC}999999999999A{ESC}99999999999999999999;9Hx{ESC}99999999T", "\n\n\n\n"),
    ],
)
def test_what_a_person_would_read(written: str, text: str) -> None:
    assert shown(written) == text


def test_many_plain_lines_at_once_are_as_one_by_one() -> None:
    lines = "".join(f"line {number}" + " " * (number % 3) + "\r\n" for number in range(500))
    for before in ("", "half a line", "one\r\n\r\n", f"{ESC}5;1Hat the end{ESC}3;1H", f"{ESC}2;4r", f"{ESC}4h", f"{ESC}?1049h"):
        written = (before + lines + "last").encode()
        one_by_one = shown(*(written[place : place + 9] for place in range(0, len(written), 9)))
        assert shown(written) == one_by_one
        assert ("line 0\n" in one_by_one) is ("1049" not in before)
    assert shown("x" * 50 + "\r\n" + lines) == "x" * 50 + "\n" + lines.replace(" \r", "\r").replace(" \r", "\r").replace("\r", "")


def test_characters_of_all_widths() -> None:
    assert shown("日本語 ok\r\n") == "日本語 ok\n"
    assert shown("e\u0301 🎉 ü\u200d") == "e\u0301 🎉 ü\u200d"
    assert shown(b"good \xff\xfe\xc3( bad \xe6\x97") == "good \ufffd\ufffd\ufffd( bad \ufffd"
    assert shown(f"日本{ESC}3Dx") == " x本"
    assert shown("日本", columns=3) == "日本"


def test_lines_wider_than_the_screen_come_out_whole() -> None:
    line = "".join(chr(97 + number % 26) for number in range(1000))
    assert shown(f"{line}\r\n{line}") == f"{line}\n{line}"


def test_what_scrolled_off_comes_out_at_once_and_once() -> None:
    terminal = Terminal(40, 5)
    assert terminal.feed(b"1\r\n2\r\n3\r\n4\r\n5") == ""
    assert terminal.feed(b"\r\n6") == "1\n"
    assert terminal.feed(b"\r\n7\r\n") == "2\n3\n"
    assert terminal.close() == "4\n5\n6\n7\n"


def test_what_has_not_changed_for_a_moment_comes_out() -> None:
    terminal = Terminal(40, 5)
    terminal.feed(b"first\r\nsecond\r\n10%")
    assert terminal.settle() == ""
    terminal.feed(b"\r20%")
    assert terminal.settle() == "first\nsecond\n"
    assert terminal.settle() == ""
    terminal.feed(b"\r99%\r\n")
    assert terminal.settle() == ""
    assert terminal.settle() == "99%\n"
    assert terminal.feed(b"a\r\nb\r\nc\r\nd") == ""
    assert terminal.close() == "a\nb\nc\nd"


def test_a_row_written_again_after_it_was_told_is_told_again() -> None:
    terminal = Terminal(40, 5)
    terminal.feed(b"working\r\n")
    terminal.settle()
    assert terminal.settle() == "working\n"
    terminal.feed(b"\x1b[A\rworked \r\n")
    assert terminal.close() == "worked\n"


def test_rows_that_change_hold_back_what_is_below_them() -> None:
    terminal = Terminal(40, 5)
    terminal.feed(b"0%\r\nbelow\r\n")
    terminal.settle()
    terminal.feed(b"\x1b[2A5%\x1b[2B\r")
    assert terminal.settle() == ""
    assert terminal.settle() == "5%\nbelow\n"


def test_a_region_that_scrolls_comes_out_too() -> None:
    terminal = Terminal(40, 4)
    settled = terminal.feed(b"\x1b[1;3r" + b"".join(b"%d\r\n" % number for number in range(6)) + b"\x1b[4;1Hstatus\x1b[r")
    assert settled + terminal.close() == "0\n1\n2\n3\n4\n5\n\nstatus"


ENDS = ["\r", "\n", "\r\n", "\t", "\b", "\x1b", "\x1b[", "\x1b]0;t", "\x07", "\x1b\\", ";", "1", "7"]
BITS = st.sampled_from(["a", "b" * 15, "世", "e\u0301", " ", *ENDS])
PARAMETERS = st.sampled_from(["", "0", "2", "3;4", "?7", "?1049", "99"])
MOVES = st.builds("\x1b[{}{}".format, PARAMETERS, st.sampled_from([*"ABCDEFGHIJKLMPSTXZ@`abdefhlmrsu"]))
TALK = st.lists(BITS | MOVES | st.text(max_size=5), max_size=40).map(lambda pieces: "".join(pieces).encode("utf-8", "replace"))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | TALK, st.lists(st.integers(0, 300), max_size=6))
@example(b"\x1b[1;" + b"2" * 100 + b"Hx", [40])
@example("日".encode() * 4, [1, 2, 4])
def test_how_it_is_cut_makes_no_difference(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    assert shown(*(content[start:end] for start, end in pairwise(places)), columns=12, rows=4) == shown(content, columns=12, rows=4)


@settings(max_examples=200, deadline=None)
@given(TALK)
def test_nothing_it_is_told_outgrows_the_screen(content: bytes) -> None:
    terminal = Terminal(12, 4)
    terminal.feed(content)
    terminal.settle()
    screen: Screen = terminal._screen
    assert len(screen.rows) == 4
    assert all(len(row.cells) <= 12 for row in screen.rows)
    assert 0 <= screen.y < 4
    assert 0 <= screen.x <= 12
    terminal.close().encode()


SAFE = st.sampled_from(["a", "bc", "d" * 9, "\r", "\r\n", "\b", "\x1b7x\x1b[2;3Hy\x1b8", "\x1bM", "\x1bD"])
SAFE_MOVES = st.builds("\x1b[{}{}".format, st.integers(1, 6), st.sampled_from([*"ABCDGLPXd"]))
ERASURES = st.builds("\x1b[{}{}".format, st.integers(0, 2), st.sampled_from([*"JK"]))
PLACES = st.builds("\x1b[{};{}H".format, st.integers(1, 6), st.integers(1, 14))


class Judge(pyte.Screen):
    """Moves up and down end a wrap that is pending, as xterm has it; pyte wraps after them."""

    def cursor_up(self, count: int | None = None) -> None:
        self._stay()
        super().cursor_up(count)

    def cursor_down(self, count: int | None = None) -> None:
        self._stay()
        super().cursor_down(count)

    def cursor_to_line(self, line: int | None = None) -> None:
        self._stay()
        super().cursor_to_line(line)

    def _stay(self) -> None:
        self.cursor.x = min(self.cursor.x, self.columns - 1)


@settings(max_examples=300, deadline=None)
@example("\x1b[1;11Hbc\x1b[1Aa\x1b[2;11Hbc\x1b[1Ba\x1b[1;11Hbc\x1b[2da")
@given(st.lists(SAFE | SAFE_MOVES | ERASURES | PLACES, max_size=30).map("".join))
def test_the_screen_is_as_pyte_has_it(written: str) -> None:
    """But for NEL and DL: in pyte one does not go to the line's beginning, the other does not delete above what was never written."""
    judge = Judge(12, 5)
    pyte.Stream(judge).feed(written)
    terminal = Terminal(12, 5)
    terminal.feed(written.encode())
    screen = terminal._screen
    assert ["".join(row.cells).rstrip() for row in screen.rows] == [line.rstrip() for line in judge.display]
    assert screen.y == judge.cursor.y


LINES = {
    "plain": b"x" * 70 + b"\r\n",
    "endless": b"y" * 72,
    "colours": b"\x1b[32m" + b"z" * 60 + b"\x1b[0m\r\n",
    "wide": "\r世界ü".encode() * 9,
    "in place": b"\x1b[K\x1b[1A\r" * 9,
}


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_time_is_linear(line: bytes) -> None:
    """Eight times as much takes about eight times as long; quadratic work would take sixty-four times."""

    def cost(size: int) -> float:
        terminal = Terminal()
        start = time.process_time()
        for _ in range(size // 36_000):
            terminal.feed(line * (36_000 // len(line)))
        terminal.close()
        return time.process_time() - start

    cost(72_000)
    small = min(cost(144_000) for _ in range(3))
    assert cost(8 * 144_000) < 24 * small
