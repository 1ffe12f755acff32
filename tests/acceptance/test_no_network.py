"""Projects without network: their agents reach their model and nothing else, by real agents and stand-ins through the front doors.

Beside each turn of such a project runs one of the same agent in a project that has the network, and nothing changes for that.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blocking import Living
from checkout import Checkout, clone_of
from families import MODES, PROGRAMS, command_line, everybody, told
from running import Coder, running

from coder.backends.sandbox import Sandbox

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server", "real_agents")
pytestmark = pytest.mark.skipif(not Sandbox("auto", Path("/nowhere")).works, reason="agents cannot be confined on this machine")

STANDINS = Path(__file__).resolve().parents[1] / "agents"
PYTHON = os.path.realpath(sys.executable)
NAMES = [
    name
    for line in Path("/etc/hosts").read_text().splitlines()
    for name in line.partition("#")[0].split()[1:]
    if line.startswith("127.0.0.1") and "localhost" not in name
]
"""What else this machine calls 127.0.0.1."""

ACP, PTY = "acp-standin", "pty-standin"
OWN = f"""
[{ACP}]
protocol = "acp"
command = ["{PYTHON}", "-S", "{STANDINS}/acp_standin.py"]
use_endpoint = true
endpoint_env = {{ OPENAI_BASE_URL = "{{base_url}}" }}

[{PTY}]
protocol = "pty"
stream = "claude"
command = ["{PYTHON}", "-S", "{STANDINS}/pty_standin.py"]
continue_command = ["{PYTHON}", "-S", "{STANDINS}/pty_standin.py", "--resume", "{{session}}"]
use_endpoint = true
endpoint_env = {{ OPENAI_BASE_URL = "{{base_url}}" }}

[elsewhere]
protocol = "pty"
command = ["/bin/sh", "-c", "echo I reach whom I want"]
"""
REACH = """
import pathlib, socket, sys
pathlib.Path("reached.txt").write_text("here")
for name, host, port in (("model", "127.0.0.1", sys.argv[1]), ("other", "127.0.0.1", sys.argv[2]), ("far", "203.0.113.1", "80")):
    try:
        with socket.create_connection((host, int(port)), timeout=0.5) as connection:
            connection.sendall(sys.argv[3].encode())
            print(name, "open")
    except TimeoutError:
        print(name, "silent")
    except OSError as error:
        print(name, error.strerror)
"""
ALONE = ["model open", "other Connection refused", "far Network is unreachable"]
START = 240.0
LEASE, GONE = 5.0, 2.0
AWAY, HELD = "86397", "86396"
HOLD = f"setsid sleep {AWAY} &\nexec sleep {HELD}\n"


class Listener:
    """A server at a loopback port that nobody without network may reach; it remembers what it heard."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.heard: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:  # closed
                return
            with connection:
                self.heard.append(connection.recv(100).decode())

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def other() -> Iterator[Listener]:
    made = Listener()
    yield made
    made.close()


def made(folder: Path, model_server: ModelServer, agent_path: Callable[[str], Path], agents: tuple[str, ...], **settings: str) -> Coder:
    """A service with real agents and the stand-ins."""
    usual = {"model_base_url": model_server.openai, "default_model": "m1", "sandbox": "required", "sandbox_readable": str(STANDINS)}
    coder = Coder(folder, **{**usual, **settings})
    coder.environment["PATH"] = os.pathsep.join((*dict.fromkeys(str(agent_path(PROGRAMS[agent])) for agent in agents), os.environ["PATH"]))
    coder.data.mkdir(parents=True)
    (coder.data / "agents.toml").write_text("".join(f"[{agent}]\nuse_endpoint = true\n" for agent in PROGRAMS) + OWN)
    return coder


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer, agent_path: Callable[[str], Path]) -> Iterator[Coder]:
    yield from running(made(tmp_path_factory.mktemp("coder"), model_server, agent_path, tuple(PROGRAMS)))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer, agent_path: Callable[[str], Path]) -> Iterator[Coder]:
    """The same, for which the model has a name."""
    if not NAMES:
        pytest.skip("This machine has no name for 127.0.0.1 but localhost.")
    address = model_server.openai.replace("127.0.0.1", NAMES[0])
    yield from running(made(tmp_path_factory.mktemp("named"), model_server, agent_path, tuple(PROGRAMS), model_base_url=address))


