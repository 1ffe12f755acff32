"""Runs a program of PostgreSQL as somebody it accepts, and ties its life to ours.

The job: `command` gives the argv that starts this file as a script (`python -I -S launch.py …`), which becomes the
wanted identity, makes sure the program is told to stop when the parent dies, and then becomes the program. The other
functions are the caller's half of that: who to be, what to see, when it has ended.
The invariant: no user is created, and of files only those the caller names change hands; whatever cannot be done
ends the launcher with one sentence on stderr before the program has started.
What it leaves out: choosing among the identities (the caller tries them) and everything about data directories.

It imports the standard library only, and little of it: it runs before every start of the server.

An identity is one of
    same                 as we are
    namespace:UID:GID    in a user namespace of its own, where we look like UID and GID; to the outside nothing changes
    user:UID:GID         as another user (needs root)

A tie is one of
    signal   the kernel sends SIGINT when the THREAD that started the program ends (prctl(2), PR_SET_PDEATHSIG)
    pipe     for systems without that: this process stays as a watchdog, and stops the program at EOF on its stdin
    none     untied, for programs that end by themselves
"""

from __future__ import annotations

import ctypes
import os
import pwd
import select
import signal
import sys

LIFE_TIE = "signal" if sys.platform == "linux" else "pipe"
SHORT_TIE = "signal" if sys.platform == "linux" else "none"

_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def command(identity: str, tie: str, directory: str, program: str, *arguments: str) -> list[str]:
    """The argv that runs a program as an identity, tied to the calling process.

    Args:
        identity: see the head of this module.
        tie: see there; with `pipe` the caller keeps the write end of the child's stdin open for as long as it lives.
        directory: absolute working directory; that it can be entered as the identity is part of the check.
        program: absolute path of the program.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), tie, identity, directory, program, *arguments]


def identities(owner: int | None) -> list[str]:
    """The identities worth trying for a server of this process, best first.

    PostgreSQL refuses to run as root, and initdb refuses a user without a name (uid of a container without a passwd
    entry), so both go into a user namespace, where we bear the number of an account that has a name.

    Args:
        owner: uid that owns the existing database files, None when there are none yet.
    """
    uid = os.geteuid()
    if uid == 0 and owner:
        group = next((str(account.pw_gid) for account in _accounts(owner)), str(owner))
        return [f"user:{owner}:{group}"]
    namespace = [f"namespace:{account.pw_uid}:{account.pw_gid}" for account in _accounts(1000, "nobody")[:1]]
    if uid != 0:
        return ["same"] if _accounts(uid) else [*namespace, "same"]
    return namespace + [f"user:{account.pw_uid}:{account.pw_gid}" for account in _accounts("postgres", "nobody")]


def owner(identity: str) -> tuple[int, int]:
    """Uid and gid that own what a program makes as this identity, seen from here."""
    kind, _, numbers = identity.partition(":")
    uid, _, gid = numbers.partition(":")
    return (int(uid), int(gid)) if kind == "user" else (os.geteuid(), os.getegid())


def hand_over(directory: str | os.PathLike[str], identity: str) -> None:
    """Give a directory and all below it to an identity, when there is one and it is another's."""
    uid, gid = owner(identity)
    if not os.path.exists(directory) or os.stat(directory).st_uid == uid:
        return
    for place, _, names in os.walk(directory):
        for path in (place, *(os.path.join(place, name) for name in names)):
            os.chown(path, uid, gid, follow_symlinks=False)


def environment() -> dict[str, str]:
    """What a program gets to see: no PG* variable that would change it, no secret of an agent's provider."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return kept | {"LC_ALL": "C"}


def complaint(said: str) -> str:
    """The line that tells most of what a failed program printed, as a sentence's end."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = ("PANIC:", "FATAL:", "ERROR:", "error:", "could not", "launch:")
    telling = [line for line in lines if any(word in line for word in words)] or lines[-1:] or ["it said nothing"]
    return telling[0].rstrip(".") + "."


def exit_fd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends; raises ProcessLookupError when there is none."""
    if sys.platform == "darwin":
        queue = select.kqueue()
        queue.control([select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)], 0)
        fd = os.dup(queue.fileno())
        queue.close()
        return fd
    return os.pidfd_open(pid)


def readable(fd: int, seconds: float) -> bool:
    """Whether a descriptor is, or becomes in that time, readable."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _accounts(*keys: int | str) -> list[pwd.struct_passwd]:
    """Those of the named accounts that exist."""
    found = []
    for key in keys:
        try:
            found.append(pwd.getpwuid(key) if isinstance(key, int) else pwd.getpwnam(key))
        except KeyError:
            continue
    return found


def _become(identity: str) -> None:
    """Take on the identity; raises OSError where that is not allowed."""
    if identity == "same":
        return
    kind, uid, gid = identity.split(":")
    if kind == "user":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
        return
    own_uid, own_gid = os.geteuid(), os.getegid()
    _libc("unshare", _CLONE_NEWUSER)
    # user_namespaces(7): without rights in the outer namespace one may map just oneself, groups after denying setgroups.
    for name, content in (("setgroups", "deny"), ("uid_map", f"{uid} {own_uid} 1"), ("gid_map", f"{gid} {own_gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(content)


def _libc(function: str, *arguments: int) -> None:
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), function)
    except AttributeError:
        raise OSError(f"this system has no {function}()") from None
    if call(*(ctypes.c_ulong(argument) for argument in arguments)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")


def _watch(program: str, arguments: list[str]) -> int:
    """Run the program as a child; answer its exit code. EOF on stdin stops it, signals are passed on.

    As the child's parent we are the one who reaps it, so its pid cannot become another process's meanwhile.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake_write)
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.execv(program, [program, *arguments])
    watched = [0, wake_read]
    while True:
        ready = select.select(watched, [], [])[0]
        if 0 in ready and not os.read(0, 1):
            watched.remove(0)
            os.kill(child, signal.SIGINT)
        if wake_read in ready:
            for heard in os.read(wake_read, 64):
                if heard != signal.SIGCHLD:
                    os.kill(child, heard)
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)


def main(argv: list[str]) -> int:
    """The launcher itself: parent's pid, tie, identity, directory, program and its arguments."""
    parent, tie, identity, directory, program, *arguments = argv
    # A parent started by `nohup` or `&` bequeaths an ignored SIGINT; the one that stops us must not get lost before exec.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o077)
    try:
        _become(identity)
        os.chdir(directory)
        if tie == "pipe":
            return _watch(program, arguments)
        if tie == "signal":
            # Only now: becoming another user clears it (prctl(2)).
            _libc("prctl", _PR_SET_PDEATHSIG, signal.SIGINT)
            if os.getppid() != int(parent):
                print("launch: the process that asked for this has ended", file=sys.stderr)
                return 1
        os.execv(program, [program, *arguments])
    except OSError as error:
        print(f"launch: {program} as {identity}: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
