"""The panel in a real browser: from the link to the checkout with the keyboard alone, and nobody kept out of any page."""

from __future__ import annotations

import pytest
from browsing import PHONE, Open
from checkout import Checkout
from playwright.sync_api import expect
from running import Coder

pytest_plugins = ("model_server", "browsing")

PROMPT = (
    "Say hello from a file",
    "write hello.py: print('hello')\\n",
    "+ edit README.rst: Python iterables => Python's iterables",
    "run: python3 hello.py",
    "say: It says **hello** now.",
)


def test_from_the_link_to_the_checkout_with_the_keyboard_alone(coder: Coder, project: str, checkout: Checkout, tab: Open) -> None:
    coder.turn(project, *PROMPT)
    page = tab().page
    mine = page.locator("[data-row]").filter(has_text=project)  # among what other tests left
    expect(mine).to_be_visible()
    for _ in range(page.locator("[data-row]").count()):
        page.keyboard.press("j")
        if mine.get_attribute("data-current"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Say hello from a file")
    expect(page.get_by_text("print").first).to_be_visible()
    expect(page.get_by_text("0 of 2 viewed")).to_be_visible()
    page.keyboard.press("v")
    page.keyboard.press("v")
    expect(page.get_by_text("2 of 2 viewed")).to_be_visible()
    page.keyboard.press("a")
    expect(page.get_by_role("button", name="Approve into the checkout")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("2 files are in", exact=False)).to_be_visible()
    assert checkout.read("hello.py") == "print('hello')\n"
    assert "Python's iterables" in checkout.read("README.rst")


def test_a_rejection_says_why_and_a_draft_of_it_survives_a_reload(coder: Coder, project: str, checkout: Checkout, tab: Open) -> None:
    task = coder.turn(project, *PROMPT)
    there = tab()
    page = there.page
    there.open(f"/changes/{task['change_id']}")
    page.get_by_role("button", name="Reject…").click()
    page.get_by_label("Reason").fill("Say goodbye as well.")
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Say hello from a file")
    page.keyboard.press("r")
    expect(page.get_by_label("Reason")).to_have_value("Say goodbye as well.")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("The agent is told with the next prompt.")).to_be_visible()
    change = coder.row(
        "select c.state, d.reason from pending_changes c join decisions d on d.change_id = c.id where c.id = %s", task["change_id"]
    )
    assert change == {"state": "rejected", "reason": "Say goodbye as well."}
    assert checkout.status() == set()


def test_a_checkout_in_the_way_is_said_and_changes_nothing(coder: Coder, project: str, checkout: Checkout, tab: Open) -> None:
    task = coder.turn(project, *PROMPT)
    checkout.write("hello.py", "print('mine')\n")
    there = tab()
    there.open(f"/changes/{task['change_id']}")
    expect(there.page.get_by_role("button", name="Approve…")).to_be_visible()
    there.press("a")
    expect(there.page.get_by_role("button", name="Approve into the checkout")).to_be_focused()
    there.press("Enter")
    expect(there.page.get_by_role("dialog").get_by_role("alert")).to_contain_text("hello.py")
    there.press("Escape")  # the focus is where it was
    expect(there.page.get_by_role("dialog")).to_have_count(0)
    assert checkout.read("hello.py") == "print('mine')\n"
    there.refused(409)


LINES = [f"line {number}" for number in range(1, 101)]
FIVE = ("Count in words", "run: sed -i -e 's/^line 10$/ten/' -e 's/^line 30$/thirty/' -e 's/^line 50$/fifty/' -e 's/^line 70$/seventy/' "
        "-e 's/^line 90$/ninety/' numbers.txt", "say: Five numbers are words now.")  # fmt: skip


