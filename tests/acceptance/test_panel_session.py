"""The panel's session page in a real browser: a turn as it happens, what waits behind it, what was done and said before, and
the service killed and the line cut under it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import spoken
from browsing import Tab
from checkout import Checkout
from playwright.sync_api import Browser, Locator, expect
from running import Coder, running

pytest_plugins = ("model_server", "browsing")

WORDS = " ".join(f"word{number}" for number in range(4000))


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
    expect(tab.page.get_by_role("textbox", name="Message", exact=True)).to_be_focused()
    tab.page.keyboard.insert_text("And then?\nsay: Then **nothing**.")
    tab.page.reload()  # a draft is not lost
    message = tab.page.get_by_role("textbox", name="Message", exact=True)
    expect(message).to_have_value("And then?\nsay: Then **nothing**.")
    message.press("Control+Enter")
    expect(other.page.get_by_label("queued")).to_be_visible()
    other.page.get_by_role("button", name="Stop").click()  # the turn would go on for minutes
    for each in (tab, other):
        expect(each.page.get_by_role("strong").get_by_text("nothing")).to_be_visible(timeout=30_000)
        expect(each.page.get_by_role("article").first).to_contain_text("cancelled")
    other.close()


def test_what_waits_is_changed_taken_back_and_sent_at_once(coder: Coder, project: str, browser: Browser, tab: Tab) -> None:
    task = coder.queue(project, "Count for long", "slow", f"say: {WORDS}")
    session = coder.get(f"/tasks/{task}")["session_id"]
    for text in ("one", "two", "three"):
        coder.queue(project, text, f"say: I did {text}.", session=session)
    page = tab.page
    tab.open(f"/sessions/{session}")
    waiting = page.get_by_role("region", name="It waits")
    waiting.filter(has_text="say: I did one.").get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Message that waits").fill("one\nsay: I did it better.")
    page.reload()  # what was typed is not lost
    expect(page.get_by_role("textbox", name="Message that waits")).to_have_value("one\nsay: I did it better.")
    page.get_by_role("textbox", name="Message that waits").press("Control+Enter")
    expect(page.get_by_text("say: I did it better.")).to_be_visible()
    assert coder.get(f"/sessions/{session}/queue")["items"][0]["input"] == "one\nsay: I did it better."
    waiting.filter(has_text="say: I did two.").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("say: I did two.")).to_be_hidden()
    waiting.filter(has_text="say: I did three.").get_by_role("button", name="Send now").click()
    expect(page.get_by_text("I did it better.", exact=True)).to_be_visible(timeout=30_000)
    articles = page.get_by_role("article")
    expect(articles).to_have_count(3)
    for at, words in enumerate(("cancelled", "I did three.", "I did it better.")):
        expect(articles.nth(at)).to_contain_text(words)
    page.get_by_role("textbox", name="Message", exact=True).fill("And this?\nsay: Never mind.")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("Never mind.", exact=True)).to_be_visible()


def test_who_interrupts_does_not_wait(coder: Coder, project: str, tab: Tab) -> None:
    task = coder.queue(project, "Count for long", "slow", f"say: {WORDS}")
    page = tab.page
    tab.open(f"/sessions/{coder.get(f'/tasks/{task}')['session_id']}")
    expect(said(tab)).to_contain_text("word5")
    page.get_by_role("textbox", name="Message", exact=True).fill("Stop that.\nsay: I stopped.")
    page.get_by_label("Interrupt").check()
    page.get_by_role("button", name="Stop it and send").click()
    expect(page.get_by_text("I stopped.", exact=True)).to_be_visible(timeout=30_000)
    assert coder.get(f"/tasks/{task}")["state"] == "cancelled"


def test_what_was_done_is_seen_as_diffs_and_commands_and_folds_to_a_line(coder: Coder, project: str, tab: Tab) -> None:
    lines = (
        "think: Hm.",
        "write new.txt: first\\nsecond",
        "edit new.txt: second => third",
        "run: echo so; exit 3",
        "say: # All\\n\\nis **done**.",
    )
    task = coder.turn(project, "Do it", *lines)
    page = tab.page
    tab.open(f"/sessions/{task['session_id']}")
    expect(page.get_by_role("button", name="exit 3")).to_contain_text("echo so")
    page.get_by_role("button", name="exit 3").click()
    expect(page.get_by_text("$ echo so; exit 3")).to_be_visible()
    expect(page.get_by_text("Output, exit code 3")).to_be_visible()
    page.get_by_role("button", name="completed edit").click()
    drawn = page.locator("diffs-container")
    expect(drawn.get_by_text("third")).to_be_visible()
    expect(drawn.get_by_text("second")).to_be_visible()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        tab.settled()
        assert tab.violations() == []
    page.get_by_role("heading", level=1).click()
    tab.press("z")
    folded = page.get_by_role("article").get_by_role("button", name="Do it")
    expect(folded).to_have_attribute("aria-expanded", "false")
    expect(folded).to_contain_text(f"{task['cost_tokens']:,} tokens")
    expect(page.get_by_role("button", name="exit 3")).to_be_hidden()
    folded.click()
    expect(page.get_by_text("Output, exit code 3")).to_be_visible()  # what was open is open again


AT_TOP = """() => {
  const area = document.querySelector('[aria-label="Transcript"]');
  const top = area.getBoundingClientRect().top;
  const first = [...area.querySelectorAll('article')].find((each) => each.getBoundingClientRect().bottom > top + 100);
  return [first.getAttribute('aria-label'), Math.round(first.getBoundingClientRect().top - top)];
}"""


def test_what_was_said_before_comes_as_one_scrolls_up_and_nothing_moves(coder: Coder, project: str, tab: Tab) -> None:
    task = coder.turn(project, "How it began", "say: So it began.")
    spoken.fill(coder.cli("db", "url").strip(), task["id"], 240)
    page = tab.page
    tab.open(f"/sessions/{task['session_id']}")
    expect(page.get_by_text("What about number 240?")).to_be_visible()
    area = page.get_by_label("Transcript")
    assert area.evaluate("(at) => at.scrollHeight - at.scrollTop - at.clientHeight") < 2
    tall = area.evaluate("(at) => at.scrollHeight")
    with page.expect_response(lambda answer: "before=" in answer.url):
        area.evaluate("(at) => { at.scrollTop = 900; }")
        page.wait_for_function("() => document.querySelector('article[aria-label]') !== null")
        there = page.evaluate(AT_TOP)
    page.wait_for_function("(tall) => document.querySelector('[aria-label=Transcript]').scrollHeight > tall + 5000", arg=tall)
    name, top = page.evaluate(AT_TOP)
    assert name == there[0]
    assert abs(top - there[1]) <= 2
    expect(page.get_by_role("button", name="To the end")).to_be_visible()
    coder.queue(project, "One more", "say: There it is.", session=task["session_id"])
    expect(page.get_by_role("button", name="1 new turn below")).to_be_visible()
    assert page.evaluate(AT_TOP)[0] == name  # who reads is not carried away
    for _ in range(3):
        area.evaluate("(at) => { at.scrollTop = 0; }")
        page.wait_for_load_state("networkidle")
    expect(page.get_by_text("The session begins here.")).to_be_attached()
    area.evaluate("(at) => { at.scrollTop = 0; }")
    expect(page.get_by_text("So it began.", exact=True)).to_be_visible()
    tab.press("G")
    expect(page.get_by_text("There it is.", exact=True)).to_be_visible()


def test_a_session_is_named_kept_warm_compacted_closed_and_opened_where_one_looks_at_it(coder: Coder, project: str, tab: Tab) -> None:
    task = coder.turn(project, "Say hello", "say: Hello.")
    path = f"/sessions/{task['session_id']}"
    page = tab.page
    tab.open(path)
    page.get_by_role("button", name="Change the title").click()
    page.get_by_role("textbox", name="Title").fill("The greeting")
    page.reload()  # what is typed is not lost
    page.get_by_role("textbox", name="Title").press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("The greeting")
    page.get_by_role("button", name="Cache not kept warm").click()
    page.get_by_role("switch", name="Keep the prompt cache warm").click()
    expect(page.get_by_role("button", name="Cache kept warm · next in")).to_be_visible()
    page.get_by_role("textbox", name="Every so many seconds").fill("900")
    page.get_by_role("button", name="Set").click()
    expect(page.get_by_role("button", name="Cache kept warm · next in 1")).to_be_visible()  # 14 or 15 minutes
    assert coder.row("select enabled, interval_seconds from cache_warming") == {"enabled": True, "interval_seconds": 900}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        tab.settled()
        assert tab.violations() == []
    tab.press("Escape")
    more = page.get_by_role("button", name="More about this session")
    more.click()
    tab.settled()
    assert tab.violations() == []
    page.get_by_role("menuitem", name="Compact").click()
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.get_by_role("article").last).to_contain_text("completed")
    more.click()
    page.get_by_role("menuitem", name="Close").click()
    expect(page.get_by_text("closed", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Cache not kept warm")).to_be_visible()
    assert coder.get(path)["status"] == "closed"
    more.click()
    page.get_by_role("menuitem", name="Open it again").click()
    expect(page.get_by_text("idle", exact=True)).to_be_visible()
    more.click()
    page.get_by_role("menuitem", name="Directory of its turns").click()
    page.get_by_role("textbox", name="Directory").fill("tests")
    page.get_by_role("button", name="Start turns there").click()
    expect(page.get_by_role("textbox", name="Directory")).to_be_hidden()
    assert coder.get(path)["cwd"].endswith("/tests")


def test_the_page_asks_nobody_else_and_runs_nothing_that_was_written_into_it(tab: Tab) -> None:
    tab.page.evaluate("fetch('https://elsewhere.test/x').catch(() => null)")
    tab.page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
        document.body.insertAdjacentHTML('beforeend', '<img src="/assets/none.png" onerror="window.ran = true">');
    }""")
    tab.page.wait_for_load_state("networkidle")
    assert tab.page.evaluate("window.ran") is None
    assert any("elsewhere.test" in each and "Content Security Policy" in each for each in tab.broken)
    assert any("inline script" in each for each in tab.broken)
    tab.broken.clear()


