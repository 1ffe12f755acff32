"""What changed since somebody looked: a change against an earlier one of its session, over HTTP."""

from __future__ import annotations

from typing import Any

from checkout import Checkout
from editing import LONG, decide, edits, part, with_edits
from running import Coder

pytest_plugins = ("model_server",)


def compared(coder: Coder, change: dict[str, Any], since: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = coder.get(f"/changes/{change['id']}/compare?since={since['id']}")
    assert (found["change_id"], found["since"]) == (change["id"], since["id"])
    return found


def edited(found: dict[str, Any]) -> list[str]:
    """The lines that a comparison takes away and adds."""
    return [line for line in found["diff"].splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_only_what_the_next_turn_did_is_a_difference(coder: Coder, project: str) -> None:
    task = coder.turn(project, "Edit.", edits(1), "write one.txt: one\\n", "write two.txt: two\\n")
    first = coder.change(task)
    assert compared(coder, first, first) | {"files": [], "diff": ""} == compared(coder, first, first)
    second = coder.change(coder.turn(project, "Again.", edits(3), "run: rm one.txt", session=task["session_id"]))
    found = compared(coder, second, first)
    assert [(file["path"], file["operation"]) for file in found["files"]] == [(LONG, "modified"), ("one.txt", "deleted")]
    assert edited(found)[1:] == ["+# edited 3", "-one"]
    assert [hunk["number"] for hunk in found["files"][0]["hunks"]] == [1]


def test_what_became_of_the_base_is_no_difference(coder: Coder, checkout: Checkout, project: str) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit.", edits(1, 2, 3), "write one.txt: one\\n")
    first = coder.change(task)
    left = decide(coder, first, parts=[part(1, "approve"), part(2, "reject")])
    second = coder.get(f"/changes/{left['left_change_id']}")
    (file,) = compared(coder, second, first)["files"]  # what was refused, and not what was approved
    assert (file["path"], edited(compared(coder, second, first))) == (LONG, ["-# edited 2", f"+{before.split(chr(10))[29]}"])

    checkout.write(LONG, with_edits(checkout.read(LONG), 5, word="mine"))
    checkout.commit("went on")
    rebased = coder.post(f"/changes/{second['id']}/rebase", 200, fingerprint=second["fingerprint"])
    third = coder.get(f"/changes/{rebased['left_change_id']}")
    assert compared(coder, third, second)["files"] == []


def test_it_is_about_changes_of_one_session(coder: Coder, project: str) -> None:
    one, other = (coder.change(coder.turn(project, "Write.", f"write {name}.txt: x\\n")) for name in ("one", "other"))
    refused = coder.api.get(f"/changes/{one['id']}/compare", params={"since": other["id"]})
    assert (refused.status_code, refused.json()["detail"]) == (422, "`since` is a change of another session; name one of the same.")
    unknown = coder.api.get(f"/changes/{one['id']}/compare", params={"since": one["session_id"]})
    assert unknown.status_code == 404
    assert one["session_id"] in unknown.json()["detail"]


def test_a_repository_that_is_gone_is_said(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Write.", "write one.txt: x\\n"))
    checkout.path.rename(checkout.path.with_name("elsewhere"))
    refused = coder.api.get(f"/changes/{change['id']}/compare", params={"since": change["id"]})
    assert refused.status_code == 503
    assert str(checkout.path) in refused.json()["detail"]
