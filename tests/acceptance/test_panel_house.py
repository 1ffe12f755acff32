"""What coder works with, in a real browser: agents, projects and workspaces are seen, made and changed where one looks at them."""

from __future__ import annotations

import pytest
from browsing import PHONE, Open, Tab
from checkout import Checkout
from playwright.sync_api import Browser, expect
from running import TOKEN, Coder

pytest_plugins = ("model_server", "browsing")


def test_agents_are_looked_for_again_and_a_missing_one_says_how_it_is_installed(coder: Coder, tab: Open) -> None:
    listed = coder.get("/agents")["items"]
    missing = next(each for each in listed if not each["available"] and each["install"])
    there = tab()
    page = there.page
    there.press("5")
    expect(page.get_by_role("heading", name="Agents")).to_be_visible()
    expect(page.get_by_text(missing["install"], exact=True)).to_be_visible()
    native = page.get_by_role("button", name="native", exact=True)
    native.click()
    expect(native).to_have_attribute("aria-expanded", "true")
    page.reload()
    expect(page.get_by_role("button", name="native", exact=True)).to_have_attribute("aria-expanded", "true")
    there.press("p")
    expect(page.get_by_role("status").get_by_text("can be run.")).to_be_visible()
    looked = {each["agent"]: each["probed_at"] for each in coder.get("/agents")["items"]}
    assert all(looked[each["agent"]] > each["probed_at"] for each in listed)


def test_a_repository_becomes_a_project_once_it_was_looked_at(coder: Coder, checkout: Checkout, tab: Open) -> None:
    there = tab()
    page = there.page
    there.press("6")
    expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
    there.press("c")
    path = page.get_by_role("textbox", name="Path")
    expect(path).to_be_focused()
    path.fill(f"{checkout.path}/nowhere")
    expect(page.get_by_text("is not a directory; name the root of a git repository.")).to_be_visible()
    expect(page.get_by_role("button", name="Add the project")).to_be_disabled()
    assert "nowhere" not in str(coder.get("/projects?limit=200"))
    there.refused(422)
    path.fill(f"{checkout.path}/tests")
    expect(page.get_by_text(f"its top level is {checkout.path}", exact=False)).to_be_visible()
    page.reload()
    expect(page.get_by_role("textbox", name="Path")).to_have_value(f"{checkout.path}/tests")
    page.get_by_role("textbox", name="Name").fill("looked-at")
    page.get_by_role("button", name="Add looked-at").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("looked-at")
    assert coder.get("/projects/looked-at")["path"] == str(checkout.path)


def test_a_project_is_changed_as_a_whole_and_what_is_typed_survives_a_reload(coder: Coder, project: str, tab: Open) -> None:
    there = tab()
    page = there.page
    there.open(f"/projects/{project}")
    page.get_by_label("Check command").fill("make test")
    page.get_by_label("Copied files").fill(".env\nconfig/*.local")
    page.get_by_label("Time limit").fill("90")
    page.get_by_label("Network").first.click()  # the list bears the label as well
    page.get_by_role("option", name="Cut off from the network").click()
    page.reload()
    expect(page.get_by_label("Check command")).to_have_value("make test")
    assert coder.get(f"/projects/{project}")["check_command"] is None
    page.get_by_label("Check command").press("Control+s")
    expect(page.get_by_text(f"Project {project} is saved", exact=False)).to_be_visible()
    expect(page.get_by_role("button", name="Save")).to_be_disabled()
    now = coder.get(f"/projects/{project}")
    assert {name: now[name] for name in ("check_command", "check_seconds", "network", "copy_globs")} == {
        "check_command": "make test",
        "check_seconds": 90,
        "network": "off",
        "copy_globs": [".env", "config/*.local"],
    }
    page.get_by_label("Check command").fill("")
    page.get_by_label("Check command").press("Control+s")
    expect(page.get_by_role("button", name="Forget what I typed")).to_have_count(0)
    assert coder.get(f"/projects/{project}")["check_command"] is None


