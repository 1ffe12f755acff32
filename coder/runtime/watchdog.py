"""Ends turns that are silent or late. One small loop per turn, on the injected clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from coder.ports import Clock
from coder.runtime.stop import Stop

RECONCILE_SECONDS = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: of silence, of one tool, and of the whole turn (None = no limit)."""

    silent: float
    tool: float
    whole: float | None


class Pulse:
    """When the agent was last heard, and when the turn began, both without the time it stood still to wait for somebody."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.started = self.heard = clock.monotonic()
        self._stood: float | None = None
        self._going = asyncio.Event()
        self._going.set()

    def beat(self) -> None:
        self.heard = self._clock.monotonic()

    def stand(self) -> None:
        """From here on no time passes for the turn."""
        if self._stood is None:
            self._stood = self._clock.monotonic()
            self._going.clear()

    def go(self) -> None:
        """Time passes again, and silence counts from now."""
        if self._stood is not None:
            self.started += self._clock.monotonic() - self._stood
            self._stood = None
            self.beat()
            self._going.set()

    async def going(self) -> None:
        """Wait until time passes."""
        await self._going.wait()


async def watch(
    clock: Clock,
    pulse: Pulse,
    limits: Limits,
    busy: Callable[[], bool],
    reconcile: Callable[[], Awaitable[bool]],
    stop: Callable[[Stop], None],
) -> None:
    """Call `stop` once when a limit is passed; while a tool runs its own limit counts instead of silence.

    Before a turn is given up as silent, its agent is asked once itself how far it is.
    """
    asked: float | None = None
    while True:
        await pulse.going()
        limit = limits.tool if busy() else limits.silent
        due = pulse.heard + limit
        whole = pulse.started + limits.whole if limits.whole is not None else None
        now = clock.monotonic()
        if whole is not None and now >= whole:
            stop(Stop.TIMEOUT)
            return
        if now >= due:
            if busy():
                stop(Stop.SLOW_TOOL)
                return
            if asked == pulse.heard:
                stop(Stop.SILENT)
                return
            asked = pulse.heard
            if await _in_time(clock, reconcile()):
                pulse.beat()
            continue
        await clock.sleep(min(due, whole if whole is not None else due, now + limits.silent) - now)


async def _in_time(clock: Clock, reconcile: Awaitable[bool]) -> bool:
    """Whether the agent had something new to say; one that cannot even say that in time had not."""
    asking = asyncio.ensure_future(reconcile)
    timer = asyncio.ensure_future(clock.sleep(RECONCILE_SECONDS))
    try:
        await asyncio.wait({asking, timer}, return_when=asyncio.FIRST_COMPLETED)
        return asking.done() and asking.result()
    except Exception as error:  # noqa: BLE001 - whatever it suffers from, the turn is ended as silent
        log.warning("a silent agent could not be asked how far it is", why=str(error) or type(error).__name__)
        return False
    finally:
        asking.cancel()
        timer.cancel()
