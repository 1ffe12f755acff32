"""The panel's inbox in a real browser: what agents ask is answered in its row, by whoever is first; failed checks; the order of it all."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import PHONE, Open, Tab
from checkout import Checkout
from playwright.sync_api import Locator, expect
from running import Coder, running

pytest_plugins = ("model_server", "browsing")

STANDIN = Path(__file__).parents[1] / "agents" / "acp_standin.py"
AGENTS = f"""
[asker]
protocol = "acp"
command = ["{sys.executable}", "-S", "{STANDIN}"]
"""
OUTSIDE = "cat /etc/hostname"
LOOK_MS = 15_000  # it looks every 2 s; a busy machine may be late


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: object) -> Iterator[Coder]:
    """One that has an agent which asks."""
    agents = tmp_path_factory.mktemp("agents") / "agents.toml"
    agents.write_text(AGENTS)
    made = Coder(
        tmp_path_factory.mktemp("coder"),
        model_base_url=model_server.openai,  # type: ignore[attr-defined]
        default_model="m1",
        agents_file=str(agents),
        sandbox_readable=str(STANDIN.parent),
    )
    yield from running(made)


@pytest.fixture
def project(coder: Coder, project: str) -> Iterator[str]:
    """One in which every command is asked for; it leaves nothing in the inbox."""
    coder.api.patch(f"/projects/{project}", json={"permission_policy": "ask"}).raise_for_status()
    yield project
    for task in coder.get(f"/tasks?project_id={project}")["items"]:
        if task["state"] in ("pending", "running"):
            coder.post(f"/tasks/{task['id']}/cancel", 200)
            coder.ended(task["id"], "cancelled")
    for change in coder.get(f"/changes?project_id={project}&state=pending")["items"]:
        coder.reject(change)


def row(tab: Tab, text: str) -> Locator:
    return tab.page.get_by_role("main").get_by_role("listitem").filter(has_text=text)


def question(coder: Coder, task: int, text: str) -> str:
    """A question of the turn that runs, as an agent with such a tool asks it; answers its id."""
    asked = {
        "agent": "asker", "kind": "question", "request_id": "q", "title": text, "paths": [], "several": False,
        "choices": [{"label": "red", "description": ""}, {"label": "blue", "description": "as the sky"}],
    }  # fmt: skip
    found = coder.row(
        "select id from coder.ask(%s, (select epoch from tasks where id = %s), %s::jsonb, '{}', '1 hour', null)",
        task,
        task,
        json.dumps(asked),
    )
    return str(found["id"])


def test_a_permission_is_answered_in_one_browser_and_gone_in_the_other(coder: Coder, project: str, tab: Open) -> None:
    task = coder.queue(project, f"ask {OUTSIDE}", agent="asker")
    one, other = tab(), tab()
    for each in (one, other):
        expect(row(each, OUTSIDE)).to_contain_text("asker wants to use", timeout=LOOK_MS)
        expect(row(each, OUTSIDE)).to_contain_text("for admin")
        expect(each.page.get_by_role("link", name=re.compile("Inbox"))).to_contain_text("1")
    one.press("j", "a")
    expect(one.page.get_by_role("status").get_by_text(f"Allowed once: {OUTSIDE}")).to_be_visible()
    for each in (one, other):
        expect(row(each, OUTSIDE)).to_have_count(0, timeout=LOOK_MS)
    assert "allow" in coder.ended(task)["output_summary"]
    (asked,) = coder.get(f"/permissions?task_id={task}")["items"]
    assert (asked["state"], asked["actor"]) == ("allowed_once", "admin")


def test_a_permission_is_denied_with_e_and_the_next_thing_is_selected(coder: Coder, project: str, tab: Open) -> None:
    first, second = (coder.queue(project, f"ask echo {word}", agent="asker") for word in ("one", "two"))
    there = tab()
    rows = row(there, "echo")
    expect(rows).to_have_count(2, timeout=LOOK_MS)
    there.press("j", "e")
    expect(rows).to_have_count(1, timeout=LOOK_MS)
    expect(rows).to_have_attribute("data-current", "true")
    there.press("e")
    expect(there.page.get_by_role("heading", name="Nothing needs you")).to_be_visible(timeout=LOOK_MS)
    assert {each["state"] for task in (first, second) for each in coder.get(f"/permissions?task_id={task}")["items"]} == {"denied"}
    for task in (first, second):
        coder.ended(task)


def test_a_question_is_answered_in_its_row_and_a_draft_of_it_survives_a_reload(coder: Coder, project: str, tab: Open) -> None:
    task = coder.queue(project, "hang", agent="asker")
    coder.until(lambda: coder.get(f"/tasks/{task}")["first_event_at"] or coder.get(f"/tasks/{task}")["state"] == "running")
    asked = question(coder, task, "Which colour?")
    one, other = tab(), tab()
    for each in (one, other):
        expect(row(each, "Which colour?")).to_be_visible(timeout=LOOK_MS)
    one.press("j", "a")
    field = one.page.get_by_label("In your own words")
    field.fill("green, as the grass")
    one.page.reload()
    expect(row(one, "Which colour?")).to_be_visible()
    one.press("j", "a")
    expect(field).to_have_value("green, as the grass")
    one.page.get_by_role("radio", name="blue").check()
    expect(field).to_have_value("green, as the grass")
    one.page.get_by_role("button", name="Answer", exact=True).last.click()
    for each in (one, other):
        expect(row(each, "Which colour?")).to_have_count(0, timeout=LOOK_MS)
    answered = coder.get(f"/permissions/{asked}")
    assert (answered["answers"], answered["actor"]) == (["blue"], "admin")


def test_a_failed_check_comes_last_and_is_done_once_more_from_its_row(
    coder: Coder, project: str, checkout: Checkout, tab: Open, tmp_path: Path
) -> None:
    good = coder.turn(project, "Write it down", "write plain.py: x = 1\\n", "say: Written.")
    passes = tmp_path / "passes"
    coder.api.patch(f"/projects/{project}", json={"check_command": f"test -e '{passes}'"}).raise_for_status()
    bad = coder.turn(project, "Break the build", "write broken.py: x = 2\\n", "say: Broken.")
    there = tab()
    expect(row(there, "Break the build")).to_contain_text("check failed", timeout=LOOK_MS)
    rows = there.page.get_by_role("main").get_by_role("listitem")
    expect(rows).to_have_text([re.compile("to review.*Write it down"), re.compile("check failed.*Break the build")])
    there.press("j", "j", "Enter")
    expect(there.page.get_by_role("heading", level=1)).to_have_text("Break the build")
    there.page.go_back()
    expect(row(there, "Break the build")).to_be_visible()
    passes.touch()
    there.press("j", "j", "e")
    expect(row(there, "Break the build")).to_contain_text("to review", timeout=LOOK_MS)
    for task in (good, bad):
        coder.reject(coder.change(task))
    expect(there.page.get_by_role("heading", name="Nothing needs you")).to_be_visible(timeout=LOOK_MS)


@pytest.mark.parametrize("how", [{"color_scheme": "light"}, {"color_scheme": "dark"}, PHONE], ids=["light", "dark", "phone"])
def test_a_full_inbox_is_for_everybody(coder: Coder, project: str, tab: Open, how: dict[str, object]) -> None:
    long = "echo " + "very-long-word" * 20
    coder.queue(project, f"ask {long}", agent="asker")
    hanging = coder.queue(project, "hang", agent="asker")
    coder.until(lambda: coder.get(f"/tasks/{hanging}")["state"] == "running")
    coder.turn(project, "Write " + "it" * 200, "write plain.py: x = 1\\n", "say: Written.")
    question(coder, hanging, "Which " + "colour" * 40 + "?")
    there = tab(**how)
    expect(row(there, "Which colour")).to_be_visible(timeout=LOOK_MS)
    expect(row(there, long)).to_be_visible(timeout=LOOK_MS)
    row(there, "Which colour").get_by_role("button", name="Answer", exact=True).first.click()
    expect(there.page.get_by_role("radio", name="red")).to_be_visible()
    there.page.mouse.move(0, 0)  # no hint of a button is in the way
    expect(there.page.get_by_role("tooltip")).to_have_count(0)
    there.settled()
    assert there.violations() == []
    assert there.page.evaluate("document.getElementById('content').scrollWidth - document.getElementById('content').clientWidth") == 0
