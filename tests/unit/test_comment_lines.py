"""Carrying lines over a difference: only to the same lines, and never apart."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.comments import Replaced, carried, replaced

# Few words, so that lines repeat, and some that look like what a patch is made of.
LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "\n", "@@ -1 +1 @@\n", "-- x\n", "++ y\n", "\r\n", "\\ no\n"]), max_size=12)


def patch(old: list[str], new: list[str]) -> bytes:
    return "".join(difflib.unified_diff(old, new, "a", "b", n=0)).encode()


@given(LINES, LINES)
def test_a_patch_is_read_as_what_was_replaced(old: list[str], new: list[str]) -> None:
    made = list(old)
    for hunk in reversed(replaced(patch(old, new))):
        first = hunk.old_start - (hunk.old_count > 0)
        taken = hunk.new_start - (hunk.new_count > 0)
        made[first : first + hunk.old_count] = new[taken : taken + hunk.new_count]
    assert made == new


@given(LINES, LINES, st.integers(1, 12), st.integers(0, 3))
def test_lines_are_carried_to_the_same_lines_or_are_gone(old: list[str], new: list[str], line: int, more: int) -> None:
    end = line + more
    if end > len(old):
        return
    found = carried(line, end, replaced(patch(old, new)))
    blocks = difflib.SequenceMatcher(None, old, new).get_matching_blocks()
    kept = [block for block in blocks if block.a < line and end <= block.a + block.size]
    assert (found is not None) == bool(kept), "what stayed together is carried, and nothing else"
    if found is not None:
        assert new[found[0] - 1 : found[1]] == old[line - 1 : end]
        assert found[0] == line - kept[0].a + kept[0].b


@given(LINES, LINES, st.integers(1, 12))
def test_lines_keep_their_order(old: list[str], new: list[str], line: int) -> None:
    hunks = replaced(patch(old, new))
    places = [carried(number, number, hunks) for number in range(1, len(old) + 1)]
    carried_to = [place[0] for place in places if place is not None]
    assert carried_to == sorted(set(carried_to))


@given(LINES, st.integers(1, 12))
def test_nothing_moves_without_a_change(old: list[str], line: int) -> None:
    assert carried(line, line, replaced(patch(old, old))) == (line, line)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((4, 4), (4, 4)),
        ((4, 5), (4, 5)),
        ((5, 6), None),
        ((6, 6), (9, 9)),
        ((6, 9), (9, 12)),
        ((10, 10), None),
        ((9, 10), None),
        ((11, 12), (13, 14)),
    ],
)
def test_what_is_put_in_between_and_taken_out(lines: tuple[int, int], expected: tuple[int, int] | None) -> None:
    hunks = (Replaced(5, 0, 6, 3), Replaced(10, 1, 12, 0))
    assert carried(*lines, hunks) == expected
