"""Undoing approvals: the target is as it was, the work waits again, and what something stands on stays."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

from checkout import Checkout, clone_of
from editing import LONG, decide, edits, hunks, part, with_edits, worktree_of
from running import Coder

pytest_plugins = ("model_server",)


def undo(coder: Coder, change: dict[str, Any], status: int = 200, **how: Any) -> Any:
    return coder.post(f"/changes/{change['id']}/undo", status, **how)


def read(coder: Coder, change: str) -> dict[str, Any]:
    found: dict[str, Any] = coder.get(f"/changes/{change}")
    return found


def test_undone_and_approved_again(coder: Coder, checkout: Checkout, project: str) -> None:
    lines = (edits(1, 2), "write extra/new.txt: x\\n", "run: rm Makefile && chmod +x setup.py && mv docs/testing.rst docs/how.rst")
    task = coder.turn(project, "Change much.", *lines)
    change, session = coder.change(task), task["session_id"]
    checkout.write("NOTES", "mine\n")
    checkout.git("add", "NOTES")
    before, index, status = checkout.files(), checkout.index(), checkout.status()
    assert "only an approved one" in undo(coder, change, 409)["detail"]
    coder.approve(change)
    after = checkout.files()

    decision = undo(coder, change, reason="not today")
    assert (decision["kind"], decision["outcome"], decision["change_state"], decision["reason"]) == (
        "undo",
        "undone",
        "undone",
        "not today",
    )
    assert (checkout.files(), checkout.index(), checkout.status()) == (before, index, status)
    again = read(coder, decision["left_change_id"])
    assert (again["state"], again["fingerprint"], again["diff"]) == ("pending", change["fingerprint"], change["diff"])
    assert coder.worktree(session)["base_commit"] == change["base_commit"]
    assert "only an approved one" in undo(coder, change, 409)["detail"]

    coder.approve(again)
    assert checkout.files() == after
    said = coder.cli("change", "undo", again["id"])
    assert said.splitlines()[0] == f"Change {again['id']} is taken out of the checkout of {project}."
    assert checkout.files() == before
    more = coder.change(coder.turn(project, "Go on.", edits(3), session=session))
    assert hunks(more) == [1, 2, 3]
    kinds = [row["kind"] for row in coder.get(f"/decisions?session_id={session}")["items"]]
    assert kinds == ["undo", "approve", "undo", "approve"]


def test_one_after_the_other_backwards(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    first = coder.turn(project, "Edit.", edits(1))
    session, one = first["session_id"], coder.change(first)
    coder.approve(one)
    two = coder.change(coder.turn(project, "Edit it again.", edits(1, 2, word="anew"), session=session))
    coder.approve(two)
    waits = coder.change(coder.turn(project, "Go on.", edits(3), session=session))

    refused = undo(coder, one, 409)
    assert (refused["code"], two["id"] in refused["detail"]) == ("conflict", True)
    decision = undo(coder, two)
    assert checkout.read(LONG) == with_edits(before, 1)
    assert read(coder, waits["id"])["state"] == "superseded"
    assert hunks(read(coder, decision["left_change_id"])) == [1, 2, 3]
    decision = undo(coder, one)
    assert checkout.status() == set()
    everything = read(coder, decision["left_change_id"])
    coder.approve(everything)
    expected = with_edits(with_edits(before, 1, 2, word="anew"), 3)
    assert checkout.read(LONG) == worktree_of(coder, session).read(LONG) == expected


def test_parts_are_undone(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit.", edits(1, 2, 3))
    session, change = task["session_id"], coder.change(task)
    left = decide(coder, change, parts=[part(1, "approve"), part(2, "reject")])["left_change_id"]
    decision = undo(coder, change)
    assert checkout.status() == set()
    assert read(coder, left)["state"] == "superseded"
    assert worktree_of(coder, session).read(LONG) == with_edits(before, 1, 3)
    again = read(coder, decision["left_change_id"])
    assert hunks(again) == [1, 2]
    coder.approve(again)
    assert checkout.read(LONG) == with_edits(before, 1, 3)


def test_what_a_person_did_since_stays_or_stands_in_the_way(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    change = coder.change(coder.turn(project, "Edit.", edits(1, 2)))
    coder.approve(change)
    checkout.write(LONG, with_edits(with_edits(before, 1, 2), 4, word="mine"))
    assert undo(coder, change, 409)["code"] == "checkout_dirty"
    checkout.commit("mine, elsewhere")
    checkout.write(LONG, with_edits(checkout.read(LONG), 2, word="mine"))
    checkout.commit("mine, on the same line")
    held = checkout.files()
    refused = undo(coder, change, 409)
    assert (refused["code"], refused["files"], len(refused["conflicts"][0]["hunks"])) == ("conflict", [LONG], 1)
    assert "cannot be taken out of the checkout again" in refused["detail"]
    assert (checkout.files(), read(coder, change["id"])["state"]) == (held, "approved")

    checkout.git("revert", "--no-edit", "HEAD")
    undo(coder, change)
    assert checkout.read(LONG) == with_edits(before, 4, word="mine")


def test_commits_are_reverted_by_commits(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Edit it.", edits(1)))
    head = checkout.head()
    coder.approve(change, commit=True)
    taken = checkout.head()
    decision = undo(coder, change)
    assert checkout.git("rev-parse", "HEAD^", "HEAD^{tree}").split() == [taken, checkout.git("rev-parse", f"{head}^{{tree}}")]
    assert (decision["facts"]["commit"], checkout.git("log", "-1", "--format=%s")) == (checkout.head(), "Undo: Edit it.")
    assert checkout.status() == set()
    again = read(coder, decision["left_change_id"])
    coder.approve(again, target="branch", branch="made")
    undo(coder, again)
    assert checkout.git("rev-list", "--count", "main..made") == "2"
    assert checkout.git("diff", "main", "made") == ""


def test_changes_of_several_sessions_in_every_order(coder: Coder, package: Checkout, tmp_path: Path) -> None:
    for turn, order in enumerate(permutations((1, 2, 3))):
        checkout = clone_of(package.path, tmp_path / str(turn))
        name = f"every-order-{turn}"
        coder.post("/projects", 201, name=name, path=str(checkout.path))
        before = checkout.read(LONG)
        tasks = [coder.queue(name, "Edit.", edits(number)) for number in (1, 2, 3)]
        changes = [coder.change(coder.ended(task)) for task in tasks]
        for change in changes:
            coder.approve(change)
        left = {1, 2, 3}
        for number in order:
            undo(coder, changes[number - 1])
            left.discard(number)
            assert checkout.read(LONG) == with_edits(before, *left)
        assert checkout.status() == set()


def test_undone_while_a_turn_runs(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    first = coder.turn(project, "Edit.", edits(1))
    session, change = first["session_id"], coder.change(first)
    coder.approve(change)
    pipe = coder.worktree(session)["path"] + "/pipe"
    second = coder.queue(project, "And go on.", edits(2), f"run: mkfifo {pipe} && echo up > {pipe}; rm {pipe}", session=session)
    coder.until(lambda: Path(pipe).is_fifo())
    decision = undo(coder, change)
    assert checkout.status() == set()
    assert hunks(read(coder, decision["left_change_id"])) == [1]
    with open(pipe) as reader:
        assert reader.read() == "up\n"
    after = coder.change(coder.ended(second))
    assert hunks(after) == [1, 2]
    coder.approve(after)
    assert checkout.read(LONG) == with_edits(before, 1, 2)
