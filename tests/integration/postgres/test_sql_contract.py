"""docs/sql.md is true: its examples run as they stand, its columns are those that may be written, its SQLSTATEs are those that come."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from queuebench import Bench, Node, Row, ending, make_change

PAGE = (Path(__file__).parents[3] / "docs/sql.md").read_text(encoding="utf-8")
SAMPLES: dict[str, Any] = {
    "agent": "opencode",
    "model": "m",
    "mode_id": "plan",
    "thinking_option_id": "high",
    "priority": 3,
    "run_at": "2099-01-01 00:00:00+00",
    "idempotency_key": "k",
    "max_attempts": 7,
    "timeout": timedelta(minutes=5),
    "labels": ["l"],
    "asked_by": "ada",
    "workspace_id": "w",
    "input": "do that",
}


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def examples(heading: str | None = None) -> list[str]:
    """The statements of the page's SQL blocks, comments taken off; of one section when it is named."""
    page = PAGE if heading is None else PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    text = re.sub(r"--.*", "", "\n".join(re.findall(r"```sql\n(.*?)```", page, re.S)))
    return [statement.strip() for statement in text.split(";") if statement.strip()]


def documented_columns() -> set[str]:
    rows = re.findall(r"^\| (`.*?) \|", PAGE.split("You may also set:")[1].split("`input` has")[0], re.M)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)} | {"project_id", "input"}


def test_the_examples_of_the_page_run_as_they_stand(bench: Bench) -> None:
    for statement in examples("Projects"):
        bench.do(statement)
    for statement in examples("Queue a task"):
        bench.do(statement)
    node = bench.node()
    project = bench.one("select id from projects where name = 'demo'").id
    assert len(node.run(9)) == bench.value("select count(*) from tasks") == 2
    assert len(examples("Follow it")) == 1
    task = bench.value("select min(id) from tasks")
    (followed,) = bench.rows(examples("Follow it")[0].replace("id = 7", f"id = {task}"))
    assert followed.state == "completed"
    decided, kinds = [], set()
    for statement in examples("Decide on changes"):
        change = make_change(node, project)
        bench.do(
            "update change_files set hunks = '[[1, 1, 1, 1, 5, 3], [9, 1, 9, 1, 9, 3]]' where change_id = %s and display = 'a.py'",
            change.id,
        )
        bench.do("update change_files set path = 'b.py', display = 'b.py' where change_id = %s and display = 'c.py'", change.id)
        if "coder.undo" in statement:
            approved(node, change)
        listed = f'[{{"change_id": "{change.id}", "fingerprint": "{change.fingerprint}"}}]'
        known = statement.replace("(change, fingerprint", f"('{change.id}', '{change.fingerprint}'").replace("'…'", f"'{change.id}'")
        known = known.replace("(change,", f"('{change.id}',").replace('[{"change_id": "…", "fingerprint": "…"}, …]', listed)
        bench.do(known)
        kinds |= {row.kind for row in bench.rows("select kind || coalesce(target, work, '') as kind from decisions")}
        decided += re.findall(r"coder\.(\w+)", statement)
    assert decided == ["approve"] * 4 + ["approve_in_order", "reject", "reject", "decide", "rebase", "rebase", "undo"]
    assert kinds == {"approvebranch", "approvecheckout", "partcheckout", "rebasecheckout", "rejectdiscard", "rejectkeep", "undocheckout"}


def approved(node: Node, change: Row) -> None:
    """Approve a change, as a node carries it out."""
    node.bench.do("delete from decisions where state = 'queued'")
    node.bench.do("select coder.approve(%s, %s)", change.id, change.fingerprint)
    claimed = node.bench.one("select id, epoch from coder.claim_decision(%s, %s)", node.id, node.host)
    node.bench.do("select coder.begin_applying(%s, %s, '{\"files\": []}')", claimed.id, claimed.epoch)
    node.bench.do("select coder.settle_decision(%s, %s, 'approved', null, '{}', 'approved', '[]', '[]')", claimed.id, claimed.epoch)


