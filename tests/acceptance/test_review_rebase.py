"""Conflicts, and putting the work on its target as it is by now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkout import Checkout
from editing import LONG, decide, edits, hunks, part, with_edits, worktree_of
from running import Coder

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)


def rebase(coder: Coder, change: dict[str, Any], status: int = 200, **how: Any) -> Any:
    return coder.post(f"/changes/{change['id']}/rebase", status, **{"fingerprint": change["fingerprint"], **how})


def read(coder: Coder, change: str) -> dict[str, Any]:
    found: dict[str, Any] = coder.get(f"/changes/{change}")
    return found


def test_put_on_what_the_checkout_holds_by_now(coder: Coder, checkout: Checkout, project: str, model_server: ModelServer) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit.", edits(1, 2), "run: rm Makefile")
    session, change = task["session_id"], coder.change(task)
    checkout.write(LONG, with_edits(before, 4, word="mine"))
    checkout.write("later.txt", "later\n")
    checkout.commit("went on")
    other = coder.change(coder.turn(project, "Elsewhere.", "write other.txt: other\\n"))
    coder.approve(other)
    held, index = checkout.files(), checkout.index()

    decision = rebase(coder, change, reason="before it grows old")
    assert (decision["kind"], decision["outcome"], decision["change_state"]) == ("rebase", "rebased", "superseded")
    assert (checkout.files(), checkout.index()) == (held, index)
    on_it = read(coder, decision["left_change_id"])
    assert (on_it["state"], hunks(on_it), len(on_it["files"])) == ("pending", [1, 2], 2)
    worktree = worktree_of(coder, session)
    expected = {path: found for path, found in held.items() if path != "Makefile"}
    expected[LONG] = ("100644", with_edits(with_edits(before, 4, word="mine"), 1, 2).encode())
    assert worktree.files() == expected

    after = coder.change(coder.turn(project, "Go on, rebase-xylophone.", edits(3), session=session))
    told = model_server.requests("rebase-xylophone")[0]["messages"][-1]["content"].split("\n")[0]
    assert told == "The worktree was brought up to date with the checkout, so files may have changed since you read them."
    assert hunks(after) == [1, 2, 3]
    coder.approve(after)
    assert checkout.files() == worktree.files()


def test_a_conflict_then_the_agent_resolves_it_then_approved(
    coder: Coder, checkout: Checkout, project: str, model_server: ModelServer
) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit.", edits(1, 3))
    session, change = task["session_id"], coder.change(task)
    checkout.write(LONG, with_edits(before, 3, word="mine"))
    checkout.commit("the same line")
    held, work = checkout.files(), worktree_of(coder, session).files()
    refused = coder.approve(change, 409)
    (conflict,) = refused["conflicts"]
    assert (refused["code"], refused["files"], conflict["path"]) == ("conflict", [LONG], LONG)
    assert [*conflict["hunks"][0].values()] == [50, "# mine 3\n", "# edited 3\n"]
    shown = f"{LONG}:50\n-# mine 3\n+# edited 3\n"
    assert shown in coder.cli("change", "approve", change["id"], code=1)
    assert shown in coder.cli("change", "show", change["id"])
    refused = rebase(coder, change, 409)
    assert (refused["code"], refused["conflicts"]) == ("conflict", [conflict])
    assert read(coder, change["id"])["state"] == "conflicted"
    assert (checkout.files(), worktree_of(coder, session).files()) == (held, work)

    said = coder.cli("change", "rebase", change["id"], "--resolve")
    assert f"asked to resolve the conflicts in {LONG}." in said
    with_markers = read(coder, said.split()[-1].rstrip("."))
    assert "conflict markers" in with_markers["warnings"][0]
    coder.until(lambda: len(coder.get(f"/tasks?session_id={session}&state=completed")["items"]) == 2)
    resolving = coder.get(f"/tasks?session_id={session}")["items"][0]
    assert resolving["input"].startswith(f"Resolve the conflicts in {LONG}.")
    marked = "<<<<<<< the checkout\n# mine 3\n=======\n# edited 3\n>>>>>>> the change"
    assert worktree_of(coder, session).read(LONG) == with_edits(before, 1).replace(before.split("\n")[49], marked)

    script = f"run: sed -i -e '/^<<<<<<< /d' -e '/^=======$/d' -e '/^>>>>>>> /d' -e 's/^# mine 3$/# both 3/' -e '/^# edited 3$/d' {LONG}"
    resolved = coder.change(coder.turn(project, "As the model would have.", script, session=session))
    coder.approve(resolved)
    expected = with_edits(with_edits(before, 1), 3, word="both")
    assert checkout.read(LONG) == worktree_of(coder, session).read(LONG) == expected


def test_put_on_a_branch(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    first = coder.change(coder.turn(project, "Edit.", edits(1)))
    second = coder.change(coder.turn(project, "Edit.", edits(2)))
    coder.approve(first, target="branch", branch="made")
    decision = rebase(coder, second, target="branch", branch="made")
    on_it = read(coder, decision["left_change_id"])
    assert (hunks(on_it), on_it["deletions"]) == ([1], 1)
    assert worktree_of(coder, second["session_id"]).read(LONG) == with_edits(before, 1, 2)
    coder.approve(on_it, target="branch", branch="made")
    assert checkout.git("show", f"made:{LONG}") == with_edits(before, 1, 2).rstrip("\n")
    assert checkout.status() == set()


def test_rebased_while_a_turn_edits_the_same_lines(coder: Coder, checkout: Checkout, project: str, model_server: ModelServer) -> None:
    before = checkout.read(LONG)
    first = coder.turn(project, "Edit.", edits(1))
    session, change = first["session_id"], coder.change(first)
    pipe = coder.worktree(session)["path"] + "/pipe"
    second = coder.queue(project, "Go on.", edits(4), f"run: mkfifo {pipe} && echo up > {pipe}; rm {pipe}", session=session)
    coder.until(lambda: Path(pipe).is_fifo())
    checkout.write(LONG, with_edits(before, 4, word="mine"))
    checkout.commit("mine")
    rebase(coder, change)
    with open(pipe) as reader:
        assert reader.read() == "up\n"
    coder.change(coder.ended(second))
    marked = "<<<<<<< the checkout\n# mine 4\n=======\n# edited 4\n>>>>>>> the change"
    assert worktree_of(coder, session).read(LONG) == with_edits(before, 1).replace(before.split("\n")[69], marked)
    coder.turn(project, "And on, markers-xylophone.", "say: ok", session=session)
    told = model_server.requests("markers-xylophone")[0]["messages"][-1]["content"].split("\n")[0]
    assert told.endswith(f"since you read them; where both sides changed the same lines, {LONG} has conflict markers.")


def test_parts_of_a_conflicting_change(coder: Coder, checkout: Checkout, project: str) -> None:
    """What does not clash can be taken without the rest."""
    before = checkout.read(LONG)
    change = coder.change(coder.turn(project, "Edit.", edits(1, 2)))
    checkout.write(LONG, with_edits(before, 2, word="mine"))
    checkout.commit("mine")
    assert coder.approve(change, 409)["code"] == "conflict"
    left = decide(coder, change, parts=[part(1, "approve")])["left_change_id"]
    assert checkout.read(LONG) == with_edits(with_edits(before, 1), 2, word="mine")
    assert coder.approve(read(coder, left), 409)["code"] == "conflict"
