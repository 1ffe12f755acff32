"""The guardian: a process that starts one agent or command and ends it with everything it has started.

The dispatcher runs it as `python -I -S guard.py <orders fd> <lock fd> <terminal> <handed fds> <program> <argv…>` (see `guardian.py`).
It adopts every orphan among its descendants (PR_SET_CHILD_SUBREAPER), so that none of them can leave it, and it
ends them all when the orders pipe closes (the dispatcher died, or asks for the end), when the deadline has passed
(the dispatcher is stopped or has lost its lease), or when the program has ended by itself.

Invariant: this process goes only after every descendant has gone, with the program's own exit status.

Standard library only, and little of it: each command pays for these imports. It imports nothing of coder, so that it
also starts where coder itself cannot be imported. It is no sandbox: what other programs start on request (a container
engine, `systemd-run`, `at`) are no descendants. Without /proc and subreaper (macOS) it reaches the program's process
group only.
"""

import ctypes
import math
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Iterator

ORDER = struct.Struct("dd")
"""One order: the deadline (seconds of `now()`) and the seconds between TERM and KILL. Less than PIPE_BUF, so written whole."""

GRACE = 0.5
"""Seconds between TERM and KILL where nobody asked for others; everything is to be gone 2 s after the dispatcher."""

LINUX = sys.platform == "linux"
SUSPEND_CHECK = 1.0
RETRY_KILL = 0.02
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def now() -> float:
    """Seconds of CLOCK_BOOTTIME, which goes on during a suspend (macOS: CLOCK_MONOTONIC, which does so there)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def prctl(option: int, value: int) -> None:
    """Call prctl(2); nothing where there is none. Raises OSError when the kernel refuses."""
    if LINUX:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0)) != 0:
            raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")


class Orders:
    """The newest order of the dispatcher."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe
        self.deadline = math.inf
        self.grace = GRACE
        os.set_blocking(pipe, False)

    def over(self) -> bool:
        """Read what has come, and say whether the end has: the pipe is closed or the deadline has passed."""
        try:
            while content := os.read(self.pipe, 4096 * ORDER.size):
                self.deadline, self.grace = ORDER.unpack(content[-ORDER.size :])
            return True
        except BlockingIOError:
            return now() >= self.deadline


