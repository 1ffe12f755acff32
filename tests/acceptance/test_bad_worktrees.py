"""Worktrees that somebody breaks, by hand or from within a turn: the work is found again, and the session goes on."""

from __future__ import annotations

import fcntl
import os
import shutil

import pytest
from bad_git import git, seen
from bad_house import House, is_sentence

from coder.runtime import executor

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("pruned", [False, True])
async def test_a_worktree_deleted_between_turns_comes_back_as_of_its_last_snapshot(house: House, pruned: bool) -> None:
    project = await house.project()
    first = await house.completed(project, "write a.txt: a\nedit README: two => zwei")
    session = first["session_id"]
    path = await house.worktree(session)
    shutil.rmtree(path)
    if pruned:
        git(house.checkout(project), "worktree", "prune")
        path.with_name(f"{path.name}.index").unlink()
    # The change is decided on without the worktree as with it.
    assert (await house.open_change(first, "README", "a.txt"))["state"] == "pending"
    second = await house.completed(project, "read a.txt\nwrite b.txt: b", session)
    assert (await house.answer(second))["tool_calls"][0]["output"] == "a"
    change = await house.open_change(second, "README", "a.txt", "b.txt")
    shutil.rmtree(path)
    await house.approved(change)
    third = await house.completed(project, "read b.txt\nwrite c.txt: c", session)
    assert (await house.answer(third))["tool_calls"][0]["output"] == "b"
    await house.open_change(third, "c.txt")
    await house.at_rest()


async def test_a_worktree_deleted_before_its_work_was_to_be_discarded(house: House) -> None:
    project = await house.project()
    first = await house.completed(project, "write a.txt: a")
    change = await house.open_change(first, "a.txt")
    shutil.rmtree(await house.worktree(first["session_id"]))
    answer = await house.client.post(
        f"/changes/{change['id']}/reject", json={"fingerprint": change["fingerprint"], "work": "discard", "reason": "no"}
    )
    assert answer.status_code == 200
    await house.at_rest()
    second = await house.completed(project, "write b.txt: b", first["session_id"])
    await house.open_change(second, "b.txt")
    await house.at_rest()


async def test_a_git_file_removed_between_turns(house: House) -> None:
    project = await house.project()
    first = await house.completed(project, "write a.txt: a")
    path = await house.worktree(first["session_id"])
    (path / ".git").unlink()
    second = await house.completed(project, "write b.txt: b\nrun: git status --porcelain", first["session_id"])
    assert (await house.answer(second))["tool_calls"][1]["output"] == "?? a.txt\n?? b.txt\n"
    await house.open_change(second, "a.txt", "b.txt")
    await house.at_rest()


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("rm .git", "removed"),
        ("rm .git && git init -q . && git add -A", "replaced"),
        ("d=$(git rev-parse --git-dir) && rm -rf $d", "missing"),
        ("d=$(git rev-parse --git-dir) && echo nonsense > $d/HEAD && echo nonsense > $d/index", "missing or changed"),
    ],
    ids=["removed", "replaced", "record removed", "record broken"],
)
async def test_a_turn_that_breaks_git_in_its_worktree(house: House, command: str, word: str) -> None:
    project = await house.project()
    before = seen(house.checkout(project))
    task = await house.completed(project, f"write a.txt: a\nrun: {command}\nwrite b.txt: b")
    change = await house.open_change(task, "a.txt", "b.txt")
    assert any(word in warning for warning in change["warnings"]), change["warnings"]
    assert all(is_sentence(warning) for warning in change["warnings"])
    second = await house.completed(project, "write c.txt: c\nrun: git status --porcelain", task["session_id"])
    assert "c.txt" in (await house.answer(second))["tool_calls"][1]["output"]
    assert seen(house.checkout(project)) == before
    await house.approved(await house.open_change(second, "a.txt", "b.txt", "c.txt"))
    await house.at_rest()


async def test_a_turn_that_deletes_its_own_worktree(house: House) -> None:
    project = await house.project()
    first = await house.completed(project, "write a.txt: a")
    session, change = first["session_id"], await house.open_change(first, "a.txt")
    path = await house.worktree(session)
    await house.failed("internal", [str(path), "is gone", "last snapshot"], project, f"run: cd / && rm -rf {path}", session)
    await house.at_rest()
    kept = await house.change(session)
    assert kept is not None
    assert (kept["state"], kept["fingerprint"]) == ("pending", change["fingerprint"])
    third = await house.completed(project, "read a.txt\nwrite b.txt: b", session)
    assert (await house.answer(third))["tool_calls"][0]["output"] == "a"
    await house.open_change(third, "a.txt", "b.txt")
    await house.at_rest()


async def test_a_worktree_that_somebody_else_does_not_let_go_of(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "HELD_MOST_SECONDS", 0.2)
    project = await house.project()
    first = await house.completed(project, "write a.txt: a")
    session = first["session_id"]
    with (house.data / "worktrees" / f"{session}.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        await house.failed("internal", [session, "in use", "try again"], project, "write b.txt: b", session)
    await house.open_change(first, "a.txt")
    await house.open_change(await house.completed(project, "write c.txt: c", session), "a.txt", "c.txt")
    await house.at_rest()


async def test_a_directory_that_a_command_runs_in_and_removes(house: House) -> None:
    project = await house.project(files={"README": "r\n", "sub/f": "f\n"})
    checkout = house.checkout(project)
    first = await house.completed(project, "write a.txt: a")
    await house.sql.execute("update sessions set cwd = $2 where id = $1", first["session_id"], str(checkout / "sub"))
    second = await house.completed(project, "write here: h\nrun: rm -rf ../sub\nrun: true\nwrite ../b.txt: b", first["session_id"])
    assert [call["status"] for call in (await house.answer(second))["tool_calls"]][:2] == ["completed", "completed"]
    change = await house.change(first["session_id"])
    assert change is not None
    assert "sub/f" in [file["path"] for file in change["files"]]
    third = await house.completed(project, "write c.txt: c", first["session_id"])
    assert third["state"] == "completed"
    await house.at_rest()


async def test_an_index_of_the_checkout_that_git_cannot_read(house: House) -> None:
    """What git stumbles over in the project itself is said in git's words, and nothing is touched."""
    project = await house.project()
    checkout = house.checkout(project)
    change = await house.open_change(await house.completed(project, "write a.txt: a"), "a.txt")
    index = (checkout / ".git/index").read_bytes()
    (checkout / ".git/index").write_bytes(b"nonsense")
    refused = await house.approve(change)
    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (500, "internal"), problem
    assert is_sentence(problem["detail"]), problem
    assert str(checkout) in problem["detail"]
    assert await house.state_of(change) == "pending"
    assert sorted(os.listdir(checkout)) == [".git", "README"]
    (checkout / ".git/index").write_bytes(index)
    await house.approved(change)
    await house.at_rest()
