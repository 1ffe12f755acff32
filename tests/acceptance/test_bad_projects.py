"""Projects that cannot give a worktree: the task fails at once, says what to do, and after that was done the session goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from bad_git import commit, git, repository
from bad_house import House

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_unknown_project_is_refused_at_both_doors(house: House) -> None:
    nobody = uuid4()
    with pytest.raises(asyncpg.PostgresError, match=f"There is no project {nobody}; .* lists") as refused:
        await house.sql.execute("insert into tasks (project_id, input) values ($1, 'x')", nobody)
    assert refused.value.sqlstate == "CD404"
    with pytest.raises(asyncpg.PostgresError, match=r"There is no project nope; .* lists"):
        await house.sql.fetchval("select coder.enqueue('nope', 'x')")
    answer = await house.client.post("/tasks", json={"project": "nope", "input": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "There is no project nope;" in answer.json()["detail"]
    for table in ("tasks", "sessions", "session_queue", "chats"):
        assert await house.sql.fetchval(f"select count(*) from {table}") == 0, table


def _nothing(path: Path) -> None:
    return


def _a_file(path: Path) -> None:
    path.write_text("not a directory\n")


def _bare(path: Path) -> None:
    path.mkdir()
    git(path, "init", "-q", "--bare")


def _without_a_commit(path: Path) -> None:
    path.mkdir()
    git(path, "init", "-q", "-b", "main")


def _below_the_top(path: Path) -> None:
    path.mkdir()
    git(path.parent, "init", "-q", "-b", "main")


def _start_anew(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    repository(path)


def _commit_there(path: Path) -> None:
    (path / "README").write_text("one\n")
    commit(path)


@pytest.mark.parametrize(
    ("broken", "mend", "reason", "words"),
    [
        (_nothing, _start_anew, "no_project_path", ["not a directory", "correct the project's path or create"]),
        (_a_file, _start_anew, "no_project_path", ["not a directory", "correct the project's path or create"]),
        (lambda path: path.mkdir(), _start_anew, "not_a_repository", ["not a git repository", "run `git init` there"]),
        (_bare, _start_anew, "not_a_repository", ["bare", "correct the project's path"]),
        (_below_the_top, _start_anew, "not_a_repository", ["top level", "correct the project's path"]),
        (_without_a_commit, _commit_there, "no_commit", ["has no commit yet", "commit something there first"]),
    ],
    ids=["missing", "a file", "no repository", "bare", "a subdirectory", "no commit"],
)
async def test_a_project_that_gives_no_worktree(
    house: House, broken: Callable[[Path], None], mend: Callable[[Path], None], reason: str, words: list[str]
) -> None:
    path = house.folder / uuid4().hex[:8] / "project"
    path.parent.mkdir()
    broken(path)
    project = await house.project(path)
    failed = await house.failed(reason, [project, str(path), *words], project, "write a.txt: a")
    session = failed["session_id"]
    assert await house.sql.fetchval("select count(*) from session_worktrees where session_id = $1", session) == 0
    assert await house.change(session) is None
    # The same session goes on once its owner has done what the sentence says.
    mend(path)
    again = (await house.client.post(f"/tasks/{failed['id']}/retry")).json()
    done = await house.ended(again["id"])
    assert (done["state"], done["session_id"]) == ("completed", session), done["error"]
    await house.approved(await house.open_change(done, "a.txt"))
    assert (path / "a.txt").read_text() == "a"
    await house.at_rest()


async def test_a_project_that_went_away_and_came_back(house: House) -> None:
    """The session's work stays in its worktree meanwhile, and its change stays to be decided on."""
    project = await house.project()
    first = await house.completed(project, "write a.txt: a")
    change = await house.open_change(first, "a.txt")
    path, away = house.checkout(project), house.folder / "away"
    path.rename(away)
    await house.failed("no_project_path", [project, str(path)], project, "write b.txt: b", first["session_id"])
    assert await house.open_change(first, "a.txt") == change
    refused = await house.approve(change)
    assert (refused.status_code, refused.json()["code"]) == (409, "no_project_path"), refused.text
    assert await house.state_of(change) == "pending"
    away.rename(path)
    second = await house.completed(project, "write b.txt: b", first["session_id"])
    await house.approved(await house.open_change(second, "a.txt", "b.txt"))
    assert (path / "b.txt").read_text() == "b"
    await house.at_rest()
