"""A real dispatcher process is killed while its agent waits for a person; who answers meanwhile has not answered in vain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from askbench import OPEN
from nodebench import PATIENCE_SECONDS, House

HERE = Path(__file__).resolve()
SERVICE = """
from agents.null import NullBackend
from askbench import Asker
from coder.config import Settings
from coder.service import Ready, Service
from coder.task import AgentSession

async def ready(_: Ready) -> None:
    print("ready", flush=True)

asker = Asker(keeps=AgentSession("ses_1", "hash", "one-0"))
raise SystemExit(Service(Settings(_env_file=None), "dispatch", lambda _: {"native": NullBackend(), "goose": asker}).run(ready))
"""


@pytest.fixture
def dispatcher(database: str, tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts a dispatcher on the test's database, in a process of its own; what is left of it is killed after the test."""
    paths = [HERE.parents[3], HERE.parents[2], HERE.parent, sysconfig.get_path("purelib")]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")} | {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "CODER_DATABASE_URL": database,
        "CODER_DATA_DIR": str(tmp_path / "data"),
        "CODER_POLL_SECONDS": "0.2",
    }
    with ExitStack() as stack:

        def start() -> subprocess.Popen[str]:
            with (tmp_path / "log").open("a") as log:
                process = subprocess.Popen(
                    [sys.executable, "-c", SERVICE], env=variables, cwd=tmp_path, stdout=subprocess.PIPE, stderr=log, text=True
                )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", (tmp_path / "log").read_text()
            return process

        yield start


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    path.mkdir()
    (path / "a.txt").write_text("a\n")
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    for arguments in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run(["git", *identity, *arguments], cwd=path, check=True)
    return path


async def test_an_answer_given_after_kill_9_holds_and_a_clean_stop_keeps_the_agent_s_session(
    house: House, dispatcher: Callable[[], subprocess.Popen[str]], repository: Path
) -> None:
    await house.sql.execute("update projects set path = $1", str(repository))
    first = dispatcher()
    greeting = await house.add("say hello", agent="goose")
    assert await house.ended(greeting) == ["completed"]
    session = await house.session_of(greeting)
    task = await house.add("ask make", agent="goose", session_id=session)
    permission = await house.until(OPEN)
    assert await house.sql.fetchval("select status from agent_sessions") == "active"
    first.kill()
    first.wait(PATIENCE_SECONDS)
    await house.sql.execute("select coder.allow($1, p_actor => 'ada')", permission)
    second = dispatcher()
    assert await house.ended(task) == ["interrupted"]
    assert (await house.task(task))["reason"] == "crash"
    assert await house.sql.fetchval("select status from agent_sessions") == "lost"
    again = await house.sql.fetchval("select coder.resume($1)", task)
    assert await house.ended(again) == ["completed"]
    assert (await house.message(again))["text"] == "yes."
    rows = await house.sql.fetch("select id, state, actor, task_id, told_at is not null from permissions")
    assert [tuple(row) for row in rows] == [(permission, "allowed_once", "ada", again, True)]
    second.send_signal(signal.SIGTERM)
    assert second.wait(PATIENCE_SECONDS) == 0
    assert await house.sql.fetchval("select status from agent_sessions") == "stopped"
