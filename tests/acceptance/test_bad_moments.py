"""Approvals at a bad moment: two at once, and while the next turn of the session runs."""

from __future__ import annotations

import asyncio
import os

import pytest
from bad_git import git
from bad_house import House, refused

from coder.change import Snapshot, Worktree
from coder.errors import DiskFull
from coder.git.worktrees import GitWorktrees

pytest_plugins = ("model_server",)
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_two_approvals_at_once(house: House) -> None:
    project = await house.project()
    checkout = house.checkout(project)
    change = await house.open_change(await house.completed(project, "write a.txt: a"), "a.txt")
    answers = await asyncio.gather(*(house.approve(change, commit=True) for _ in range(8)))
    (done,) = [answer for answer in answers if answer.status_code == 200]
    for answer in answers:
        if answer is not done:
            assert answer.json()["code"] in ("conflict", "superseded")
            refused(answer, answer.json()["code"], change["id"])
    assert git(checkout, "rev-list", "--count", "HEAD") == "2"
    assert await house.sql.fetchval("select count(*) from decisions where change_id = $1", change["id"]) == 1
    await house.at_rest()


async def test_two_sessions_approved_at_once_follow_one_another(house: House) -> None:
    project = await house.project(files={"README": "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\n"})
    checkout = house.checkout(project)
    tasks = await asyncio.gather(
        *(house.completed(project, f"edit README: {word} => {word.upper()}\nwrite {word}: x") for word in ("one", "eight"))
    )
    changes = [await house.open_change(task, "README", word) for task, word in zip(tasks, ("one", "eight"), strict=True)]
    for decision in await asyncio.gather(*(house.approved(change, commit=True) for change in changes)):
        assert decision["facts"]["commit"]
    assert (checkout / "README").read_text() == "ONE\ntwo\nthree\nfour\nfive\nsix\nseven\nEIGHT\n"
    assert git(checkout, "status", "--porcelain") == ""
    await house.at_rest()


async def test_an_approval_while_the_next_turn_runs(house: House) -> None:
    """The base moves under the turn; what the turn leaves is measured against the new one."""
    project = await house.project()
    task = await house.completed(project, "write a.txt: a")
    session, change = task["session_id"], await house.open_change(task, "a.txt")
    gate = house.folder / "gate"
    os.mkfifo(gate)
    running = await house.queue(project, f"write b.txt: b\nrun: cat {gate}\nsay: late", session)

    async def busy() -> bool:
        return bool(await house.sql.fetchval("select first_event_at is not null from tasks where id = $1", running))

    await house.until(busy, "the second turn")
    await house.approved(change)
    assert (house.checkout(project) / "a.txt").read_text() == "a"
    assert not (house.checkout(project) / "b.txt").exists()
    await asyncio.to_thread(gate.write_text, "go")
    second = await house.ended(running)
    assert second["state"] == "completed"
    rest = await house.open_change(second, "b.txt")
    assert rest["base_commit"] == change["snapshot_commit"]
    assert await house.sql.fetchval("select base_version from session_worktrees where session_id = $1", session) == 2
    await house.approved(rest)
    assert (house.checkout(project) / "b.txt").read_text() == "b"
    await house.at_rest()


async def test_no_room_to_measure_a_change_anew(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The base moved under a turn, and the disk is full when its change is measured against the new one."""
    project = await house.project()
    task = await house.completed(project, "write a.txt: a")
    session, change = task["session_id"], await house.open_change(task, "a.txt")
    measure, failures = GitWorktrees.diff, [DiskFull(what="git's objects", where="the disk")]

    async def diff(self: GitWorktrees, worktree: Worktree, commit: str) -> Snapshot:
        if failures:
            raise failures.pop()
        return await measure(self, worktree, commit)

    monkeypatch.setattr(GitWorktrees, "diff", diff)
    gate = house.folder / "gate-3"
    os.mkfifo(gate)
    running = await house.queue(project, f"write b.txt: b\nrun: cat {gate}\nsay: done", session)

    async def busy() -> bool:
        return bool(await house.sql.fetchval("select first_event_at is not null from tasks where id = $1", running))

    await house.until(busy, "the second turn")
    await house.approved(change)
    await asyncio.to_thread(gate.write_text, "go")
    second = await house.ended(running)
    assert (second["state"], second["reason"], second["output_summary"]) == ("failed", "disk", "done")
    assert (await house.answer(second))["text"] == "done"
    await house.at_rest()
    await house.approved(await house.open_change(second, "b.txt"))
    await house.at_rest()


async def test_an_approval_while_the_next_turn_only_looks_leaves_nothing_to_approve(house: House) -> None:
    project = await house.project()
    task = await house.completed(project, "write a.txt: a")
    session, change = task["session_id"], await house.open_change(task, "a.txt")
    gate = house.folder / "gate-2"
    os.mkfifo(gate)
    running = await house.queue(project, f"run: cat {gate}", session)

    async def busy() -> bool:
        return bool(await house.sql.fetchval("select first_event_at is not null from tasks where id = $1", running))

    await house.until(busy, "the second turn")
    await house.approved(change)
    await asyncio.to_thread(gate.write_text, "go")
    assert (await house.ended(running))["state"] == "completed"
    assert await house.change(session) is None
    assert await house.state_of(change) == "approved"
    await house.at_rest()
