"""The embedded PostgreSQL: finds binaries, makes a database cluster, starts, supervises and stops the server.

The job: a data directory in, a DSN out, without any set-up by hand, as root or not. Only the binaries of the
packages are used (found with `find_spec`, never imported): their Python leaks servers and opens directories.
The invariant: at most one server per data directory. Whoever starts one holds `postgres/lock` (flock), and the
server and all its processes inherit it, so the lock is free exactly when nothing of a server is left, however it
ended. `postgres/cluster` appears by a rename and is therefore complete or absent. The password is in a file of mode
0600, the socket in a directory of mode 0700, and every connection must know the password.
What it leaves out: upgrades between major versions (it says so and stops), backups, the schema.

    <data_dir>/postgres/       0700
        lock password server.log
        cluster/               what initdb made
        socket/                or a short directory below the temporary one when this path is too long for a socket
        new/                   a cluster being made
        binaries/              copies, only where the server's user cannot read the installed ones
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from coder.errors import Conflict, Unavailable
from coder.postgres import launch
from coder.postgres.binaries import SYSTEM, Binaries, find_binaries

START_SECONDS = 120.0
"""The longest wait for a server: after a crash it first replays its log."""
STOP_SECONDS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
LOG_BYTES = 10 * 1024 * 1024
PORT = 5432
"""Only part of the socket's name; nothing listens on TCP."""

_SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "max_connections": "200",
    "shared_buffers": "64MB",
    "huge_pages": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "256MB",
    # An idle transaction pins xmin and makes every queue in PostgreSQL slow; `coder` is the server's only role.
    "idle_in_transaction_session_timeout": "10min",
    "password_encryption": "scram-sha-256",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
_FORGETFUL = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def read_dsn(data_dir: Path) -> str | None:
    """The DSN of the embedded server that runs on a data directory, None when none does; Unavailable when it is another user's."""
    home = data_dir.expanduser().resolve() / "postgres"
    try:
        running = _running(home)
        return None if running is None else _dsn(home, running[1])
    except PermissionError as error:
        raise Unavailable(
            f"The embedded PostgreSQL in {home} belongs to another user ({error.strerror}); run this as that user,"
            " or set CODER_URL and CODER_TOKEN to talk to coder instead."
        ) from error


def _dsn(home: Path, directory: str) -> str:
    password = (home / "password").read_text(encoding="ascii")
    return f"postgresql://coder:{password}@/coder?host={quote(directory)}&port={PORT}"


def _running(home: Path) -> tuple[int, str] | None:
    """Pid and socket directory of the server that accepts connections now.

    `postmaster.pid` holds one fact a line (PostgreSQL, miscadmin.h: LOCK_FILE_LINE_*): the 1st is the pid, the 5th
    the socket directory, the 8th the state. A file left by a crash says `ready` too, so the socket has to answer.
    """
    try:
        lines = (home / "cluster" / "postmaster.pid").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    if len(lines) < 8 or lines[7].strip() != "ready":
        return None
    with socket.socket(socket.AF_UNIX) as knock:
        knock.settimeout(5)
        if knock.connect_ex(f"{lines[4]}/.s.PGSQL.{PORT}") in (errno.ENOENT, errno.ECONNREFUSED):
            return None
    return int(lines[0]), lines[4]


