"""Tasks that cannot be: refused at the SQL door and at the HTTP door alike, whole or not at all."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from bad_house import House, is_sentence

from coder.task import INPUT_BYTES

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")
COUNTED = ("tasks", "sessions", "session_queue", "chats", "messages", "workspaces", "pending_changes", "decisions")


async def counts(house: House) -> dict[str, int]:
    return {table: await house.sql.fetchval(f"select count(*) from {table}") for table in COUNTED}


async def refused_by_sql(house: House, sqlstate: str, words: list[str], statement: str, *arguments: Any) -> None:
    """Run a statement that must change nothing; where the refusal is coder's own it is a sentence."""
    before = await counts(house)
    with pytest.raises(asyncpg.PostgresError) as refused:
        await house.sql.execute(statement, *arguments)
    message = refused.value.message or ""
    assert refused.value.sqlstate == sqlstate, message
    assert all(word in message for word in words), message
    assert is_sentence(message) or not sqlstate.startswith("CD"), message
    assert await counts(house) == before


async def refused_by_http(house: House, status: int, code: str, words: list[str], **body: Any) -> None:
    before = await counts(house)
    answer = await house.client.post("/tasks", json=body)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert all(word in problem["detail"] for word in words), problem
    assert is_sentence(problem["detail"]), problem
    assert await counts(house) == before


INSERT = "insert into tasks (project_id, input) select id, $2 from projects where name = $1"


@pytest.mark.parametrize("nothing", ["", " ", "\n\t \r\n"])
async def test_an_empty_input(house: House, nothing: str) -> None:
    project = await house.project()
    await refused_by_sql(house, "CD422", ["input", "empty"], INSERT, project, nothing)
    await refused_by_http(house, 422, "invalid_input", ["input", "empty"], project=project, input=nothing)


