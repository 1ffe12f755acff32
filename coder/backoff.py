"""When a failed model request is sent again. Pure: attempts and sums arrive as arguments, the caller sleeps.

The unit is one model request; a request that has said anything is not repeated, and no tool ever runs twice for it.
"""

from __future__ import annotations

SCHEDULE = (5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 900.0, 1800.0)
"""Seconds before each retry; the last is repeated."""


def next_wait(attempt: int, waited: float, asked: float | None, most: float) -> float | None:
    """Seconds to wait before a request is sent again; None = its failure is final.

    With the default of `CODER_RETRY_SECONDS` (8 h) and nothing asked for there are exactly 21 retries, 27,105 s in all.

    Args:
        attempt: how many retries of this request there were before, from 0.
        waited: seconds that were spent on them.
        asked: seconds the endpoint asked to wait (`Retry-After`, RFC 9110 section 10.2.3); lengthens a wait, never shortens it.
        most: the sum of waits of one request that may not be passed.
    """
    wait = max(SCHEDULE[min(attempt, len(SCHEDULE) - 1)], asked or 0.0)
    return wait if waited + wait <= most else None