def test_permission_rules_are_made_and_revoked(coder: Coder, project: str, tab: Open) -> None:
    there = tab()
    page = there.page
    there.open(f"/projects/{project}")
    expect(page.get_by_text("There are none.")).to_be_visible()
    page.get_by_label("Tool").fill("bash")
    page.get_by_label("What it is used for").fill("npm *")
    page.get_by_role("button", name="Allow it from now on").click()
    revoke = page.get_by_role("button", name="Revoke the rule for bash: npm *")
    expect(revoke).to_be_visible()
    (rule,) = coder.get(f"/projects/{project}/permission-rules")["items"]
    assert (rule["tool"], rule["pattern"], rule["actor"]) == ("bash", "npm *", "admin")
    revoke.click()
    expect(page.get_by_text("Agents ask again before they use bash for npm *.")).to_be_visible()
    assert coder.get(f"/projects/{project}/permission-rules")["items"] == []


def test_a_workspace_is_made_named_and_deleted_with_what_it_holds(coder: Coder, project: str, tab: Open) -> None:
    there = tab()
    page = there.page
    there.press("7")
    expect(page.get_by_role("heading", name="Workspaces")).to_be_visible()
    there.press("c")
    name = page.get_by_role("textbox", name="Name")
    expect(name).to_be_focused()
    name.fill("Not One")
    name.press("Enter")
    expect(page.get_by_text("A workspace is named by 1 to 40 of a-z", exact=False)).to_be_visible()
    there.refused(422)
    name.fill("lab")
    name.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("lab")
    task = coder.ended(coder.queue(project, "say: Good.", workspace_id="lab"))
    page.get_by_label("Default directory").fill("relative")
    page.get_by_label("Title").fill("The lab")
    page.get_by_label("Title").press("Control+s")
    expect(page.get_by_text("The default directory of a workspace is absolute", exact=False)).to_be_visible()
    there.refused(422)
    expect(page.get_by_role("heading", level=1)).to_have_text("The lab")
    page.get_by_label("Default directory").fill("/srv/lab/")
    page.get_by_label("Default directory").press("Control+s")
    expect(page.get_by_text("Workspace lab is saved.")).to_be_visible()
    assert coder.get("/workspaces/lab")["default_cwd"] == "/srv/lab"
    expect(page.get_by_text("Its 1 session moves to default. 1 session that is open is closed", exact=False)).to_be_visible()
    page.get_by_role("button", name="Delete lab…").click()
    page.get_by_role("button", name="Delete workspace lab").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Workspaces")
    session = coder.get(f"/sessions/{task['session_id']}")
    assert (session["workspace_id"], session["status"]) == ("default", "closed")


