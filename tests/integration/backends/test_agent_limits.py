"""Programs that take too much of this machine are ended, with a sentence; those that only look big are not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from guarded_processes import ENV, ROOT, Watched, line

from coder.backends.confine import Refused
from coder.backends.guardian import Guarded, Guardians
from coder.backends.limits import Limits, fair_bytes, family, own_bytes
from coder.backends.native_tools import Tools
from coder.backends.project_commands import GuardedCommands
from coder.backends.sandbox import Sandbox
from coder.backends.turn_log import TurnLog

MIB = 1024**2
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of agents are read from /proc, which is Linux's")

HOG = """
import os, signal
kept = []
if os.fork() == 0:
    os.setsid()
    for _ in range(64):
        kept.append(os.urandom(1) * (8 << 20))
print("ready", flush=True)
signal.pause()
"""
"""A child in a session of its own that takes 512 MiB, 8 at a time."""

BOMB = """
import os, signal
print("ready", flush=True)
for _ in range({most}):
    if os.fork() == 0:
        os.setsid()
        signal.pause()
signal.pause()
"""
"""As many children as are asked for, each in a session of its own."""

FAMILY = """
import os, signal
kept = os.urandom(1) * (64 << 20)
for _ in range(8):
    if os.fork() == 0:
        print("ready", flush=True)
        signal.pause()
signal.pause()
"""
"""Nine processes that share 64 MiB: less than a ninth of what they would be if each had its own."""


@asynccontextmanager
async def limited(**limits: int) -> AsyncIterator[Guardians]:
    guardians = Guardians(limits=Limits(**limits))
    try:
        yield guardians
    finally:
        await guardians.stop_all()


async def start(guardians: Guardians, program: str, name: str = "the agent") -> Guarded:
    guarded = await guardians.spawn([sys.executable, "-c", program], cwd=ROOT, env=ENV, name=name)
    assert await line(guarded) == "ready"
    return guarded


async def test_who_holds_too_much_memory_is_ended_with_everybody(tmp_path: Path) -> None:
    async with limited(memory=200 * MIB) as guardians:
        modest = await start(guardians, "import signal; print('ready', flush=True); signal.pause()")
        hog = await start(guardians, HOG)
        agents = Watched([hog.pid, *family(hog.pid)])
        assert await asyncio.wait_for(hog.wait(), 30) != 0
        assert agents.gone_within(0)
        assert hog.ended_because is not None
        assert hog.ended_because.startswith("the agent was ended: with its 2 processes it held 0.")
        assert hog.ended_because.endswith(
            "than the 0.20 GiB that an agent may have; have it run less at once, or raise CODER_AGENT_MEMORY_BYTES."
        )
        assert (modest.returncode, modest.ended_because) == (None, None)


async def test_who_starts_too_many_processes_is_ended_with_everybody() -> None:
    async with limited(processes=50) as guardians:
        bomb = await start(guardians, BOMB.format(most=400), "bomb")
        assert await asyncio.wait_for(bomb.wait(), 30) != 0
        assert not list(family(bomb.pid))
        assert bomb.ended_because is not None
        assert "more than the 50 that an agent may have" in bomb.ended_because
        assert bomb.ended_because.endswith("raise CODER_AGENT_PROCESSES.")


async def test_memory_that_is_shared_counts_once() -> None:
    async with limited(memory=300 * MIB) as guardians:
        shared = await start(guardians, FAMILY)
        for _ in range(7):
            await line(shared)
        pids = list(family(shared.pid))
        assert sum(own_bytes(pid) for pid in pids) > 300 * MIB
        assert sum(fair_bytes(pid) for pid in pids) < 200 * MIB
        assert Limits(memory=300 * MIB).exceeded(shared.pid, "x")[0] == ""
        assert Limits(memory=60 * MIB).exceeded(shared.pid, "x")[0] != ""


async def test_zero_is_no_limit() -> None:
    async with limited() as guardians:
        bomb = await start(guardians, BOMB.format(most=100))
        assert not Limits().exceeded(bomb.pid, "x")[0]
        assert bomb.returncode is None


async def test_the_native_agent_is_told_why_its_command_was_ended(tmp_path: Path) -> None:
    async with limited(processes=20) as guardians:
        tools = Tools(
            tmp_path, tmp_path, guardians, TurnLog(tmp_path / "log", None), environment=ENV, command_seconds=60, output_bytes=10_000
        )
        with pytest.raises(Refused, match=r"before\n\[.* was ended: it had \d+ processes, more than the 20"):
            await tools.run("echo before; for i in $(seq 100); do sleep 100 & done; wait")


async def test_a_setup_command_that_takes_too_much_is_told_of(tmp_path: Path) -> None:
    async with limited(processes=20) as guardians:
        commands = GuardedCommands(guardians, Sandbox("off", tmp_path), tmp_path)
        ran = await commands.run("for i in $(seq 100); do sleep 100 & done; wait", tmp_path, 60, tmp_path / "log")
        assert ran.exit_code is None
        assert "used too much" in ran.ended
        assert "CODER_AGENT_PROCESSES" in ran.ended
