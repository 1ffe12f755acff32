"""What one agent may use of this machine, with everything it started: memory and processes, read from /proc.

Memory is each process's own pages and what it shares fairly divided (PSS), so that neither a program that forks nor many
that map one library are counted twice. That is slow to read (the kernel walks every page), so it is read only where the
cheap sum, which counts too much, is over the limit.

Omitted: files in a /tmp that is memory, the page cache, and macOS, which has no /proc.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from coder.backends.guard import children

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """Args: memory: bytes; processes: their number. 0 = no limit."""

    memory: int = 0
    processes: int = 0

    def __bool__(self) -> bool:
        return bool(self.memory or self.processes)

    def exceeded(self, guardian: int, name: str) -> tuple[str, float]:
        """Measure what is below a guardian.

        Returns:
            A sentence when a limit is exceeded, else an empty text; and how near it came to one (1 = there).
        """
        pids = list(family(guardian))
        near = len(pids) / self.processes if self.processes else 0.0
        if self.processes and len(pids) > self.processes:
            return (
                f"{name} was ended: it had {len(pids):,} processes, more than the {self.processes:,} that an agent may have; "
                "have it run less at once, or raise CODER_AGENT_PROCESSES."
            ), near
        if self.memory:
            held = sum(own_bytes(pid) for pid in pids)
            if held > self.memory:
                held = sum(fair_bytes(pid) for pid in pids)
            near = max(near, held / self.memory)
            if held > self.memory:
                return (
                    f"{name} was ended: with its {len(pids):,} processes it held {held / GIB:.2f} GiB of memory, more than the "
                    f"{self.memory / GIB:.2f} GiB that an agent may have; have it run less at once, or raise CODER_AGENT_MEMORY_BYTES."
                ), near
        return "", near


def family(guardian: int) -> Iterator[int]:
    """All descendants of a guardian, each once."""
    seen, parents = {guardian}, [guardian]
    while parents:
        for pid in children(parents.pop()):
            if pid not in seen:
                seen.add(pid)
                parents.append(pid)
                yield pid


def own_bytes(pid: int) -> int:
    """Anonymous and shared memory of a process, what it shares with its parent counted again; 0 of one that is gone."""
    return _sum(f"/proc/{pid}/status", (b"RssAnon:", b"RssShmem:"))


def fair_bytes(pid: int) -> int:
    """The same with what is shared divided by those who share it; where that may not be read, as `own_bytes`."""
    return _sum(f"/proc/{pid}/smaps_rollup", (b"Pss_Anon:", b"Pss_Shmem:")) or own_bytes(pid)


def _sum(path: str, fields: tuple[bytes, ...]) -> int:
    try:
        with open(path, "rb") as listing:
            return sum(int(line.split()[1]) * 1024 for line in listing if line.startswith(fields))
    except OSError:  # it has ended, or belongs to somebody else
        return 0
