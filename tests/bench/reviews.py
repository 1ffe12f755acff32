"""Reviews: a large change stored and listed, read, and approved, against plain git."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from uuid import UUID, uuid4

from coder.change import Approval, Snapshot, Worktree
from coder.git.worktrees import GitWorktrees
from coder.postgres.door import PostgresDoor
from coder.postgres.pool import open_pool
from coder.postgres.tasks import snapshot_json
from coder.runtime.clock import SystemClock
from coder.task import Project
from tests.bench.bed import Bed, Queue
from tests.bench.figure import Figure, alternate
from tests.bench.turns import git, numbers, plain_turn, repository

CHANGED = 1_000
LINES = 20_000


async def reviews(bed: Bed) -> list[Figure]:
    """A change of 1,000 files in a repository of 50,000, and one whose diff has 20,000 lines."""
    files = 5_000 if bed.quick else 50_000
    project = await asyncio.to_thread(repository, bed.place / "reviewed", files)
    plain = bed.place / "reviewed-plain"
    await asyncio.to_thread(git, project, "worktree", "add", "-q", "--detach", str(plain))
    worktrees = GitWorktrees(bed.place / "reviewed-data")
    worktree = await worktrees.ensure(Project(uuid4(), "reviewed", str(project), "native"), uuid4(), None)
    async with bed.database() as queue:
        pool = await open_pool(queue.dsn, size=1)
        try:
            door = PostgresDoor(pool, SystemClock())
            return [
                await stored(bed, queue, door, worktrees, worktree, plain, files),
                await approved(bed, worktrees, worktree, project),
                await read(bed, queue, door, worktrees, worktree),
            ]
        finally:
            await pool.close()


def edit(place: Path, word: str, files: int = CHANGED, lines: int = 1) -> None:
    for number in range(files):
        (place / f"d{number // 500:03}" / f"f{number:05}.txt").write_text(f"changed {word}\n" * lines + "line two\n")


async def store(queue: Queue, door: PostgresDoor, snapshot: Snapshot, number: int) -> dict[str, object]:
    """What a turn's end does with a snapshot, and what a reviewer then asks for."""
    await queue.fill(1)
    task, session = await queue.connection.fetchrow("select id, session_id from tasks order by id desc limit 1")
    statement = "select coder.store_change($1, $2, 'completed', 'native', $3, $4)"
    values = (session, task, json.dumps(snapshot_json(snapshot, number)), snapshot.diff)
    change: UUID = await queue.connection.fetchval(statement, *values)
    return await door.row("change_get", change_id=change)


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    started = perf_counter()
    await work()
    return (perf_counter() - started) * 1000


async def stored(
    bed: Bed, queue: Queue, door: PostgresDoor, worktrees: GitWorktrees, worktree: Worktree, plain: Path, files: int
) -> Figure:
    count = 0

    async def floor() -> float:
        nonlocal count
        count += 1
        await asyncio.to_thread(edit, plain, str(count))
        return await timed(lambda: asyncio.to_thread(plain_turn, plain, count))

    async def program() -> float:
        nonlocal count
        count += 1
        await asyncio.to_thread(edit, Path(worktree.path), str(count))

        async def work() -> None:
            await store(queue, door, await worktrees.snapshot(worktree), count)

        return await timed(work)

    rounds = await alternate(floor, program, 3 if bed.quick else 9)
    against = "plain git: add, write-tree, commit-tree, update-ref, diff"
    return rounds.figure(f"{CHANGED:,} of {files:,} files: snapshot, stored, listed", "ms", against, "<=", 1.3)


def checkout(project: Path, place: Path) -> Path:
    """A checkout of its own, with just the files that the change is about.

    Each approval gets one: where ext4 has no journal, it passes over the inodes freed in the last minutes one by one when it makes
    files, so rounds in one checkout would slow each other down, and those of the floor others than those of the program.
    """
    git(project, "worktree", "add", "-q", "--detach", "--no-checkout", str(place))
    git(place, "read-tree", "HEAD")
    git(place, "checkout", "-q", "--", *(f"d{number:03}" for number in range(CHANGED // 500)))
    return place


async def approved(bed: Bed, worktrees: GitWorktrees, worktree: Worktree, project: Path) -> Figure:
    await asyncio.to_thread(edit, Path(worktree.path), "to be approved")
    snapshot = await worktrees.snapshot(replace(worktree, snapshots=10_000))
    patch = bed.place / "patch"
    patch.write_bytes(snapshot.diff)
    paths = tuple(file.path for file in snapshot.files)
    form = Approval(uuid4(), worktree, snapshot.commit, paths, "checkout", None, False, "approved")

    count = numbers()

    async def floor() -> float:
        place = await asyncio.to_thread(checkout, project, bed.place / f"checkout{next(count)}")
        return await timed(lambda: asyncio.to_thread(subprocess.run, ["git", "apply", "--binary", str(patch)], cwd=place, check=True))

    async def program() -> float:
        place = await asyncio.to_thread(checkout, project, bed.place / f"checkout{next(count)}")
        there = replace(form, decision_id=uuid4(), worktree=replace(worktree, repository=str(place), base_branch=None))

        async def work() -> None:
            plan = await worktrees.plan(there)
            await worktrees.carry_out(plan)
            await worktrees.forget(plan)

        return await timed(work)

    rounds = await alternate(floor, program, 3 if bed.quick else 9)
    return rounds.figure(f"approve {CHANGED:,} files: plan, carry out", "ms", "git apply of the same patch", "<=", 2)


async def read(bed: Bed, queue: Queue, door: PostgresDoor, worktrees: GitWorktrees, worktree: Worktree) -> Figure:
    await asyncio.to_thread(git, Path(worktree.path), "reset", "-q", "--hard")
    await asyncio.to_thread(edit, Path(worktree.path), "at length", 20, LINES // 20)
    shown = await store(queue, door, await worktrees.snapshot(replace(worktree, snapshots=20_000)), 20_001)
    change = UUID(str(shown["id"]))

    async def look() -> None:
        json.dumps(await door.row("change_get", change_id=change)).encode()

    await look()
    times = sorted([await timed(look) for _ in range(5 if bed.quick else 21)])
    return Figure(
        f"a change of {str(shown['diff']).count(chr(10)):,} diff lines, read as GET /changes/ID does",
        times[len(times) // 2],
        "ms",
        target=50,
    )
