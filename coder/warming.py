"""Keeping the provider's prompt cache of a native session warm: when to stop, and what people see of it. Pure.

A warm sends the prompt prefix of the session's chat again, with the smallest possible answer, so that the provider does not
forget it before the next turn. Whether a session's cache is kept warm is a row (`cache_warming`) that survives restarts; a node
claims one that is due, and schedules the next warm in the same statement, so that it lies in the future from then on.

The ports that this needs are here as well. Omitted on purpose: scheduling itself, which is the database's (schema.sql), since a
turn's end reschedules in its own transaction.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from coder.events import Usage

SURFACE = "cache-warming"


class Stopped(StrEnum):
    """Why warming was switched off by itself."""

    TOKENS = "tokens"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Bounds:
    """Attributes: tokens: that warms of one session may take since they were switched on; idle: seconds without a turn."""

    tokens: int = 2_000_000
    idle: float = 86_400.0


@dataclass(frozen=True, slots=True)
class Due:
    """A session whose cache is to be kept warm now.

    Attributes:
        epoch: of the claim; fences what is written about it.
        spent_tokens: by warms since it was switched on.
        idle_seconds: since the session's last turn.
        model_history: the chat's provider messages as JSON text, None when there is nothing to keep warm.
        model, thinking: as the chat's latest turn named them, None = the default.
    """

    session_id: UUID
    epoch: int
    spent_tokens: int
    idle_seconds: float
    model_history: str | None
    model: str | None
    thinking: str | None


def verdict(due: Due, bounds: Bounds) -> Stopped | None:
    """Whether warming stops instead of sending this one, and why."""
    if due.spent_tokens >= bounds.tokens:
        return Stopped.TOKENS
    return Stopped.IDLE if due.idle_seconds >= bounds.idle else None


@dataclass(frozen=True, slots=True)
class Warming:
    """What is stored of a session's warming. Tokens and `warms` count since it was switched on, `last_…` are of the last warm.

    Attributes:
        next_warm_at: None when it is off.
        retention_seconds: how old the cache was when the last warm still found it, None when it found nothing.
        stopped: a `Stopped`, when it was switched off by itself.
        error: why the last warm failed.
    """

    enabled: bool
    interval_seconds: int
    next_warm_at: datetime | None
    last_warm_at: datetime | None
    warms: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    last_input_tokens: int | None
    last_cached_tokens: int | None
    retention_seconds: float | None
    stopped: str | None
    error: str | None


def shown(warming: Warming) -> dict[str, Any]:
    """The state of the surface `cache-warming`."""
    cached, sent = warming.last_cached_tokens, warming.last_input_tokens
    return {
        "enabled": warming.enabled,
        "interval_seconds": warming.interval_seconds,
        "timer": {"next_warm_at": _time(warming.next_warm_at), "last_warm_at": _time(warming.last_warm_at)},
        "cache_percent": round(100 * cached / sent, 1) if sent and cached is not None else None,
        "retention_seconds": None if warming.retention_seconds is None else round(warming.retention_seconds),
        "cost": {
            "warms": warming.warms,
            "input_tokens": warming.input_tokens,
            "cached_tokens": warming.cached_tokens,
            "output_tokens": warming.output_tokens,
        },
        "stopped": warming.stopped,
        "error": warming.error,
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


class PromptCache(Protocol):
    """The provider's prompt cache."""

    async def warm(self, model_history: str, model: str | None, thinking: str | None) -> Usage:
        """Send a chat's prompt prefix once, with the thinking option of its turns; answers what it took. Raises a `TurnError`."""
        ...

    async def close(self) -> None: ...


class WarmingStore(Protocol):
    """The rows. Every call raises `Unavailable` when the database cannot be reached."""

    async def claim(self, node: UUID, host: UUID) -> Due | None:
        """Take a session that is due and has no turn, and schedule its next warm."""
        ...

    async def on(self, due: Collection[Due]) -> set[UUID]:
        """The sessions of these whose warm may go on: still switched on, and no turn has begun or is about to."""
        ...

    async def settle(self, due: Due, *, usage: Usage | None = None, stopped: Stopped | None = None, error: str | None = None) -> None:
        """Record what became of a claim, and schedule the next warm from now."""
        ...


class WarmingLog(Protocol):
    """What watchers are shown. Raises `Unavailable`."""

    async def warming(self, sessions: Collection[str]) -> dict[str, Warming]:
        """Of those sessions that there are."""
        ...
