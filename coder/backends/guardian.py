"""Starts agents and commands under guardians, renews the guardians' deadlines and ends them.

One `Guardians` per node. Each process it starts is a `guard.py` (what that promises stands there), connected by a pipe
that carries the newest deadline; closing the pipe is how the end is asked for, and what happens by itself when this
process dies. Everything belongs to the one event loop that calls `spawn`.

Invariant: `wait()` and `stop()` return only when neither the program nor any descendant of it lives.

Not asyncio's subprocesses: their transport kills the guardian with -9 when it is collected, and on Python 3.11 their
`wait()` also waits for every pipe. No rlimits, which are a process's or a user's and not an agent's: see `limits.py`. The sandbox
is a program before the program: see `sandbox.py`.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import IO, TYPE_CHECKING

from coder.backends import guard
from coder.backends.limits import Limits
from coder.errors import AgentUnavailable, InternalError

if TYPE_CHECKING:
    from coder.backends.relay import Relay

BUFFER_BYTES = 65_536
LINUX = sys.platform == "linux"
LOOK_SECONDS, LOOK_SECONDS_NEAR, NEAR = 0.5, 0.1, 0.3


class Handed:
    """A pipe's descriptor, handed over to an event loop.

    libuv closes the descriptors of its handles itself, and uvloop closes the Python object it was given as well: the second
    of the two would close a stranger's descriptor when another thread has opened one in between. So there it closes nothing.
    """

    def __init__(self, pipe: IO[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._descriptor = os.dup(pipe.fileno())
        self._ours = type(loop).__module__.partition(".")[0] != "uvloop"
        pipe.close()

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        if self._ours:
            os.close(self._descriptor)


class OneWay(asyncio.StreamReaderProtocol):
    """Reads a pipe, which has no other half to keep open: its end closes it on every event loop."""

    def eof_received(self) -> bool:
        super().eof_received()
        return False


class Guarded:
    """A program that runs under a guardian.

    Attributes:
        pid: the guardian's process id; the program is its child.
        name: the program's, for sentences.
        stdin, stdout, stderr: streams, None where no PIPE was asked for. `wait()` does not read them: a program that
            fills a pipe nobody reads does not end. What was written before the end can be read after it.
        returncode: of the program, as in `subprocess` (negative = by that signal); None while anything lives.
            The guardian's own death by `kill -9` counts as the program's.
        ended_because: a sentence when it was ended for exceeding a limit.
        relay: the ways between it and what is outside, where it runs in a network of its own.
    """

    stdin: asyncio.StreamWriter | None = None
    stdout: asyncio.StreamReader | None = None
    stderr: asyncio.StreamReader | None = None
    returncode: int | None = None
    ended_because: str | None = None
    relay: Relay | None = None

    def __init__(
        self, process: subprocess.Popen[bytes], name: str, orders: int, deadline: float, gone: Callable[[Guarded], object]
    ) -> None:
        """Use `Guardians.spawn` instead."""
        self.pid = process.pid
        self.name = name
        self._process = process
        self._orders: int | None = orders
        self._deadline = deadline
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._reading: list[asyncio.ReadTransport] = []
        self._watch()

    async def wait(self) -> int:
        """Wait until the program and all its descendants have gone; returns the program's return code."""
        return await asyncio.shield(self._ended)

    async def stop(self, grace: float = guard.GRACE) -> None:
        """End the program and all its descendants: TERM, `grace` seconds, KILL; returns when nothing lives.

        Cancelling the call does not stop the ending. A grace never lasts beyond the deadline of the lease.
        """
        self.end(grace)
        await self.wait()

    def end(self, grace: float = guard.GRACE) -> None:
        """Ask for the end as `stop` does, without waiting for it."""
        if self._orders is not None:
            self._order(self._deadline, grace)
            os.close(self._orders)
            self._orders = None

    def _order(self, deadline: float, grace: float = guard.GRACE) -> None:
        """Tell the guardian the newest deadline; never blocks.

        A pipe that is full (11 hours of beats which a stopped guardian has not read) or has lost its reader takes
        nothing, and then nothing is lost: the next beat comes, or the guardian's end is seen.
        """
        self._deadline = deadline
        if self._orders is not None:
            try:
                os.write(self._orders, guard.ORDER.pack(deadline, grace))
            except (BlockingIOError, BrokenPipeError):
                return

    async def _connect(self, limit: int) -> None:
        """Make streams of the pipes. A pipe is its stream's own from then on, and closes with the other end."""
        process = self._process
        try:
            if (pipe := process.stdin) is not None:
                process.stdin = None
                self.stdin = await self._writer(pipe)
            if (pipe := process.stdout) is not None:
                process.stdout = None
                self.stdout = await self._reader(pipe, limit)
            if (pipe := process.stderr) is not None:
                process.stderr = None
                self.stderr = await self._reader(pipe, limit)
        except BaseException:
            self.end()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            raise

    async def _reader(self, pipe: IO[bytes], limit: int) -> asyncio.StreamReader:
        stream = asyncio.StreamReader(limit=limit)
        transport, _ = await self._loop.connect_read_pipe(lambda: OneWay(stream), Handed(pipe, self._loop))
        self._reading.append(transport)
        return stream

    async def _writer(self, pipe: IO[bytes]) -> asyncio.StreamWriter:
        transport, protocol = await self._loop.connect_write_pipe(
            lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), Handed(pipe, self._loop)
        )
        return asyncio.StreamWriter(transport, protocol, None, self._loop)

    def _watch(self) -> None:
        if sys.platform == "linux":
            handle = os.pidfd_open(self.pid)

            def exited() -> None:
                self._loop.remove_reader(handle)
                os.close(handle)
                self._exited(self._process.wait())

            self._loop.add_reader(handle, exited)
        else:

            def wait() -> None:
                returncode = self._process.wait()
                self._loop.call_soon_threadsafe(self._exited, returncode)

            threading.Thread(target=wait, name=f"guardian {self.pid}", daemon=True).start()

    def _exited(self, returncode: int) -> None:
        self.end()
        # Nobody can write any more, so what a paused stream still has to read is bounded by the pipe, and is followed
        # by the end that closes it: also where nobody reads on, no descriptor stays open.
        for transport in self._reading:
            transport.resume_reading()
        self.returncode = returncode
        self._gone(self)
        self._ended.set_result(returncode)