async def test_a_mebibyte_of_input_is_taken_and_one_byte_more_refused(house: House) -> None:
    project = await house.project()
    said = "say: all of it\n"
    whole = said + "x" * (INPUT_BYTES - len(said))
    for text in (whole + "x", said + "é" * (INPUT_BYTES // 2)):
        size = str(len(text.encode()))
        await refused_by_sql(house, "CD422", [str(INPUT_BYTES), size, "into a file"], INSERT, project, text)
        await refused_by_http(house, 422, "invalid_input", [str(INPUT_BYTES), size, "into a file"], project=project, input=text)
    by_sql = await house.completed(project, whole)
    posted = await house.client.post("/tasks", json={"project": project, "input": whole})
    by_http = await house.ended(posted.json()["id"])
    for task in (by_sql, by_http):
        assert (task["state"], task["output_summary"]) == ("completed", "all of it"), task["error"]
        user, _ = await house.messages(task["session_id"])
        assert task["input"] == user["text"] == whole
    await house.at_rest()


async def test_a_long_input_is_whole_when_an_interrupted_task_is_resumed(house: House) -> None:
    project = await house.project()
    text = "say: on\n" + "x" * (INPUT_BYTES - 500)
    task = await house.completed(project, text)
    await house.sql.execute(
        "set coder.actor = 'node';"
        f"update tasks set state = 'interrupted', reason = 'crash', answer_state = 'interrupted' where id = {task['id']}"
    )
    resumed = (await house.client.post(f"/tasks/{task['id']}/resume")).json()
    assert resumed["input"].endswith(text)
    assert (await house.ended(resumed["id"]))["state"] == "completed"
    await house.at_rest()


async def test_a_nul_in_the_input(house: House) -> None:
    project = await house.project()
    await refused_by_sql(house, "22021", ["0x00"], INSERT, project, "a\0b")
    await refused_by_http(house, 422, "invalid_input", ["U+0000", "`input`", "leave it out"], project=project, input="a\0b")
    await refused_by_http(house, 422, "invalid_input", ["U+0000", "`labels`"], project=project, input="a", labels=["\0"])


async def test_a_state_that_people_may_not_write(house: House) -> None:
    project = await house.project()
    task = await house.completed(project, "write a.txt: a")
    for state in ("pending", "running", "cancelled", "nonsense"):
        words = [f"state of task {task['id']}", "coder alone", "cancel_requested_at"]
        await refused_by_sql(house, "CD422", words, "update tasks set state = $1 where id = $2", state, task["id"])
    for column, value in (("attempts", 2), ("reason", "user"), ("session_id", uuid4()), ("epoch", 99_999)):
        await refused_by_sql(
            house, "CD422", [f"task {task['id']}", "coder alone"], f"update tasks set {column} = $1 where id = {task['id']}", value
        )
    await refused_by_sql(
        house, "CD409", [str(task["id"]), "completed", "insert a new task"], f"update tasks set input = 'else' where id = {task['id']}"
    )
    for state in ("running", "completed", "nonsense"):
        sentence = ["inserted as pending", f"'{state}'"]
        await refused_by_sql(
            house, "CD422", sentence, "insert into tasks (project_id, input, state) select id, 'x', $1 from projects limit 1", state
        )
    # Even who calls itself a node writes no state that there is not; nor do other tables take one.
    await refused_by_sql(house, "23514", ["tasks_state_check"], "set coder.actor = 'node'; update tasks set state = 'nonsense'")
    for table, column in (
        ("pending_changes", "state"), ("decisions", "state"), ("sessions", "status"), ("tasks", "answer_state"), ("session_queue", "state"),
    ):  # fmt: skip
        if table == "decisions":
            change = await house.open_change(task, "a.txt")
            await house.client.post(f"/changes/{change['id']}/reject", json={"fingerprint": change["fingerprint"]})
        as_node = "set coder.actor = 'node'; " if table in ("pending_changes", "sessions", "tasks") else ""
        await refused_by_sql(house, "23514", [table], f"{as_node}update {table} set {column} = 'nonsense'")
    assert (await house.task(task["id"]))["state"] == "completed"
    await house.at_rest()


@pytest.mark.parametrize(
    ("column", "value", "sqlstate", "word"),
    [
        ("priority", 40_000, "22003", "smallint"),
        ("max_attempts", 0, "23514", "max_attempts"),
        ("timeout", "-1 s", "23514", "timeout"),
        ("workspace_id", "No Such Name", "CD422", "No Such Name"),
    ],
)
async def test_values_that_the_database_refuses_as_the_api_does(house: House, column: str, value: Any, sqlstate: str, word: str) -> None:
    project = await house.project()
    given = value if isinstance(value, int) else f"'{value}'"
    statement = f"insert into tasks (project_id, input, {column}) select id, 'x', {given} from projects where name = $1"
    await refused_by_sql(house, sqlstate, [word], statement, project)


async def test_a_multi_row_insert_with_one_bad_row_stores_none(house: House) -> None:
    project = await house.project()
    rows = "(values ('say: a'), (' '), ('say: b')) as v(text)"
    statement = f"insert into tasks (project_id, input) select id, text from projects, {rows} where name = $1"
    await refused_by_sql(house, "CD422", ["empty"], statement, project)


async def test_an_unknown_and_a_closed_session(house: House) -> None:
    project, other = await house.project(), await house.project()
    task = await house.completed(project, "write a.txt: a")
    session, nobody = task["session_id"], str(uuid4())
    insert = "insert into tasks (project_id, session_id, input) select id, $2::uuid, 'x' from projects where name = $1"
    await refused_by_sql(house, "CD404", [nobody, "leave session_id out"], insert, project, nobody)
    await refused_by_http(house, 404, "not_found", [nobody, "leave session_id out"], project=project, input="x", session_id=nobody)
    await refused_by_sql(house, "CD422", [session, "belongs to project"], insert, other, session)
    assert (await house.client.post(f"/sessions/{session}/close")).status_code == 200
    await refused_by_sql(house, "CD409", [session, "is closed", "reopen it", "leave session_id out"], insert, project, session)
    await refused_by_http(house, 409, "conflict", [session, "is closed", "reopen"], project=project, input="x", session_id=session)
    # Its change outlives it, and reopened it goes on where it was.
    await house.open_change(task, "a.txt")
    assert (await house.client.post(f"/sessions/{session}/reopen")).status_code == 200
    await house.open_change(await house.completed(project, "write b.txt: b", session), "a.txt", "b.txt")
    await house.at_rest()
