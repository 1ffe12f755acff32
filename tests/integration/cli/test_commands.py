"""Every command that goes through the door, over SQL and over HTTP alike."""

from __future__ import annotations

import getpass
import json
import subprocess
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cli_runner import Cli
from standin import DIFF


def git(path: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(path), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "-b", "main")
    git(path, "commit", "--allow-empty", "-m", "first")
    return path


def test_projects(cli: Cli, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = cli.json("project", "add", "second", repository)
    assert (project["name"], project["path"], project["host_id"]) == ("second", str(repository), str(cli.node.host))
    (repository / "inside").mkdir()
    monkeypatch.chdir(repository / "inside")
    assert str(repository) in cli("project", "add", "third").stdout
    assert [row["name"] for row in cli.json("project", "list")] == ["demo", "second", "third"]
    assert "third" in cli("project", "list").stdout
    assert "already" in cli.refused("project", "add", "second", ".", code=1)


def test_projects_that_cannot_be(cli: Cli, repository: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init")
    bare = tmp_path / "bare"
    bare.mkdir()
    git(bare, "init", "--bare")
    for path, words in (
        (tmp_path / "nowhere", "not a directory"),
        (tmp_path, "not a git repository"),
        (bare, "not a git repository"),
        (empty, "no commit"),
    ):
        sentence = cli.refused("project", "add", "new", path, code=2)
        assert words in sentence
        assert str(path) in sentence
    assert "is not" in cli.refused("project", "add", "not a name", repository, code=2)
    assert cli.node.count("projects") == 1


def test_a_task_with_everything(cli: Cli) -> None:
    session = cli.json("task", "add", "demo", "first")["session_id"]
    chat = cli.node.row("select id from chats where session_id = %s", session)["id"]
    task = cli.json(
        "task", "add", "demo", "second", "--session", session[:13], "--chat", chat, "--agent", "opencode", "--model", "m",
        "--mode", "plan", "--thinking", "high", "--priority", -3, "--run-at", "2031-01-01T00:00:00+02:00", "--key", "k",
        "--max-attempts", 7, "--timeout", 90.5, "--label", "ci", "--label", "nightly",
    )  # fmt: skip
    expected = {
        "session_id": session, "chat_id": str(chat), "agent": "opencode", "model": "m", "mode_id": "plan", "thinking_option_id": "high",
        "priority": -3, "run_at": "2030-12-31T22:00:00+00:00", "idempotency_key": "k", "max_attempts": 7, "timeout_seconds": 90.5,
        "labels": ["ci", "nightly"], "existed": False,
    }  # fmt: skip
    assert {name: task[name] for name in expected} == expected
    assert cli.json("task", "add", "demo", "third", "--workspace", "lab")["state"] == "pending"
    assert cli.node.count("workspaces") == 2


def test_input_from_standard_input_and_the_same_key_twice(cli: Cli) -> None:
    first = cli("task", "add", "demo", "-", "--key", "k", stdin="from a pipe: ünï\n").stdout
    assert first.startswith("Task 1 is queued")
    assert "before" in cli("task", "add", "demo", "-", "--key", "k", stdin="from a pipe: ünï\n").stdout
    assert "another key" in cli.refused("task", "add", "demo", "other", "--key", "k", code=1)
    assert cli.json("task", "show", 1)["input"] == "from a pipe: ünï\n"


def test_tasks_are_listed_and_shown(cli: Cli) -> None:
    cli.node.change("with a change", content="one")
    cli.node.add("waits", labels=["ci"])
    assert [row["id"] for row in cli.json("task", "list")] == [2, 1]
    assert [row["id"] for row in cli.json("task", "list", "--limit", 1)] == [2]
    assert [row["id"] for row in cli.json("task", "list", "--state", "completed", "--project", "demo")] == [1]
    assert [row["id"] for row in cli.json("task", "list", "--label", "ci")] == [2]
    session = cli.json("task", "show", 1)["session_id"]
    assert [row["id"] for row in cli.json("task", "list", "--session", session[:8])] == [1]
    listed = cli("task", "list").stdout.splitlines()
    assert listed[0].split()[:2] == ["TASK", "STATE"]
    assert listed[1].split()[:3] == ["2", "pending", "demo"]
    shown = cli("task", "show", 1).stdout
    assert "completed" in shown
    assert "All done." in shown
    nothing = cli("task", "list", "--label", "none")
    assert (nothing.stdout, "coder task add" in nothing.stderr) == ("", True)
    assert cli.json("task", "list", "--label", "none") == []


def test_priority_and_place_of_what_waits(cli: Cli) -> None:
    session = cli.json("task", "add", "demo", "one")["session_id"]
    cli("task", "add", "demo", "two", "--session", session)
    assert cli.json("task", "priority", 2, 7)["priority"] == 7
    assert cli("task", "priority", 2, -7).stdout == "Task 2 has priority -7.\n"
    assert "32767" in cli.refused("task", "priority", 2, 32768, code=2)
    assert cli("session", "move", session[:8], 2, "--before", 1).stdout == "Task 2 runs before task 1.\n"
    assert [row["id"] for row in cli.json("session", "queue", session)] == [2, 1]
    assert cli("session", "move", session, 2).stdout == "Task 2 runs behind what waits in its session.\n"
    assert [row["id"] for row in cli.json("session", "queue", session)] == [1, 2]
    assert [row["id"] for row in cli.json("task", "list", "--agent", "native")] == [2, 1]
    assert cli.json("task", "list", "--agent", "opencode") == []
    cli.node.claim()
    assert "running" in cli.refused("task", "priority", 1, 7, code=1)


def test_what_went_on_lately(cli: Cli) -> None:
    cli.node.change("with a change")
    assert [row["completed"] for row in cli.json("stats", "--hours", 3, "--stretches", 3)] == [0, 0, 1]
    head, *_, last = cli("stats", "--project", "demo").stdout.splitlines()
    assert head.split()[:3] == ["SINCE", "TURNS", "DONE"]
    assert last.split()[2:7] == ["1", "1", "0", "0", "0"]


def test_more_rows_than_one_page(cli: Cli) -> None:
    cli.node.run("insert into tasks (project_id, input) select %s, 'n' || n from generate_series(1, 450) n", cli.node.project["id"])
    assert [row["id"] for row in cli.json("task", "list", "--limit", 430)] == list(range(450, 20, -1))


def test_cancel_retry_resume_and_dismiss(cli: Cli) -> None:
    waits = cli.node.add("waits")
    assert "is cancelled" in cli("task", "cancel", waits).stdout
    assert "nothing to cancel" in cli.refused("task", "cancel", waits, code=1)
    again = cli.json("task", "retry", waits)
    assert (again["retry_of"], again["state"]) == (waits, "pending")
    claim = cli.node.claim()
    assert "being stopped" in cli("task", "cancel", claim["id"]).stdout
    cli.node.end(claim, "interrupted")
    resumed = cli.json("task", "resume", claim["id"])
    assert resumed["retry_of"] == claim["id"]
    second = cli.node.claim()
    cli.node.end(second, "interrupted")
    assert cli.json("task", "dismiss", second["id"])["reason"] == "dismissed"


@pytest.mark.parametrize(("state", "code"), [("completed", 0), ("failed", 1), ("cancelled", 3), ("interrupted", 4)])
def test_run_and_wait_end_as_the_task_does(cli: Cli, state: str, code: int) -> None:
    worker = threading.Thread(target=work, args=(cli, state))
    worker.start()
    result = cli("run", "demo", "do it", "--label", "ci", code=code)
    worker.join()
    row = json.loads(result.stdout)
    assert (row["state"], row["input"], row["labels"]) == (state, "do it", ["ci"])
    assert result.stderr.splitlines()[-1] == f"task {row['id']}: {state}"
    assert cli.json("task", "wait", row["id"], code=code) == row
    waited = cli("task", "wait", row["id"], code=code)
    assert ("The model did not answer." in waited.stderr) is (state == "failed")


def work(cli: Cli, state: str) -> None:
    """Run the one task that is about to come."""
    cli.node.run("listen tasks_new")
    while not (claims := cli.node.run("select * from coder.claim(%s, %s, 1)", cli.node.node, cli.node.host)):
        assert list(cli.node.connection.notifies(timeout=30, stop_after=1)), "no task came"
    cli.node.end(claims[0], state, content=None)


def test_waiting_has_an_end(cli: Cli) -> None:
    task = cli.node.add()
    result = cli("task", "wait", task, "--wait", 0.2, code=5)
    assert "0.2 s" in result.stderr
    result = cli("run", "demo", "more", "--wait", 0.2, code=5)
    assert (result.stdout, "waits for it again" in result.stderr) == ("", True)


def test_sessions(cli: Cli) -> None:
    change = cli.node.change("say hello")
    session = str(change["session_id"])
    cli.node.add("other", workspace_id="lab")
    assert cli.json("session", "list", "--status", "idle")[0]["id"] == session
    assert len(cli.json("session", "list", "--status", "active,idle", "--project", "demo")) == 2
    assert len(cli.json("session", "list", "--workspace", "lab")) == 1
    assert "say hello" in cli("session", "list").stdout
    assert cli.json("session", "show", session[:8])["open_change_id"] == str(change["id"])
    messages = cli.json("session", "show", session, "--messages")["messages"]
    assert [row["role"] for row in messages] == ["user", "assistant"]
    assert "All done." in cli("session", "show", session, "--messages").stdout
    assert "is closed" in cli("session", "close", session).stdout
    assert "closed" in cli.refused("task", "add", "demo", "more", "--session", session, code=1)
    assert cli.json("session", "reopen", session)["status"] == "idle"


def test_changes_are_listed_and_shown(cli: Cli) -> None:
    change = cli.node.change("make a file", state="failed")
    identity = str(change["id"])
    assert [row["id"] for row in cli.json("change", "list")] == [identity]
    assert cli.json("change", "list", "--state", "approved") == []
    assert "make a file" in cli("change", "list", "--project", "demo").stdout
    for given in (identity, identity[:8], identity.upper(), str(change["session_id"]), str(change["session_id"])[:8]):
        assert cli.json("change", "show", given)["id"] == identity
    shown = cli("change", "show", identity).stdout
    for words in ("/srv/worktrees/", "added caf\ufffd.txt +1 -0", "+olé", change["fingerprint"], "Look twice", "failed"):
        assert words in shown
    assert cli("change", "show", identity, "--patch").stdout_bytes == DIFF


def decided(cli: Cli, *arguments: Any, outcome: str = "approved", code: int = 0, **what: Any) -> Any:
    """Run a command that stores a decision while a node carries it out."""
    worker = threading.Thread(target=cli.node.settle_next, args=(outcome,), kwargs=what)
    worker.start()
    try:
        return cli(*arguments, code=code)
    finally:
        worker.join()


def test_a_change_is_approved(cli: Cli) -> None:
    change = cli.node.change()
    session = str(change["session_id"])[:8]
    assert str(change["id"]) in cli.refused("change", "approve", session, code=2), "its change may be another than the one that was read"
    assert "empty" in cli.refused("change", "approve", change["id"], "--branch", "", code=2)
    result = decided(
        cli, "change", "approve", session, "--fingerprint", change["fingerprint"], "--branch", "topic", "--reason", "good", "--json"
    )
    decision = json.loads(result.stdout)
    assert (decision["state"], decision["branch"], decision["reason"]) == ("done", "topic", "good")
    assert decision["actor"] == ("tester" if cli.over_http else getpass.getuser())
    assert cli.json("decision", "show", decision["id"]) == decision
    assert "approved" in cli("decision", "show", decision["id"]).stdout
    assert "no change to decide on" in cli.refused("change", "show", change["session_id"], code=2)
    assert "approved" in cli.refused("change", "approve", change["id"], code=1)
    assert cli.json("change", "list") == []
    assert [row["state"] for row in cli.json("change", "list", "--all")] == ["approved"]


def test_the_hunks_of_a_change_are_shown_as_approve_names_them(cli: Cli) -> None:
    change = cli.node.change()
    shown = cli("change", "show", change["id"], "--hunks").stdout
    assert shown.endswith("\ncaf\ufffd.txt  added +1 -0\ncaf\ufffd.txt:1\n@@ -0,0 +1 @@\n+olé\n")


def test_into_the_checkout_and_committed(cli: Cli) -> None:
    change = cli.node.change()
    assert "checkout of demo" in decided(cli, "change", "approve", change["id"], "--commit").stdout
    assert cli.node.row("select target, commit from decisions") == {"target": "checkout", "commit": True}


@pytest.mark.parametrize("outcome", ["conflict", "checkout_dirty", "wrong_branch"])
def test_a_decision_that_fails_says_why(cli: Cli, outcome: str) -> None:
    change = cli.node.change()
    result = decided(
        cli, "change", "approve", change["id"], outcome=outcome, error="It is dirty; clean it.", facts={"files": ["a"]}, code=1
    )
    assert (result.stdout, result.stderr) == ("", "coder: It is dirty; clean it.\n")


def test_a_change_is_rejected(cli: Cli) -> None:
    change = cli.node.change()
    decision = cli.json("change", "reject", change["id"], "--discard", "--reason", "no")
    assert (decision["work"], decision["reason"], decision["change_state"]) == ("discard", "no", "rejected")
    other = cli.node.change(content="two")
    assert "stays in the worktree" in cli("change", "reject", other["id"]).stdout


def test_a_fingerprint_of_yesterday(cli: Cli) -> None:
    change = cli.node.change()
    assert change["fingerprint"] in cli.refused("change", "approve", change["id"], "--fingerprint", "0" * 64, code=1)
    assert cli.node.count("decisions") == 0


def test_status_and_agents(cli: Cli) -> None:
    cli.node.add()
    status = cli.json("status")
    assert (status["pending_tasks"], len(status["nodes"])) == (1, 1)
    assert "1  pending tasks" in cli("status").stdout
    nothing = cli("agents")
    assert (nothing.stdout, "coder up" in nothing.stderr) == ("", True)
    cli.node.run(
        "insert into available_agents (host_id, agent, execution_path, available) values (%s, 'native', 'native', true)", cli.node.host
    )
    assert cli.json("agents")[0]["agent"] == "native"
    assert "native  here" in cli("agents").stdout


def test_what_does_not_exist(cli: Cli) -> None:
    nobody = str(uuid4())
    for arguments in (
        ("task", "show", 999), ("task", "cancel", 999), ("task", "wait", 999), ("session", "show", nobody), ("session", "close", nobody),
        ("change", "show", nobody), ("change", "approve", nobody), ("change", "show", "abcd"), ("session", "show", "abcd"),
        ("decision", "show", nobody), ("task", "add", "nope", "x"), ("run", "nope", "x"), ("task", "list", "--project", "nope"),
    ):  # fmt: skip
        sentence = cli.refused(*arguments, code=2)
        assert str(arguments[2]) in sentence or "nope" in sentence


def test_beginnings_that_fit_several(cli: Cli) -> None:
    beginnings = [str(cli.node.change(f"task {number}", content=str(number))["id"])[0] for number in range(17)]
    twice = next(letter for letter in beginnings if beginnings.count(letter) > 1)
    assert "write more of it" in cli.refused("change", "show", twice, code=2)
    assert "not an id" in cli.refused("change", "show", "xyz", code=2)
    assert "not an id" in cli.refused("session", "show", "%", code=2)
