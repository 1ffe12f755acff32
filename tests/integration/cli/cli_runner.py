"""How the tests of the command line run commands, in this process, and the API they may go to."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from typer.testing import CliRunner, Result

from coder.cli.app import build
from coder.config import Settings
from coder.main import CommandHouse
from coder.postgres.door import PostgresDoor
from coder.postgres.pool import open_pool
from coder.runtime.clock import SystemClock
from coder.web import app as web

sys.path.append(str(Path(__file__).parents[1] / "web"))
from standin import StandIn


class Served:
    """The API on a loopback port, in a thread of its own."""

    def __init__(self, dsn: str, node: StandIn) -> None:
        self._dsn, self._node = dsn, node
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._server: uvicorn.Server | None = None
        self._there = threading.Event()

    async def _serve(self) -> None:
        pool = await open_pool(self._dsn, size=4, plan_anew=True)
        app = web.build(PostgresDoor(pool, SystemClock()), Settings(_env_file=None), self._node.host)
        self._server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
        self._there.set()
        await self._server.serve(sockets=[self._listening])
        await pool.close()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._there.wait(10)
        return self

    def __exit__(self, *error: object) -> None:
        assert self._server is not None
        self._server.should_exit = True
        self._thread.join()


class Cli:
    """Runs commands in this process, and answers their results."""

    def __init__(self, variables: dict[str, str], node: StandIn) -> None:
        self.variables = variables
        self.node = node
        self.over_http = "CODER_URL" in variables

    def __call__(self, *arguments: Any, code: int = 0, stdin: str | None = None) -> Result:
        """Run a command and check its exit code."""
        result = CliRunner(env=self.variables).invoke(build(CommandHouse()), [str(each) for each in arguments], input=stdin)
        assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
        return result

    def json(self, *arguments: Any, code: int = 0) -> Any:
        """Run a command with --json; its standard output must be one JSON document."""
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def refused(self, *arguments: Any, code: int) -> str:
        """Run a command that must fail with one line on standard error; answers the sentence."""
        result = self(*arguments, code=code)
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("coder: ")
        return line.removeprefix("coder: ")
