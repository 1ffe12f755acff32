"""Decisions on parts of a change: what is approved, rejected and left is exactly that, in the target and in the worktree."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkout import Checkout
from editing import LONG, decide, edits, hunks, part, with_edits, worktree_of
from running import Coder

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)


def test_hunks_approved_rejected_and_left(coder: Coder, checkout: Checkout, project: str, model_server: ModelServer) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit five places.", edits(1, 2, 3, 4, 5))
    session, change = task["session_id"], coder.change(task)
    assert hunks(change) == [1, 2, 3, 4, 5]

    parts = [part(1, "approve"), part(2, "reject"), part(3, "approve"), part(4, "leave")]
    decision = decide(coder, change, parts=parts, reason="two-xylophone is wrong")
    assert (decision["kind"], decision["state"], decision["outcome"], decision["change_state"]) == ("part", "done", "approved", "approved")
    assert decision["parts"] == parts[:3]
    assert checkout.read(LONG) == with_edits(before, 1, 3)
    assert checkout.status() == {f" M {LONG}"}
    worktree = worktree_of(coder, session)
    assert worktree.read(LONG) == with_edits(before, 1, 3, 4, 5)

    left = coder.get(f"/changes/{decision['left_change_id']}")
    assert (left["state"], left["task_id"], hunks(left)) == ("pending", task["id"], [1, 2])
    assert left["fingerprint"] != change["fingerprint"]
    refused = coder.approve(change, 409)
    assert (refused["code"], refused["superseded_by"]) == ("superseded", left["id"])
    oracle = subprocess.run(["git", "apply", "--check", "-"], cwd=checkout.path, input=coder.diff(left), capture_output=True)
    assert oracle.returncode == 0, oracle.stderr

    again = coder.turn(project, "Go on.", "run: sed -i '60s/.*/# went on/' " + LONG, session=session)
    told = model_server.requests("two-xylophone")[0]["messages"][-1]["content"].split("\n")[0]
    assert told == (
        f"Of the change of task {task['id']} a reviewer approved {LONG} lines 7-13, {LONG} lines 47-53 and rejected {LONG} lines 27-33, "
        "with this reason: two-xylophone is wrong; what was rejected was taken out of the worktree again."
    )
    rest = coder.change(again)
    assert coder.get(f"/changes/{left['id']}")["superseded_by"] == rest["id"]
    went_on = with_edits(before, 1, 3, 4, 5).split("\n")
    went_on[59] = "# went on"
    assert worktree.read(LONG) == "\n".join(went_on)
    coder.approve(rest)
    assert checkout.read(LONG) == worktree.read(LONG) == "\n".join(went_on)
    assert coder.turn(project, "Nothing.", "say: Indeed.", session=session)["change_id"] is None
    kinds = [(row["kind"], row["outcome"]) for row in coder.get(f"/decisions?session_id={session}")["items"]]
    assert kinds == [("approve", "approved"), ("part", "approved")]


def test_files_of_every_kind_on_the_command_line(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.files()
    kinds = (
        edits(1, 2),
        "run: chmod +x setup.py && git mv docs/testing.rst docs/how.rst && sed -i '1s/.*/First/' docs/how.rst && rm Makefile",
        "run: ln -s LICENSE COPYING && printf '\\\\000\\\\377' > blob && rm docs/make.bat && ln -s ../LICENSE docs/make.bat",
    )
    task = coder.turn(project, "Change everything.", *kinds)
    session, change = task["session_id"], coder.change(task)
    shown = coder.cli("change", "show", change["id"], "--hunks")
    assert f"\n{LONG}:2\n@@ -27,7 +27,7 @@" in shown
    made = worktree_of(coder, session).files()
    given = ("--hunk", f"{LONG}:1", "--hunk", "setup.py", "--hunk", "docs/how.rst", "--reject", "Makefile", "--reject", "blob")
    said = coder.cli("change", "approve", change["id"], *given, "--reject", "docs/make.bat", "--reason", "no")
    left = coder.change(coder.get(f"/tasks/{task['id']}"))
    assert said.splitlines()[-1] == f"What is left waits as change {left['id']}."

    taken = with_edits(before[LONG][1].decode(), 1).encode()
    old, renamed = "docs/testing.rst", "docs/how.rst"
    expected = {path: found for path, found in before.items() if path != old}
    expected |= {LONG: ("100644", taken), "setup.py": made["setup.py"], renamed: made[renamed]}
    assert checkout.files() == expected
    assert {file["path"]: file["operation"] for file in left["files"]} == {LONG: "modified", "COPYING": "added"}
    whole = {path: found for path, found in made.items() if path != "blob"}
    whole |= {path: before[path] for path in ("Makefile", "docs/make.bat")}
    assert worktree_of(coder, session).files() == whole

    said = coder.cli("change", "reject", left["id"], "--hunk", "COPYING", "--reason", "no link")
    assert "are rejected" in said
    rest = coder.change(coder.get(f"/tasks/{task['id']}"))
    assert coder.get(f"/changes/{left['id']}")["state"] == "rejected"
    assert worktree_of(coder, session).files() == {path: found for path, found in whole.items() if path != "COPYING"}
    coder.cli("change", "approve", rest["id"])
    assert checkout.files() == worktree_of(coder, session).files()
    listed = coder.cli("decision", "list", "--session", session[:13])
    assert [line.split()[1:3] for line in listed.splitlines()[1:]] == [["approve", "approved"], ["part", "rejected"], ["part", "approved"]]


def test_decided_while_a_turn_runs(coder: Coder, checkout: Checkout, project: str, tmp_path: Path) -> None:
    """What is rejected meanwhile leaves the worktree when the turn ends, before its change is made."""
    before = checkout.read(LONG)
    first = coder.turn(project, "Edit.", edits(1, 2, 3))
    session, change = first["session_id"], coder.change(first)
    pipe = coder.worktree(session)["path"] + "/pipe"
    second = coder.queue(project, "And go on.", edits(5), f"run: mkfifo {pipe} && echo up > {pipe}; rm {pipe}", session=session)
    coder.until(lambda: Path(pipe).is_fifo())
    decision = decide(coder, change, parts=[part(1, "approve"), part(2, "reject")])
    assert checkout.read(LONG) == with_edits(before, 1)
    assert coder.worktree(session)["shifts"] != []
    with open(pipe) as reader:
        assert reader.read() == "up\n"
    after = coder.change(coder.ended(second))
    assert coder.get(f"/changes/{decision['left_change_id']}")["superseded_by"] == after["id"]
    assert hunks(after) == [1, 2]
    assert worktree_of(coder, session).read(LONG) == with_edits(before, 1, 3, 5)
    coder.approve(after)
    assert checkout.read(LONG) == with_edits(before, 1, 3, 5)


def test_what_was_edited_again_meanwhile_stays(coder: Coder, checkout: Checkout, project: str, model_server: ModelServer) -> None:
    before = checkout.read(LONG)
    first = coder.turn(project, "Edit.", edits(1, 2))
    session, change = first["session_id"], coder.change(first)
    worktree = worktree_of(coder, session)
    worktree.write(LONG, with_edits(before, 1, 2, word="anew"))
    decision = decide(coder, change, parts=[part(2, "reject")], reason="kept-xylophone")
    coder.until(lambda: coder.worktree(session)["shifts"] == [])
    assert worktree.read(LONG) == with_edits(before, 1, 2, word="anew")
    assert coder.get(f"/decisions/{decision['id']}")["facts"] == {"kept": [LONG]}
    coder.turn(project, "Go on.", "say: ok", session=session)
    told = model_server.requests("kept-xylophone")[0]["messages"][-1]["content"].split("\n")[0]
    assert told.endswith(f"taken out of the worktree again, but not in {LONG}, which says something else by now.")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], ["`parts`"]),
        ([{"path": "nowhere", "verdict": "approve"}], ["no file 'nowhere'"]),
        ([part(3, "approve")], [LONG, "has no hunk 3", "1 to 2"]),
        ([part(0, "approve")], ["has no hunk 0"]),
        ([part(1, "leave")], ["nothing to decide"]),
        ([part(1, "approve"), part(1, "reject")], [f"{LONG}:1 is named twice"]),
        ([part(None, "approve"), part(1, "reject")], [f"{LONG} is named twice"]),
        ([part(1, "approve", "blob")], ["blob has no hunks"]),
        ([{"path": LONG, "hunk": 1.5, "verdict": "approve"}], ["hunk"]),
        ([{"path": LONG, "verdict": "maybe"}], ["verdict"]),
    ],
)
def test_parts_that_are_none(coder: Coder, bad: dict[str, Any], parts: list[dict[str, Any]], words: list[str]) -> None:
    refused = decide(coder, bad, 422, parts=parts)
    assert refused["code"] == "invalid_input"
    assert all(word in refused["detail"] for word in words), refused["detail"]
    assert coder.get(f"/changes/{bad['id']}") == bad


@pytest.fixture(scope="module")
def bad(coder: Coder, package: Checkout, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from checkout import clone_of

    clone_of(package.path, tmp_path_factory.mktemp("bad") / "project")
    coder.post("/projects", 201, name="bad-parts", path=str(tmp_path_factory.getbasetemp() / "bad0" / "project"))
    return coder.change(coder.turn("bad-parts", "Edit.", edits(1, 2), "run: printf '\\\\000' > blob"))
