"""Ends turns that are silent or late. One small loop per turn, on the injected clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coder.ports import Clock
from coder.runtime.inflight import Stop


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: of silence, of one tool, and of the whole turn (None = no limit)."""

    silent: float
    tool: float
    whole: float | None


class Pulse:
    """When the agent was last heard, and since when a tool runs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started = self.heard = clock.monotonic()

    def beat(self) -> None:
        self.heard = self._clock.monotonic()


async def watch(clock: Clock, pulse: Pulse, limits: Limits, busy: Callable[[], bool], stop: Callable[[Stop], None]) -> None:
    """Call `stop` once when a limit is passed; while a tool runs its own limit counts instead of silence."""
    while True:
        limit = limits.tool if busy() else limits.silent
        due = pulse.heard + limit
        whole = pulse.started + limits.whole if limits.whole is not None else None
        now = clock.monotonic()
        if whole is not None and now >= whole:
            stop(Stop.TIMEOUT)
            return
        if now >= due:
            stop(Stop.SLOW_TOOL if busy() else Stop.SILENT)
            return
        await clock.sleep(min(due, whole if whole is not None else due, now + limits.silent) - now)
