"""A project's setup command, run once in each fresh worktree, under the guardian, into a log of its own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from coder.backends.command import HeadTail, Overrun, run_to_end
from coder.backends.environment import agent_environment
from coder.backends.guardian import Guardians
from coder.backends.sandbox import Sandbox

LOG_BYTES = 10_000_000


class GuardedSetup:
    """Implements `change_ports.Setup`. The command is the project's own: the sandbox holds it, but the network is open to it.

    Args:
        home: its home where it is confined.
    """

    def __init__(self, guardians: Guardians, sandbox: Sandbox, home: Path) -> None:
        self._guardians = guardians
        self._sandbox = sandbox
        self._home = home

    async def run(self, command: str, worktree: Path, seconds: float, log: Path) -> str | None:
        kept = HeadTail(LOG_BYTES)
        cell = self._sandbox.cell(self._guardians, worktree=worktree, home=self._home, network=True)
        try:
            code = await run_to_end(
                cell,
                ["/bin/sh", "-c", command],
                cwd=worktree,
                env=cell.environment(agent_environment(os.environ)),
                seconds=seconds,
                output=kept.add,
            )
            ended = f"did not end within {seconds:g} s" if code is None else f"ended with exit code {code}"
        except Overrun as overrun:
            code, ended = None, f"used too much ({overrun})"
        await asyncio.to_thread(write, log, f"$ {command}\n".encode() + kept.kept())
        if code == 0:
            return None
        return f"The project's setup command {ended}, so the worktree may not be ready to use; its output is in {log}."


def write(log: Path, content: bytes) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.write_bytes(content)
