"""Commands that an agent runs and a test holds: they say that they have begun, and go on when they are let."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

AWAY = """
trap '' TERM
echo $$ > '{begun}'
sleep 600
sleep 600
"""
BLOCK = """
[ -e '{folder}/once' ] && exit
: > '{folder}/once'
setsid sh '{folder}/away.sh' &
echo $$ > '{begun}'
read line < '{go}'
"""


class Blocking:
    """A shell command that blocks until it is let go, with a stubborn descendant in a session of its own; run again, it does nothing.

    Args:
        folder: a new one, for its scripts and pipes; outside of every worktree.

    Attributes:
        command: what the agent is to run.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        begun, go = folder / "begun", folder / "go"
        self._ends = []
        for pipe in (begun, go):
            os.mkfifo(pipe)
            # Both ends: the command never waits for us to open one, and never reads an end of file.
            self._ends.append(os.open(pipe, os.O_RDWR | os.O_CLOEXEC))
        (folder / "away.sh").write_text(AWAY.format(begun=begun))
        (folder / "block.sh").write_text(BLOCK.format(folder=folder, begun=begun, go=go))
        self.command = f"sh '{folder}/block.sh'"

    def began(self, seconds: float = 30.0) -> Living:
        """Wait until the command runs; answers its shell and that descendant."""
        said = b""
        deadline = time.monotonic() + seconds
        while said.count(b"\n") < 2:
            ready, _, _ = select.select([self._ends[0]], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the command did not begin"
            said += os.read(self._ends[0], 4096)
        return Living(map(int, said.split()))

    def let_go(self) -> None:
        os.write(self._ends[1], b"\n")

    def close(self) -> None:
        for end in self._ends:
            os.close(end)


@contextmanager
def blocking(folder: Path) -> Iterator[Blocking]:
    held = Blocking(folder)
    try:
        yield held
    finally:
        held.close()


class Living:
    """Processes held by pidfd, so that no id is mistaken and their end can be waited for. Those that are gone already count as ended."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._handles = []
        for pid in pids:
            with suppress(ProcessLookupError):
                self._handles.append(os.pidfd_open(pid))

    def __len__(self) -> int:
        return len(self._handles)

    def gone_within(self, seconds: float) -> bool:
        """Whether all of them end in that time; to be asked once."""
        deadline = time.monotonic() + seconds
        for handle in self._handles:
            ready, _, _ = select.select([handle], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            os.close(handle)
        return True

    def alive(self) -> bool:
        """Whether none of them has ended yet."""
        return not select.select(self._handles, [], [], 0)[0]


def descendants(pid: int) -> list[int]:
    """All processes below one, as the kernel lists them (proc(5): /proc/<pid>/task/<tid>/children)."""
    found = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has just ended
            for child in map(int, listing.read_text().split()):
                found += [child, *descendants(child)]
    return found