def test_hunks_one_and_three_of_five(coder: Coder, project: str, checkout: Checkout, tab: Open) -> None:
    checkout.write("numbers.txt", "\n".join(LINES) + "\n")
    checkout.commit()
    task = coder.turn(project, *FIVE)
    there = tab()
    page = there.page
    there.open(f"/changes/{task['change_id']}")
    expect(page.get_by_text("Hunk 1 of 5")).to_be_visible()
    there.press("n", "a")  # approved, and on to the second
    there.press("n", "a")
    expect(page.get_by_text("2 hunks into", exact=False)).to_contain_text("3 hunks left")
    page.reload()  # what was marked is not lost
    expect(page.get_by_text("2 hunks into", exact=False)).to_be_visible()
    there.press("A")
    expect(page.get_by_role("button", name="Decide", exact=True)).to_be_focused()
    there.press("Enter")
    expect(page.get_by_text("What was left is this change.", exact=False)).to_be_visible()
    expect(page.get_by_text("Hunk 1 of 3")).to_be_visible()
    words = {9: "ten", 49: "fifty"}
    assert checkout.read("numbers.txt").splitlines() == [words.get(at, line) for at, line in enumerate(LINES)]


REMARK = """Say it louder.
run: echo "print('HELLO')" > hello.py
say: Louder."""


def test_a_comment_is_sent_and_the_next_change_answers_it(coder: Coder, project: str, tab: Open) -> None:
    task = coder.turn(project, *PROMPT)
    there = tab()
    page = there.page
    there.open(f"/changes/{task['change_id']}")
    expect(page.get_by_text("print").first).to_be_visible()
    there.press("n", "n", "c")  # on hello.py
    field = page.get_by_role("textbox", name="On line")
    expect(field).to_be_focused()
    page.keyboard.insert_text(REMARK)
    page.reload()  # nothing typed is lost
    expect(field).to_have_value(REMARK)
    field.press("Control+Enter")
    page.get_by_role("button", name="Send 1 comment").click()
    link = page.get_by_text("A newer change took its place", exact=False)
    expect(link).to_be_visible()
    link.get_by_role("link").first.click()
    expect(page.get_by_text("HELLO").first).to_be_visible()
    said = page.get_by_role("article", name="Comment of admin")
    expect(said.get_by_text("Say it louder.")).to_be_visible()
    expect(said.get_by_text("outdated: its lines are gone")).to_be_visible()
    expect(said.get_by_text("+print('hello')")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_for_everybody(coder: Coder, project: str, tab: Open, scheme: str) -> None:
    task = coder.turn(project, *PROMPT)
    there = tab(color_scheme=scheme)
    wrong = {}
    for path, sign in (
        ("/", "Inbox"),
        ("/queue", "Queue"),
        ("/sessions", "Sessions"),
        ("/changes", "Changes"),
        (f"/changes/{task['change_id']}", "Say hello from a file"),
        (f"/sessions/{task['session_id']}", "Say hello from a file"),
    ):
        there.open(path)
        expect(there.page.get_by_role("heading", level=1)).to_contain_text(sign)
        there.page.wait_for_load_state("networkidle")
        wrong[path] = there.violations()
    for path, key, sign in (("/queue", "c", "Queue a task"), (f"/changes/{task['change_id']}", "A", "Approve into the checkout")):
        there.open(path)
        expect(there.page.get_by_role("heading", level=1)).to_be_visible()
        there.page.wait_for_load_state("networkidle")
        there.press(key)
        expect(there.page.get_by_role("dialog").get_by_text(sign)).to_be_visible()
        there.settled()
        wrong[f"{path} {key}"] = there.violations()
    assert not any(wrong.values()), wrong


def test_it_fits_a_phone(coder: Coder, project: str, tab: Open) -> None:
    task = coder.turn(project, *PROMPT)
    there = tab(**PHONE)
    for path in ("/", "/queue", "/sessions", "/changes", f"/changes/{task['change_id']}", f"/sessions/{task['session_id']}"):
        there.open(path)
        expect(there.page.get_by_role("heading", level=1)).to_be_visible()
        wide = there.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide == 0, path
