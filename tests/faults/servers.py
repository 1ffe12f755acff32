"""PostgreSQL servers that a fault test may restart."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import asyncpg

from coder.postgres.embedded import EmbeddedServer

AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""What a client sees of a server that is being restarted."""


def crash(server: EmbeddedServer) -> None:
    """An immediate shutdown: no checkpoint, the next start replays the log."""
    os.kill(int((Path(server.log_path).parent / "cluster/postmaster.pid").read_text().split()[0]), signal.SIGQUIT)
