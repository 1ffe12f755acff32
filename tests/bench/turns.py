"""Whole turns through the real node: how soon one is claimed, and how many a second."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from uuid import uuid4

from coder.change_ports import Worktrees
from coder.events import AgentEvent, TextDelta
from coder.git.worktrees import GitWorktrees
from coder.host.logbook import FileLogbook
from coder.ports import Turn
from coder.postgres.changes import PostgresChanges
from coder.postgres.frames import PostgresFrames
from coder.postgres.listener import Listener
from coder.postgres.permissions import PostgresPermissions
from coder.postgres.pool import open_pool
from coder.postgres.tasks import PostgresTasks
from coder.runtime.clock import SystemClock
from coder.runtime.node import Node, Pace, Worlds
from coder.runtime.watching import Watching
from tests.agents.null import NullBackend, NullCommands, NullGuards, NullWorktrees
from tests.bench.bed import Bed, Queue
from tests.bench.figure import Figure, Rounds, alternate
from tests.bench.floors import doorbell, raw_claims

SLOTS = 200
GIT_SLOTS = 4


@asynccontextmanager
async def node(
    queue: Queue, place: Path, worktrees: Worktrees | NullWorktrees, backend: NullBackend, slots: int, watching: Watching | None = None
) -> AsyncIterator[None]:
    """A real node at work on the queue, narrating to a live view if one is given."""
    clock = SystemClock()
    pool, lease, frames = await open_pool(queue.dsn, size=4), await open_pool(queue.dsn, size=1), await open_pool(queue.dsn, size=2)
    tasks = PostgresTasks(pool, lease)
    host = uuid4()
    await tasks.register_host(host, "bench")
    changes = PostgresChanges(pool)
    listener = Listener(queue.dsn, clock)
    worlds = Worlds(
        tasks,
        changes,
        worktrees,  # type: ignore[arg-type]
        {"native": backend},
        NullGuards(),
        listener,
        FileLogbook(place),
        clock,
        NullCommands(),
        PostgresPermissions(pool),
        PostgresFrames(frames),
    )
    pace = Pace(slots=slots, poll=2, lease=60, beat=20, drain=30, silent=180, tool=3600, retention=1e6)
    running = Node(worlds, pace, host, lambda _: None, watching)
    await running.start()
    try:
        yield
    finally:
        await running.stop()
        await pool.close()
        await lease.close()
        await frames.close()


async def ended(queue: Queue) -> None:
    """Wait until nothing is pending or running."""
    while await queue.waiting():  # noqa: ASYNC110 - the facts are in the database
        await asyncio.sleep(0.01)


async def latency(bed: Bed) -> list[Figure]:
    """Insert to claimed, as the backend sees its turn begin, against insert to callback of a bare trigger."""
    rounds = 100 if bed.quick else 400
    heard: asyncio.Queue[float] = asyncio.Queue()

    async def script(turn: Turn) -> AsyncIterator[AgentEvent]:
        heard.put_nowait(perf_counter())
        yield TextDelta("done")

    async with bed.database() as queue, node(queue, bed.place, NullWorktrees(), NullBackend(script), 16), doorbell(queue.dsn) as bell:
        insert = await queue.connection.prepare("insert into tasks (project_id, input) values ($1, 'x')")
        claimed_at = await queue.connection.prepare("select max(extract(epoch from claimed_at - created_at)) from tasks")
        floor, program = [], []
        for _ in range(rounds):
            floor.append(await bell.round_trip())
            await insert.fetch(queue.project)
            await heard.get()
            program.append(float(await claimed_at.fetchval() or 0))
            await queue.connection.execute("delete from tasks where state = 'completed'")
            await ended(queue)
    rounds_of = Rounds(tuple(value * 1000 for value in program[10:]), tuple(value * 1000 for value in floor[10:]))
    against = "insert with commit to callback, bare trigger"
    p99 = quantiles(rounds_of.program, n=100)[98]
    return [
        Figure(
            "insert to claimed, p50", median(rounds_of.program), "ms", against, median(rounds_of.floor),
            median(rounds_of.program) / median(rounds_of.floor), "<=", 2.5,
        ),
        Figure("insert to claimed, p99", p99, "ms", target=25),
    ]  # fmt: skip


async def null_turns(bed: Bed) -> list[Figure]:
    """Whole turns with a backend that answers at once and worktrees that are none, against raw single claims."""
    tasks = 1000 if bed.quick else 5000
    async with bed.database() as queue, raw_claims(queue.dsn) as raw:

        async def program() -> float:
            await queue.empty()
            await queue.fill(tasks // 5, 5)
            await queue.settle()
            started = perf_counter()
            async with node(queue, bed.place, NullWorktrees(), NullBackend(), SLOTS):
                await ended(queue)
                return tasks / (perf_counter() - started)

        rounds = await alternate(lambda: raw.rate(tasks), program, 3 if bed.quick else 5)
    return [rounds.figure("whole turns, null backend", "/s", "raw single claims, ten connections", ">=", 0.4, 0.8)]


def repository(place: Path, files: int) -> Path:
    """A repository with so many small files and one commit."""
    place.mkdir(parents=True)
    for number in range(files):
        path = place / f"d{number // 500:03}" / f"f{number:05}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"line one of {number}\nline two\n")
    git(place, "init", "-q", "-b", "main")
    git(place, "add", "-A")
    git(place, "commit", "-q", "-m", "start")
    return place


def git(place: Path, *arguments: str, **variables: str) -> str:
    who = {"GIT_AUTHOR_NAME": "b", "GIT_AUTHOR_EMAIL": "b@b", "GIT_COMMITTER_NAME": "b", "GIT_COMMITTER_EMAIL": "b@b"}
    done = subprocess.run(
        ["git", *arguments], cwd=place, env={**os.environ, **who, **variables}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def plain_turn(worktree: Path, number: int) -> None:
    """What git alone needs to record one turn's work: stage, tree, commit, ref, diff.

    The refs pile up, hundreds of them: among coder's own, or every turn of the program would have to watch over them.
    """
    (worktree / "d000" / "f00000.txt").write_text(f"changed plainly {number}\n")
    git(worktree, "add", "-A")
    tree = git(worktree, "write-tree")
    commit = git(worktree, "commit-tree", tree, "-p", "HEAD", "-m", "x")
    git(worktree, "update-ref", f"refs/coder/plain/{number}", commit)
    git(worktree, "diff-tree", "-r", "-M", "--raw", "--numstat", "-p", "--binary", "HEAD", commit)


def numbers() -> Iterator[int]:
    number = 0
    while True:
        number += 1
        yield number


async def git_turns(bed: Bed) -> list[Figure]:
    """Whole turns that change one file in a kept worktree, against the same git commands by hand, as many at once."""
    turns, files = (40, 50) if bed.quick else (160, 50)
    project = await asyncio.to_thread(repository, bed.place / "project", files)
    plain = [bed.place / f"plain{each}" for each in range(GIT_SLOTS)]
    for path in plain:
        git(project, "worktree", "add", "-q", "--detach", str(path))
    count = numbers()

    async def script(turn: Turn) -> AsyncIterator[AgentEvent]:
        (turn.worktree / "d000" / "f00000.txt").write_text(f"changed by turn {turn.task_id}\n")
        yield TextDelta("done")

    async def floor() -> float:
        started = perf_counter()

        async def work(path: Path) -> None:
            for _ in range(turns // GIT_SLOTS):
                await asyncio.to_thread(plain_turn, path, next(count))

        await asyncio.gather(*(work(path) for path in plain))
        return turns / (perf_counter() - started)

    async with bed.database() as queue:
        await queue.connection.execute("update projects set path = $1", str(project))
        async with node(queue, bed.place, GitWorktrees(bed.place / "data"), NullBackend(script), GIT_SLOTS):
            await queue.fill(GIT_SLOTS)
            await ended(queue)

            async def program() -> float:
                started = perf_counter()
                await queue.more(turns // GIT_SLOTS)
                await ended(queue)
                return turns / (perf_counter() - started)

            rounds = await alternate(floor, program, 3 if bed.quick else 5)
    return [rounds.figure("whole turns with git", "/s", "plain git: add, write-tree, commit-tree, update-ref, diff", ">=", 0.8)]
