"""Why a turn is stopped from outside."""

from __future__ import annotations

from enum import StrEnum


class Stop(StrEnum):
    """The first reason counts."""

    USER = "user"
    SHUTDOWN = "shutdown"
    LEASE_LOST = "lease_lost"
    TIMEOUT = "timeout"
    SILENT = "silent"
    SLOW_TOOL = "slow_tool"
