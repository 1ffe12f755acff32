"""A project's own commands, run in a worktree under the guardian, each into a log of its own: its setup, its check."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from coder.backends.command import HeadTail, Overrun, run_to_end
from coder.backends.environment import agent_environment
from coder.backends.guardian import Guardians
from coder.backends.sandbox import Sandbox
from coder.checks import Ran

LOG_BYTES = 10_000_000


class GuardedCommands:
    """Implements `change_ports.ProjectCommands`: the sandbox holds a command as it holds an agent.

    Args:
        home: its home where it is confined.
    """

    def __init__(self, guardians: Guardians, sandbox: Sandbox, home: Path) -> None:
        self._guardians = guardians
        self._sandbox = sandbox
        self._home = home

    async def run(self, command: str, worktree: Path, seconds: float, log: Path, *, network: bool = True) -> Ran:
        kept = HeadTail(LOG_BYTES)
        cell = self._sandbox.cell(self._guardians, worktree=worktree, home=self._home, network=network)
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
        return Ran(code, ended, kept.text())


def write(log: Path, content: bytes) -> None:
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    log.write_bytes(content)
