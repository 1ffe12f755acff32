"""Putting tasks in with plain SQL: INSERT of one and of many, COPY, and what is refused, with a sentence and without a trace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from queuebench import Bench, refused

from coder.postgres.binaries import find_binaries

MEBIBYTE = 1_048_576


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def nothing_was_done(bench: Bench) -> bool:
    counts = bench.one(
        "select (select count(*) from tasks) as a, (select count(*) from sessions) as b, (select count(*) from session_queue) as c, "
        "(select count(*) from chats) as d, (select count(*) from workspaces) as e"
    )
    return tuple(counts) == (0, 0, 0, 0, 1)


def test_an_insert_of_two_columns_is_enough(bench: Bench) -> None:
    project = bench.project()
    bench.do("insert into tasks (project_id, input) values (%s, %s)", project, "  make the\n\tbutton   round " + "x" * 100)
    task = bench.one("select * from tasks")
    session = bench.one("select * from sessions where id = %s", task.session_id)
    assert (task.state, task.attempts, task.max_attempts, task.position, task.opens_session) == ("pending", 0, 3, task.id, True)
    assert (session.project_id, session.workspace_id, session.status) == (project, "default", "active")
    assert session.title == (" make the button round " + "x" * 100)[:80]
    assert bench.value("select count(*) from chats where session_id = %s", task.session_id) == 1
    assert (bench.queue(task.session_id).state, bench.queue(task.session_id).host_id) == ("ready", None)


def test_each_row_without_a_session_gets_one_of_its_own(bench: Bench) -> None:
    project = bench.project()
    known = bench.session_of(bench.add(project))
    bench.sql.execute(
        "insert into tasks (project_id, input, session_id) "
        "values (%(p)s, 'a', null), (%(p)s, 'b', %(s)s), (%(p)s, 'c', null), (%(p)s, 'd', %(s)s)",
        {"p": project, "s": known},
    )
    rows = bench.rows("select session_id, array_agg(input order by position) as inputs from tasks group by 1 order by min(id)")
    assert [(row.session_id == known, row.inputs) for row in rows] == [(True, ["fix it", "b", "d"]), (False, ["a"]), (False, ["c"])]


def test_every_optional_column_is_kept(bench: Bench) -> None:
    project = bench.project()
    due = datetime(2099, 1, 1, tzinfo=UTC)
    given: dict[str, Any] = {
        "agent": " opencode ",
        "model": " ",
        "mode_id": "plan",
        "thinking_option_id": "high",
        "priority": 7,
        "run_at": due,
        "idempotency_key": "k1",
        "max_attempts": 1,
        "timeout": timedelta(minutes=5),
        "labels": ["ci", "nightly"],
        "workspace_id": "team-a",
    }
    task = bench.task(bench.add(project, **given))
    kept = {name: getattr(task, name) for name in given}
    assert kept == given | {"agent": "opencode", "model": None}
    assert bench.value("select title from workspaces where id = 'team-a'") == "team-a"
    assert bench.value("select workspace_id from sessions") == "team-a"
    assert (bench.queue(task.session_id).state, bench.queue(task.session_id).ready_at) == ("scheduled", due)


def test_a_chat_of_the_session_is_accepted_and_another_ones_is_not(bench: Bench) -> None:
    project = bench.project()
    mine, other = (bench.session_of(bench.add(project)) for _ in range(2))
    chats = {row.session_id: row.id for row in bench.rows("select session_id, id from chats")}
    assert bench.task(bench.add(project, session_id=mine, chat_id=chats[mine])).chat_id == chats[mine]
    with refused("23503"):
        bench.add(project, session_id=mine, chat_id=chats[other])
    assert bench.value("select count(*) from tasks") == 3


@pytest.mark.parametrize("existing", [False, True])
def test_copy_of_ten_thousand_rows_rings_once(bench: Bench, existing: bool) -> None:
    project = bench.project()
    sessions = [bench.session_of(bench.add(project)) for _ in range(100)] if existing else []
    if existing:
        bench.do("update session_queue set state = 'idle'")
    ear = bench.listen("tasks_new")
    with bench.sql.cursor().copy("copy tasks (project_id, input, session_id) from stdin") as copy:
        for number in range(10_000):
            copy.write_row((project, f"task {number}", sessions[number % 100] if existing else None))
    assert ear.heard() == ["tasks_new"]
    assert bench.value("select count(*) from tasks where input like 'task %'") == 10_000
    states = bench.rows("select state, count(*) as n from session_queue group by state")
    assert [(row.state, row.n) for row in states] == [("ready", 100 if existing else 10_000)]


def test_a_statement_rings_once_and_only_when_a_session_became_ready(bench: Bench) -> None:
    project = bench.project()
    ear = bench.listen("tasks_new", "tasks_cancel")
    session = bench.session_of(bench.add(project))
    assert ear.heard() == ["tasks_new"]
    bench.do("insert into tasks (project_id, input) select %s, 'n' from generate_series(1, 50)", project)
    assert ear.heard() == ["tasks_new"]
    bench.add(project, session_id=session)  # waits already
    bench.add(project, run_at=datetime(2099, 1, 1, tzinfo=UTC))  # waits for its time
    assert ear.heard() == []
    bench.add(project, session_id=session, priority=1)  # jumps the queue of the sessions
    assert ear.heard() == ["tasks_new"]


def test_nothing_rings_before_the_commit_and_nothing_after_a_rollback(bench: Bench) -> None:
    project = bench.project()
    ear = bench.listen("tasks_new")
    with bench.connect() as producer:
        producer.execute("insert into tasks (project_id, input) values (%s, 'a')", [project])
        assert ear.heard() == []
        producer.rollback()
        assert ear.heard() == []
        producer.execute("insert into tasks (project_id, input) values (%s, 'b')", [project])
        producer.execute("insert into tasks (project_id, input) values (%s, 'c')", [project])
        producer.commit()
    assert ear.heard() == ["tasks_new"]
    assert [row.input for row in bench.rows("select input from tasks order by id")] == ["b", "c"]


@pytest.mark.parametrize("name", ["-a", "a-", "A", "a_b", "a" * 41, "ä"])
def test_a_workspace_with_another_name_is_refused(bench: Bench, name: str) -> None:
    project = bench.project()
    with refused("CD422", "workspace", name):
        bench.add(project, workspace_id=name)
    assert nothing_was_done(bench)


def test_blank_names_count_as_not_given(bench: Bench) -> None:
    task = bench.task(bench.add(bench.project(), workspace_id=" ", agent="", model="\t "))
    assert (task.workspace_id, task.agent) == (None, None)
    assert bench.value("select workspace_id from sessions") == "default"


def test_a_session_that_is_closed_unknown_or_of_another_project_is_refused(bench: Bench) -> None:
    shop, bank = bench.project("shop"), bench.project("bank")
    session = bench.session_of(bench.add(shop))
    with refused("CD404", "There is no session", "leave session_id out"):
        bench.add(shop, session_id=uuid4())
    with refused("CD422", "belongs to project", str(session)):
        bench.add(bank, session_id=session)
    bench.do("select coder.close_session(%s)", session)
    with refused("CD409", "is closed", "coder.reopen_session"):
        bench.add(shop, session_id=session)
    with refused("CD422", "belongs to project"):
        bench.add(bank, session_id=session)
    assert bench.value("select count(*) from tasks") == 1


def test_an_unknown_project_is_refused(bench: Bench) -> None:
    with refused("CD404", "There is no project", "select id, name from projects"):
        bench.add(uuid4())
    with refused("23502"):
        bench.do("insert into tasks (input) values ('x')")
    assert nothing_was_done(bench)


def test_one_bad_row_takes_the_whole_statement_along(bench: Bench) -> None:
    project = bench.project()
    with refused("CD422", "empty"):
        bench.do("insert into tasks (project_id, input, workspace_id) values (%s, 'good', 'w'), (%s, ' ', null)", project, project)
    with refused("CD404"):
        bench.do("insert into tasks (project_id, input) values (%s, 'good'), (%s, 'bad')", project, uuid4())
    assert nothing_was_done(bench)


@pytest.mark.parametrize("input", ["", " ", "\n\t \r\n", None])
def test_an_empty_input_is_refused(bench: Bench, input: str | None) -> None:
    with refused("CD422", "needs an input"):
        bench.add(bench.project(), input)
    assert nothing_was_done(bench)


def test_a_mebibyte_of_input_is_accepted_and_a_byte_more_is_not(bench: Bench) -> None:
    project = bench.project()
    assert len(bench.task(bench.add(project, "x" * MEBIBYTE)).input) == MEBIBYTE
    assert len(bench.task(bench.add(project, "ü" * (MEBIBYTE // 2))).input) == MEBIBYTE // 2
    for much in ("x" * (MEBIBYTE + 1), "ü" * (MEBIBYTE // 2) + "x"):
        with refused("CD422", "1048576 bytes", "this one has 1048577", "put the material into a file"):
            bench.add(project, much)
    assert bench.value("select count(*) from tasks") == 2


def test_a_nul_character_is_refused_whichever_way_it_comes(bench: Bench) -> None:
    project = bench.project()
    with pytest.raises(psycopg.DataError, match="NUL"):
        bench.add(project, "a\x00b")
    with refused("22021"), bench.sql.cursor().copy("copy tasks (project_id, input) from stdin") as copy:
        copy.write(f"{project}\ta\x00b\n".encode())
    assert nothing_was_done(bench)
    assert bench.add(project, "a\ufffdb")


def test_a_latin_1_client_is_understood(bench: Bench) -> None:
    project = bench.project()
    with bench.connect() as client:
        client.execute("set client_encoding = 'LATIN1'")
        client.execute("insert into tasks (project_id, input) values (%s, 'größer, älter')", [project])
        client.commit()
    assert bench.value("select input from tasks") == "größer, älter"
    with bench.connect() as client:
        client.execute("set client_encoding = 'LATIN1'")
        with pytest.raises(UnicodeEncodeError):
            client.execute("insert into tasks (project_id, input) values (%s, '漢')", [project])


@pytest.mark.parametrize("state", ["running", "completed", "failed", "cancelled", "interrupted", "nonsense"])
def test_a_task_is_only_inserted_as_pending(bench: Bench, state: str) -> None:
    with refused("CD422", "inserted as pending", state):
        bench.add(bench.project(), state=state)
    assert nothing_was_done(bench)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("attempts", 1),
        ("epoch", 1),
        ("node_id", uuid4()),
        ("claimed_at", datetime.now(UTC)),
        ("first_event_at", datetime.now(UTC)),
        ("ended_at", datetime.now(UTC)),
        ("cancel_requested_at", datetime.now(UTC)),
        ("reason", "user"),
        ("error", "it broke"),
        ("notices", ["seen"]),
        ("output_summary", "done"),
        ("cost_tokens", 5),
        ("input_tokens", 5),
        ("cached_tokens", 5),
        ("output_tokens", 5),
        ("execution_path", "native"),
        ("agent_used", "native"),
        ("retry_of", 1),
    ],
)
def test_columns_that_coder_writes_are_not_insertable(bench: Bench, column: str, value: object) -> None:
    with refused("CD422", "inserted as pending", "leave"):
        bench.add(bench.project(), **{column: value})
    assert nothing_was_done(bench)


@pytest.mark.parametrize(
    "columns",
    [
        {"max_attempts": 0},
        {"max_attempts": 101},
        {"timeout": timedelta(0)},
        {"timeout": timedelta(seconds=-1)},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 256},
        {"priority": 40_000},
        {"session_id": "not-a-uuid"},
        {"run_at": "next week sometime"},
        {"id": 5},
    ],
)
def test_values_out_of_range_are_refused_by_the_types_and_checks(bench: Bench, columns: dict[str, object]) -> None:
    project = bench.project()
    with pytest.raises(psycopg.Error) as caught:
        bench.add(project, **columns)
    assert (caught.value.sqlstate or "")[:2] in ("22", "23", "42")
    assert nothing_was_done(bench)


def test_what_is_given_for_position_and_opens_session_does_not_count(bench: Bench) -> None:
    project = bench.project()
    first = bench.add(project)
    later = bench.task(bench.add(project, session_id=bench.session_of(first), position=-5, opens_session=True))
    assert (later.position, later.opens_session) == (later.id, False)


def psql(bench: Bench, *arguments: str, said: str = "", **environment: str) -> subprocess.CompletedProcess[bytes]:
    program = find_binaries().psql or "psql"
    command = [str(program), "-XAtq", "-v", "ON_ERROR_STOP=1", bench.dsn, *arguments]
    return subprocess.run(command, input=said.encode("latin-1"), capture_output=True, timeout=60, check=False, env=os.environ | environment)


def test_psql_inserts_copies_and_shows_the_sentences(bench: Bench) -> None:
    project = bench.project()
    said = psql(bench, "-c", f"insert into tasks (project_id, input) values ('{project}', 'hello') returning id, state")
    assert (said.returncode, said.stdout.split(b"|")[1]) == (0, b"pending\n"), said.stderr
    rows = "".join(f"{project}\tgröße {number}\n" for number in range(3))
    said = psql(bench, "-c", "copy tasks (project_id, input) from stdin", said=rows, PGCLIENTENCODING="LATIN1")
    assert said.returncode == 0, said.stderr
    assert [row.input for row in bench.rows("select input from tasks order by id")] == ["hello", "größe 0", "größe 1", "größe 2"]
    said = psql(bench, "-c", f"insert into tasks (project_id, input) values ('{project}', ' ')")
    assert (said.returncode, said.stderr.splitlines()[0]) == (1, b"ERROR:  A task needs an input that says what to do; this one is empty.")
