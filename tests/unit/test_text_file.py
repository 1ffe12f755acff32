"""An edit changes the matched text and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.backends.confine import Refused
from coder.backends.text_file import TextFile, is_binary


def edited(data: bytes, old: str, new: str, every: bool = False) -> bytes:
    return TextFile.of(data).replaced(old, new, every)[0]


@pytest.mark.parametrize(
    ("data", "old", "new", "expected"),
    [
        (b"a\nb\nc\n", "b", "x", b"a\nx\nc\n"),
        (b"a\r\nb\r\nc\r\n", "a\nb", "a\nx\ny", b"a\r\nx\r\ny\r\nc\r\n"),
        (b"a\r\nb\nc\nd\n", "b\nc", "b\nx\nc", b"a\r\nb\nx\nc\nd\n"),
        (b"a\r\nb\nc\nd\n", "a\nb", "a\nx\nb", b"a\r\nx\r\nb\nc\nd\n"),
        (b"a\r\nb\r\n", "b", "b\nc", b"a\r\nb\r\nc\r\n"),
        (b"\xef\xbb\xbfhello\n", "hello", "h\xe9llo", b"\xef\xbb\xbfh\xc3\xa9llo\n"),
        (b"caf\xe9 one\n", "café one", "thé two", b"th\xe9 two\n"),
        (b"x = a.b*c\n", "a.b*c", "\\1 \\g<0>", b"x = \\1 \\g<0>\n"),
        (b"no newline", "newline", "end", b"no end"),
    ],
)
def test_only_the_match_changes(data: bytes, old: str, new: str, expected: bytes) -> None:
    assert edited(data, old, new) == expected


@pytest.mark.parametrize(
    ("data", "old", "new", "sentence"),
    [
        (b"a\n", "b", "c", "not in the file"),
        (b"a\nb\na\n", "a", "c", r"2 times \(lines 1, 3\)"),
        (b"a\n", "", "c", "is empty"),
        (b"a\n", "a", "a", "the same"),
        (b"caf\xe9\n", "é", "€", "in latin-1, which has no '€'"),
    ],
)
def test_what_cannot_be_replaced_is_refused(data: bytes, old: str, new: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        edited(data, old, new)


def test_all_are_replaced_on_request() -> None:
    assert TextFile.of(b"a\nb\na\n").replaced("a", "c", True) == (b"c\nb\nc\n", 2)


def test_a_rewrite_keeps_the_files_ways() -> None:
    assert TextFile.of(b"\xef\xbb\xbfa\r\nb\r\n").rewritten("x\ny\n") == b"\xef\xbb\xbfx\r\ny\r\n"
    assert TextFile.of(b"caf\xe9\n").rewritten("thé\n") == b"th\xe9\n"


def test_binary_is_what_holds_a_nul() -> None:
    assert is_binary(b"\x7fELF\x00")
    assert not is_binary("é".encode("latin-1"))


@given(st.binary(max_size=80).filter(lambda data: b"MARK" not in data and b"\x00" not in data), st.binary(max_size=80))
def test_bytes_around_the_match_stay(before: bytes, after: bytes) -> None:
    data = before + b"MARK" + after.replace(b"\x00", b"").replace(b"MARK", b"")
    assert edited(data, "MARK", "NEW") == data.replace(b"MARK", b"NEW")
