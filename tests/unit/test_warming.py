"""When keeping a cache warm stops by itself, and what people see of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from coder.warming import Bounds, Due, Stopped, Warming, shown, verdict

NOW = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("spent", "idle", "why"),
    [
        (0, 0.0, None),
        (999, 3599.0, None),
        (1000, 0.0, Stopped.TOKENS),
        (5000, 9000.0, Stopped.TOKENS),
        (0, 3600.0, Stopped.IDLE),
    ],
)
def test_it_stops_at_a_ceiling_of_tokens_and_after_a_time_without_a_turn(spent: int, idle: float, why: Stopped | None) -> None:
    assert verdict(Due(uuid4(), 1, spent, idle, "[]", None, None), Bounds(1000, 3600.0)) is why


def test_unless_somebody_says_otherwise_that_time_is_a_day() -> None:
    assert Bounds().idle == 24 * 3600


def test_what_was_never_on_shows_nothing() -> None:
    state = shown(Warming(False, 240, None, None, 0, 0, 0, 0, None, None, None, None, None))
    assert state == {
        "enabled": False, "interval_seconds": 240, "timer": {"next_warm_at": None, "last_warm_at": None}, "cache_percent": None,
        "retention_seconds": None, "cost": {"warms": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}, "stopped": None,
        "error": None,
    }  # fmt: skip


def test_the_last_warm_shows_how_much_came_from_the_cache() -> None:
    warming = Warming(True, 60, NOW + timedelta(seconds=60), NOW, 2, 2400, 2000, 2, 1200, 1000, 61.4, None, None)
    state = shown(warming)
    assert (state["cache_percent"], state["retention_seconds"]) == (83.3, 61)
    assert state["timer"] == {"next_warm_at": "2026-03-01T09:31:00+00:00", "last_warm_at": "2026-03-01T09:30:00+00:00"}
    assert state["cost"] == {"warms": 2, "input_tokens": 2400, "cached_tokens": 2000, "output_tokens": 2}