class EmbeddedServer:
    """The PostgreSQL server of one data directory: started here, or attached to when another process has started it.

    The server ends with the process that started it, also when that is killed. `wait` then returns in those that
    are attached, and whichever of them calls `start` again first becomes the owner of the next one.

    Args:
        data_dir: coder's data directory; the server lives in `postgres` below it.
        durable: False gives up, for the speed of tests, what a crash of the machine or the server must not lose.

    Attributes:
        log_path: where the server writes what happens to it.
        owned: whether this object started the server and will stop it.
        binaries: what it was started from, None before.
    """

    def __init__(self, data_dir: Path, *, durable: bool = True) -> None:
        self._home = data_dir.expanduser().resolve() / "postgres"
        self._cluster = self._home / "cluster"
        self._durable = durable
        self._identity = "same"
        self._process: subprocess.Popen[bytes] | None = None
        self._exit: int | None = None
        self._dsn: str | None = None
        self._log_start = 0
        self.log_path = self._home / "server.log"
        self.owned = False
        self.binaries: Binaries | None = None

    @property
    def dsn(self) -> str:
        """Where to connect, password included: for asyncpg and psycopg alike, for no log."""
        if self._dsn is None:
            raise Unavailable("The embedded PostgreSQL was not started; start it first.")
        return self._dsn

    @property
    def running(self) -> bool:
        """Whether the server that was started or attached to is alive."""
        return self._exit is not None and not self._ends_within(0)

    async def wait(self) -> None:
        """Return when the server has ended; at once when there is none."""
        if self._exit is None:
            return
        ended = asyncio.Event()
        fd = os.dup(self._exit)
        loop = asyncio.get_running_loop()
        loop.add_reader(fd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)

    def start(self) -> None:
        """Start the server, or attach to the one that runs on this data directory; returns when it accepts connections.

        It blocks, about 0.1 s, longer the first time and after a crash. Call it from the main thread: the kernel
        ties the server to the thread that started it, and would stop it together with a thread of a pool.

        Raises:
            Unavailable: there are no binaries, they may not run here, or the server does not come up.
            Conflict: a server that is not coder's runs on these files.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("EmbeddedServer.start must be called from the main thread: the server ends with the thread that started it")
        if self.running:
            return
        self.stop()  # what is left of a server that has died
        try:
            self._home.parent.mkdir(parents=True, exist_ok=True)
            self._home.mkdir(mode=0o700, exist_ok=True)
            lock = os.open(self._home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if self._own_or_attach(lock):
                    self._launch(lock)
            except BaseException:
                self.stop()
                raise
            finally:
                os.close(lock)
        except OSError as error:
            raise Unavailable(
                f"The embedded PostgreSQL cannot use {self._home} ({error}); give that directory to this user,"
                " point CODER_DATA_DIR to another, or set CODER_DATABASE_URL."
            ) from error

    def stop(self) -> None:
        """Stop the server if it was started here, letting go of it otherwise. Blocks until it is gone; any thread may call it."""
        process, self._process = self._process, None
        if process is not None:
            for number, seconds in STOP_SECONDS:
                process.send_signal(number)
                if self._ends_within(seconds):
                    break
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        if self._exit is not None:
            os.close(self._exit)
        self._exit, self._dsn, self.owned = None, None, False

    def _ends_within(self, seconds: float) -> bool:
        return self._exit is None or launch.readable(self._exit, seconds)

    def _own_or_attach(self, lock: int) -> bool:
        """True when the lock is ours and the server is to be started, False when attached to the one that runs."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                running = _running(self._home)
            if running is not None and self._attach(*running):
                return False
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"Another process holds {self._home / 'lock'}, but no PostgreSQL has come up there within {START_SECONDS:.0f} s;"
                    f" see {self.log_path} and end that process."
                )
            # The other one makes its cluster, starts, or stops; nothing that could be waited for covers all three.
            time.sleep(0.02)

    def _attach(self, pid: int, directory: str) -> bool:
        try:
            self._exit = launch.exit_fd(pid)
        except ProcessLookupError:
            return False
        if _running(self._home) != (pid, directory):
            self.stop()
            return False
        self._dsn = _dsn(self._home, directory)
        return True

    def _launch(self, lock: int) -> None:
        """Bring the server up; the lock is held."""
        made = self._cluster / "PG_VERSION"
        major = int(made.read_text(encoding="ascii")) if made.exists() else None
        try:
            installed = find_binaries(major)
        except Unavailable as error:
            if major is None:
                raise
            raise Unavailable(
                f"The database in {self._cluster} was made by PostgreSQL {major}, and nothing was changed. {error.message} With the old"
                f" binaries in place, `pg_dumpall` moves the content to a new version; moving {self._home} away starts an empty one."
            ) from error
        self._refuse_foreign_server()
        self._choose_identity(installed, lock)
        directory = self._socket_directory()
        if major is None:
            self._create(lock)
        self._spawn(lock, directory)
        self._await_ready()

    def _refuse_foreign_server(self) -> None:
        """Remove the pid file of a crash, unless a server that does not hold our lock runs on these files.

        PostgreSQL itself refuses to start when any process of the same user bears the recorded pid, as happens after
        a restart of a container; we know better, since a server keeps its files as its working directory.
        """
        file = self._cluster / "postmaster.pid"
        if sys.platform != "linux" or not file.exists():
            return
        pid = file.read_text(encoding="utf-8").partition("\n")[0]
        try:
            foreign = os.path.samefile(f"/proc/{pid}/cwd", self._cluster)
        except OSError:  # no such process, or another user's
            foreign = False
        if foreign:
            raise Conflict(f"A PostgreSQL that coder has not started (process {pid}) runs on {self._cluster}; stop it and try again.")
        file.unlink()

    def _choose_identity(self, installed: Binaries, lock: int) -> None:
        """Find somebody that PostgreSQL accepts, who may enter the directory and run the binaries."""
        owner = self._cluster.stat().st_uid if self._cluster.exists() else None
        refusals: list[str] = []
        for identity in launch.identities(owner):
            self._identity = identity
            # Another user passes through our directory, but owns nothing in it except the server's own files.
            self._home.chmod(0o711 if launch.owner(identity)[0] != os.geteuid() else 0o700)
            for binaries in self._reachable(installed):
                self.binaries = binaries
                try:
                    self._run(lock, "postgres", "--version")
                except Unavailable as error:
                    refusals.append(error.message)
                else:
                    launch.hand_over(self._cluster, self._identity)
                    return
        self._home.chmod(0o700)
        raise Unavailable(
            "PostgreSQL refuses to run as this user, and no way around that works here: run coder as an ordinary user, or allow user"
            " namespaces (user.max_user_namespaces, or the container's seccomp profile), or point CODER_DATA_DIR to a directory that the"
            f" users postgres or nobody can enter, or set CODER_DATABASE_URL. Tried: {' '.join(refusals)}"
        )

    def _reachable(self, installed: Binaries) -> Iterator[Binaries]:
        """The binaries where they are; for another user, who may not get there, also a copy beside the data."""
        yield installed
        if launch.owner(self._identity)[0] == os.geteuid() or installed.origin == SYSTEM:
            return
        install, package = installed.directory.parent, installed.directory.parent.parent
        copies = self._home / "binaries" / installed.version
        if not copies.exists():
            making = self._home / "binaries" / "new"
            if making.exists():
                shutil.rmtree(making)
            # The programs find their libraries relative to themselves, in the package and beside it.
            shutil.copytree(install, making / package.name / install.name, symlinks=True)
            libraries = package.with_name(f"{package.name}.libs")
            if libraries.exists():
                shutil.copytree(libraries, making / libraries.name, symlinks=True)
            for path in (making.parent, making, *making.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            making.rename(copies)
        yield Binaries(copies / package.name / install.name / "bin", installed.version, installed.origin)

    def _socket_directory(self) -> Path:
        """A directory for the socket that only we and the server can enter, with nothing of an earlier server in it.

        A socket's path has less than 104 bytes (macOS; 108 on Linux), and a comma or a colon in it means a list of hosts to clients.
        """
        directory = self._home / "socket"
        if len(os.fsencode(directory)) > 80 or not re.fullmatch(r"[\w./+@-]+", str(directory), re.ASCII):
            name = f"coder-{os.geteuid()}-{hashlib.sha256(os.fsencode(self._home)).hexdigest()[:16]}"
            temporary = tempfile.gettempdir()
            directory = Path(temporary if len(temporary) <= 40 else "/tmp") / name
        directory.mkdir(mode=0o700, exist_ok=True)
        uid, gid = launch.owner(self._identity)
        found = directory.lstat()
        if not directory.is_dir() or directory.is_symlink() or found.st_uid not in (os.geteuid(), uid) or found.st_mode & 0o077:
            raise Unavailable(f"{directory} is not a directory of mode 0700 that belongs to this user; remove it, it is for the socket.")
        if found.st_uid != uid:
            os.chown(directory, uid, gid, follow_symlinks=False)
        for leftover in directory.glob(".s.PGSQL.*"):
            leftover.unlink()
        return directory

    def _create(self, lock: int) -> None:
        """Make the cluster with the role and the database `coder`, beside its place, then move it there."""
        uid, gid = launch.owner(self._identity)
        new = self._home / "new"
        if new.exists():
            shutil.rmtree(new)
        cluster, words = new / "cluster", new / "password"
        new.mkdir(mode=0o711)
        cluster.mkdir(mode=0o700)
        password = secrets.token_urlsafe(24)
        for path in (self._home / "password", words):
            path.unlink(missing_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
                file.write(password)
        for path in (cluster, words):
            os.chown(path, uid, gid)
        options = ["-E", "UTF8", "--locale=C", "--data-checksums", *([] if self._durable else ["--no-sync"])]
        authentication = ["--auth-local=scram-sha-256", "--auth-host=scram-sha-256", "--username=coder", f"--pwfile={words}"]
        self._run(lock, "initdb", "-D", str(cluster), *options, *authentication)
        options = ["-c", "exit_on_error=on", *([] if self._durable else ["-c", "fsync=off"])]
        self._run(lock, "postgres", "--single", "-D", str(cluster), *options, "postgres", said="CREATE DATABASE coder;\n")
        cluster.rename(self._cluster)
        shutil.rmtree(new)
        place = os.open(self._home, os.O_RDONLY)
        os.fsync(place)
        os.close(place)

    def _popen(self, lock: int, tie: str, output: int, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program of the binaries; in a session of its own, so that Ctrl-C in a terminal reaches only us."""
        assert self.binaries is not None
        return subprocess.Popen(
            launch.command(self._identity, tie, str(self._home), str(self.binaries.directory / program), *arguments),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=launch.environment(),
            start_new_session=True,
            pass_fds=(lock,),
        )

    def _run(self, lock: int, program: str, *arguments: str, said: str = "") -> None:
        """Run a program to its end; raises Unavailable with what it printed when it fails."""
        with self._popen(lock, launch.SHORT_TIE, subprocess.PIPE, program, *arguments) as process:
            answer = process.communicate(said.encode())[0].decode(errors="replace")
        if process.returncode != 0:
            raise Unavailable(f"{program} of the embedded PostgreSQL failed: {launch.complaint(answer)}")

    def _spawn(self, lock: int, directory: Path) -> None:
        """Start the server's process."""
        settings = _SETTINGS | {"unix_socket_directories": str(directory)} | ({} if self._durable else _FORGETFUL)
        options = [f"--{name}={value}" for name, value in settings.items()]
        if self.log_path.exists() and self.log_path.stat().st_size > LOG_BYTES:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = self._popen(lock, launch.LIFE_TIE, log, "postgres", "-D", str(self._cluster), *options)
        finally:
            os.close(log)
        self.owned = True
        self._exit = launch.exit_fd(self._process.pid)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while (running := _running(self._home)) is None:
            ended = self._ends_within(0.005)
            if ended or time.monotonic() > deadline:
                said = launch.complaint(self.log_path.read_bytes()[self._log_start :].decode(errors="replace"))
                what = "ended while it started" if ended else f"did not come up within {START_SECONDS:.0f} s"
                raise Unavailable(f"The embedded PostgreSQL {what}: {said} See {self.log_path}.")
        self._dsn = _dsn(self._home, running[1])
