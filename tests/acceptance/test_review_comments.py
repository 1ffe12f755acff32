"""A review by comments: drafted, sent as one task to the agent, and carried to what the agent makes of it."""

from __future__ import annotations

from typing import Any

from checkout import Checkout
from running import Coder

MORE = "more_itertools/more.py"
INIT = "more_itertools/__init__.py"


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
    keep = {"path": INIT, "line": version, "body": "Keep."}
    stays = coder.post(f"{url}/comments", 201, **keep)
    assert "+__version__ = '10.6.0'" in stays["code"].split("\n")
    coder.post(f"{url}/comments", 201, path=INIT, line=version, side="old", body="Was.")
    coder.cli("change", "comment", first["id"], "notes/new.txt:2", "Not on the command line's name.")
    coder.post(f"{url}/comments", 201, path="notes/new.txt", line=2, end_line=3, body="Both.")
    asked = "Put a line before.\nedit more_itertools/__init__.py: from .more => # imports\\nfrom .more"
    coder.post(f"{url}/comments", 201, path=INIT, body=asked)
    again = coder.post(f"{url}/comments", 201, path="notes/new.txt", line=3, body="Three.\nedit notes/new.txt: three => 3")

    task = coder.post(f"{url}/send", 201, message="Nearly there.")
    prompt = coder.ended(task["id"])["input"]
    assert prompt.startswith("Nearly there.\n\nComments of a reviewer on the change of task ")
    assert "notes/new.txt, lines 2 to 3:" in prompt
    assert "    +two\n    +three\n" in prompt
    assert "command line's name" not in prompt, "that draft is somebody else's"

    second = coder.change(coder.get(f"/tasks/{task['id']}"))
    assert second["session_id"] == first["session_id"]
    seen = standing(coder, second)
    assert {name: (row["state"], row["line"], row["end_line"], row["outdated"]) for name, row in seen.items()} == {
        "Keep.": ("open", version + (lines.index("from .more import *  # noqa") < version), version + 1, False),
        "Was.": ("open", version, version, False),
        "Both.": ("open", 2, 3, True),
        "Put a line before.": ("open", None, None, False),
        "Three.": ("open", 3, 3, True),
    } | {"Keep.": ("open", *[checkout_line(coder, second)] * 2, False)}
    assert seen["Three."]["first_change_id"] == first["id"] == again["change_id"]
    coder.post(f"/comments/{seen['Three.']['id']}/resolve", 200)

    # What was approved is the base by now: the line is still there, but in no file of the next change; then it is again.
    coder.approve(second)
    third = coder.change(coder.turn(project, "write notes/more.txt: x", session=second["session_id"]))
    assert {row["outdated"] for row in standing(coder, third).values()} == {True}
    fourth = coder.change(coder.turn(project, f"edit {INIT}: # imports => # what there is\\n# to import", session=second["session_id"]))
    seen = standing(coder, fourth)
    assert (seen["Keep."]["line"], seen["Keep."]["outdated"]) == (checkout_line(coder, fourth), False)
    assert (seen["Was."]["outdated"], seen["Three."]["state"]) == (True, "resolved")


def checkout_line(coder: Coder, change: dict[str, Any]) -> int:
    """Where the new version's line is in the worktree a change was taken of."""
    with open(f"{change['worktree']}/{INIT}") as file:
        return file.read().splitlines().index("__version__ = '10.6.0'") + 1


def test_comments_are_carried_by_the_node_that_comes_after_a_kill(coder: Coder, project: str) -> None:
    first = coder.change(coder.turn(project, "write a.txt: one\\ntwo\\n"))
    coder.post(f"/changes/{first['id']}/comments", 201, path="a.txt", line=2, body="Two.")
    task = coder.queue(project, "write a.txt: zero\\none\\ntwo\\n", "run: touch ran; sleep 600", session=first["session_id"])
    coder.until(lambda: coder.get(f"/tasks/{task}")["first_event_at"])
    worktree = coder.worktree(first["session_id"])["path"]
    coder.until(lambda: coder.rows("select 1 from frames where task_id = %s and payload::text like '%%sleep 600%%'", task))
    coder.kill()
    coder.start()
    coder.ended(task, "interrupted")
    second = coder.until(lambda: coder.get(f"/sessions/{first['session_id']}")["open_change_id"] or None)
    found = coder.until(lambda: (rows := coder.get(f"/comments?change_id={second}")["items"]) and rows)
    assert (found[0]["line"], found[0]["outdated"]) == (3, False)
    assert worktree
