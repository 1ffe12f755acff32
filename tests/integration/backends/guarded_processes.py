"""Programs for guardians to end, and how to see them gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

from watched import Watched

from coder.backends import guard
from coder.backends.guardian import Guarded, Guardians

ROOT = Path("/")
ENV = {"PATH": os.environ["PATH"]}

STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def stay():
    os.write(1, b"%d\\n" % os.getpid())
    while True:
        signal.pause()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            stay()
        os._exit(0)
    stay()
stay()
"""
"""A child, a grandchild in a session of its own and an orphan of one more; all ignore TERM and say their ids."""

COMET = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    for generation in range(1_000_000):
        if generation == 100:
            os.write(1, b"flies\\n")
        if os.fork():
            os._exit(0)
while True:
    signal.pause()
"""
"""A process that forks and leaves, and so does its child: each id is gone before anybody can use it."""

PATIENT = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("ready", flush=True)
signal.sigwait([signal.SIGTERM])
print("asked", flush=True)
input()
raise SystemExit(7)
"""

DISPATCHER = """
import asyncio, fcntl, os, sys
from pathlib import Path
from coder.backends import guard
from coder.backends.guardian import Guardians

async def main():
    lock = os.open(sys.argv[1], os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    guardians = Guardians(lock_fd=lock)
    guarded = await guardians.spawn([sys.executable, "-c", sys.argv[2]], cwd=Path("/"), env=dict(os.environ))
    print(guarded.pid)
    for _ in range(3):
        print((await guarded.stdout.readline()).decode().strip(), flush=True)
    if lease := float(sys.argv[3]):
        guardians.renew(guard.now() + lease)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


async def until(fact: Callable[[], bool]) -> None:
    """Let the event loop turn until something is so; pytest shows what was not."""
    deadline = time.monotonic() + 5
    while not fact():
        assert time.monotonic() < deadline
        await turn()


async def turn() -> None:
    await asyncio.sleep(0)


async def line(guarded: Guarded) -> str:
    assert guarded.stdout is not None
    return (await asyncio.wait_for(guarded.stdout.readline(), 30)).decode().strip()


async def say(guarded: Guarded, text: str) -> None:
    assert guarded.stdin is not None
    guarded.stdin.write(text.encode() + b"\n")
    await guarded.stdin.drain()


async def stubborn(guardians: Guardians) -> tuple[Guarded, Watched]:
    guarded = await guardians.spawn([sys.executable, "-c", STUBBORN], cwd=ROOT, env=ENV)
    return guarded, Watched([guarded.pid, *[int(await line(guarded)) for _ in range(3)]])


def only_child(guarded: Guarded) -> int:
    (pid,) = guard.children(guarded.pid)
    return pid


@contextlib.contextmanager
def dispatcher(lock: Path, lease: float) -> Iterator[tuple[subprocess.Popen[str], Watched, Watched]]:
    """A dispatcher in a process of its own, its guardian and the three processes of its agent."""
    lock.touch()
    with subprocess.Popen([sys.executable, "-c", DISPATCHER, str(lock), STUBBORN, str(lease)], stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            guardian, *agents = [int(process.stdout.readline()) for _ in range(4)]
            assert process.stdout.readline() == "ready\n"
            yield process, Watched([guardian]), Watched(agents)
        finally:
            process.kill()
