"""Node slots: one locked file per dispatcher process of this data directory.

The lock is inherited by the guardians of the node's agents, so a slot is free only when the process AND
every agent it had are gone. Whoever then takes the lock knows that the node named in the file is dead and
need not wait for its lease.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from coder.errors import Unavailable

SLOTS = 64
DYING_SECONDS = 4.0
POLL_SECONDS = 0.02


@dataclass(slots=True)
class Slot:
    """A slot this process holds.

    Attributes:
        fd: the locked file; guardians inherit it.
        crashed: nodes whose processes are known to be gone.
    """

    path: Path
    fd: int
    crashed: list[UUID] = field(default_factory=list)

    def remember(self, node: UUID) -> None:
        """Note which node this process is, before the node takes any work."""
        write(self.fd, {"pid": os.getpid(), "node": str(node)})

    def release(self) -> None:
        """After a clean stop: nothing is left to recover here. Stopping twice does no harm."""
        if self.fd >= 0:
            os.ftruncate(self.fd, 0)
            os.close(self.fd)
            self.fd = -1


def write(fd: int, content: dict[str, object]) -> None:
    text = json.dumps(content).encode()
    os.pwrite(fd, text, 0)
    os.ftruncate(fd, len(text))


def read(fd: int) -> dict[str, object]:
    """What a slot's file says; a torn or empty file says nothing."""
    try:
        found = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def alive(pid: object) -> bool:
    if not isinstance(pid, int):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _ended(pid)


def _ended(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to ask how, which not every first process of a container does."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:  # no /proc here, or gone this very moment
        return False


def lock(fd: int) -> bool:
    """Take the lock of an open file, if nobody has it; whoever dies loses his."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take(data_dir: Path, sleep: Callable[[float], None] = time.sleep) -> Slot:
    """The first free slot; waits a moment where a process is gone but its agents are still being ended.

    Raises:
        Unavailable: all slots are taken.
    """
    folder = data_dir / "nodes"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mine: Slot | None = None
    crashed: list[UUID] = []
    for number in range(SLOTS):
        path = folder / f"{number}.lock"
        if mine is not None and not path.exists():
            break
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not lock(fd) and not (not alive(read(fd).get("pid")) and wait(fd, sleep)):
            os.close(fd)
            continue
        if isinstance(node := read(fd).get("node"), str):
            crashed.append(UUID(node))
        os.ftruncate(fd, 0)
        if mine is None:
            mine = Slot(path, fd)
        else:
            os.close(fd)
    if mine is None:
        raise Unavailable(f"All {SLOTS} node slots below {folder} are taken; stop a dispatcher of this data directory first.")
    write(mine.fd, {"pid": os.getpid()})  # whoever comes next need not wait for us to die
    mine.crashed = crashed
    return mine


def wait(fd: int, sleep: Callable[[float], None]) -> bool:
    """Wait until whoever has the lock, such as a dead process's guardians, lets go of it; False when that takes too long."""
    deadline = time.monotonic() + DYING_SECONDS
    while not lock(fd):
        if time.monotonic() >= deadline:
            return False
        sleep(POLL_SECONDS)
    return True
