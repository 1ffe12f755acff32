"""When a failed model request is sent again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from coder.backoff import SCHEDULE, next_wait

EIGHT_HOURS = 28800.0


def waits(asked: float | None = None, most: float = EIGHT_HOURS) -> list[float]:
    found: list[float] = []
    while (wait := next_wait(len(found), sum(found), asked, most)) is not None:
        found.append(wait)
    return found


def test_the_schedule_ends_after_exactly_21_retries() -> None:
    assert waits() == [5, 10, 30, 60, 300, 600, 900, 1800, *[1800] * 13]
    assert len(waits()) == 21
    assert sum(waits()) == 27_105


def test_what_the_endpoint_asks_for_lengthens_a_wait_and_counts() -> None:
    assert waits(asked=20)[:4] == [20, 20, 30, 60]
    assert waits(asked=7200) == [7200] * 4
    assert waits(asked=28801) == []
    assert waits(asked=1) == waits()


def test_nothing_is_retried_where_it_is_switched_off() -> None:
    assert waits(most=0) == []


@given(asked=some.none() | some.floats(0, 1e5), most=some.floats(0, 1e6))
def test_waits_never_pass_the_limit_and_never_fall_short_of_the_schedule(asked: float | None, most: float) -> None:
    found = waits(asked, most)
    assert sum(found) <= most
    assert all(wait >= max(SCHEDULE[min(n, 7)], asked or 0) for n, wait in enumerate(found))