@pytest.fixture
def projects(coder: Coder, package: Checkout, tmp_path: Path) -> tuple[str, str]:
    return two_projects(coder, package, tmp_path)


def two_projects(coder: Coder, package: Checkout, folder: Path) -> tuple[str, str]:
    """Two clones with the scripts in their history: a project with the network, and one without."""
    names = (f"{folder.name}-on", f"{folder.name}-off")
    for name in names:
        checkout = clone_of(package.path, folder / name)
        checkout.write("reach.py", REACH)
        checkout.write("hold.sh", HOLD)
        checkout.commit("scripts")
        coder.post("/projects", 201, name=name, path=str(checkout.path), network=name.rpartition("-")[2])
    return names


def lines(agent: str, *steps: str) -> tuple[str, ...]:
    """What to say to an agent. Stand-ins ask the model when they are told so, the real ones by their nature."""
    return (*steps, "model: Are you there?") if agent in (ACP, PTY) else (*steps, "say: This is the scripted model.")


def reached(coder: Coder, task: dict[str, Any]) -> list[str]:
    """What the script of a turn printed."""
    (call,) = (call for call in coder.tools(task) if "reach.py" in call["input"])
    return [line for line in call["output"].splitlines() if line.startswith(("model ", "other ", "far "))]


def answer(coder: Coder, task: dict[str, Any]) -> str:
    messages = coder.get(f"/sessions/{task['session_id']}/messages")["items"]
    return next(message["text"] for message in messages if message["task_id"] == task["id"] and message["role"] == "assistant")


@dataclass
class Begun:
    """Turns of all agents that run at once, one with the network and one without: most of their time is their agents' starts."""

    listener: Listener
    tasks: dict[str, tuple[int, int]]


@pytest.fixture(scope="module")
def begun(coder: Coder, package: Checkout, model_server: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begun]:
    made, port = Begun(Listener(), {}), model_server.url.rpartition(":")[2]
    on, off = two_projects(coder, package, tmp_path_factory.mktemp("begun"))

    def queue(agent: str, project: str, word: str) -> int:
        steps = lines(agent, f"run: {PYTHON} -IS reach.py {port} {made.listener.port} '{word}'")
        return coder.queue(project, *steps, agent=agent, mode_id=MODES.get(agent))

    for agent in (ACP, PTY, *PROGRAMS):
        made.tasks[agent] = (queue(agent, on, f"<{agent} on>"), queue(agent, off, f"<{agent} off>"))
    yield made
    made.listener.close()


@pytest.mark.parametrize("agent", [ACP, PTY, *PROGRAMS])
def test_without_network_the_model_is_reached_and_nothing_else_and_with_it_all_is_as_before(agent: str, coder: Coder, begun: Begun) -> None:
    on, off = (coder.ended(task, seconds=START) for task in begun.tasks[agent])
    assert (on["agent_used"], off["agent_used"]) == (agent, agent)
    assert reached(coder, off) == ALONE
    assert reached(coder, on)[:2] == ["model open", "other open"]
    assert [word for word in begun.listener.heard if word.startswith(f"<{agent} ")] == [f"<{agent} on>"]
    for task in (on, off):
        assert "This is the scripted model" in answer(coder, task)
        assert not [notice for notice in task["notices"] if "confine" in notice or "network" in notice]
    assert "reached.txt" in coder.diff(coder.change(off)).decode()