def test_a_token_is_shown_once_and_revoked_and_a_link_lets_another_browser_in(coder: Coder, tab: Open, browser: Browser) -> None:
    there = tab()
    page = there.page
    there.press("8")
    expect(page.get_by_role("heading", name="Tokens")).to_be_visible()
    there.press("c")
    page.get_by_role("textbox", name="Name").fill("robot")
    page.get_by_role("textbox", name="Name").press("Enter")
    expect(page.get_by_text("it is shown this once", exact=False)).to_be_visible()
    token = page.get_by_role("dialog").locator("code").inner_text()
    bearer = {"Authorization": f"Bearer {token}"}
    assert coder.api.get("/status", headers=bearer).status_code == 200
    there.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert token not in page.content()
    guest = browser.new_context().new_page()
    guest.goto(coder.url)
    guest.get_by_label("Or a token").fill(token)
    guest.get_by_role("button", name="Log in").click()
    guest.get_by_role("heading", name="Inbox").wait_for()
    page.get_by_role("button", name="Revoke robot…").click()
    page.get_by_role("button", name="Revoke robot", exact=True).click()
    expect(page.get_by_text("Token robot is revoked", exact=False)).to_be_visible()
    coder.until(lambda: coder.api.get("/status", headers=bearer).status_code == 401)
    expect(guest.get_by_text("This browser's login holds no longer", exact=False)).to_be_visible(timeout=60_000)
    guest.context.close()
    there.press("l")
    link = page.get_by_role("dialog").locator("code").inner_text()
    other = browser.new_context().new_page()
    other.goto(link)
    other.get_by_role("heading", name="Inbox").wait_for()
    other.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_who_is_let_in_and_who_is_not(coder: Coder, tab: Open, browser: Browser, scheme: str) -> None:
    link = coder.cli("login").strip()
    first, other = (Tab(browser, coder, color_scheme=scheme) for _ in range(2))
    first.page.goto(link)
    expect(first.page.get_by_role("heading", name="Inbox")).to_be_visible()
    other.page.goto(link)  # a link lets one browser in
    expect(other.page.get_by_text("This browser is not let in yet.", exact=False)).to_be_visible()
    expect(other.page.get_by_text("coder login", exact=False).last).to_be_visible()
    assert "login" not in other.page.url
    token = other.page.get_by_label("Or a token")
    token.fill("nobody's")
    token.press("Enter")
    expect(token).to_have_attribute("data-invalid", "true")
    other.settled()
    assert other.violations() == []
    token.fill(TOKEN)
    token.press("Enter")
    expect(other.page.get_by_role("heading", name="Inbox")).to_be_visible()
    other.open("/queue?state=failed")
    expect(other.page.get_by_role("heading", name="Queue")).to_be_visible()
    other.page.get_by_role("button", name="Log out").click()
    expect(other.page.get_by_label("Or a token")).to_be_visible()
    other.page.reload()
    expect(other.page.get_by_label("Or a token")).to_be_visible()
    other.refused(401)
    for each in (first, other):
        each.close()


def test_settings_say_what_runs_and_no_secret(coder: Coder, tab: Open) -> None:
    there = tab(color_scheme="light")
    page = there.page
    there.press("9")
    expect(page.get_by_text("CODER_ADMIN_TOKEN", exact=True)).to_be_visible()
    expect(page.get_by_text("connected", exact=True)).to_be_visible()
    expect(page.get_by_text("CODER_MAX_TURNS", exact=True)).to_have_count(0)
    page.get_by_role("switch", name="Also what nobody changed").check()
    expect(page.get_by_text("CODER_MAX_TURNS", exact=True)).to_be_visible()
    assert TOKEN not in page.content()
    page.locator("label").filter(has_text="Dark").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-mantine-color-scheme", "dark")


def places(coder: Coder, project: str) -> dict[str, str]:
    coder.api.put("/workspaces/shown").raise_for_status()
    agent = coder.get("/agents")["items"][0]
    return {
        "/agents": "Agents",
        f"/agents?agent={agent['agent']}@{agent['host_id']}": "Agents",
        "/projects": "Projects",
        f"/projects/{project}": project,
        "/projects?add=true": "Projects",
        "/workspaces": "Workspaces",
        "/tokens": "Tokens",
        "/tokens?make=true": "Tokens",
        "/settings": "Settings",
        "/workspaces/shown": "shown",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_of_the_house_is_for_everybody(coder: Coder, project: str, tab: Open, scheme: str) -> None:
    there = tab(color_scheme=scheme)
    wrong = {}
    for path, sign in places(coder, project).items():
        there.open(path)
        expect(there.page.get_by_role("heading", level=1, include_hidden=True)).to_contain_text(sign)
        there.page.wait_for_load_state("networkidle")
        wrong[path] = there.violations()
    assert not any(wrong.values()), wrong


def test_the_house_fits_a_phone(coder: Coder, project: str, tab: Open) -> None:
    there = tab(**PHONE)
    for path in places(coder, project):
        there.open(path)
        expect(there.page.get_by_role("heading", level=1, include_hidden=True)).to_be_attached()
        wide = there.page.evaluate(
            "[document.documentElement, document.getElementById('content')].map(each => each.scrollWidth - each.clientWidth)"
        )
        assert wide == [0, 0], path
