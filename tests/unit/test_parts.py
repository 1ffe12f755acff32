"""Putting a file together from some hunks of its change."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.change import Hunk
from coder.parts import splice

# Few words and long files, so that there are several hunks and lines that are there more than once.
CONTENTS = st.lists(st.sampled_from([b"a\n", b"b\n", b"\n", b"\r\n", b"c\rd\n", b"+x\n", b"@@ -1 +1 @@\n"]), max_size=40).map(b"".join)
ENDS = st.sampled_from([b"", b"no line feed", b"\r"])


def hunks_of(old: bytes, new: bytes, context: int) -> list[Hunk]:
    """The hunks as `difflib` groups them, with positions as git writes them."""
    before, after = lines(old), lines(new)
    hunks = []
    for group in difflib.SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(context):
        (i1, i2, j1, j2) = (group[0][1], group[-1][2], group[0][3], group[-1][4])
        hunks.append(Hunk(i1 + (i2 > i1), i2 - i1, j1 + (j2 > j1), j2 - j1, 0, 0))
    return hunks


def lines(content: bytes) -> list[bytes]:
    found = [line + b"\n" for line in content.split(b"\n")]
    found[-1] = found[-1][:-1]
    return [line for line in found if line]


@given(CONTENTS, ENDS, CONTENTS, ENDS, st.integers(0, 3), st.data())
def test_hunks_by_hunks(old: bytes, old_end: bytes, new: bytes, new_end: bytes, context: int, data: st.DataObject) -> None:
    """Whatever is taken first, the rest brings the file to its new content, and what was taken is the base of what is left."""
    old, new = old + old_end, new + new_end
    hunks = hunks_of(old, new, context)
    every = set(range(1, len(hunks) + 1))
    assert splice(old, new, hunks, set()) == old
    assert splice(old, new, hunks, every) == new
    taken = data.draw(st.sets(st.sampled_from(sorted(every)))) if every else set()
    middle = splice(old, new, hunks, taken)
    shifted, grown = [], 0
    for number, hunk in enumerate(hunks, 1):
        start = hunk.old_start - (hunk.old_lines > 0) + grown
        if number in taken:
            grown += hunk.new_lines - hunk.old_lines
        else:
            shifted.append(Hunk(start + (hunk.old_lines > 0), hunk.old_lines, hunk.new_start, hunk.new_lines, 0, 0))
    assert splice(middle, new, shifted, set(range(1, len(shifted) + 1))) == new


@pytest.mark.parametrize(
    ("hunks", "why"),
    [
        ([], "before hunk 1"),
        ([Hunk(1, 1, 1, 1, 0, 0)], "before hunk 2"),
        ([Hunk(2, 1, 3, 1, 0, 0)], "before hunk 1"),
        ([Hunk(2, 9, 2, 1, 0, 0)], "are not in a content of 3"),
    ],
)
def test_hunks_of_another_diff_are_noticed(hunks: list[Hunk], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        splice(b"1\n2\n3\n", b"1\ntwo\n3\n", hunks, {1})
