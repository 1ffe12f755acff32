"""`coder review` on a real terminal: looked through, commented, decided on in parts, gone on with, and left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from checkout import Checkout
from editing import LONG, edits, with_edits
from running import CODER, Coder
from terminal import Terminal

pytest_plugins = ("model_server",)

Open = Callable[..., Terminal]


@pytest.fixture
def review(coder: Coder) -> Iterator[Open]:
    """Opens reviews, which are closed after the test."""
    opened: list[Terminal] = []

    def open_review(*arguments: str, url: str = "", **size: int) -> Terminal:
        # A database that cannot be reached proves that nothing goes around the API.
        http = {"CODER_URL": url, "CODER_TOKEN": coder.token, "CODER_DATABASE_URL": "postgresql://127.0.0.1:1/none"} if url else {}
        opened.append(Terminal([*CODER, "review", *arguments], coder.environment | http, coder.folder, **size))
        return opened[-1]

    yield open_review
    for terminal in opened:
        terminal.close()


def test_a_review_hunk_by_hunk(coder: Coder, checkout: Checkout, project: str, review: Open) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit five places.", edits(1, 2, 3, 4, 5), "write notes.txt: a note\\n")
    change = coder.change(task)
    at = review(change["id"])
    screen = at.until("Edit five places.", f"{LONG} · modified", "hunk 1 of 5 · left", "part 1 of 6")
    assert "0 approved" in screen
    assert not at.echoes()
    at.press("a")
    at.until("hunk 2 of 5 · left", f"1 approved, 0 rejected, 5 left · into {project}'s checkout")
    at.press("r")
    at.until("hunk 3 of 5", "1 rejected, 4 left")
    at.press("jk")
    at.until("hunk 1 of 5 · approved")
    at.press("nn")
    at.until("hunk 3 of 5 · left")
    at.press("p")
    at.until("hunk 2 of 5 · rejected")
    at.press("na?")
    at.until("Keys", "the file is viewed")
    at.press("x")
    at.until("hunk 4 of 5 · left", "2 approved")
    at.press("cWhy so\x7f\x7f\x7f this?\r")
    at.until("Noted on", "(draft): Why this?", "1 draft comments")
    at.press("x")
    at.until("That key does nothing here")
    at.press("v")
    at.until("notes.txt · added", "hunk 1 of 1")
    at.press("d")
    at.until("2 approved, 1 rejected, 3 left", "Enter decides, Esc goes back. Reason:")
    at.press("\x1b")
    at.until("Nothing was decided.")
    assert checkout.read(LONG) == before
    at.press("dtwo is wrong\r")
    at.until("Decided. What is left is change", "hunk 1 of 2", "part 1 of 3")
    assert checkout.read(LONG) == with_edits(before, 1, 3)
    decision = coder.get(f"/decisions?change_id={change['id']}")["items"][0]
    assert (decision["kind"], decision["reason"]) == ("part", "two is wrong")
    at.press("AA")
    at.until("3 approved, 0 rejected, 0 left")
    at.press("\r")
    at.until("Enter decides")
    at.press("\r")
    said = at.ended()
    assert "3 approved" in said
    assert at.echoes()
    assert b"\x1b[?1049l" in at.raw
    assert checkout.read(LONG) == with_edits(before, 1, 3, 4, 5)
    assert checkout.read("notes.txt") == "a note\n"
    (draft,) = (row for row in coder.rows("select body, task_id from comments where session_id = %s", task["session_id"]))
    assert draft == {"body": "Why this?", "task_id": None}


def test_comments_are_sent_and_the_next_change_is_read_with_its_marks(coder: Coder, project: str, review: Open) -> None:
    task = coder.turn(project, "write a.txt: one\\n", "write b.txt: two\\n")
    change = coder.change(task)
    at = review(change["id"], url=str(coder.api.base_url), columns=90, rows=20)
    at.until("a.txt · added")
    at.press("a")
    at.until("b.txt · added")
    at.press("cedit b.txt: two => 2\r")
    at.until("Noted on b.txt:1")
    at.press("s")
    at.until("Before the comments")
    at.press("Please:\r")
    screen = at.until("Sent as task", "(open): edit b.txt")
    fix = int(screen.split("Sent as task ")[1].split(";")[0])
    assert coder.ended(fix)["input"].startswith("Please:\n\nComments of a reviewer")
    new = coder.change(coder.get(f"/tasks/{fix}"))
    coder.until(lambda: [row for row in coder.get(f"/comments?change_id={new['id']}")["items"] if row["outdated"]] or None)
    at.press("u")
    at.until("This is change", "+2", "outdated (open): edit b.txt", "1 approved")
    at.press("k")
    at.until("a.txt · added +1 -0 · hunk 1 of 1 · approved")
    at.resize(60, 12)
    at.until("a.txt · added")
    at.press("q")
    at.until("Marks are not decided on yet")
    at.press("\r")
    assert "were sent as task" in at.ended()
    assert coder.get(f"/changes/{new['id']}")["state"] == "pending"


def test_what_was_replaced_is_not_decided_on(coder: Coder, checkout: Checkout, project: str, review: Open) -> None:
    task = coder.turn(project, "write a.txt: one\\n")
    at = review(task["change_id"])
    at.until("a.txt · added")
    newer = coder.turn(project, "write a.txt: two\\n", session=task["session_id"])
    at.press("ad\r")
    at.until("is superseded", "can no longer be decided on")
    assert "a.txt" not in "".join(checkout.status())
    at.press("u")
    at.until("+two", "0 approved")
    at.press("Ad\r")
    at.ended()
    assert checkout.read("a.txt") == "two\n"
    assert coder.get(f"/changes/{newer['change_id']}")["state"] == "approved"


def test_all_that_wait_are_reviewed_one_after_the_other(coder: Coder, checkout: Checkout, project: str, review: Open) -> None:
    first = coder.turn(project, "write a.txt: one\\n")
    second = coder.turn(project, "write b.txt: two\\n")
    at = review("--project", project, "--branch", "reviewed")
    at.until("a.txt · added", "branch reviewed")
    at.press("Ad\r")
    at.until("b.txt · added", gone="a.txt")
    at.press("rd\r")
    said = at.ended().replace("\n", "")
    assert f"Change {first['change_id']}: 1 approved, 0 rejected, 0 left, into branch reviewed." in said
    assert coder.get(f"/changes/{first['change_id']}")["state"] == "approved"
    assert coder.get(f"/changes/{second['change_id']}")["state"] == "rejected"
    assert checkout.git("show", "reviewed:a.txt") == "one"
    assert checkout.git("ls-tree", "--name-only", "reviewed", "b.txt") == ""
    assert "No change waits" in coder.cli("review", "--project", project)


def test_it_is_left_at_once_and_needs_a_terminal(coder: Coder, project: str, review: Open) -> None:
    task = coder.turn(project, "write a.txt: one\\n")
    at = review(task["change_id"])
    at.until("a.txt · added")
    at.press("\x03")
    at.ended()
    assert at.echoes()
    assert "needs a terminal" in coder.cli("review", task["change_id"], code=2)
