"""What the tests of the embedded server share: data directories, and processes that own a server."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import sysconfig
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from coder.postgres.embedded import EmbeddedServer

REPOSITORY = Path(__file__).resolve().parents[3]
DEADLINE = 60.0

OWNER = """
import signal, sys
from pathlib import Path
from coder.postgres import launch
from coder.postgres.embedded import EmbeddedServer
launch.LIFE_TIE = sys.argv[2]
every = launch.identities
launch.identities = lambda owner: [name for name in every(owner) if name.startswith(sys.argv[3])]
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` and `&` leave it
server = EmbeddedServer(Path(sys.argv[1]), durable=False)
server.start()
print(server.owned, server.dsn, flush=True)
sys.stdin.read()
server.stop()
"""


class Owner:
    """A python process of its own that starts the server of a data directory, and stops it when `end` is called."""

    def __init__(self, data_dir: Path, tie: str, identity: str, python: Sequence[str], **options: object) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), sysconfig.get_path("purelib")])}
        self.process = subprocess.Popen(
            [*python, "-c", OWNER, str(data_dir), tie, identity],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd="/",
            **options,  # type: ignore[call-overload]
        )

    def answer(self) -> tuple[bool, str]:
        """Whether it owns the server, and the DSN; waits until it is up."""
        line = self.process.stdout.readline()
        owned, _, dsn = line.strip().partition(" ")
        if owned not in ("True", "False"):
            raise AssertionError(line + self.process.stdout.read())
        return owned == "True", dsn

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(DEADLINE)

    def end(self) -> int:
        self.process.communicate(timeout=DEADLINE)
        return self.process.returncode


StartOwner = Callable[..., Owner]


@pytest.fixture
def start_owner(data_dir: Path) -> Iterator[StartOwner]:
    """Starts owners of servers on `data_dir`; whatever of them is left is killed after the test, and their servers end with them."""
    with ExitStack() as stack:

        def start(tie: str = "signal", identity: str = "", python: Sequence[str] = (sys.executable,), **options: object) -> Owner:
            owner = Owner(data_dir, tie, identity, python, **options)
            stack.enter_context(owner.process)
            stack.callback(owner.process.kill)
            return owner

        yield start


def await_release(data_dir: Path) -> None:
    """Wait until the last process of whatever works on a data directory has let go of it."""
    with (data_dir / "postgres/lock").open() as held:
        waiting = threading.Thread(target=fcntl.flock, args=(held, fcntl.LOCK_EX), daemon=True)
        waiting.start()
        waiting.join(DEADLINE)
        assert not waiting.is_alive(), f"a server outlives the test on {data_dir}"


@pytest.fixture
def released(data_dir: Path) -> Callable[[], None]:
    """Waits until nothing works on `data_dir` any more."""
    return lambda: await_release(data_dir)


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data directory that does not exist yet, with a path short enough for a socket and open to every user."""
    with tempfile.TemporaryDirectory(prefix="c-") as directory:
        os.chmod(directory, 0o755)
        yield Path(directory) / "d"
        if (Path(directory) / "d/postgres/lock").exists():
            await_release(Path(directory) / "d")


@pytest.fixture
def make_server(data_dir: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Makes servers, not started, that are stopped after the test."""
    with ExitStack() as stack:

        def make(directory: Path = data_dir, *, durable: bool = False) -> EmbeddedServer:
            server = EmbeddedServer(directory, durable=durable)
            stack.callback(server.stop)
            return server

        yield make