def test_what_agents_ask_is_answered_as_the_page_says(bench: Bench) -> None:
    bench.add(bench.project("demo"))
    claimed = bench.node().claim_one()
    asked = {"agent": "a", "tool": "bash", "asked_for": "execute", "title": "npm test", "paths": [], "choices": [], "several": False}
    statements = examples("Answer agents")
    for number, statement in enumerate(statements):
        kind = {"kind": "question", "tool": None, "asked_for": None} if "coder.answer" in statement else {"kind": "permission"}
        request = json.dumps(asked | kind | {"request_id": str(number)})
        permission = bench.value("select id from coder.ask(%s, %s, %s, '{}', '1 h', null)", claimed.id, claimed.epoch, request)
        bench.do(statement.replace("(permission", f"('{permission}'"))
    states = bench.rows("select state, count(*) from permissions group by state order by state")
    assert states == [("allowed_always", 2), ("allowed_once", 2), ("denied", 1), ("requested", len(statements) - 5)]
    assert bench.value("select array_agg(pattern order by pattern) from permission_rules") == ["npm *", "npm test"]


def test_every_call_of_the_page_does_what_it_says(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    calls = set(re.findall(r"^\| `coder\.(\w+)\(", PAGE, re.M))
    assert calls == {"cancel", "retry_now", "retry", "resume", "dismiss", "close_session", "reopen_session", "open_chat", "set_priority"}
    for call, state in (("cancel", None), ("retry", "failed"), ("resume", "interrupted"), ("dismiss", "interrupted")):
        task = bench.add(project, priority=9)
        if state is not None:
            node.finish(ending(node.claim_one(), state))
        bench.do(f"select coder.{call}(%s)", task)
        node.run(9)
    session = bench.session_of(task)
    bench.do("select coder.set_priority(%s, 7)", waits := bench.add(project, session_id=session))
    assert bench.task(waits).priority == 7
    bench.do("update sessions set on_failure = 'hold' where id = %s", session)
    bench.do("select coder.close_session(%s)", session)
    bench.do("select coder.reopen_session(%s)", session)
    assert bench.value("select coder.open_chat(%s)", session) == bench.value("select id from chats order by created_at desc limit 1")


def test_the_columns_of_the_page_are_those_that_an_insert_may_name(bench: Bench) -> None:
    project = bench.project()
    given = dict(SAMPLES)
    first = bench.add(project, given.pop("input"), **given)
    chat = bench.value("select id from chats")
    second = bench.add(project, session_id=bench.session_of(first), chat_id=chat)
    assert documented_columns() == {*SAMPLES, "project_id", "session_id", "chat_id"}
    kept = bench.one("select * from tasks where id = %s", first)
    assert {name: getattr(kept, name) for name in SAMPLES if name != "run_at"} == {k: v for k, v in SAMPLES.items() if k != "run_at"}
    assert bench.task(second).chat_id == chat


def test_what_the_page_calls_coder_s_own_is_refused(bench: Bench) -> None:
    project = bench.project()
    own = set(re.findall(r"`(\w+)`", PAGE.split("written by coder:")[1].split("While a task")[0]))
    times = {"claimed_at", "first_event_at", "ended_at", "cancel_requested_at", "retry_requested_at"}
    kinds = {row.column_name: row.data_type for row in bench.rows("select column_name, data_type from information_schema.columns "
                                                                  "where table_name = 'tasks'")}  # fmt: skip
    assert own < set(kinds)
    values = {"text": "x", "ARRAY": ["x"], "uuid": project, "timestamp with time zone": "2026-01-01", "jsonb": "[]"}
    listed = {"state": "completed", "reason": "user", "execution_path": "native", "answer_state": "complete"}
    for column in own | times:
        with pytest.raises(psycopg.Error) as caught:
            bench.add(project, **{column: listed.get(column, values.get(kinds[column], 1))})
        assert caught.value.sqlstate == "CD422", column
    rest = set(kinds) - own - times - documented_columns()
    assert rest == {"id", "position", "opens_session", "retry_of", "created_at", "waiting", "compacts"}


def test_a_pending_task_takes_the_edits_the_page_allows(bench: Bench) -> None:
    task = bench.add(bench.project())
    editable = re.findall(r"`(\w+)`", PAGE.split("you may update")[1].split(". ")[0])
    assert editable == ["input", "agent", "model", "priority", "run_at", "labels", "cancel_requested_at"]
    for column in editable:
        bench.do(f"update tasks set {column} = %s where id = %s", SAMPLES.get(column, "2026-01-01"), task)
    assert bench.task(task).state == "cancelled"


def test_the_page_lists_the_sqlstates_that_come_and_no_other(bench: Bench) -> None:
    listed = set(re.findall(r"^\| `(CD\d{3})` \|", PAGE, re.M))
    source = bench.value("select string_agg(prosrc, '') from pg_proc where pronamespace = 'coder'::regnamespace")
    assert listed == set(re.findall(r"'(CD\d{3})'", source))
