"""What a turn leaves running in a warm process that goes on: background commands of its tools.

A process that serves one turn after the other cannot be ended with each of them. So the descendants are noted before a
prompt, and what is new afterwards, works in the turn's worktree and was left by its parent (an orphan, which the
guardian has adopted) is ended. What the agent itself still holds is the agent's: its servers live as long as it does.
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
    """The orphans that a turn adds to those there were."""

    def __init__(self, guardian: int, worktree: Path, known: frozenset[Mark]) -> None:
        self._guardian = guardian
        self._worktree = worktree
        self._known = known

    @classmethod
    async def before(cls, process: AcpProcess, worktree: Path) -> Leftovers:
        """Note what there is before the prompt."""
        guardian = process.pid
        assert guardian is not None, "a prompt needs a process"
        known = await asyncio.to_thread(lambda: frozenset(marks(guardian)))
        return cls(guardian, worktree, known)

    async def end(self) -> None:
        """TERM, then KILL what is new; returns when it has gone."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            held = await asyncio.to_thread(self._new)
            if not held:
                return
            await _signalled(held, number)

    def _new(self) -> list[int]:
        """Handles of the new orphans with all their descendants: a handle is never somebody else's who got the number."""
        found, handles = [mark for mark in marks(self._guardian) if mark not in self._known and self._here(mark[0])], []
        for pid, started in found:
            for each in (pid, *descendants(pid)):
                with contextlib.suppress(OSError):  # gone meanwhile
                    handle = os.pidfd_open(each)
                    if each != pid or start_of(pid) == started:
                        handles.append(handle)
                    else:
                        os.close(handle)
        return handles

    def _here(self, pid: int) -> bool:
        try:
            return Path(os.readlink(f"/proc/{pid}/cwd")).is_relative_to(self._worktree.resolve())
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
    """The guardian's children, the program and adopted orphans, each with the moment it started."""
    return [(pid, start_of(pid)) for pid in children(guardian)]


def start_of(pid: int) -> str:
    """When a process started, in ticks since boot; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def descendants(pid: int) -> list[int]:
    """All below a process."""
    found, left = [], [pid]
    while left:
        below = list(children(left.pop()))
        found += below
        left += below
    return found