@pytest.mark.parametrize("agent", [ACP, PTY, "opencode", "goose"])
def test_a_session_is_told_what_was_said_when_the_policy_of_its_project_changes(
    agent: str, coder: Coder, projects: tuple[str, str], other: Listener, model_server: ModelServer
) -> None:
    project, port = projects[0], model_server.url.rpartition(":")[2]
    kept = "select home from agent_sessions where session_id = %s"
    word = f"marmalade{other.port}"
    first = coder.ended(coder.queue(project, *lines(agent), word, agent=agent, mode_id=MODES.get(agent)), seconds=START)
    session = first["session_id"]
    before = coder.row(kept, session)
    assert coder.cli("project", "set", project, "--network", "off")
    steps = lines(agent, f"run: {PYTHON} -IS reach.py {port} {other.port} off")
    second = coder.ended(coder.queue(project, *steps, session=session, agent=agent, mode_id=MODES.get(agent)), seconds=START)
    assert (reached(coder, second), other.heard) == (ALONE, [])
    after = coder.row(kept, session)
    assert after["home"] == f"{before['home']}-offline"
    assert [notice for notice in second["notices"] if "in another home" in notice], second["notices"]
    coder.cli("project", "set", project, "--network", "on")
    steps = ("recall",) if agent in (ACP, PTY) else (f"say: again{other.port}",)
    third = coder.ended(coder.queue(project, *steps, session=session, agent=agent, mode_id=MODES.get(agent)), seconds=START)
    assert coder.row(kept, session)["home"] == before["home"]
    assert [notice for notice in third["notices"] if "in another home" in notice], third["notices"]
    if agent == PTY:
        assert word in answer(coder, third)
    elif agent != ACP:  # which does not tell what it is told
        assert word in str(model_server.requests(f"again{other.port}")[-1])


