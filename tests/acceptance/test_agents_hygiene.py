"""Nothing of a real agent outlives its dispatcher: killed, or stopped for longer than its lease, in the middle of shell commands.

All agents at once in one dispatcher, each with a command that has a descendant in a session of its own. The trees before and
after are printed; `-rP` shows them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from blocking import Living
from checkout import Checkout
from families import MODES, PROGRAMS, command_line, everybody, told
from running import Coder

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server", "real_agents")

LEASE = 5.0
GONE = 2.0
START = 240.0
AWAY, HELD = "86399", "86398"
SCRIPT = f"setsid sleep {AWAY} &\nexec sleep {HELD}\n"


@pytest.fixture
def checkout(checkout: Checkout) -> Checkout:
    """With the script in its history, so in every worktree."""
    checkout.write("hold.sh", SCRIPT)
    checkout.commit("hold")
    return checkout


@pytest.fixture
def coder(tmp_path: Path, model_server: ModelServer, agent_path: Callable[[str], Path]) -> Iterator[Coder]:
    folder = tmp_path / "coder"
    made = Coder(folder, model_base_url=model_server.openai, default_model="m1", lease_seconds=f"{LEASE:g}", beat_seconds="0.5")
    made.environment["PATH"] = os.pathsep.join(
        (*dict.fromkeys(str(agent_path(program)) for program in PROGRAMS.values()), os.environ["PATH"])
    )
    made.data.mkdir(parents=True)
    (made.data / "agents.toml").write_text("".join(f"[{agent}]\nuse_endpoint = true\n" for agent in PROGRAMS))
    made.start()
    yield made
    made.process.kill()
    made.process.wait(10)


def busy(coder: Coder, project: str) -> list[int]:
    """Have every agent run the script; answers everybody once all scripts run. codex looks after its command only now and then."""
    for agent in PROGRAMS:
        coder.queue(project, "Hold on.", "run: sh hold.sh", "hang", agent=agent, mode_id=MODES.get(agent))

    def running() -> list[int]:
        pids = everybody(coder)
        lines = [command_line(pid) for pid in pids]
        there = all(lines.count(["sleep", seconds]) == len(PROGRAMS) for seconds in (AWAY, HELD))
        return pids if there else []

    try:
        return coder.until(running, START)
    except AssertionError:
        told(coder, "not all of them hold")
        print(coder.rows("select id, agent, state, error, output_summary from tasks order by id"))
        raise


def test_nothing_is_left_two_seconds_after_a_kill(coder: Coder, project: str) -> None:
    pids = busy(coder, project)
    told(coder, "before kill -9 of the dispatcher")
    agents = Living(pids)
    coder.kill()
    killed = time.monotonic()
    assert agents.gone_within(GONE)
    print(f"--- {time.monotonic() - killed:.2f} s after kill -9: none of {len(agents)} processes is left")
    assert not [pid for pid in pids if command_line(pid)]


def test_nothing_is_left_two_seconds_after_the_lease_of_a_stopped_dispatcher(coder: Coder, project: str) -> None:
    pids = busy(coder, project)
    told(coder, "before SIGSTOP of the dispatcher")
    agents = Living(pids)
    coder.process.send_signal(signal.SIGSTOP)
    stopped = time.monotonic()
    assert agents.gone_within(LEASE + GONE)
    print(f"--- {time.monotonic() - stopped:.2f} s after SIGSTOP, {LEASE:g} s of lease: none of {len(agents)} processes is left")
