"""Deciding in a real browser: what changed since somebody looked, a conflict and its way out, undoing, pushing, files without lines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from browsing import PHONE, Open, Tab
from checkout import Checkout
from editing import LONG, edits, with_edits
from playwright.sync_api import expect
from running import Coder

pytest_plugins = ("model_server", "browsing")

THREE = ("Three files", "write a/one.py: x = 1\\n", "write a/two.py: y = 2\\n", "write b/three.py: print('hello')\\n",
         "run: python3 b/three.py", "run: exit 3", "say: **Three** files.")  # fmt: skip
LOUDER = ("Louder", "run: echo \"print('HELLO')\" > b/three.py; rm a/two.py")
MERGED = f"run: sed -i -e '/^<<<<<<< /d' -e '/^=======$/d' -e '/^>>>>>>> /d' -e 's/^# mine 3$/# both 3/' -e '/^# edited 3$/d' {LONG}"


def review(there: Tab, change: str) -> None:
    there.open(f"/changes/{change}")
    expect(there.page.get_by_role("button", name="Viewed").first).to_be_visible()


def approve(there: Tab, what: str = "Approve into the checkout") -> None:
    """With the keyboard."""
    there.press("A")
    expect(there.page.get_by_role("button", name=what)).to_be_focused()
    there.press("Enter")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_only_what_changed_since_somebody_looked(coder: Coder, project: str, tab: Open, scheme: str) -> None:
    task = coder.turn(project, *THREE)
    there = tab(color_scheme=scheme)
    page = there.page
    review(there, task["change_id"])
    there.press("v", "j", "v")  # a/one.py and b/three.py
    expect(page.get_by_text("2 of 3 viewed")).to_be_visible()
    newer = coder.turn(project, *LOUDER, session=task["session_id"])["change_id"]
    page.get_by_role("link", name=newer[:8]).press("Enter")
    expect(page.get_by_text("Changed since you looked: 2 files.")).to_be_visible()
    expect(page.get_by_text("1 of 2 viewed")).to_be_visible()  # b/three.py reads otherwise by now
    there.press("w")
    expect(page.get_by_text("Only what changed since you looked is shown: 2 files.")).to_be_visible()
    files = page.get_by_role("navigation", name="Files")
    expect(files.get_by_title("a/two.py")).to_be_visible()
    expect(files.get_by_title("a/one.py")).to_have_count(0)
    expect(page.get_by_text("print('hello')", exact=True)).to_be_visible()
    expect(page.get_by_text("print('HELLO')", exact=True)).to_be_visible()
    there.settled()
    assert there.violations() == []
    page.reload()  # the address says it
    expect(files.get_by_title("a/two.py")).to_be_visible()
    there.press("w")
    expect(files.get_by_title("a/one.py")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_beside_the_diff_stands_why_it_is_there(coder: Coder, project: str, tab: Open, scheme: str) -> None:
    task = coder.turn(project, *THREE)
    there = tab(color_scheme=scheme)
    review(there, task["change_id"])
    there.press("i")
    about = there.page.get_by_role("complementary", name="About this change")
    expect(about.get_by_text("write a/one.py")).to_be_visible()
    expect(about.get_by_role("strong")).to_have_text("Three")
    for command, code in (("python3 b/three.py", 0), ("exit 3", 3)):
        ran = about.get_by_role("group").filter(has_text=command)
        expect(ran).to_contain_text(f"exit {code}")
    about.get_by_role("group").filter(has_text="python3").locator("summary").press("Enter")
    expect(about.get_by_text("hello", exact=True)).to_be_visible()
    assert there.violations() == []
    there.press("i")
    expect(about).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_conflict_and_its_way_out_with_the_keyboard_alone(coder: Coder, project: str, checkout: Checkout, tab: Open, scheme: str) -> None:
    before = checkout.read(LONG)
    task = coder.turn(project, "Edit.", edits(1, 3))
    checkout.write(LONG, with_edits(before, 3, word="mine"))
    checkout.commit("the same line")
    there = tab(color_scheme=scheme)
    page = there.page
    review(there, task["change_id"])
    approve(there)
    conflict = page.get_by_role("region", name="Conflict")
    expect(conflict).to_contain_text("1 place in 1 file")
    expect(conflict.get_by_text("# mine 3")).to_be_visible()
    expect(conflict.get_by_text("# edited 3")).to_be_visible()
    there.refused(409)
    expect(page.get_by_role("dialog")).to_have_count(0)
    there.settled()
    assert there.violations() == []
    there.press("m")
    expect(page.get_by_text("have conflict markers now", exact=False)).to_be_visible()
    shown = page.url.split("/")[-1].split("?")[0]
    assert shown != task["change_id"]
    coder.until(lambda: len(coder.get(f"/tasks?session_id={task['session_id']}&state=completed")["items"]) == 2)
    merged = coder.turn(project, "As the model would have.", MERGED, session=task["session_id"])
    while shown != merged["change_id"]:  # what the agent left when it was asked to merge may come between
        shown = coder.get(f"/changes/{shown}")["superseded_by"]
        page.get_by_role("link", name=shown[:8]).press("Enter")
        page.wait_for_url(f"**/changes/{shown}*")
    expect(page.get_by_role("heading", level=1)).to_have_text("As the model would have.")
    approve(there)
    expect(page.get_by_text("1 file is in", exact=False)).to_be_visible()
    assert checkout.read(LONG) == with_edits(with_edits(before, 1), 3, word="both")


def test_an_approval_is_undone(coder: Coder, project: str, checkout: Checkout, tab: Open) -> None:
    before = checkout.files()
    task = coder.turn(project, *THREE)
    there = tab()
    page = there.page
    review(there, task["change_id"])
    approve(there)
    undo = page.get_by_role("button", name="Undo")
    expect(undo).to_be_visible()
    assert checkout.read("a/one.py") == "x = 1\n"
    page.reload()
    expect(page.get_by_text("3 files are in", exact=False)).to_be_visible()  # said of what was decided long ago as well
    undo.press("Enter")
    expect(page.get_by_text("Undone: the target is as before", exact=False)).to_be_visible()
    expect(page.get_by_role("button", name="Approve…")).to_be_visible()
    assert checkout.files() == before


def test_a_branch_is_pushed_and_what_the_remote_says_is_said(
    coder: Coder, project: str, checkout: Checkout, tab: Open, tmp_path: Path
) -> None:
    checkout.git("remote", "remove", "origin")
    task = coder.turn(project, *THREE)
    there = tab()
    page = there.page
    review(there, task["change_id"])
    there.press("A")
    page.get_by_text("Onto a branch").click()
    expect(page.get_by_label("Branch", exact=True)).to_be_visible()
    expect(page.get_by_label("Push it to")).to_have_count(0)  # there is no remote
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "remote")], check=True)
    checkout.git("remote", "add", "origin", str(tmp_path / "remote"))
    page.reload()
    expect(page.get_by_role("button", name="Approve…")).to_be_visible()
    there.press("A")
    page.get_by_label("Branch", exact=True).fill("made")
    page.get_by_label("Push it to origin").check()
    expect(page.get_by_text("on branch made of", exact=False)).to_contain_text("pushed to origin")
    page.get_by_role("button", name="Approve onto the branch").click()
    expect(page.get_by_text("3 files are on branch made, and pushed to origin.")).to_be_visible()
    pushed = checkout.git("--git-dir", str(tmp_path / "remote"), "show", "made:a/one.py")
    assert pushed == "x = 1"


ODD = ("Odd files", "run: head -c 900 /dev/urandom > picture.bin && git mv README.rst READ.rst && chmod +x setup.cfg && touch nothing")


@pytest.mark.parametrize("phone", [False, True])
def test_files_without_lines_are_shown_in_their_place_and_decided_on(
    coder: Coder, project: str, checkout: Checkout, tab: Open, phone: bool
) -> None:
    checkout.write("setup.cfg", "[a]\n")
    checkout.commit("a file")
    task = coder.turn(project, *ODD)
    there = tab(**(PHONE if phone else {}))
    page = there.page
    review(there, task["change_id"])
    for remark in ("renamed without an edit", "empty", "binary", "made executable"):
        expect(page.get_by_text(remark, exact=True)).to_be_visible()
    bar = page.locator("[data-piece='picture.bin']")
    bar.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("1 hunk into", exact=False)).to_contain_text("3 hunks left")
    page.get_by_role("button", name="Decide…").click()
    page.get_by_role("button", name="Decide", exact=True).click()
    expect(page.get_by_text("What was left is this change.", exact=False)).to_be_visible()
    assert checkout.status() == {"?? picture.bin"}
