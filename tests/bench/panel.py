"""The panel in a real browser: how soon a large page shows what it is for, and how long it ever stands still while it is scrolled."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from coder.demo.show import PROJECT
from tests import spoken
from tests.bench.bed import Bed
from tests.bench.figure import Figure
from tests.bench.places import start, stop
from tests.bench.turns import git

PAINT_MS = 500
BLOCK_MS = 100
PATIENCE_MS = 60_000
WHEEL = 1_200
# What is written is seen one frame later.
PAINTED = """([sign, begin]) => new Promise((told) => {
  const seen = (root) => [...root.querySelectorAll('diffs-container')].some((each) => each.shadowRoot?.querySelector(sign)) ||
    root.querySelector(sign) !== null;
  const started = begin === null ? 0 : performance.now();
  if (begin !== null) document.querySelector(begin).click();
  const look = () => {
    if (seen(document)) requestAnimationFrame(() => told(performance.now() - started));
    else requestAnimationFrame(look);
  };
  look();
})"""
FRAMES = "() => new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)))"


@dataclass(frozen=True, slots=True)
class House:
    """A service with a scripted model, and a browser that is let in. Attributes: url: its address, without a slash at the end."""

    url: str
    page: Page
    api: httpx.AsyncClient
    project: Path
    rounds: int

    async def turn(self, prompt: str) -> dict[str, object]:
        """A task of the demo's project, once it has ended."""
        added = await self.api.post("/tasks", json={"project": PROJECT, "input": prompt})
        task: dict[str, object] = added.raise_for_status().json()
        while task["state"] in ("pending", "running"):
            await asyncio.sleep(0.1)
            task = (await self.api.get(f"/tasks/{task['id']}")).json()
        if task["state"] != "completed":
            raise RuntimeError(f"The turn that the measurement needs {task['state']}: {task['error']}")
        return task

    async def coder(self, *arguments: str) -> str:
        """What a command of the service's own `coder` prints."""
        place = {**os.environ, "CODER_DATA_DIR": str(self.project.parent)}
        return await asyncio.to_thread(subprocess.check_output, [sys.executable, "-m", "coder", *arguments], env=place, text=True)

    async def loaded(self, path: str, sign: str) -> float:
        """Milliseconds from a fresh load of an address until something that fits the CSS selector is painted."""
        times = []
        for _ in range(self.rounds):
            await self.page.goto(f"{self.url}{path}", wait_until="commit")
            times.append(float(await self.page.evaluate(PAINTED, [sign, None])))
        return median(times)

    async def opened(self, path: str, link: str, sign: str) -> float:
        """Milliseconds from a click on a link of a page until something that fits the CSS selector is painted."""
        times = []
        for _ in range(self.rounds):
            await self.page.goto(f"{self.url}{path}")
            await self.page.locator(link).first.wait_for()
            await self.page.wait_for_load_state("networkidle")
            times.append(float(await self.page.evaluate(PAINTED, [sign, link])))
        return median(times)

    async def scrolled(self, area: str, steps: int, wheel: int = WHEEL) -> float:
        """The longest task, as `tasks` counts them, while an area is scrolled with the wheel and jumped through."""
        box = await self.page.locator(area).first.bounding_box()
        assert box is not None, f"nothing fits {area}"
        await self.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        async with self.tasks() as tasks:
            for _ in range(steps):
                await self.page.mouse.wheel(0, wheel)
                await self.page.evaluate(FRAMES)
            for part in (0.9, 0.2, 0.6):
                await self.page.locator(area).first.evaluate("(at, part) => { at.scrollTop = part * at.scrollHeight; }", part)
                await self.page.evaluate(FRAMES)
        return max(tasks)

    @asynccontextmanager
    async def tasks(self) -> AsyncIterator[list[float]]:
        """What each task of the page's thread takes meanwhile, known once it is over: in milliseconds that this thread worked, so that
        what else runs on the machine is none of it."""
        tools = await self.page.context.new_cdp_session(self.page)
        seen: list[dict[str, Any]] = []
        took: list[float] = []
        over = asyncio.Event()
        tools.on("Tracing.dataCollected", lambda said: seen.extend(said["value"]))
        tools.on("Tracing.tracingComplete", lambda _: over.set())
        await tools.send("Tracing.start", {"transferMode": "ReportEvents", "traceConfig": {"includedCategories": ["toplevel"]}})
        yield took
        await tools.send("Tracing.end")
        await over.wait()
        await tools.detach()
        named = [each for each in seen if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"]
        threads = {(each["pid"], each["tid"]) for each in named}
        took += [each["tdur"] / 1000 for each in seen if "tdur" in each and (each["pid"], each["tid"]) in threads]


@asynccontextmanager
async def house(bed: Bed) -> AsyncIterator[House]:
    """Run `bin/up --demo` and a Chromium on it."""
    chromium = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if chromium is None:
        raise RuntimeError("There is no Chromium; install it (Debian: apt install chromium).")
    up, _, said = await asyncio.to_thread(start, bed.place / "panel", "--demo", until="demo:  see")
    words = {line.split()[0]: line.split()[1] for line in said if line.strip()}
    url = words["ready:"].rstrip("/")
    try:
        async with async_playwright() as playwright, httpx.AsyncClient(base_url=f"{url}/api/v1", timeout=60) as api:
            browser = await playwright.chromium.launch(executable_path=chromium)
            page = await browser.new_page(viewport={"width": 1440, "height": 900})
            page.set_default_timeout(PATIENCE_MS)
            await page.goto(words["panel:"])
            await page.get_by_role("heading", name="Inbox").wait_for()
            api.headers["Authorization"] = f"Bearer {words['token:']}"
            yield House(url, page, api, bed.place / "panel" / "demo-repository", 3 if bed.quick else 7)
            await browser.close()
    finally:
        await asyncio.to_thread(stop, up)


async def panel(bed: Bed) -> list[Figure]:
    """Reviews of 20,000 diff lines, a session of 5,000 messages, and a queue of 10,000 tasks."""
    async with house(bed) as at:
        return [*await review(at, 1), *await review(at, 200), *await session(at), *await queue(at)]


MESSAGES = 5_000


async def session(at: House) -> list[Figure]:
    """A session in which much was said: its newest messages are shown, older ones come while one scrolls up through all of them."""
    task = await at.turn("How it began\nsay: So it began.")
    url = await at.coder("db", "url")
    await asyncio.to_thread(spoken.fill, url.strip(), int(str(task["id"])), MESSAGES // 2 - 1)
    loaded = await at.loaded(f"/sessions/{task['session_id']}", "article")
    area = '[aria-label="Transcript"]'
    await at.page.wait_for_load_state("networkidle")
    upward = await at.scrolled(area, 400, -WHEEL)
    size = f"session of {MESSAGES:,} messages"
    return [
        Figure(f"{size}: loaded to painted", loaded, "ms"),
        Figure(f"{size}: longest task while scrolling up through them", upward, "ms", target=BLOCK_MS),
    ]


LINES = 20_000
GROUP = 26
"""Ten lines of forty are others: with three lines around them, a hunk."""


async def review(at: House, files: int) -> list[Figure]:
    """A change of 20,000 diff lines in so many files."""
    hunks = LINES // GROUP // files
    for number in range(files):
        text = "".join(f"def function_{line}(argument: int) -> str:  # {line}\n" for line in range(hunks * 40))
        place = at.project / f"of-{files}" / f"part_{number // 20}" / f"module_{number}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    await asyncio.to_thread(git, at.project, "add", "-A")
    await asyncio.to_thread(git, at.project, "commit", "-q", "-m", f"{files} files")
    edit = f"run: find of-{files} -name '*.py' -exec sed -i '0~40,+9s/argument: int/number: float/' {{}} +"
    task = await at.turn(f"Numbers in {files} files\n{edit}\nsay: Done.")
    change, sign = f"/changes/{task['change_id']}", "[data-line]"
    loaded, opened = await at.loaded(change, sign), await at.opened("/changes", f'a[href="{change}"]', sign)
    longest = await at.scrolled("[data-diff] > :last-child", 60)
    size = f"{LINES:,} diff lines, {files} {'file' if files == 1 else 'files'}"
    return [
        Figure(f"review of {size}: loaded to painted", loaded, "ms", target=PAINT_MS),
        Figure(f"review of {size}: clicked to painted", opened, "ms", target=PAINT_MS),
        Figure(f"review of {size}: longest task while scrolling", longest, "ms", target=BLOCK_MS),
    ]


TASKS = 10_000
QUEUED = f"""insert into tasks (project_id, input, run_at) select id, 'Fix the bug number ' || n, now() + interval '1 day'
    from projects, generate_series(1, {TASKS}) n where name = '{PROJECT}'"""
# As far down as there is anything, until all of it was read.
ALL = """async (most) => {
  const at = document.querySelector('[aria-label="Tasks"]');
  const read = () => Number(at.querySelector('ul').ariaLabel.replaceAll(/[^0-9]/g, ''));
  while (read() < most) {
    at.scrollTop = at.scrollHeight;
    await new Promise((next) => requestAnimationFrame(next));
  }
}"""


async def queue(at: House) -> list[Figure]:
    """The page of a queue of 10,000 tasks."""
    await at.coder("psql", "-qc", QUEUED)
    loaded = await at.loaded("/queue?state=pending", "[data-row]")
    async with at.tasks() as tasks:
        await at.page.evaluate(ALL, TASKS)
    longest = await at.scrolled('[aria-label="Tasks"]', 60)
    return [
        Figure(f"queue of {TASKS:,} tasks: loaded to painted", loaded, "ms", target=PAINT_MS),
        Figure(f"queue of {TASKS:,} tasks: longest task while all are read", max(tasks), "ms", target=BLOCK_MS),
        Figure(f"queue of {TASKS:,} tasks: longest task while scrolling", longest, "ms", target=BLOCK_MS),
    ]
