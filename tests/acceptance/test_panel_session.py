"""The panel's session page in a real browser: a turn as it happens, more said behind it, and the service restarted under it."""

from __future__ import annotations

from collections.abc import Iterator

import panel
import pytest
from browsing import Tab, browsing
from checkout import Checkout
from playwright.sync_api import Browser, Locator, expect
from running import Coder, running

pytest_plugins = ("model_server",)

WORDS = " ".join(f"word{number}" for number in range(4000))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    panel.make("install")
    panel.make("build")
    with browsing() as browser:
        yield browser


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: object) -> Iterator[Coder]:
    """One that may be stopped: nobody else's."""
    yield from running(Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1"))  # type: ignore[attr-defined]


@pytest.fixture
def tab(browser: Browser, coder: Coder) -> Iterator[Tab]:
    there = Tab(browser, coder)
    there.log_in()
    yield there
    there.close()


def said(tab: Tab) -> Locator:
    """What the agent answered first."""
    return tab.page.get_by_role("paragraph").filter(has_text="word0")


def test_two_browsers_see_a_turn_as_it_happens_and_what_waits_behind_it(coder: Coder, project: str, browser: Browser, tab: Tab) -> None:
    task = coder.queue(project, "Count for long", "slow", f"say: {WORDS}")
    session = coder.get(f"/tasks/{task}")["session_id"]
    other = Tab(browser, coder)
    other.log_in()
    for each in (tab, other):
        each.open(f"/sessions/{session}")
        expect(said(each)).to_contain_text("word5")
    tab.press("c")
    expect(tab.page.get_by_label("Message")).to_be_focused()
    tab.page.keyboard.insert_text("And then?\nsay: Then **nothing**.")
    tab.page.reload()  # a draft is not lost
    message = tab.page.get_by_label("Message")
    expect(message).to_have_value("And then?\nsay: Then **nothing**.")
    message.press("Control+Enter")
    expect(other.page.get_by_label("queued")).to_be_visible()
    other.page.get_by_role("button", name="Stop").click()  # the turn would go on for minutes
    for each in (tab, other):
        expect(each.page.get_by_role("strong").get_by_text("nothing")).to_be_visible(timeout=30_000)
        expect(each.page.get_by_role("article").first).to_contain_text("cancelled")
    other.close()


def test_hostile_words_of_an_agent_are_only_words(coder: Coder, project: str, tab: Tab) -> None:
    page = "<img src=https://elsewhere.test/x onerror=alert(1)> <script>alert(2)</script>"
    task = coder.turn(project, "Be hostile", f"say: {page} ![p](https://elsewhere.test/p.png) [go](javascript:alert(3))")
    tab.open(f"/sessions/{task['session_id']}")
    expect(tab.page.get_by_text("[picture: p]")).to_be_visible()
    assert tab.page.locator("article img, article script, article a[href^=javascript]").count() == 0


def test_the_service_is_restarted_under_it_and_nothing_typed_is_lost(coder: Coder, project: str, checkout: Checkout, tab: Tab) -> None:
    task = coder.turn(project, "Say hello", "say: Hello.")
    page = tab.page
    tab.open(f"/sessions/{task['session_id']}")
    expect(page.get_by_text("Hello.", exact=True)).to_be_visible()
    port = coder.url.rstrip("/").rpartition(":")[2]
    coder.stop()
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_visible()
    page.get_by_label("Message").fill("Are you back?\nsay: Back.")
    page.get_by_label("Message").press("Control+Enter")
    expect(page.get_by_label("being sent")).to_be_visible()
    coder.start(port=port)
    expect(page.get_by_text("Back.", exact=True)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_hidden()
    assert coder.row("select count(*) from tasks where session_id = %s", task["session_id"]) == {"count": 2}
    tab.broken = [each for each in tab.broken if "ERR_CONNECTION_REFUSED" not in each]  # the browser notes each try
