"""A coder as people run it: a process of its own, and its three doors, the command line, psql and HTTP.

Every wait is for a fact and ends early when the process dies, with the end of its log. Nothing here looks inside coder: what
is known of it comes through a door.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psycopg
from psycopg.rows import dict_row

T = TypeVar("T")

TOKEN = "acceptance-token"
ENDED = ("completed", "failed", "cancelled", "interrupted")
LOOK_MS = 20
LOG_CHARACTERS = 4000
CODER = (sys.executable, "-m", "coder")


class Coder:
    """One data directory, and the service on it, which may be started and ended again and again.

    Args:
        folder: where its data, its home and its log go.
        program: what runs the service.
        command: the command line.
        last: how the last line begins that the service prints when it is ready.
        settings: `CODER_*` variables without that prefix, in small letters.

    Attributes:
        said: the lines the service printed until it was ready.
        token: what HTTP requests bear: the configured one, or the one it printed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        program: Sequence[str] = (*CODER, "up"),
        command: Sequence[str] = CODER,
        last: str = "queue: ",
        **settings: str,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "service.log"
        (folder / "home").mkdir(parents=True)
        self._program, self._command, self._last = list(program), list(command), last
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("CODER_", "GIT_"))}
        own = {"data_dir": str(self.data), "port": "0", "admin_token": TOKEN, **settings}
        self.environment = {**inherited, "HOME": str(folder / "home"), **{f"CODER_{name.upper()}": own[name] for name in own}}
        self.said: list[str] = []
        self.token = TOKEN
        self._process: subprocess.Popen[str] | None = None
        self._database: psycopg.Connection[dict[str, Any]] | None = None
        self._address = ""

    # --- the process

    @property
    def process(self) -> subprocess.Popen[str]:
        assert self._process is not None, "the service was not started"
        return self._process

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> None:
        """Start the service."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._program,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def start(self, **settings: str) -> None:
        """Start the service and wait until it says that it is ready.

        Args:
            settings: replace those of before, from now on.
        """
        self.environment |= {f"CODER_{name.upper()}": value for name, value in settings.items()}
        self.launch()
        self.said = []
        assert self.process.stdout is not None
        while line := self.process.stdout.readline():
            self.said.append(line.rstrip("\n"))
            if line.startswith(self._last):
                break
        assert self.said, f"the service did not start:\n{self.logged()}"
        self.token = next((line.split()[1] for line in self.said if line.startswith("token: ")), self.token)
        self.url = self.said[0].removeprefix("ready: ")
        self.api = httpx.Client(base_url=f"{self.url}api/v1", headers={"Authorization": f"Bearer {self.token}"}, timeout=60)

    def stop(self, seconds: float = 30) -> int:
        """Ask the service to stop, as a supervisor does; answers its exit code."""
        self.hang_up()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """`kill -9` of the service, and of nothing else."""
        self.hang_up()
        self.process.kill()
        self.process.wait(10)

    def died(self, seconds: float = 30) -> int:
        """Wait until the service has ended by itself; answers how, negative for a signal."""
        code = self.process.wait(seconds)
        self.hang_up()
        return code

    def close(self) -> None:
        """Leave nothing running, whatever the test did."""
        if self.alive:
            self.stop()

    def hang_up(self) -> None:
        """Drop the connection to a database that is about to go away, or has."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def logged(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_CHARACTERS:] if self.log.exists() else ""

    def until(self, fact: Callable[[], T | None], seconds: float = 30.0) -> T:
        """Look again and again until something is so (neither None, False nor empty), and answer it."""
        deadline = time.monotonic() + seconds
        ended = os.pidfd_open(self.process.pid)
        try:
            poller = select.poll()
            poller.register(ended, select.POLLIN)
            while not (found := fact()):
                assert time.monotonic() < deadline, f"not so within {seconds:g} s; the service says:\n{self.logged()}"
                assert not poller.poll(LOOK_MS), f"the service has ended:\n{self.logged()}"
        finally:
            os.close(ended)
        return found

    # --- the doors

    def cli(self, *arguments: str, code: int = 0, **given: str) -> str:
        """Run a command of `coder` to its end; answers what it printed.

        Args:
            code: the exit code it must have.
            given: `CODER_*` variables besides, named as in `settings`.
        """
        environment = self.environment | {f"CODER_{name.upper()}": value for name, value in given.items()}
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, f"coder {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def psql(self, statement: str, code: int = 0) -> str:
        """Run a statement with the bundled psql; answers the values it printed, or its complaint."""
        return self.cli("psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, code=code).rstrip("\n")

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """What the database says."""
        if self._database is None:
            self._address = self._address or self.cli("db", "url").strip()
            self._database = psycopg.connect(self._address, autocommit=True, row_factory=dict_row)
        return self._database.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> dict[str, Any]:
        (found,) = self.rows(query, *values)
        return found

    def get(self, path: str) -> Any:
        """The JSON of a resource."""
        answer = self.api.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, status: int, /, **body: Any) -> Any:
        """Send something; answers the JSON that came with that status."""
        answer = self.api.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    # --- tasks and changes

    def queue(self, project: str, *lines: str, session: str | None = None, **given: Any) -> int:
        """Queue a task over HTTP, what it says line by line; answers its id."""
        task: int = self.post("/tasks", 201, project=project, input="\n".join(lines), session_id=session, **given)["id"]
        return task

    def ended(self, task: int, state: str = "completed", seconds: float = 30.0) -> dict[str, Any]:
        """A task once it has ended, which must be in that state."""

        def over() -> dict[str, Any] | None:
            row: dict[str, Any] = self.get(f"/tasks/{task}")
            return row if row["state"] in ENDED else None

        found = self.until(over, seconds)
        assert found["state"] == state, f"{json.dumps(found, indent=1)}\n{self.logged()}"
        return found

    def turn(self, project: str, *lines: str, session: str | None = None) -> dict[str, Any]:
        """Queue a task and wait until it is completed."""
        return self.ended(self.queue(project, *lines, session=session))

    def change(self, task: dict[str, Any]) -> dict[str, Any]:
        """The change of a task that was read."""
        assert task["change_id"], f"task {task['id']} left no change"
        found: dict[str, Any] = self.get(f"/changes/{task['change_id']}")
        return found

    def diff(self, change: dict[str, Any]) -> bytes:
        return self.api.get(f"/changes/{change['id']}/diff").content

    def approve(self, change: dict[str, Any], status: int = 200, **how: Any) -> Any:
        """Approve a change as it was read."""
        return self.post(f"/changes/{change['id']}/approve", status, **{"fingerprint": change["fingerprint"], **how})

    def reject(self, change: dict[str, Any], status: int = 200, **how: Any) -> Any:
        return self.post(f"/changes/{change['id']}/reject", status, **{"fingerprint": change["fingerprint"], **how})

    def tools(self, task: dict[str, Any]) -> list[dict[str, Any]]:
        """The tool calls of a task, as the session's messages show them."""
        messages = self.get(f"/sessions/{task['session_id']}/messages")["items"]
        (found,) = (message["tool_calls"] for message in messages if message["task_id"] == task["id"] and message["role"] == "assistant")
        return list(found)

    def worktree(self, session: str) -> dict[str, Any]:
        return self.row("select * from session_worktrees where session_id = %s", session)


def running(coder: Coder) -> Iterator[Coder]:
    """The body of a fixture: a coder that runs, and is stopped whatever happens."""
    coder.start()
    try:
        yield coder
    finally:
        coder.close()