def test_hostile_words_of_an_agent_are_only_words(coder: Coder, project: str, tab: Tab) -> None:
    page = "<img src=https://elsewhere.test/x onerror=alert(1)> <script>alert(2)</script>"
    task = coder.turn(project, "Be hostile", f"say: {page} ![p](https://elsewhere.test/p.png) [go](javascript:alert(3))")
    tab.open(f"/sessions/{task['session_id']}")
    expect(tab.page.get_by_text("[picture: p]")).to_be_visible()
    assert tab.page.locator("article img, article script, article a[href^=javascript]").count() == 0


def test_a_cut_line_loses_nothing_that_is_typed_and_shows_nothing_twice(coder: Coder, project: str, tab: Tab) -> None:
    task = coder.queue(project, "Count for long", "slow", f"say: {WORDS}")
    session = coder.get(f"/tasks/{task}")["session_id"]
    page = tab.page
    tab.open(f"/sessions/{session}")
    expect(said(tab)).to_contain_text("word5")
    message = page.get_by_role("textbox", name="Message", exact=True)
    message.fill("Half a sen")
    tab.context.set_offline(True)
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_visible()
    message.press("End")
    message.press_sequentially("tence\nsay: Whole.")
    message.press("Control+Enter")
    expect(page.get_by_label("being sent")).to_be_visible()
    message.fill("And what comes after")
    tab.context.set_offline(False)
    expect(page.get_by_label("queued", exact=True)).to_be_visible()
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_hidden()
    page.reload()
    expect(message).to_have_value("And what comes after")
    expect(page.get_by_role("region", name="It waits")).to_have_count(1)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Whole.", exact=True)).to_be_visible(timeout=30_000)
    assert [row["text"] for row in coder.get(f"/sessions/{session}/messages")["items"] if row["role"] == "user"][1:] == [
        "Half a sentence\nsay: Whole."
    ]
    tab.broken = [each for each in tab.broken if "ERR_INTERNET_DISCONNECTED" not in each]  # the browser notes each try


