"""How commands end: misuse, a service that is not there, signals, pipes and terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Cli, Served
from standin import TOKEN, StandIn

from coder import __version__
from coder.cli.service import unseen
from coder.postgres.door import STATEMENTS

CODER = (sys.executable, "-m", "coder")
NOT_OVER_HTTP = {
    "host_add",
    "token_known",
    "token_count",
    "token_add",
    "login_known",
    "login_link",
    "login_by_link",
    "login_by_token",
    "logout",
    "warming_toggle",  # by the surface, over the WebSocket
    "warming_interval",
    "change_compared",  # the panel's alone
    "message_list_before",
}


def start(variables: dict[str, str], *arguments: str, **pipes: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")} | variables
    return subprocess.Popen(
        [*CODER, *arguments], env=environment, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tsk",), ["'tsk'", "'task'"]),
        (("task", "add"), ["PROJECT", "coder task add --help"]),
        (("task", "show", "x"), ["TASK", "integer", "coder task show --help"]),
        (("task", "show", "0"), ["TASK", "1"]),
        (("task", "show", str(2**63)), ["TASK", str(2**63 - 1)]),
        (("task", "add", "demo", "x", "--timeout", "nan"), ["nan", "seconds"]),
        (("task", "add", "demo", "x", "--timeout", "0"), ["0", "seconds"]),
        (("task", "add", "demo", "x", "--wait", "1"), ["--wait"]),
        (("task", "add", "demo", "x", "--priority", "40000"), ["--priority", "32767"]),
        (("task", "add", "demo", "x", "--run-at", "soon"), ["soon", "2026-03-01T09:30"]),
        (("task", "add", "demo", " "), ["empty"]),
        (("task", "add", "demo", "x" * 1_048_577), ["1048576"]),
        (("task", "add", "demo", "\udcff"), ["UTF-8"]),
        (("task", "add", "demo", "x", "--label", "\udcff"), ["UTF-8"]),
        (("task", "list", "--project", "\udcff"), ["UTF-8"]),
        (("task", "list", "--state", "odd"), ["odd"]),
        (("session", "list", "--status", "idle,odd"), ["odd", "closed"]),
        (("change", "list", "--state", "odd"), ["odd", "pending"]),
        (("change", "approve", "aa", "--branch", "x", "--commit"), ["--commit"]),
        (("decision", "show", "x"), ["x"]),
        (("up", "--role", "king"), ["king"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_misuse_is_one_line(sql: Cli, arguments: tuple[str, ...], words: list[str]) -> None:
    sentence = sql.refused(*arguments, code=2)
    for word in words:
        assert word in sentence
    assert sql.node.count("tasks") == 0


def test_nul_on_standard_input(sql: Cli) -> None:
    result = sql("task", "add", "demo", "-", stdin="a\0b", code=2)
    assert "U+0000" in result.stderr


def test_groups_without_a_command_show_their_help(sql: Cli) -> None:
    for group in ((), ("task",), ("change",)):
        assert "Commands:" in sql(*group, code=2).stderr


def test_the_version(sql: Cli) -> None:
    assert sql("--version").stdout == f"coder {__version__}\n"


def test_a_setting_that_cannot_be(sql: Cli) -> None:
    sql.variables["CODER_PORT"] = "many"
    assert "CODER_PORT" in sql.refused("status", code=2)


def test_a_database_that_is_not_there(sql: Cli) -> None:
    sql.variables["CODER_DATABASE_URL"] = "postgresql://127.0.0.1:1/none"
    for arguments in (("status",), ("task", "list"), ("task", "add", "demo", "x"), ("project", "list")):
        assert "database" in sql.refused(*arguments, code=6)


def test_a_service_that_is_not_there(sql: Cli) -> None:
    sql.variables["CODER_URL"] = "http://127.0.0.1:1"
    assert "CODER_URL" in sql.refused("status", code=6)
    for url in ("127.0.0.1:8390", "ftp://x", "http://", ""):
        sql.variables["CODER_URL"] = url or "  "
        assert "CODER_URL" in sql.refused("status", code=2)


def test_a_token_that_is_not_known(sql: Cli, database: str) -> None:
    with Served(database, sql.node) as served:
        sql.variables |= {"CODER_URL": f"{served.url}/api/v1/", "CODER_TOKEN": "wrong"}
        assert "CODER_TOKEN" in sql.refused("status", code=6)
        sql.variables["CODER_TOKEN"] = "ü"
        assert "CODER_TOKEN" in sql.refused("status", code=2)
        sql.variables["CODER_TOKEN"] = TOKEN
        assert sql.json("status")["pending_tasks"] == 0


class Silent(BaseHTTPRequestHandler):
    """Answers every request with a page about an error."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


