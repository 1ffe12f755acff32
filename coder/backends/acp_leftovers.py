"""What a turn leaves running in a warm process that goes on: background commands of its tools.

A process that serves one turn after the other cannot be ended with each of them, and not every agent ends its commands
with a turn (codex keeps them as terminals, cancelled or not). So all descendants are noted before a prompt, and what is
new after it is ended: everything where the process serves one worktree; where it serves several, what works in this one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from coder.backends.acp_process import AcpProcess
from coder.backends.guard import children

TERM_SECONDS = 0.3
Mark = tuple[int, str]


class Leftovers:
    """The processes that a turn adds to those there were."""

    def __init__(self, guardian: int, worktree: Path | None, known: frozenset[Mark]) -> None:
        self._guardian = guardian
        self._worktree = worktree
        self._known = known

    @classmethod
    async def before(cls, process: AcpProcess, worktree: Path) -> Leftovers:
        """Note what there is before the prompt."""
        guardian = process.pid
        assert guardian is not None, "a prompt needs a process"
        known, place = await asyncio.to_thread(lambda: (frozenset(marks(guardian)), worktree.resolve()))
        return cls(guardian, None if process.worktree else place, known)

    async def end(self) -> None:
        """TERM, then KILL what is new; returns when it has gone."""
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            handles = await asyncio.to_thread(self._new)
            if not handles:
                return
            await _signalled(handles, number)

    def _new(self) -> list[int]:
        """Handles of what is new: a handle never is somebody else's who got the number since."""
        handles = []
        for pid, started in marks(self._guardian):
            if (pid, started) not in self._known and self._here(pid):
                with contextlib.suppress(OSError):  # gone meanwhile
                    handle = os.pidfd_open(pid)
                    if start_of(pid) == started:
                        handles.append(handle)
                    else:
                        os.close(handle)
        return handles

    def _here(self, pid: int) -> bool:
        if self._worktree is None:
            return True
        try:
            return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self._worktree)
        except OSError:
            return False


async def _signalled(handles: list[int], number: int) -> None:
    """Signal and close them; waits until all have gone or the time of a TERM is over."""
    loop = asyncio.get_running_loop()
    ends = []
    for handle in handles:
        ended = asyncio.Event()
        loop.add_reader(handle, ended.set)
        ends.append(asyncio.create_task(ended.wait()))
        with contextlib.suppress(ProcessLookupError):  # it has gone; its handle says so too
            signal.pidfd_send_signal(handle, number)
    try:
        await asyncio.wait(ends, timeout=TERM_SECONDS)
    finally:
        for end in ends:
            end.cancel()
        for handle in handles:
            loop.remove_reader(handle)
            os.close(handle)


def marks(guardian: int) -> list[Mark]:
    """All descendants, each with the moment it started; zombies are none any more."""
    found, left = [], [guardian]
    while left:
        for pid in children(left.pop()):
            left.append(pid)
            if started := start_of(pid):
                found.append((pid, started))
    return found


def start_of(pid: int) -> str:
    """When a process started, in ticks since boot; empty when it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return fields[19] if len(fields) > 19 and fields[0] not in "ZX" else ""
