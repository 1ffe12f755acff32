"""Decisions that meet something: another decision, another fingerprint, a running turn, a person's own work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from blocking import blocking
from checkout import Checkout
from editing import LONG, edits, part, with_edits, worktree_of
from running import Coder, running

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

INIT = "more_itertools/__init__.py"
BUMP = f"edit {INIT}: __version__ = '10.5.0' => __version__ = '10.6.0'"


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Coder]:
    """Unconfined, so that a command of an agent can wait for the test at a pipe outside its worktree."""
    made = Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1", sandbox="off")
    yield from running(made)


def decisions(coder: Coder, change: str) -> list[dict[str, object]]:
    return coder.rows("select state, outcome from decisions where change_id = %s order by created_at", change)


def test_a_fingerprint_that_was_not_shown(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Release it.", BUMP))
    for path, body in (("approve", {}), ("reject", {"work": "discard"})):
        refused = coder.post(f"/changes/{change['id']}/{path}", 409, fingerprint="0" * 64, **body)
        assert (refused["code"], refused["fingerprint"]) == ("stale", change["fingerprint"])
        assert change["id"] in refused["detail"]
    complaint = coder.psql(f"select coder.approve('{change['id']}', '{'0' * 64}')", code=1)
    assert "is not what was shown" in complaint
    assert change["fingerprint"] in complaint
    assert "is not what was shown" in coder.cli("change", "approve", change["id"], "--fingerprint", "0" * 64, code=1)
    assert decisions(coder, change["id"]) == []
    assert coder.get(f"/changes/{change['id']}") == change
    assert checkout.status() == set()


def test_two_approvals_at_once(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Release it.", BUMP))
    together = Barrier(8)

    def approve(number: int) -> tuple[int, str]:
        together.wait(10)
        how = {"commit": bool(number % 2)}
        answer = coder.api.post(f"/changes/{change['id']}/approve", json={"fingerprint": change["fingerprint"], **how})
        return answer.status_code, answer.json().get("code", "")

    with ThreadPoolExecutor(8) as people:
        answers = sorted(people.map(approve, range(8)))
    assert answers[0] == (200, "")
    assert {status for status, _ in answers[1:]} == {409}
    assert {code for _, code in answers[1:]} <= {"conflict", "superseded"}
    assert decisions(coder, change["id"]) == [{"state": "done", "outcome": "approved"}]
    assert coder.worktree(change["session_id"])["base_version"] == 2
    assert "'10.6.0'" in checkout.read(INIT)


def test_two_reviewers_decide_on_overlapping_parts(coder: Coder, checkout: Checkout, project: str) -> None:
    """One wins whole; the others learn what took the place of what they were shown."""
    before = checkout.read(LONG)
    change = coder.change(coder.turn(project, "Edit.", edits(1, 2, 3)))
    together = Barrier(6)
    wishes = [[part(1, "approve"), part(2, "reject")], [part(2, "approve"), part(3, "approve")]]

    def one(number: int) -> tuple[int, dict[str, object]]:
        together.wait(10)
        body = {"fingerprint": change["fingerprint"], "parts": wishes[number % 2]}
        answer = coder.api.post(f"/changes/{change['id']}/decide", json=body)
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(6) as people:
        answers = sorted(people.map(one, range(6)), key=lambda answer: answer[0])
    assert [status for status, _ in answers] == [200, *[409] * 5]
    won = answers[0][1]
    for _, refused in answers[1:]:
        assert refused["code"] in ("conflict", "superseded")
        assert refused["code"] == "conflict" or refused["superseded_by"] == won["left_change_id"]
    assert decisions(coder, change["id"]) == [{"state": "done", "outcome": "approved"}]
    taken = (1,) if won["parts"] == wishes[0] else (2, 3)
    assert checkout.read(LONG) == with_edits(before, *taken)
    left = coder.get(f"/changes/{won['left_change_id']}")
    assert len(left["files"][0]["hunks"]) == 1
    assert worktree_of(coder, change["session_id"]).read(LONG) == with_edits(before, *((1, 3) if taken == (1,) else (1, 2, 3)))


def test_two_changes_at_once(coder: Coder, checkout: Checkout, project: str) -> None:
    """Of two sessions, into one file: one after the other, both whole."""
    edits = (BUMP, f"edit {INIT}: More routines => My routines")
    changes = [coder.change(coder.turn(project, "Edit it.", edit)) for edit in edits]
    with ThreadPoolExecutor(2) as people:
        assert [decision["outcome"] for decision in people.map(coder.approve, changes)] == ["approved"] * 2
    assert checkout.git("diff", "--shortstat") == " 1 file changed, 2 insertions(+), 2 deletions(-)"


def test_approve_while_a_turn_runs(coder: Coder, checkout: Checkout, project: str, tmp_path: Path) -> None:
    first = coder.turn(project, "Release it.", BUMP)
    session, change = first["session_id"], coder.change(first)
    with blocking(tmp_path / "command") as command:
        edit = f"edit {INIT}: __version__ = '10.6.0' => __version__ = '10.7.0'"
        second = coder.queue(project, "And go on.", edit, "write extra.txt: x\\n", f"run: {command.command}", session=session)
        agent = command.began()
        decision = coder.approve(change)
        assert decision["outcome"] == "approved"
        assert "'10.6.0'" in checkout.read(INIT)
        assert checkout.status() == {f" M {INIT}"}
        assert coder.get(f"/tasks/{second}")["state"] == "running"
        assert agent.alive()
        command.let_go()
        after = coder.change(coder.ended(second))
        assert agent.gone_within(2)
    assert (after["base_commit"], after["file_count"]) == (change["snapshot_commit"], 2)
    assert "-__version__ = '10.6.0'\n+__version__ = '10.7.0'\n" in after["diff"]
    assert coder.row("select base_version from pending_changes where id = %s", after["id"]) == {"base_version": 2}
    coder.approve(after)
    assert "'10.7.0'" in checkout.read(INIT)
    assert checkout.status() == {f" M {INIT}", "?? extra.txt"}


def test_a_checkout_with_work_in_the_way(coder: Coder, checkout: Checkout, project: str) -> None:
    task = coder.turn(project, "Release it.", BUMP, "write extra.txt: coder's\\n")
    change = coder.change(task)
    checkout.replace(INIT, "More routines", "My routines")
    checkout.write("extra.txt", "mine\n")
    before, index = checkout.files(), checkout.index()
    refused = coder.approve(change, 409)
    assert (refused["code"], refused["files"]) == ("checkout_dirty", ["extra.txt", INIT])
    assert (checkout.files(), checkout.index()) == (before, index)
    assert coder.get(f"/changes/{change['id']}")["state"] == "pending"
    assert decisions(coder, change["id"]) == [{"state": "failed", "outcome": "checkout_dirty"}]

    # Out of the way, but elsewhere in the same file: both are kept.
    (checkout.path / "extra.txt").unlink()
    checkout.commit("mine")
    assert json.loads(coder.cli("change", "approve", change["id"], "--json"))["outcome"] == "approved"
    assert "My routines" in checkout.read(INIT)
    assert "'10.6.0'" in checkout.read(INIT)


def test_a_person_edits_the_same_lines(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Release it.", BUMP, "write extra.txt: x\\n"))
    checkout.replace(INIT, "'10.5.0'", "'10.5.1'")
    checkout.commit("mine")
    before, index, head = checkout.files(), checkout.index(), checkout.head()
    refused = coder.approve(change, 409)
    assert (refused["code"], refused["files"]) == ("conflict", [INIT])
    assert (checkout.files(), checkout.index(), checkout.head(), checkout.status()) == (before, index, head, set())
    shown = coder.get(f"/changes/{change['id']}")
    assert shown["state"] == "conflicted"
    (conflict,) = shown["conflicts"]
    assert conflict["path"] == INIT
    assert "10.5.1" in conflict["hunks"][0]["ours"]
    assert "10.6.0" in conflict["hunks"][0]["theirs"]

    # From there: apply again once it is resolved, with the fingerprint that was shown.
    checkout.git("revert", "--no-edit", "HEAD")
    assert coder.approve(change)["outcome"] == "approved"
    assert "'10.6.0'" in checkout.read(INIT)
    assert coder.get(f"/changes/{change['id']}")["conflicts"] == []


def test_a_conflicted_change_goes_back_to_the_agent(coder: Coder, checkout: Checkout, project: str) -> None:
    task = coder.turn(project, "Release it.", BUMP)
    change = coder.change(task)
    checkout.replace(INIT, "'10.5.0'", "'10.5.1'")
    checkout.commit("mine")
    assert coder.approve(change, 409)["code"] == "conflict"
    same = f"edit {INIT}: __version__ = '10.6.0' => __version__ = '10.5.1'"
    second = coder.change(coder.turn(project, "Take mine.", same, "write extra.txt: x\\n", session=task["session_id"]))
    assert coder.get(f"/changes/{change['id']}")["state"] == "superseded"
    assert coder.approve(second)["outcome"] == "approved"
    assert checkout.status() == {"?? extra.txt"}


def test_the_checkout_is_on_another_branch(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Release it.", BUMP))
    checkout.git("checkout", "-qb", "elsewhere")
    assert coder.approve(change, 409)["code"] == "wrong_branch"
    assert coder.get(f"/changes/{change['id']}")["state"] == "pending"
    assert checkout.status() == set()
    checkout.git("checkout", "-q", "main")
    assert coder.approve(change)["outcome"] == "approved"
    assert checkout.status() == {f" M {INIT}"}