class Family:
    """The program and all its descendants."""

    def __init__(self) -> None:
        self.program = 0
        self.status: int | None = None
        self._wakeup, writer = os.pipe()
        os.set_blocking(self._wakeup, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def start(self, program: str, argv: list[str], environ: dict[bytes, bytes], terminal: bool, handed: list[int]) -> None:
        """Fork, and run the program in a session of its own; with `terminal`, that on its standard input controls it.

        Args:
            handed: further descriptors that only the program keeps.
        """
        guardian = os.getpid()
        self.program = os.fork()
        if self.program == 0:
            try:
                become_program(guardian, program, argv, environ, terminal)
            except OSError as error:
                os.write(2, f"coder: cannot run {program}: {error.strerror}\n".encode(errors="replace"))
            finally:
                os._exit(127)
        # The descendants alone hold the streams and what they were handed from here on, or nobody would see them close.
        for descriptor in handed:
            os.close(descriptor)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)

    def left(self) -> bool:
        """Reap who has ended, and say whether anybody is left: the kernel knows, orphans being our children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.program:
                self.status = status

    def watch(self, orders: Orders) -> None:
        """Return when the program has ended or the dispatcher wants or deserves no more of it."""
        while self.left() and self.status is None and not orders.over():
            # A suspend stops the clock of poll(2) but not that of the deadline, so look once a second.
            self._wait(min(orders.deadline - now(), SUSPEND_CHECK), orders.pipe)

    def end(self, orders: Orders) -> None:
        """TERM, then KILL whatever is left until nothing is. A long grace never outlives the deadline."""
        if not self.left():
            return
        asked = now()
        kill_at = min(asked + orders.grace, max(asked + GRACE, orders.deadline))
        self._signal_all(signal.SIGTERM)
        while self.left():
            remaining = kill_at - now()
            if remaining <= 0:
                # Frozen first: who forks as fast as it is killed would win the race.
                self._signal_all(signal.SIGSTOP)
                self._signal_all(signal.SIGKILL)
                remaining = RETRY_KILL
            self._wait(remaining)

    def _wait(self, seconds: float, *pipes: int) -> None:
        """Wait until a child has ended (SIGCHLD writes to the wakeup pipe), one of the pipes speaks or the time is over."""
        poller = select.poll()
        for pipe in (self._wakeup, *pipes):
            poller.register(pipe, select.POLLIN)
        for pipe, _ in poller.poll(max(0.0, seconds) * 1000):
            if pipe == self._wakeup:
                os.read(pipe, 4096)

    def _signal_all(self, number: int) -> None:
        if LINUX:
            # To freeze: each as soon as it is found, before it has more children. To end: all are found before the first
            # is signalled, since the children of one that goes move elsewhere in the tree.
            for pid, parent in descendants() if number == signal.SIGSTOP else list(descendants()):
                send(pid, parent, number)
        elif self.status is None:
            os.killpg(self.program, number)


def become_program(guardian: int, program: str, argv: list[str], environ: dict[bytes, bytes], terminal: bool) -> None:
    """In the forked child: turn into the program. Raises OSError, or does not return."""
    # Second line, should somebody kill -9 the guardian; it reaches the program, not its descendants.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guardian:
        return
    # A setuid program would belong to somebody else, and could not be ended.
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    if terminal:
        os.login_tty(0)
    else:
        os.setsid()
    for number in (*IGNORED, *IGNORED_BY_PYTHON):
        signal.signal(number, signal.SIG_DFL)
    os.execve(program, argv, environ)


def children(parent: int) -> Iterator[int]:
    """The children of a process, zombies included; none of one that is gone. (proc(5): /proc/<pid>/task/<tid>/children)"""
    try:
        threads = os.listdir(f"/proc/{parent}/task")
    except OSError:  # it is gone; for anything else see `send`
        return
    for thread in threads:
        try:
            with open(f"/proc/{parent}/task/{thread}/children") as listing:
                found = listing.read().split()
        except OSError:
            continue
        yield from map(int, found)


def descendants() -> Iterator[tuple[int, int]]:
    """Every descendant of this process with the parent it was found under, parents first."""
    seen = {os.getpid()}
    parents = [os.getpid()]
    while parents:
        parent = parents.pop()
        for pid in children(parent):
            if pid not in seen:
                seen.add(pid)
                parents.append(pid)
                yield pid, parent


def send(pid: int, parent: int, number: int) -> None:
    """Signal a descendant, but nobody who got its number after it ended: hold it first, then look whose child it is.

    One that is gone needs none. One that cannot be signalled (another user's; no descriptor free) is tried again by
    `Family.end`, which stays until everybody has gone.
    """
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            found = int(stat.read().rpartition(b")")[2].split()[1])
        if found in (parent, os.getpid()):
            signal.pidfd_send_signal(handle, number)
    except OSError:
        return
    finally:
        os.close(handle)


def own_environment() -> dict[bytes, bytes]:
    """The environment as the dispatcher gave it: Python adds LC_CTYPE to its own in a C locale (PEP 538)."""
    if not LINUX:
        return dict(os.environb)
    with open("/proc/self/environ", "rb") as environ:
        entries = (entry.partition(b"=") for entry in environ.read().split(b"\0") if entry)
        return {name: value for name, _, value in entries}


def leave(status: int | None) -> None:
    """Exit as the program did: with its code, or by its signal; by SIGTERM when it never began."""
    code = -signal.SIGTERM if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        prctl(PR_SET_DUMPABLE, 0)  # the program may have left a core; ours would say nothing
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def main() -> None:
    orders_pipe, lock, terminal = (int(argument) for argument in sys.argv[1:4])
    for descriptor in (orders_pipe, lock):
        if descriptor >= 0:
            os.set_inheritable(descriptor, False)
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    orders = Orders(orders_pipe)
    family = Family()
    if not orders.over():
        handed = [int(descriptor) for descriptor in sys.argv[4].split(",") if descriptor]
        family.start(sys.argv[5], sys.argv[6:], own_environment(), bool(terminal), handed)
        family.watch(orders)
        family.end(orders)
    leave(family.status)


if __name__ == "__main__":
    main()
