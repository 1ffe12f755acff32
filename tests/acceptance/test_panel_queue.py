"""The panel's queue in a real browser: live without jumping, filtered by its address, put in order by hand, and counted over time."""

from __future__ import annotations

import re

import pytest
from browsing import PHONE, Open, Tab
from playwright.sync_api import Locator, expect
from running import Coder

pytest_plugins = ("model_server", "browsing")

LATER = {"run_at": "2099-01-01T00:00:00Z"}
LOOK_MS = 15_000  # it looks every 2 s; a busy machine may be late
FAR = "() => { const at = document.querySelector('[aria-label=Tasks]'); at.scrollTop = 15_600; return at.scrollTop === 15_600; }"


def row(tab: Tab, task: int) -> Locator:
    return tab.page.locator(f'[data-row="{task}"]')


def many(coder: Coder, project: str, count: int) -> list[int]:
    """So many tasks that wait for their time."""
    coder.rows(
        "insert into tasks (project_id, input, run_at) select coder.project_id(%s), 'number ' || n, '2099-01-01'"
        " from generate_series(1, %s) n returning id",
        project,
        count,
    )
    listed = coder.rows("select id from tasks where project_id = coder.project_id(%s) order by id desc", project)
    return [each["id"] for each in listed]


def test_new_tasks_show_at_once_at_the_top_and_move_nothing_elsewhere(coder: Coder, project: str, tab: Open) -> None:
    there = tab()
    there.open(f"/queue?project={project}")
    expect(there.page.get_by_role("heading", name="No task is like that")).to_be_visible()
    first = many(coder, project, 450)
    expect(row(there, first[0])).to_be_visible(timeout=LOOK_MS)
    there.page.wait_for_function(FAR)  # more than a page on
    read = row(there, first[310])
    expect(read).to_be_visible()
    before = read.bounding_box()
    coder.api.post(f"/tasks/{first[310]}/cancel").raise_for_status()
    newest = [coder.queue(project, "new", **LATER) for _ in range(3)][-1]
    expect(there.page.get_by_role("button", name="3 new")).to_be_visible(timeout=LOOK_MS)
    expect(read.get_by_text("cancelled")).to_be_visible()
    assert read.bounding_box() == before
    there.press(".")
    expect(row(there, newest)).to_be_visible()
    expect(there.page.get_by_role("button", name=re.compile(r"\d new"))).to_have_count(0)


def test_filters_are_in_the_address_and_back_leads_back(coder: Coder, project: str, tab: Open) -> None:
    plain, labelled = coder.queue(project, "plain", **LATER), coder.queue(project, "labelled", labels=["ci"], **LATER)
    there = tab()
    there.open(f"/queue?project={project}")
    row(there, labelled).get_by_role("button", name="ci").click()
    expect(row(there, plain)).to_have_count(0)
    expect(there.page).to_have_url(re.compile(r"label=ci"))
    there.page.reload()
    expect(row(there, labelled)).to_be_visible()
    expect(row(there, plain)).to_have_count(0)
    there.page.get_by_role("button", name="No longer only of label ci").click()
    expect(row(there, plain)).to_be_visible()
    there.page.get_by_role("button", name="failed").click()
    expect(there.page.get_by_role("heading", name="No task is like that")).to_be_visible()
    there.page.go_back()
    expect(row(there, plain)).to_be_visible()
    there.page.get_by_label("Agent").first.click()
    there.page.get_by_role("option", name="native").click()
    expect(there.page).to_have_url(re.compile(r"agent=native"))
    expect(row(there, plain)).to_be_visible()


def test_a_priority_is_changed_with_the_keyboard(coder: Coder, project: str, tab: Open) -> None:
    task = coder.queue(project, "one", **LATER)
    there = tab()
    there.open(f"/queue?project={project}")
    expect(row(there, task)).to_be_visible()
    there.press("j", "+", "+", "+", "-")
    expect(row(there, task).get_by_text("priority +2")).to_be_visible()
    coder.until(lambda: coder.get(f"/tasks/{task}")["priority"] == 2)
    there.press("x")
    expect(row(there, task).get_by_text("cancelled")).to_be_visible()
    there.press("+")
    expect(there.page.get_by_role("status").get_by_text("only one that waits has a priority")).to_be_visible()


def test_what_waits_in_a_session_is_put_in_order(coder: Coder, project: str, tab: Open) -> None:
    first = coder.queue(project, "first", **LATER)
    session = coder.get(f"/tasks/{first}")["session_id"]
    second, third = (coder.queue(project, word, session=session, **LATER) for word in ("second", "third"))

    def order() -> list[int]:
        return [each["id"] for each in coder.get(f"/sessions/{session}/queue")["items"]]

    there = tab()
    there.open(f"/queue?project={project}")
    expect(row(there, third)).to_be_visible()
    there.press("j", "o")
    lines = there.page.get_by_role("dialog").get_by_role("listitem")
    expect(lines).to_have_text([re.compile("first"), re.compile("second"), re.compile("third")])
    there.page.get_by_role("button", name=f"Move task {third} up").focus()
    there.press("Alt+ArrowUp")
    coder.until(lambda: order() == [first, third, second])
    there.press("Alt+ArrowUp")  # the focus went along
    coder.until(lambda: order() == [third, first, second])
    lines.nth(0).drag_to(lines.nth(2))
    coder.until(lambda: order() == [first, second, third])
    expect(lines).to_have_text([re.compile("first"), re.compile("second"), re.compile("third")])
    there.page.get_by_role("button", name=f"Move task {first} down").click()
    coder.until(lambda: order() == [second, first, third])


def test_what_went_on_is_drawn_and_is_a_table_as_well(coder: Coder, project: str, tab: Open) -> None:
    coder.turn(project, "say: Good.")
    there = tab()
    there.open(f"/queue?project={project}")
    expect(there.page.get_by_role("img", name="Turns over time: 1, 0 failed, 0 stopped")).to_be_visible()
    there.page.get_by_role("button", name="As a table").click()
    expect(there.page.get_by_role("table").get_by_role("row").filter(has_text=re.compile(r":\d\d1100"))).to_have_count(1)
    there.press("g")
    expect(there.page.get_by_role("img", name="Turns over time")).to_have_count(0)
    there.page.reload()  # remembered
    expect(there.page.get_by_role("heading", name="Queue")).to_be_visible()
    there.page.wait_for_load_state("networkidle")
    expect(there.page.get_by_role("img", name="Turns over time")).to_have_count(0)


@pytest.mark.parametrize("how", [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_its_plots_and_order_are_for_everybody(coder: Coder, project: str, tab: Open, how: dict[str, object]) -> None:
    task = coder.queue(project, "x" * 300, priority=5, labels=["a-label-" + "y" * 60], **LATER)
    coder.turn(project, "say: Good.")
    there = tab(**how)
    there.open(f"/queue?project={project}")
    if how is PHONE:  # there the plots are asked for
        there.page.get_by_role("button", name="Over time").click()
    there.page.get_by_role("button", name="As a table").click()
    expect(there.page.get_by_role("table")).to_be_visible()
    assert there.violations() == []
    assert there.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    there.page.get_by_role("button", name=f"Let task {task} run sooner").click()
    expect(row(there, task).get_by_text("priority +6")).to_be_visible()
    there.page.get_by_role("button", name=f"Order what waits in the session of task {task}").click()
    expect(there.page.get_by_role("dialog").get_by_role("listitem")).to_have_count(1)
    there.settled()
    assert there.violations() == []