def test_two_tabs_of_one_browser_have_one_draft_and_each_message_once(coder: Coder, project: str, tab: Tab) -> None:
    task = coder.turn(project, "Say hello", "say: Hello.")
    tab.open(f"/sessions/{task['session_id']}")
    other = tab.context.new_page()
    other.goto(tab.page.url)
    one, two = (page.get_by_role("textbox", name="Message", exact=True) for page in (tab.page, other))
    one.fill("Written here")
    expect(two).to_have_value("Written here")
    two.fill("Written here\nsay: Sent there.")
    expect(one).to_have_value("Written here\nsay: Sent there.")
    two.press("Control+Enter")
    for page in (tab.page, other):
        expect(page.get_by_text("Sent there.", exact=True)).to_have_count(1)
        expect(page.get_by_role("article")).to_have_count(2)
    expect(one).to_have_value("")


def test_the_service_is_killed_under_a_turn_and_the_page_shows_what_is_stored(coder: Coder, project: str, tab: Tab) -> None:
    task = coder.queue(project, "Count for long", "slow", f"say: {WORDS}")
    session = coder.get(f"/tasks/{task}")["session_id"]
    page = tab.page
    tab.open(f"/sessions/{session}")
    expect(said(tab)).to_contain_text("word9")
    port = coder.url.rstrip("/").rpartition(":")[2]
    coder.kill()
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_visible()
    page.get_by_role("textbox", name="Message", exact=True).fill("Not sent yet")
    coder.start(port=port)
    expect(page.get_by_label("The session waits for a decision")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("textbox", name="Message", exact=True)).to_have_value("Not sent yet")
    _, stored = coder.get(f"/sessions/{session}/messages")["items"]
    assert stored["state"] == "interrupted"
    expect(page.get_by_role("article")).to_have_count(1)
    expect(said(tab)).to_have_text(stored["text"].strip())
    page.get_by_role("button", name="Leave it").click()
    expect(page.get_by_role("article")).to_contain_text("interrupted")
    expect(page.get_by_label("The session waits for a decision")).to_be_hidden()
    tab.broken = [each for each in tab.broken if "ERR_CONNECTION_REFUSED" not in each]


def test_the_service_is_restarted_under_it_and_nothing_typed_is_lost(coder: Coder, project: str, checkout: Checkout, tab: Tab) -> None:
    task = coder.turn(project, "Say hello", "say: Hello.")
    page = tab.page
    tab.open(f"/sessions/{task['session_id']}")
    expect(page.get_by_text("Hello.", exact=True)).to_be_visible()
    port = coder.url.rstrip("/").rpartition(":")[2]
    coder.stop()
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_visible()
    page.get_by_role("textbox", name="Message", exact=True).fill("Are you back?\nsay: Back.")
    page.get_by_role("textbox", name="Message", exact=True).press("Control+Enter")
    expect(page.get_by_label("being sent")).to_be_visible()
    coder.start(port=port)
    expect(page.get_by_text("Back.", exact=True)).to_be_visible(timeout=30_000)
    expect(page.get_by_text("The connection is lost.", exact=False)).to_be_hidden()
    assert coder.row("select count(*) from tasks where session_id = %s", task["session_id"]) == {"count": 2}
    tab.broken = [each for each in tab.broken if "ERR_CONNECTION_REFUSED" not in each]  # the browser notes each try
