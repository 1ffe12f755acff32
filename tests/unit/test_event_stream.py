"""Server-sent events: however the bytes are cut, the same events come out, and never more is kept than allowed."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coder.protocols.event_stream import EventStream, TooLong

EVENTS = st.lists(st.binary(min_size=1, max_size=40).map(lambda raw: raw.hex().encode()), max_size=8)


def fed(stream: EventStream, chunks: list[bytes]) -> list[bytes | TooLong]:
    return [event for chunk in chunks for event in stream.feed(chunk)]


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(place, len(content)) for place in places), len(content)]
    return [content[start:end] for start, end in pairwise(edges)]


@given(EVENTS, st.lists(st.integers(0, 800)), st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_any_cutting_gives_the_same_events(events: list[bytes], places: list[int], end: bytes) -> None:
    content = b"".join(b": a comment\nevent: message\ndata: " + event + end for event in events)
    assert fed(EventStream(), cut(content, places)) == events


@given(st.lists(st.integers(0, 400)))
def test_of_a_line_beyond_the_bound_only_the_beginning_is_kept(places: list[int]) -> None:
    content = b"data: before\n\ndata: " + b"x" * 300 + b"\n\ndata: after\n\n"
    first, long, last = fed(EventStream(longest=100), cut(content, places))
    assert (first, last) == (b"before", b"after")
    assert isinstance(long, TooLong)
    assert (b" " + b"x" * 300).startswith(long.head)
    assert len(long.head) >= 90


def test_a_line_without_end_does_not_grow_what_is_kept() -> None:
    stream = EventStream(longest=1_000_000)
    for _ in range(500):
        assert list(stream.feed(b"x" * 100_000)) == []
    assert sum(map(len, stream._pieces)) <= 1_100_000