def test_something_else_at_the_address(sql: Cli) -> None:
    with HTTPServer(("127.0.0.1", 0), Silent) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        sql.variables["CODER_URL"] = f"http://127.0.0.1:{other.server_port}"
        assert "not as coder does" in sql.refused("status", code=6)
        thread.join()


def test_what_is_only_on_the_machine_itself(sql: Cli) -> None:
    sql.variables["CODER_URL"] = "http://127.0.0.1:1"
    for arguments in (("logs", "1"), ("db", "url"), ("psql",), ("doctor",), ("gc",)):
        assert "without CODER_URL" in sql.refused(*arguments, code=2)


def test_every_statement_has_its_call() -> None:
    from coder.cli.http_door import CALLS

    assert set(CALLS) == set(STATEMENTS) - NOT_OVER_HTTP


def test_the_log_of_a_turn(sql: Cli, tmp_path: Path) -> None:
    assert "log" in sql.refused("logs", "7", code=2)
    log = tmp_path / "logs" / "7" / "agent.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"one\xff\x1b[2J\n")
    assert sql("logs", "7").stdout_bytes == b"one\xff\x1b[2J\n"
    assert sql.json("logs", "7") == {"task": 7, "path": str(log), "text": "one\ufffd\x1b[2J\n"}


def test_the_database_and_its_address(sql: Cli, database: str) -> None:
    assert sql("db", "url").stdout == f"{database}\n"
    assert sql.json("db", "url") == {"url": database}
    assert "version 1" in sql("migrate").stdout
    assert "version 1" in sql.json("migrate")["done"]


def test_what_the_machine_itself_says(sql: Cli) -> None:
    findings = {each["subject"]: each["ok"] for each in sql.json("doctor", code=1)}
    assert (findings["PostgreSQL"], findings["git"], findings["model endpoint"]) == (True, True, False)
    shown = sql("doctor", code=1).stdout
    assert "BAD  model endpoint" in shown
    assert "CODER_MODEL_BASE_URL" in shown
    assert sql.json("gc", "--dry-run") == []
    assert sql("gc").stdout == "There is nothing to remove.\n"
    assert "Nothing" in sql("down").stdout


class Models(BaseHTTPRequestHandler):
    """A model endpoint."""

    def do_GET(self) -> None:
        self.send_response(200 if self.headers["authorization"] in (None, "Bearer sesame") else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


def test_what_the_doctor_says_of_the_model_endpoint(sql: Cli) -> None:
    def told(**variables: str) -> tuple[bool, str]:
        sql.variables |= variables
        (found,) = (each for each in sql.json("doctor", code=1) if each["subject"] == "model endpoint")
        return found["ok"], found["found"]

    with HTTPServer(("127.0.0.1", 0), Models) as endpoint:
        threading.Thread(target=endpoint.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{endpoint.server_port}"
        assert told(CODER_MODEL_BASE_URL=f"http://{address}/v1") == (True, f"http://{address}/v1 answers 200"), "it needs no key"
        assert told(CODER_MODEL_API_KEY="sesame") == (True, f"http://{address}/v1 answers 200")
        assert told(CODER_MODEL_API_KEY="other") == (False, f"http://{address}/v1 answers 401")
        endpoint.shutdown()
    assert not told()[0]
    for wrong in ("http://[::", "127.0.0.1:11434/v1", "http://:1/v1", "http://a:99999/v1", "ftp://a/v1"):
        sql.variables["CODER_MODEL_BASE_URL"] = wrong
        assert "CODER_MODEL_BASE_URL is not acceptable" in sql.refused("doctor", code=2)


def test_the_password_is_not_in_the_arguments_of_psql() -> None:
    command, secrets = unseen(["psql", "postgresql://ada:s%20e@/coder?host=/run/x&port=1", "-c", "select 'postgresql'"])
    assert command == ["psql", "postgresql://ada@/coder?host=/run/x&port=1", "-c", "select 'postgresql'"]
    assert secrets == {"PGPASSWORD": "s e"}
    assert unseen(["psql", "postgresql://h/d"]) == (["psql", "postgresql://h/d"], {})


def test_psql(variables: dict[str, str], node: StandIn) -> None:
    process = start(variables, "psql", "-Atc", "select name from projects")
    assert process.communicate(timeout=60) == ("demo\n", "")
    assert process.returncode == 0


def test_help_is_quick_and_needs_nothing(variables: dict[str, str]) -> None:
    loaded = "import sys, coder.cli.app; sys.exit(str({'rich', 'httpx', 'psycopg', 'asyncpg', 'pydantic', 'fastapi'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=False)
    assert found.stderr.strip() == "set()"
    process = start(variables | {"CODER_DATABASE_URL": "nonsense"}, "--help")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "Usage: coder" in out


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("cancel", [False, True])
def test_a_wait_that_is_stopped(variables: dict[str, str], node: StandIn, number: signal.Signals, cancel: bool) -> None:
    process = start(variables, "run", "demo", "x", *(["--cancel-on-interrupt"] if cancel else []))
    assert process.stderr is not None
    assert process.stderr.readline().startswith("task 1: pending")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    state = node.row("select state from tasks")["state"]
    if cancel:
        assert (process.returncode, state, json.loads(out)["state"]) == (3, "cancelled", "cancelled")
    else:
        assert (process.returncode, state, out) == (130, "pending", "")
        assert "goes on" in err


def test_a_wait_survives_a_lost_connection(variables: dict[str, str], node: StandIn) -> None:
    task = node.add()
    process = start(variables, "task", "wait", str(task), "--json")
    assert process.stderr is not None
    assert process.stderr.readline().startswith("task 1: pending")
    end = "select pg_terminate_backend(pid) as done from pg_stat_activity where application_name = 'coder-cli'"
    until(lambda: any(row["done"] for row in node.run(f"{end} and datname = current_database()")), process)
    node.run("select coder.cancel(%s)", task)
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, json.loads(out)["state"]) == (3, "cancelled")


def test_a_reader_that_has_seen_enough(variables: dict[str, str], node: StandIn) -> None:
    node.run("insert into tasks (project_id, input) select %s, repeat('x', 1000) from generate_series(1, 200)", node.project["id"])
    reading, writing = os.pipe()
    process = start(variables, "task", "list", "--json", "--limit", "200", stdout=writing)
    os.close(writing)
    os.close(reading)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (1, "")


def on_a_terminal(variables: dict[str, str], *arguments: str) -> str:
    """What a command shows on a terminal."""
    master, slave = pty.openpty()
    process = start(variables | {"TERM": "xterm"}, *arguments, stdout=slave)
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 65536):
            shown += piece
    except OSError:  # Linux says EIO where the other side is closed
        process.communicate(timeout=60)
    os.close(master)
    assert process.returncode == 0
    return shown.decode()


HOSTILE = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1,2 @@\n-old\n+new\x1b[1A\x1b[2K\r\n+\u202eevil\u2066\n".encode()


def test_a_terminal_shows_colours_but_obeys_no_agent(variables: dict[str, str], node: StandIn) -> None:
    change = node.change("title \x1b]0;pwned\x07 of it", diff=HOSTILE)
    coloured = {name: value for name, value in variables.items() if name != "NO_COLOR"}
    shown = on_a_terminal(coloured, "change", "show", str(change["id"]))
    assert "\x1b[32m+new\\x1b[1A\\x1b[2K\\x0d\x1b[0m" in shown
    assert "\x1b[31m-old\x1b[0m" in shown
    assert "\\u202eevil\\u2066" in shown
    for command in (("change", "list"), ("task", "show", "1"), ("session", "list")):
        assert set(re.findall(r"\x1b[^m]*m?", on_a_terminal(coloured, *command))) <= {"\x1b[0m", "\x1b[1m"}
    assert "\x1b" not in on_a_terminal(variables, "change", "show", str(change["id"])) + on_a_terminal(variables, "task", "list")
