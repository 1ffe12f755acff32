"""The scripted model of the tests as a fixture: `tests/agents/aimock.mjs`, which says what its prompts can ask for.

One server for the whole run; it ends with the run, since it ends when its standard input does. The packages are
installed once, from the lock file, into `tests/agents/node_modules`, which git ignores.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

AGENTS = Path(__file__).resolve().parent / "agents"


@dataclass(frozen=True)
class ModelServer:
    """A scripted model that runs.

    Attributes:
        url: its address without a path; the OpenAI protocol is below `/v1`, Anthropic's at the address itself.
    """

    url: str

    @property
    def openai(self) -> str:
        return f"{self.url}/v1"

    def requests(self, containing: str) -> list[dict[str, Any]]:
        """The bodies of the requests so far with that text in them (ask with a text of your own), in order."""
        return [entry["body"] for entry in self.journal() if containing in json.dumps(entry["body"], ensure_ascii=False)]

    def journal(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/__aimock/journal") as answer:
            entries: list[dict[str, Any]] = json.load(answer)
        return entries


def installed() -> Path:
    """The folder with the installed packages of `package-lock.json`; installs them when they are not those."""
    lock = AGENTS / "package-lock.json"
    done = AGENTS / "node_modules" / ".installed"
    with lock.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # other test runs may want the same
        if not done.exists() or done.read_bytes() != lock.read_bytes():
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=AGENTS, check=True, stdin=subprocess.DEVNULL)
            done.write_bytes(lock.read_bytes())
    return AGENTS / "node_modules"


@pytest.fixture(scope="session")
def model_server() -> Iterator[ModelServer]:
    if shutil.which("npm") is None:
        pytest.fail("These tests run against a scripted model that needs Node.js >= 20.15; put node and npm on the PATH.")
    installed()
    with subprocess.Popen(["node", "aimock.mjs"], cwd=AGENTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield ModelServer(process.stdout.readline().strip())
        process.stdin.close()
