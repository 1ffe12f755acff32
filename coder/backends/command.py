"""A program that is run to its end for the native agent: its output, bounded, and its exit code.

Invariant: memory is bounded whatever the program prints, and nothing of it lives when `run_to_end` has returned or raised.

Omitted on purpose: standard input, terminals, streaming of output to watchers.
"""

from __future__ import annotations

import asyncio
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from coder.backends.sandbox import Starter
from coder.transcript import clean

_CHUNK = 65_536


class HeadTail:
    """The first and the last bytes of a stream, at most `limit` together, with a line that says what was cut between."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, (limit - 100) // 2)
        self._head = bytearray()
        self._tail = bytearray()
        self._total = 0

    def add(self, chunk: bytes) -> None:
        self._total += len(chunk)
        room = self._half - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        if len(self._tail) > 2 * self._half:
            del self._tail[: -self._half]

    def kept(self) -> bytes:
        tail = self._tail[-self._half :]
        cut = self._total - len(self._head) - len(tail)
        mark = f"\n[… {cut:,} of {self._total:,} bytes cut out here]\n" if cut else ""
        return bytes(self._head + mark.encode() + tail)

    def text(self) -> str:
        return clean(self.kept().decode("utf-8", "replace"))


class Overrun(Exception):
    """A sentence: the program used more than an agent may, and was ended."""


async def run_to_end(
    starter: Starter,
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    seconds: float,
    output: Callable[[bytes], None],
    errors: Callable[[bytes], None] | None = None,
) -> int | None:
    """Run a program; its exit code as in `subprocess`, or None when its time was over. Cancelling this ends it as well.

    Args:
        starter: the guardians, or a cell that confines it.
        seconds: after so long it is ended, with all its descendants.
        output: takes what it writes to standard output, piece by piece.
        errors: takes standard error; None sends that the way of standard output, in the order it was written.

    Raises:
        AgentUnavailable, InternalError: it could not be started.
        Overrun: it exceeded a limit.
    """
    guarded = await starter.spawn(argv, cwd=cwd, env=env, stdout=PIPE, stderr=STDOUT if errors is None else PIPE)
    over = False

    def end() -> None:
        nonlocal over
        over = True
        guarded.end()

    async def drain(stream: asyncio.StreamReader | None, take: Callable[[bytes], None] | None) -> None:
        while stream is not None and take is not None and (chunk := await stream.read(_CHUNK)):
            take(chunk)

    timer = asyncio.get_running_loop().call_later(seconds, end)
    try:
        await asyncio.gather(drain(guarded.stdout, output), drain(guarded.stderr, errors))
        code = await guarded.wait()
    finally:
        timer.cancel()
        await guarded.stop()
    if guarded.ended_because is not None:
        raise Overrun(guarded.ended_because)
    return None if over else code