class Guardians:
    """All guardians of this node.

    Args:
        lock_fd: descriptor of the node slot's flock'ed file, or None. Every guardian holds it and no agent does, so that
            the lock is free only when no agent lives. It stays the caller's, who keeps it open.
        limits: what each program may use together with all its descendants.
    """

    def __init__(self, *, lock_fd: int | None = None, limits: Limits = Limits()) -> None:
        self._lock_fd = lock_fd
        self._limits = limits
        self._looking: asyncio.Task[None] | None = None
        self._deadline = math.inf
        self._living: set[Guarded] = set()

    def renew(self, deadline: float) -> None:
        """Set the moment (seconds of CLOCK_BOOTTIME) at which every guardian, later ones too, ends its program.

        Never blocks. Before the first call there is no deadline.
        """
        self._deadline = deadline
        for guarded in self._living:
            guarded._order(deadline)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        stdin: int = DEVNULL,
        stdout: int = PIPE,
        stderr: int = PIPE,
        terminal: bool = False,
        limit: int = BUFFER_BYTES,
        name: str | None = None,
        handed: Sequence[int] = (),
    ) -> Guarded:
        """Start a program in a session of its own under a guardian of its own.

        Args:
            name: what sentences call it; None = its file's name.
            argv: the program, looked up in `env`'s PATH unless it holds a slash, and its arguments.
            env: its whole environment; see `agent_environment`.
            stdin, stdout, stderr: PIPE, DEVNULL, a descriptor, or for stderr STDOUT.
            handed: further descriptors that the program gets, under the same numbers; there are no others.
            terminal: standard input is a pseudo-terminal; make it the one that controls the program and all its streams.
            limit: bytes of the longest line that the streams' `readline` takes.

        Raises:
            AgentUnavailable: there is no such program.
            InternalError: the system refused to start a process.
        """
        program = find_program(argv[0], cwd, env)
        streams = (stdin, stdout, stderr)
        guarded = self._start(name or os.path.basename(program), [program, *argv], cwd, env, streams, terminal, tuple(handed))
        self._living.add(guarded)
        if self._limits and LINUX and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look(), name="agents' limits")
        await guarded._connect(limit)
        return guarded

    async def stop_all(self) -> None:
        """End everything and wait until nothing lives; may be called again, and `spawn` after it."""
        while self._living:
            await asyncio.gather(*(guarded.stop() for guarded in self._living))

    def kill_all_now(self) -> None:
        """Ask every guardian for the end without waiting: the lease is lost."""
        for guarded in self._living:
            guarded.end()

    async def _look(self) -> None:
        """End who exceeds a limit, as long as anybody lives; look more often at those who come near one."""
        pause = LOOK_SECONDS
        while self._living:
            await asyncio.sleep(pause)
            looked = [guarded for guarded in self._living if guarded.ended_because is None]
            found = await asyncio.to_thread(self._measured, [(guarded.pid, guarded.name) for guarded in looked])
            for guarded, (sentence, _) in zip(looked, found, strict=True):
                if sentence and guarded.returncode is None:
                    guarded.ended_because = sentence
                    guarded.end(grace=0)
            pause = LOOK_SECONDS if all(near < NEAR for _, near in found) else LOOK_SECONDS_NEAR

    def _measured(self, guardians: Sequence[tuple[int, str]]) -> list[tuple[str, float]]:
        return [self._limits.exceeded(pid, name) for pid, name in guardians]

    def _start(
        self,
        name: str,
        command: list[str],
        cwd: Path,
        env: Mapping[str, str],
        streams: tuple[int, int, int],
        terminal: bool,
        handed: tuple[int, ...],
    ) -> Guarded:
        lock = self._lock_fd
        pipe: tuple[int, ...] = ()
        try:
            pipe = reader, writer = os.pipe()
            os.set_blocking(writer, False)
            os.write(writer, guard.ORDER.pack(self._deadline, guard.GRACE))
            words = (str(reader), str(-1 if lock is None else lock), str(int(terminal)), ",".join(map(str, handed)))
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, *words, *command],
                bufsize=0,
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                cwd=cwd,
                env=env,
                pass_fds=(reader, *handed) if lock is None else (reader, lock, *handed),
                start_new_session=True,
            )
            guarded = Guarded(process, name, writer, self._deadline, self._living.discard)
        except (OSError, ValueError) as error:
            for descriptor in pipe:
                os.close(descriptor)
            raise InternalError(f"{command[0]} could not be started in {cwd}: {error}.") from error
        os.close(reader)
        return guarded


def find_program(program: str, cwd: Path, env: Mapping[str, str]) -> str:
    """A program's absolute path as execvp(3) would find it, a relative one against `cwd`.

    Raises:
        AgentUnavailable: there is no such program.
    """
    search = env.get("PATH", os.defpath)
    if os.sep in program:
        found = shutil.which(cwd / program)
        detail = f"{cwd / program} is not a program"
    else:
        found = shutil.which(program, path=search)
        detail = f"there is no program of that name on the PATH {search}"
    if found is None:
        raise AgentUnavailable(agent=program, detail=detail)
    return os.path.join(os.getcwd(), found)
