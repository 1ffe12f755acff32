"""A real browser on the panel of a real service, as a plugin: `browser`, and `tab`, which opens pages that are logged in.

A page that breaks the rules fails its test: an error in its console, a request to another origin, anything that its policy refused.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import panel
import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright
from running import Coder

AXE = panel.PANEL / "node_modules" / "axe-core" / "axe.min.js"
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)  # a busy machine paints late; what never comes fails all the same
PHONE = {"viewport": {"width": 390, "height": 800}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("There is no Chromium; install it (Debian: apt install chromium).")
    return found


@contextmanager
def browsing() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium())
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a browser of its own: nobody else's cookies.

    Attributes:
        page: to act on.
    """

    def __init__(self, browser: Browser, coder: Coder, **how: Any) -> None:
        self._coder = coder
        self.broken: list[str] = []
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self.context.new_page()
        self.page.on("request", self._asked)
        self.page.on("pageerror", lambda error: self.broken.append(str(error)))
        self.page.on("console", lambda said: self.broken.append(said.text) if said.type == "error" else None)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self._coder.url, self._coder.url.replace("http", "ws", 1), "data:", "blob:")):
            self.broken.append(f"a request left the origin: {request.url}")

    def log_in(self) -> None:
        """As a person does: by the link that `coder login` prints."""
        self.page.goto(self._coder.cli("login").strip())
        self.page.get_by_role("heading", name="Inbox").wait_for()
        assert "login" not in self.page.url

    def open(self, path: str) -> None:
        self.page.goto(f"{self._coder.url.rstrip('/')}{path}")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def settled(self) -> None:
        """Wait until nothing moves or fades any more: what is half there has no colours to judge."""
        self.page.evaluate("() => Promise.allSettled(document.getAnimations().map((each) => each.finished)).then(() => null)")

    def violations(self) -> list[str]:
        """What axe finds wrong with the page as it is shown, with where."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run({preload: false, resultTypes: ['violations']})")["violations"]
        return [f"{each['id']} at {node['target']}: {node['failureSummary']}" for each in found for node in each["nodes"][:9]]

    def close(self) -> None:
        self.context.close()
        assert not self.broken, "\n".join(self.broken)

    def refused(self, status: int) -> None:
        """The browser noted in its console that the API refused something, as it should have."""
        assert any(str(status) in each for each in self.broken)
        self.broken = [each for each in self.broken if f"status of {status} " not in each]


Open = Callable[..., Tab]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    panel.make("install")
    panel.make("build")
    with browsing() as browser:
        yield browser


@pytest.fixture
def tab(browser: Browser, coder: Coder) -> Iterator[Open]:
    tabs: list[Tab] = []

    def make(**how: Any) -> Tab:
        tabs.append(Tab(browser, coder, **how))
        tabs[-1].log_in()
        return tabs[-1]

    yield make
    for each in tabs:
        each.close()
