"""The first quarter of an hour with coder: `bin/up --demo` from the checkout with an empty home, then by hand as the README says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from checkout import Checkout
from running import Coder, running

REPOSITORY = Path(__file__).resolve().parents[2]
BIN = REPOSITORY / "bin"


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coder]:
    folder = tmp_path_factory.mktemp("demo")
    program, command = (str(BIN / "up"), "--demo"), (str(BIN / "coder"),)
    # The environment these tests run in has all it needs, so nothing is installed.
    yield from running(Coder(folder, program=program, command=command, last="demo:  see", admin_token="", venv=sys.prefix))


def test_the_demo_by_hand(coder: Coder) -> None:
    assert coder.said[0].startswith("ready: http://127.0.0.1:")
    assert any("SCRIPTED model" in line for line in coder.said)
    tasks = sorted(coder.get("/tasks")["items"], key=lambda task: task["id"])
    assert [task["project"] for task in tasks] == ["demo"] * 3
    ended = [coder.ended(task["id"]) for task in tasks]
    assert [task["change_id"] is not None for task in ended] == [True, True, False]
    assert "It prints a greeting" in coder.cli("task", "wait", str(tasks[2]["id"]))
    listed = coder.cli("task", "list")
    assert listed.count("completed") == 3
    assert "Greet by name and test it." in listed

    checkout = Checkout(coder.data / "demo-repository")
    changes = coder.cli("change", "list").splitlines()
    by_sql = next(line.split()[0] for line in changes if "Greet by name" in line)
    by_api = next(line.split()[0] for line in changes if "Say in the README" in line)
    shown = coder.cli("change", "show", by_sql)
    assert "+def greet(name: str = 'world') -> str:" in shown
    assert "added test_greet.py +4 -0" in shown
    assert checkout.status() == set()
    assert "is approved into the checkout of demo" in coder.cli("change", "approve", by_sql)
    assert checkout.status() == {" M greet.py", "?? test_greet.py"}
    tested = subprocess.run([sys.executable, "-B", "test_greet.py"], cwd=checkout.path, capture_output=True, text=True)
    assert (tested.returncode, tested.stdout) == (0, "ok\n")
    assert "is rejected" in coder.cli("change", "reject", by_api, "--reason", "not now")
    assert coder.get("/changes?state=pending")["items"] == []


def test_the_line_it_prints_queues_a_task(coder: Coder) -> None:
    """The command after `queue:`, typed as it stands, in the checkout."""
    line = next(line for line in coder.said if line.startswith("queue: ")).removeprefix("queue: ").replace("'NAME'", "'demo'")
    typed = subprocess.run(["bash", "-c", line], cwd=REPOSITORY, env=coder.environment, capture_output=True, text=True)
    assert (typed.returncode, typed.stdout) == (0, "INSERT 0 1\n"), typed.stderr
    newest = max(task["id"] for task in coder.get("/tasks")["items"])
    assert coder.ended(newest)["input"] == "say hello"


def test_by_http_with_the_token_it_prints(coder: Coder) -> None:
    assert httpx.get(f"{coder.url}health").json() == {"status": "ok"}
    assert httpx.get(f"{coder.url}api/v1/tasks").status_code == 401
    asked = {"project": "demo", "input": "By HTTP.\nwrite http.txt: made by HTTP\\n", "idempotency_key": "demo-1"}
    task = coder.post("/tasks", 201, **asked)
    assert coder.post("/tasks", 200, **asked)["id"] == task["id"]
    change = coder.change(coder.ended(task["id"]))
    assert coder.approve(change, commit=True)["outcome"] == "approved"
    assert Checkout(coder.data / "demo-repository").git("show", "--format=%s", "--name-only") == "By HTTP.\n\nhttp.txt"


def test_it_runs_once_and_stops_when_asked(coder: Coder) -> None:
    tasks = coder.get("/tasks")["items"]
    assert "already runs" in coder.cli("up", code=6)
    coder.hang_up()
    assert f"Stopped (pid {coder.process.pid})." in coder.cli("down")
    assert coder.died() == 0
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as stranger:
        # Left by kill -9; the process id has become somebody else's.
        (coder.data / "service-all.json").write_text(json.dumps({"pid": stranger.pid, "url": coder.url, "role": "all"}))
        assert "Nothing of this data directory runs." in coder.cli("down")
        coder.start()
        assert stranger.poll() is None
    assert coder.get("/tasks")["items"] == tasks  # nothing was lost, and the demo's tasks are queued once
    assert coder.stop() == 0
