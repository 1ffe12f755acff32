"""coder permission, coder rule, and what else concerns agents, over SQL and over HTTP."""

from __future__ import annotations

import json
import threading
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from cli_runner import Cli


def ask(cli: Cli, title: str = "npm test", kind: str = "permission", several: bool = False, **given: Any) -> str:
    """An agent asks; answers the id."""
    cli.node.add()
    claim = cli.node.claim()
    about = {"tool": "bash", "asked_for": "execute"} if kind == "permission" else {"tool": None, "asked_for": None}
    choices = [{"label": "red", "description": "as fire"}] if kind == "question" else []
    request = {"agent": "goose", "kind": kind, "request_id": "1", "title": title, "paths": [], "choices": choices, "several": several}
    query = "select id from coder.ask(%s, %s, %s, %s, '1 hour', null)"
    return str(cli.node.row(query, claim["id"], claim["epoch"], json.dumps(request | about), json.dumps(given))["id"])


def test_what_waits_is_listed_shown_and_answered(cli: Cli) -> None:
    first, second = ask(cli), ask(cli, "rm -rf build\x1b[2J")
    listed = cli("permission", "list").stdout
    assert "npm test" in listed
    assert "rm -rf build\\x1b[2J" in listed, "an agent's words move no cursor"
    shown = cli("permission", "show", first[:8]).stdout
    assert "npm test" in shown
    assert cli("permission", "allow", first[:8]).stdout == "npm test is allowed this once.\n"
    denied = cli.json("permission", "deny", second, "--message", "keep it")
    assert (denied["state"], denied["message"]) == ("denied", "keep it")
    assert cli("permission", "list").stdout == ""
    assert [row["state"] for row in cli.json("permission", "list", "--all")] == ["denied", "allowed_once"]
    assert "already allowed once by" in cli.refused("permission", "deny", first, code=1)
    for task, found in ((cli.json("permission", "show", first)["task_id"], [first]), (999, [])):
        assert [row["id"] for row in cli.json("permission", "list", "--all", "--task", task)] == found


def test_what_is_asked_for_is_shown_as_a_person_reads_it(cli: Cli) -> None:
    asked = ask(cli, command="npm test\nnpm run 'all'", timeout=5, background=True, env={"A": "ä"}, cwd=None)
    lines = cli("permission", "show", asked).stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("input "))
    shown = [line.removeprefix("input").strip() for line in lines[at : at + 6]]
    assert shown == ["command: npm test", "npm run 'all'", "timeout: 5", "background: true", 'env: {"A": "ä"}', "cwd: null"]
    (deadline,) = (line for line in lines if line.startswith("deadline "))
    assert "T" not in deadline


def test_always_and_rules(cli: Cli) -> None:
    asked = ask(cli)
    said = cli("permission", "allow", asked, "--scope", "project", "--pattern", "npm *").stdout
    assert said == "npm test is allowed from now on in demo, and whatever fits npm *.\n"
    added = cli.json("rule", "add", "demo", "edit", "/srv/*")
    assert [(rule["tool"], rule["pattern"]) for rule in cli.json("rule", "list", "demo")] == [("bash", "npm *"), ("edit", "/srv/*")]
    assert "npm *" in cli("rule", "list", "demo").stdout
    assert "ask again" in cli("rule", "revoke", "demo", added["id"][:8]).stdout
    assert "There is no rule" in cli.refused("rule", "revoke", "demo", added["id"], code=2)
    assert cli.node.count("permission_rules") == 1


def test_a_question_is_answered(cli: Cli) -> None:
    asked = ask(cli, "Which?", "question", several=True)
    assert "red: as fire" in cli("permission", "show", asked).stdout
    assert "is a question" in cli.refused("permission", "allow", asked, code=2)
    assert cli("permission", "answer", asked, "red", "or blue").stdout == "Answered: red, or blue.\n"


def test_a_task_that_waits_for_a_person_says_so(cli: Cli) -> None:
    asked = ask(cli)
    task = cli.json("permission", "show", asked)["task_id"]
    shown = cli("task", "show", task).stdout
    assert "permission_id" in shown
    assert asked in shown
    waited = cli("task", "wait", task, "--wait", "0.1", code=5)
    assert "coder permission list" in waited.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("permission", "list", "--state", "maybe"), 2),
        (("permission", "show", "abcd"), 2),
        (("permission", "allow", str(uuid4())), 2),
        (("rule", "list", "nope"), 2),
        (("rule", "add", "nope", "bash", "x"), 2),
        (("project", "set", "nope", "--network", "off"), 2),
        (("project", "set", "demo"), 2),
        (("session", "chat", str(uuid4())), 2),
    ],
)
def test_what_does_not_exist_or_says_nothing(cli: Cli, arguments: tuple[str, ...], code: int) -> None:
    assert cli.refused(*arguments, code=code).endswith(".")


def test_settings_of_a_project(cli: Cli) -> None:
    changed = cli.json("project", "set", "demo", "--permissions", "ask", "--network", "off", "--copy", ".env")
    assert (changed["permission_policy"], changed["network"], changed["copy_globs"]) == ("ask", "off", [".env"])
    assert cli.json("project", "show", "demo") == changed
    assert "permission_policy  ask" in cli("project", "set", "demo", "--fallback", "fail").stdout


def test_a_fresh_chat(cli: Cli) -> None:
    session = cli.node.row("select session_id from tasks where id = %s", cli.node.add())["session_id"]
    chat = cli.json("session", "chat", str(session)[:8])
    assert str(cli.node.claim()["chat_id"]) == chat["id"]
    assert "knows nothing" in cli("session", "chat", session).stdout


def test_agents_with_how_to_install_what_is_missing(cli: Cli) -> None:
    insert = (
        "insert into available_agents (host_id, agent, execution_path, available, version, install, models) "
        "values (%s, %s, 'acp', %s, '1', %s, %s)"
    )
    cli.node.run(insert, cli.node.host, "goose", True, None, ["m1", "m2"])
    cli.node.run(insert, cli.node.host, "qwen", False, "npm install -g @qwen-code/qwen-code", [])
    lines = [line.split() for line in cli("agents").stdout.splitlines()]
    assert lines[1] == ["goose", "here", "acp", "yes", "1", "2"]
    assert lines[2][:4] == ["qwen", "here", "acp", "no"]
    assert " ".join(lines[2]).endswith("install: npm install -g @qwen-code/qwen-code")


def test_a_probe_is_waited_for(cli: Cli, database: str) -> None:
    cli.node.run(
        "insert into available_agents (host_id, agent, execution_path, available, probed_at) "
        "values (%s, 'goose', 'acp', false, '2020-01-01')",
        cli.node.host,
    )

    def node() -> None:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("listen agents_probe")
            ready.set()
            assert list(connection.notifies(timeout=20, stop_after=1))
            connection.execute("update available_agents set available = true, probed_at = clock_timestamp()")

    ready = threading.Event()
    looking: Any = threading.Thread(target=node)
    looking.start()
    assert ready.wait(20)
    assert cli.json("agents", "--probe")[0]["available"] is True
    looking.join()
    cli.node.run("delete from nodes")
    assert "No dispatcher runs" in cli.refused("agents", "--probe", code=6)
