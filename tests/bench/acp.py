"""The ACP backend: what relaying costs, what turns leave in memory, and twenty sessions of one goose process at once."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from uuid import uuid4

from coder.agents import AgentSpec, Endpoint, parse
from coder.backends.acp import AcpBackend
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.warm import Warm, resident
from coder.config import Settings
from coder.events import TextDelta
from coder.ports import Turn
from coder.task import AgentSession
from coder.transcript import Transcript
from tests import real_agents
from tests.bench.bed import Bed
from tests.bench.figure import Figure

TOP = Path(__file__).parents[2]
STANDIN = (sys.executable, "-S", str(TOP / "tests/agents/acp_standin.py"))
MEGABYTE = 1_000_000


@asynccontextmanager
async def backend(place: Path, name: str, spec: AgentSpec, endpoint: Endpoint | None = None) -> AsyncIterator[AcpBackend]:
    """One agent's backend in a directory."""
    chosen = Settings(_env_file=None, default_model="m1")
    guardians = Guardians()
    warm = Warm(most=chosen.warm_agents, memory=chosen.warm_memory_bytes, idle=chosen.agent_idle_seconds)
    made = AcpBackend(Launcher(name, spec, guardians, place / "homes", endpoint), chosen, warm)
    try:
        yield made
    finally:
        await made.stop()
        await guardians.stop_all()


def repository(path: Path) -> Path:
    """A git repository with one empty commit."""
    path.mkdir(parents=True)
    author = ("-c", "user.name=b", "-c", "user.email=b@example.org")
    for command in (("init", "-q"), (*author, "commit", "-q", "--allow-empty", "-m", "start")):
        subprocess.run(("git", *command), cwd=path, check=True, stdin=subprocess.DEVNULL)
    return path


def turn(prompt: str, worktree: Path, session: AgentSession | None = None, mode: str | None = None) -> Turn:
    """A turn in a worktree."""
    one = uuid4()
    log = worktree.parent / f"{worktree.name}.log"
    return Turn(1, 1, one, one, prompt, worktree, worktree, None, mode, None, None, log, agent_session=session)


async def play(agent: AcpBackend, made: Turn) -> tuple[Transcript, AgentSession | None]:
    """Run a turn to its end."""
    transcript = Transcript()
    async with agent.run_turn(made) as live:
        async for event in live.events:
            transcript.apply(event)
            transcript.take_spills()
    return transcript, live.agent_session


async def relay(bed: Bed) -> list[Figure]:
    """From the moment an agent writes a delta to the event that says it."""
    spec = AgentSpec(protocol="acp", command=STANDIN, multiplex=True)
    worktree = await asyncio.to_thread(repository, bed.place / "relay")
    took: list[float] = []
    async with backend(bed.place, "standin", spec) as agent, agent.run_turn(turn(f"tick {100 if bed.quick else 1000}", worktree)) as live:
        async for event in live.events:
            if isinstance(event, TextDelta):
                # Deltas that waited for each other came as one; the first of them waited longest.
                took.append((time.monotonic_ns() - int(event.text.split()[0])) / 1e6)
    took.sort()
    return [
        Figure("ACP: delta of the agent to our event, p50", median(took), "ms", target=1.0),
        Figure("ACP: delta of the agent to our event, p95", took[int(len(took) * 0.95)], "ms"),
    ]


async def memory(bed: Bed) -> list[Figure]:
    """What this process grows by in a thousand turns of fifty sessions."""
    spec = AgentSpec(protocol="acp", command=STANDIN, multiplex=True)
    turns, sessions = (200, 10) if bed.quick else (1000, 50)
    worktrees = [await asyncio.to_thread(repository, bed.place / f"memory-{number}") for number in range(sessions)]
    left: list[AgentSession | None] = [None] * sessions
    async with backend(bed.place, "standin", spec) as agent:

        async def some(count: int) -> None:
            for number in range(count):
                which = number % sessions
                _, left[which] = await play(agent, turn("think hm\ntools\nsay done", worktrees[which], left[which]))

        await some(turns // 5)
        gc.collect()
        before = own_memory()
        await some(turns)
        gc.collect()
        return [Figure(f"ACP: dispatcher's growth in {turns:,} turns", (own_memory() - before) / MEGABYTE, "MB", target=10.0)]


def own_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def goose(bed: Bed) -> list[Figure]:
    """Twenty goose sessions at once in one process, each writing a file and running a command; against one after the other."""
    count = 5 if bed.quick else 20
    try:
        folder = await asyncio.to_thread(real_agents.installed)
    except real_agents.Missing as missing:
        print(f"goose is not measured: {missing}", file=sys.stderr)
        return []
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    registry = TOP / "coder/agents.toml"
    spec = parse((registry.name, tomllib.loads(registry.read_text()))).agents["goose"].model_copy(update={"use_endpoint": True})
    async with model() as url, backend(bed.place, "goose", spec, Endpoint(url, "x", "fake", "m1")) as agent:
        trees = [await asyncio.to_thread(repository, bed.place / f"goose-{number}") for number in range(2 * count + 1)]

        async def work(tree: Path) -> float:
            started = time.perf_counter()
            await play(agent, turn(f"write {tree}/a.txt: {tree.name}\nrun: cat a.txt > b.txt\nsay: done", tree, mode="auto"))
            assert (tree / "b.txt").read_text() == tree.name, "each in its own"
            return time.perf_counter() - started

        await work(trees[0])
        one_by_one = sum([await work(tree) for tree in trees[1 : count + 1]])
        started = time.perf_counter()
        await asyncio.gather(*(work(tree) for tree in trees[count + 1 :]))
        together = time.perf_counter() - started
        (process,) = agent.processes
        size = await asyncio.to_thread(resident, process.pid or 0)
    return [
        Figure(f"goose: {count} sessions at once in one process", together, "s", "one after the other", one_by_one, together / one_by_one),
        Figure(f"goose: the process after {2 * count + 1} sessions", size / MEGABYTE, "MB"),
    ]


@asynccontextmanager
async def model() -> AsyncIterator[str]:
    """The scripted model of the tests."""
    from tests.model_server import AGENTS, installed

    await asyncio.to_thread(installed)
    node = shutil.which("node") or "node"
    process = await asyncio.create_subprocess_exec(node, "aimock.mjs", cwd=AGENTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield (await process.stdout.readline()).decode().strip() + "/v1"
    finally:
        process.stdin.close()
        await process.wait()
