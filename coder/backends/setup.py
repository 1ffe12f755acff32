"""A project's setup command, run once in each fresh worktree, under the guardian, into a log of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from coder.backends.command import HeadTail, run_to_end
from coder.backends.environment import agent_environment
from coder.backends.guardian import Guardians

LOG_BYTES = 10_000_000


class GuardedSetup:
    """Implements `ports.Setup`."""

    def __init__(self, guardians: Guardians) -> None:
        self._guardians = guardians

    async def run(self, command: str, worktree: Path, seconds: float, log: Path) -> str | None:
        kept = HeadTail(LOG_BYTES)
        code = await run_to_end(
            self._guardians,
            ["/bin/sh", "-c", command],
            cwd=worktree,
            env=agent_environment(os.environ),
            seconds=seconds,
            output=kept.add,
        )
        await asyncio.to_thread(write, log, f"$ {command}\n".encode() + kept.kept())
        if code == 0:
            return None
        ended = f"did not end within {seconds:g} s" if code is None else f"ended with exit code {code}"
        return f"The project's setup command {ended}, so the worktree may not be ready to use; its output is in {log}."


def write(log: Path, content: bytes) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.write_bytes(content)
