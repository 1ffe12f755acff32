"""A review by comments: drafted, sent as one task to the agent, and carried to what the agent makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkout import Checkout
from editing import LONG, PLACES, decide, edits, part
from running import Coder, running

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

INIT = "more_itertools/__init__.py"


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Coder]:
    """One that may be killed."""
    yield from running(Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1"))


def standing(coder: Coder, change: dict[str, Any]) -> dict[str, Any]:
    """The comments of a change's session by what they say, once all of them stand on that change."""

    def carried() -> dict[str, Any] | None:
        rows = coder.get(f"/comments?session_id={change['session_id']}")["items"]
        return {row["body"].splitlines()[0]: row for row in rows} if {row["change_id"] for row in rows} == {change["id"]} else None

    return coder.until(carried)


def test_comments_are_sent_and_carried_through_turns_and_an_approval(coder: Coder, checkout: Checkout, project: str) -> None:
    lines = checkout.read(INIT).splitlines()
    version = lines.index("__version__ = '10.5.0'") + 1
    first = coder.change(coder.turn(project, "Release it.", f"edit {INIT}: __version__ = '10.5.0' => __version__ = '10.6.0'",
                                    "write notes/new.txt: one\\ntwo\\nthree\\n"))  # fmt: skip
    url = f"/changes/{first['id']}"
    keep = coder.post(f"{url}/comments", 201, path=INIT, line=version, body="Keep.")
    assert "+__version__ = '10.6.0'" in keep["code"].split("\n")
    coder.post(f"{url}/comments", 201, path=INIT, line=version, side="old", body="Was.")
    coder.cli("change", "comment", first["id"], "notes/new.txt:2", "Not on the command line's name.")
    coder.post(f"{url}/comments", 201, path="notes/new.txt", line=2, end_line=3, body="Both.")
    asked = "Put a line before.\nedit more_itertools/__init__.py: from .more => # imports\\nfrom .more"
    coder.post(f"{url}/comments", 201, path=INIT, body=asked)
    coder.post(f"{url}/comments", 201, path="notes/new.txt", line=3, body="Three.\nedit notes/new.txt: three => 3")

    task = coder.post(f"{url}/send", 201, message="Nearly there.")
    prompt = coder.ended(task["id"])["input"]
    assert prompt.startswith("Nearly there.\n\nComments of a reviewer on the change of task ")
    assert "notes/new.txt, lines 2 to 3:" in prompt
    assert "    +two\n    +three\n" in prompt
    assert "command line's name" not in prompt, "that draft is somebody else's"

    second = coder.change(coder.get(f"/tasks/{task['id']}"))
    assert second["session_id"] == first["session_id"]
    seen = standing(coder, second)
    assert {name: (row["line"], row["end_line"], row["outdated"]) for name, row in seen.items()} == {
        "Keep.": (released(second), released(second), False),
        "Was.": (version, version, False),
        "Both.": (2, 3, True),
        "Put a line before.": (None, None, False),
        "Three.": (3, 3, True),
    }
    assert released(second) == version + 1
    assert {row["state"] for row in seen.values()} == {"open"}
    assert seen["Three."]["first_change_id"] == first["id"]
    coder.post(f"/comments/{seen['Three.']['id']}/resolve", 200)

    # What was approved is the base by now: the line is still there, but in no file of the next change; then it is again.
    coder.approve(second)
    third = coder.change(coder.turn(project, "write notes/more.txt: x", session=second["session_id"]))
    assert {row["outdated"] for row in standing(coder, third).values()} == {True}
    fourth = coder.change(coder.turn(project, f"edit {INIT}: # imports => # what there is\\n# to import", session=second["session_id"]))
    seen = standing(coder, fourth)
    assert (seen["Keep."]["line"], seen["Keep."]["outdated"]) == (released(fourth), False)
    assert (seen["Was."]["outdated"], seen["Three."]["state"]) == (True, "resolved")


def released(change: dict[str, Any]) -> int:
    """Where the new version's line is in the worktree a change was taken of."""
    return Path(change["worktree"], INIT).read_text().splitlines().index("__version__ = '10.6.0'") + 1


def test_comments_are_carried_by_the_node_that_comes_after_a_kill(coder: Coder, project: str) -> None:
    first = coder.change(coder.turn(project, "write a.txt: one\\ntwo\\n"))
    coder.post(f"/changes/{first['id']}/comments", 201, path="a.txt", line=2, body="Two.")
    task = coder.queue(project, "write a.txt: zero\\none\\ntwo\\n", "run: sleep 600", session=first["session_id"])
    worktree = Path(first["worktree"], "a.txt")
    coder.until(lambda: worktree.read_text().startswith("zero"))
    coder.kill()
    coder.start()
    coder.ended(task, "interrupted")
    second = coder.until(lambda: coder.rows("select id from pending_changes where task_id = %s", task))[0]
    found = standing(coder, {**first, "id": str(second["id"])})["Two."]
    assert (found["line"], found["outdated"]) == (3, False)


def test_comments_on_parts_that_are_approved_rejected_and_left(coder: Coder, checkout: Checkout, project: str) -> None:
    change = coder.change(coder.turn(project, "Edit four places.", edits(1, 2, 3, 4)))
    for number in (1, 2, 3, 4):
        coder.post(f"/changes/{change['id']}/comments", 201, path=LONG, line=PLACES[number - 1], body=f"On {number}.")
    decision = decide(coder, change, parts=[part(1, "approve"), part(2, "reject")])
    left = coder.get(f"/changes/{decision['left_change_id']}")
    seen = standing(coder, left)
    assert {name: (row["line"], row["outdated"]) for name, row in seen.items()} == {
        "On 1.": (PLACES[0], False),
        "On 2.": (PLACES[1], True),
        "On 3.": (PLACES[2], False),
        "On 4.": (PLACES[3], False),
    }
    task = coder.post(f"/changes/{left['id']}/send", 201)
    assert f"{LONG}, line {PLACES[1]}, which has changed since:" in task["input"]
    assert f"{LONG}, line {PLACES[2]}:" in task["input"]
    coder.ended(task["id"])
