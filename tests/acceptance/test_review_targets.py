"""Where approvals go: several in order, branches that are pushed, commits that say whose they are."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from checkout import Checkout
from editing import LONG, edits, with_edits
from running import Coder

pytest_plugins = ("model_server",)


def changes_of(coder: Coder, project: str, *numbers: int) -> list[dict[str, Any]]:
    """A change in a session of its own for each of these places."""
    tasks = [coder.queue(project, f"Edit {number}.", edits(number)) for number in numbers]
    return [coder.change(coder.ended(task)) for task in tasks]


def named(changes: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{"change_id": change["id"], "fingerprint": change["fingerprint"]} for change in changes]


def states(coder: Coder, changes: list[dict[str, Any]]) -> list[str]:
    return [coder.get(f"/changes/{change['id']}")["state"] for change in changes]


def test_several_in_order(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    changes = changes_of(coder, project, 1, 2, 3)
    order = [changes[2], changes[0], changes[1]]
    decision = coder.post("/changes/approve", 200, changes=named(order), commit=True)
    assert (decision["change_id"], decision["outcome"]) == (changes[1]["id"], "approved")
    assert checkout.git("log", "-3", "--format=%s", "--reverse").splitlines() == ["Edit 3.", "Edit 1.", "Edit 2."]
    assert checkout.read(LONG) == with_edits(before, 1, 2, 3)
    assert checkout.status() == set()


def test_the_first_conflict_ends_it(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    changes = changes_of(coder, project, 1, 2, 3, 4)
    checkout.write(LONG, with_edits(before, 2, word="mine"))
    checkout.commit("mine")
    refused = coder.post("/changes/approve", 409, changes=named(changes))
    assert (refused["code"], refused["change_id"], refused["files"]) == ("conflict", changes[1]["id"], [LONG])
    assert states(coder, changes) == ["approved", "conflicted", "pending", "pending"]
    assert checkout.read(LONG) == with_edits(with_edits(before, 1), 2, word="mine")
    skipped = coder.get(f"/decisions?change_id={changes[3]['id']}")["items"][0]
    assert (skipped["state"], skipped["outcome"]) == ("failed", "skipped")
    assert changes[2]["id"] in skipped["error"] or changes[1]["id"] in skipped["error"]

    said = coder.cli("change", "approve", changes[2]["id"], changes[3]["id"])
    assert [line.split()[1] for line in said.splitlines()] == [changes[2]["id"], changes[3]["id"]]
    assert checkout.read(LONG) == with_edits(with_edits(before, 1, 3, 4), 2, word="mine")


def test_one_that_was_not_shown_stops_all_before_anything_happens(coder: Coder, checkout: Checkout, project: str) -> None:
    changes = changes_of(coder, project, 1, 2)
    wrong = [*named(changes[:1]), {"change_id": changes[1]["id"], "fingerprint": "0" * 64}]
    assert coder.post("/changes/approve", 409, changes=wrong)["code"] == "stale"
    twice = coder.post("/changes/approve", 409, changes=named(changes[:1] * 2))
    assert "already decided" in twice["detail"]
    assert (states(coder, changes), checkout.status()) == (["pending"] * 2, set())


@pytest.mark.parametrize("how", ["missing", "refused"])
def test_a_branch_that_cannot_be_pushed_is_approved_all_the_same(
    coder: Coder, checkout: Checkout, project: str, tmp_path: Path, how: str
) -> None:
    (change,) = changes_of(coder, project, 1)
    checkout.git("remote", "remove", "origin")
    if how == "refused":
        subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote")], check=True)
        hook = tmp_path / "remote" / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\nprintf 'not today.\\000\\033[2J\\n' >&2; exit 1\n")
        hook.chmod(0o755)
        checkout.git("remote", "add", "origin", str(tmp_path / "remote"))
    decision = coder.approve(change, target="branch", branch="made", push=True)
    pushed = decision["facts"]["pushed"]
    assert (decision["outcome"], pushed["remote"]) == ("approved", "origin")
    said = {"missing": "'origin' does not appear to be a git repository", "refused": "not today"}[how]
    assert pushed["error"].startswith(said)
    assert how == "missing" or pushed["error"].endswith("; [remote rejected] (pre-receive hook declined)")
    assert "\x1b" not in pushed["error"]
    assert checkout.git("rev-parse", "made") == decision["facts"]["commit"]


def test_a_branch_is_pushed(coder: Coder, checkout: Checkout, project: str, tmp_path: Path) -> None:
    first, second = changes_of(coder, project, 1, 2)
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote")], check=True)
    checkout.git("remote", "add", "theirs", str(tmp_path / "remote"))
    checkout.git("config", "remote.pushDefault", "theirs")
    assert coder.approve(first, 422, push=True)["code"] == "invalid_input"
    said = coder.cli("change", "approve", first["id"], "--branch", "made", "--push")
    assert said.splitlines()[1] == "It is pushed to theirs."
    coder.approve(second, target="branch", branch="made", push=True)
    log = checkout.git(
        "--git-dir",
        str(tmp_path / "remote"),
        "log",
        "--format=%an|%s|%(trailers:key=Agent,valueonly,separator=)|%(trailers:key=Task)",
        "made",
    )
    newest = log.splitlines()[0]
    assert newest == f"admin|Edit 2.|native|Task: {second['task_id']}"
    coder.post(f"/changes/{second['id']}/undo", 200)
    assert checkout.git("--git-dir", str(tmp_path / "remote"), "log", "-1", "--format=%s", "made") == "Undo: Edit 2."