@pytest.fixture(scope="module")
def by_name(named: Coder, package: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """A turn of each agent, all at once."""
    checkout = clone_of(package.path, tmp_path_factory.mktemp("by-name") / "clone")
    named.post("/projects", 201, name="by-name", path=str(checkout.path), network="off")
    look = f"{PYTHON} -IS -c 'import socket; print(socket.gethostbyname(\"{NAMES[0]}\"))'"
    steps = (f"run: {look}", "say: This is the scripted model.")
    return {agent: named.queue("by-name", *steps, agent=agent, mode_id=MODES.get(agent)) for agent in PROGRAMS}


@pytest.mark.parametrize("agent", PROGRAMS)
def test_a_model_is_reached_by_its_name(agent: str, named: Coder, by_name: dict[str, int]) -> None:
    task = named.ended(by_name[agent], seconds=START)
    assert "This is the scripted model" in answer(named, task)
    assert "127.1.0.1" in named.tools(task)[0]["output"]


def test_an_agent_whose_model_is_nowhere_is_refused_with_a_sentence(coder: Coder, projects: tuple[str, str]) -> None:
    assert "I reach whom I want" in answer(coder, coder.ended(coder.queue(projects[0], "x", agent="elsewhere")))
    refused = coder.ended(coder.queue(projects[1], "x", agent="elsewhere"), "failed")
    assert refused["reason"] == "agent_unavailable"
    assert "name its host and port in model_hosts of the agent's entry" in refused["error"]


def test_without_a_sandbox_it_is_refused_with_a_sentence(tmp_path: Path, package: Checkout, model_server: ModelServer) -> None:
    coder = made(tmp_path / "coder", model_server, lambda _: tmp_path, (), sandbox="off")
    for made_up in running(coder):
        checkout = clone_of(package.path, tmp_path / "clone")
        made_up.post("/projects", 201, name="p", path=str(checkout.path), network="off")
        refused = made_up.ended(made_up.queue("p", "say: x", agent=ACP), "failed")
        assert refused["error"].startswith(
            "The project keeps its agents off the network, which needs the sandbox, but CODER_SANDBOX is off"
        )


def test_an_opencode_server_that_cannot_be_reached_any_more_is_a_sentence_and_replaced(coder: Coder, projects: tuple[str, str]) -> None:
    """A command of its own ends what connects to it inside."""
    cut = "for p in /proc/[0-9]*; do grep -q relay_insid[e] $p/cmdline && kill -9 ${p#/proc/}; done; sleep 1000"
    first = coder.ended(coder.queue(projects[1], "say: begun", agent="opencode"), seconds=START)
    task = coder.queue(projects[1], f"run: {cut}", session=first["session_id"], agent="opencode")
    failed = coder.ended(task, "failed", seconds=START)
    assert failed["reason"] == "agent_unavailable"
    assert failed["error"].startswith("The opencode server was ended by signal")
    after = coder.queue(projects[1], "say: there again", agent="opencode")
    assert "there again" in answer(coder, coder.ended(after, seconds=START))


@pytest.fixture
def brief(tmp_path: Path, model_server: ModelServer, agent_path: Callable[[str], Path]) -> Iterator[Coder]:
    """A service that is killed, with a short lease."""
    coder = made(tmp_path / "brief", model_server, agent_path, ("opencode", "goose"), lease_seconds=f"{LEASE:g}", beat_seconds="0.5")
    coder.start()
    yield coder
    if coder.alive:
        coder.kill()


HOLDING = ("opencode", "goose", ACP, PTY)


def busy(coder: Coder, package: Checkout, folder: Path) -> tuple[list[int], list[int]]:
    """Have agents of a project without network run the script; answers everybody once all scripts run, and the tasks."""
    checkout = clone_of(package.path, folder / "clone")
    checkout.write("hold.sh", HOLD)
    checkout.commit("hold")
    coder.post("/projects", 201, name="held", path=str(checkout.path), network="off")
    tasks = [coder.queue("held", "Hold on.", "run: sh hold.sh", "hang", agent=agent, mode_id=MODES.get(agent)) for agent in HOLDING]

    def running_all() -> list[int]:
        pids = everybody(coder)
        found = [command_line(pid) for pid in pids]
        return pids if all(found.count(["sleep", seconds]) == len(HOLDING) for seconds in (AWAY, HELD)) else []

    return coder.until(running_all, START), tasks


def entrances(coder: Coder) -> list[Path]:
    return [path for path in (coder.data / "homes").rglob("*.entrance") if path.is_socket()]


def test_nothing_is_left_of_agents_without_network_when_their_dispatcher_is_killed(brief: Coder, package: Checkout, tmp_path: Path) -> None:
    pids, _ = busy(brief, package, tmp_path)
    told(brief, "before kill -9 of the dispatcher")
    agents = Living(pids)
    brief.kill()
    killed = time.monotonic()
    assert agents.gone_within(GONE)
    print(f"--- {time.monotonic() - killed:.2f} s after kill -9: none of {len(agents)} processes is left")
    brief.start()
    task = brief.queue("held", *lines("opencode"), agent="opencode")
    brief.ended(task, seconds=START)
    assert len(entrances(brief)) == 1
    assert brief.stop() == 0
    assert entrances(brief) == []


def test_nothing_is_left_of_them_after_the_lease_of_a_stopped_dispatcher(brief: Coder, package: Checkout, tmp_path: Path) -> None:
    pids, _ = busy(brief, package, tmp_path)
    agents = Living(pids)
    brief.process.send_signal(signal.SIGSTOP)
    assert agents.gone_within(LEASE + GONE)


def test_nothing_is_left_of_what_a_cancelled_turn_without_network_ran(coder: Coder, package: Checkout, tmp_path: Path) -> None:
    pids, tasks = busy(coder, package, tmp_path)
    commands = Living(pid for pid in pids if command_line(pid)[:1] == ["sleep"])
    for task in tasks:
        coder.post(f"/tasks/{task}/cancel", 200)
    assert commands.gone_within(GONE)
    for task in tasks:
        coder.ended(task, "cancelled")
