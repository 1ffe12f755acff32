"""Snapshots of a large repository, and what the service costs at rest and at its start."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from uuid import uuid4

from coder.git.worktrees import GitWorktrees
from coder.task import Project
from tests.bench.bed import Bed
from tests.bench.figure import Figure, alternate
from tests.bench.turns import git, plain_turn, repository

TOP = Path(__file__).parents[2]


async def snapshots(bed: Bed) -> list[Figure]:
    """Snapshot + diff of one changed file in a repository of 50,000, against plain git."""
    files = 5_000 if bed.quick else 50_000
    project = await asyncio.to_thread(repository, bed.place / "large", files)
    plain = bed.place / "large-plain"
    await asyncio.to_thread(git, project, "worktree", "add", "-q", "--detach", str(plain))
    worktrees = GitWorktrees(bed.place / "large-data")
    worktree = await worktrees.ensure(Project(uuid4(), "large", str(project), "native"), uuid4(), None)
    count = 0

    async def floor() -> float:
        nonlocal count
        count += 1
        started = perf_counter()
        await asyncio.to_thread(plain_turn, plain, count)
        return (perf_counter() - started) * 1000

    async def program() -> float:
        nonlocal count
        count += 1
        (Path(worktree.path) / "d000" / "f00000.txt").write_text(f"changed by coder {count}\n")
        started = perf_counter()
        await worktrees.snapshot(worktree)
        return (perf_counter() - started) * 1000

    rounds = await alternate(floor, program, 5 if bed.quick else 11)
    return [
        rounds.figure(f"snapshot + diff, {files:,} files", "ms", "plain git: add, write-tree, commit-tree, update-ref, diff", "<=", 1.3)
    ]


def resident(pid: int) -> tuple[float, float]:
    """Megabytes a process keeps: all of it, and its fair share."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    rss, pss = (int(re.search(rf"^{name}: +(\d+)", text, re.M)[1]) / 1024 for name in ("Rss", "Pss"))  # type: ignore[index]
    return rss, pss


def start(place: Path, *arguments: str, until: str = "ready:") -> tuple[subprocess.Popen[str], float, list[str]]:
    """Run `bin/up`; answers the process, the seconds until it said a line that begins so, and what it said up to there."""
    variables = {**os.environ, "CODER_DATA_DIR": str(place), "CODER_PORT": "0", "CODER_VENV": str(Path(sys.prefix))}
    started = perf_counter()
    up = subprocess.Popen([TOP / "bin/up", *arguments], env=variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert up.stdout is not None
    said = []
    for line in up.stdout:
        said.append(line.rstrip())
        if line.startswith(until):
            return up, perf_counter() - started, said
    raise RuntimeError(f"bin/up ended with {up.wait()} before it was ready")


def stop(up: subprocess.Popen[str]) -> None:
    up.send_signal(signal.SIGTERM)
    up.wait(60)


async def service(bed: Bed) -> list[Figure]:
    """The service at its second start, and at rest."""
    place = bed.place / "service"
    seconds, sizes = [], []
    for _ in range(2 if bed.quick else 4):
        up, took, _ = await asyncio.to_thread(start, place)
        await asyncio.sleep(2)
        sizes.append(resident(up.pid))
        seconds.append(took)
        await asyncio.to_thread(stop, up)
    rss, pss = min(sizes)
    return [
        Figure("idle service, resident", rss, "MB", target=120),
        Figure("idle service, proportional", pss, "MB"),
        Figure("warm bin/up to ready", sorted(seconds[1:])[len(seconds[1:]) // 2], "s", target=3),
    ]
