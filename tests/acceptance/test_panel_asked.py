"""What an agent asks is answered where one reads it: by opencode itself, in two browsers at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Tab
from playwright.sync_api import Browser, expect
from running import Coder, running

pytest_plugins = ("model_server", "real_agents", "browsing")

COMMAND = "printf '%s' allowed > allowed.txt"
CHOICES = [{"label": "Red", "description": "As the brand has it"}, {"label": "Blue", "description": "As the rest"}]
QUESTION = json.dumps({"questions": [{"question": "Which colour?", "header": "Colour", "options": CHOICES}]})


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: object, agent_path: Callable[[str], Path]) -> Iterator[Coder]:
    """One that finds opencode."""
    made = Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1")  # type: ignore[attr-defined]
    made.environment["PATH"] = f"{agent_path('opencode')}{os.pathsep}{made.environment['PATH']}"
    yield from running(made)


def test_a_permission_and_a_question_are_answered_from_two_browsers(coder: Coder, project: str, browser: Browser) -> None:
    changed = coder.api.patch(f"/projects/{project}", json={"permission_policy": "ask"})
    assert changed.status_code == 200, changed.text
    coder.until(lambda: any(each["agent"] == "opencode" and each["available"] for each in coder.get("/agents")["items"]), 60)
    task = coder.queue(project, "Ask me", f"run: {COMMAND}", f"call question: {QUESTION}", "say: Thanks.", agent="opencode")
    session = coder.get(f"/tasks/{task}")["session_id"]
    one, two = Tab(browser, coder), Tab(browser, coder)
    for each in (one, two):
        each.log_in()
        each.open(f"/sessions/{session}")
        asked = each.page.get_by_label("A permission is asked for")
        expect(asked.get_by_text(COMMAND, exact=True)).to_be_visible(timeout=60_000)
    two.page.get_by_role("textbox", name="Why not").fill("Half a reason")
    two.page.reload()  # what was typed is not lost
    expect(two.page.get_by_role("textbox", name="Why not")).to_have_value("Half a reason")
    one.page.get_by_role("button", name="Allow once").click()
    for each in (one, two):
        expect(each.page.get_by_label("A permission is asked for")).to_be_hidden()
        question = each.page.get_by_role("form", name="The agent asks")
        expect(question.get_by_text("Which colour?")).to_be_visible()
        for scheme in ("light", "dark"):
            each.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            each.settled()
            assert each.violations() == []
    two.page.get_by_role("radio", name="Blue").check()
    two.page.get_by_role("button", name="Answer").click()
    for each in (one, two):
        expect(each.page.get_by_text("Thanks.", exact=True)).to_be_visible(timeout=30_000)
        expect(each.page.get_by_role("form", name="The agent asks")).to_be_hidden()
    done = coder.ended(task)
    allowed, answered = coder.get(f"/permissions?session_id={session}&limit=10")["items"][::-1]
    assert (allowed["title"], allowed["state"]) == (COMMAND, "allowed_once")
    assert answered["answers"] == ["Blue"]
    assert "allowed.txt" in str(coder.change(done)["files"])
    for each in (one, two):
        each.close()


def test_a_message_goes_to_the_agent_of_ones_choice_with_a_command_it_knows(coder: Coder, project: str, browser: Browser) -> None:
    coder.until(lambda: any(each["agent"] == "opencode" and each["available"] for each in coder.get("/agents")["items"]), 60)
    task = coder.turn(project, "Say hello", "say: Hello.")
    tab = Tab(browser, coder)
    tab.log_in()
    tab.open(f"/sessions/{task['session_id']}")
    page = tab.page
    page.get_by_label("Agent", exact=True).first.click()
    page.get_by_role("option", name="opencode", exact=True).click()
    page.reload()
    expect(page.get_by_label("Agent", exact=True).first).to_have_value("opencode")
    message = page.get_by_role("textbox", name="Message", exact=True)
    message.fill("say: I am another.")
    message.press("Control+Enter")
    expect(page.get_by_role("article").last).to_contain_text("completed", timeout=60_000)
    expect(page.get_by_role("article").last).to_contain_text("opencode")
    message.fill("/")
    commands = page.get_by_role("listbox", name="Commands of the agent")
    expect(commands).to_be_visible()
    names = [each.split()[0] for each in commands.get_by_role("option").all_inner_texts()]
    assert len(names) > 1
    message.press("ArrowDown")
    expect(commands.get_by_role("option", selected=True)).to_contain_text(names[1])
    tab.settled()
    assert tab.violations() == []
    message.press("Enter")
    expect(message).to_have_value(f"{names[1]} ")
    expect(commands).to_be_hidden()
    tab.close()
