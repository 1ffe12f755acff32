"""The panel's client of the live view against real APIs: the same transcript as is stored, whatever happens to its line.

The client runs in Node with a clock that is twenty times as fast, so that it comes back after 50 to 500 ms.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import panel
import pytest
import pytest_asyncio
from agents.scripted import script
from livebench import LiveHouse
from tab import PATIENCE_SECONDS, TOKEN, entry

TALK = script(
    ["think", "Hm. "], ["many", 20, 0.005, "a"], ["tool", "t1", "running", ""], ["gate", "one"], ["tool", "t1", "completed", "out"],
    ["many", 20, 0.005, "b"], ["gate", "two"], ["say", "c"],
)  # fmt: skip


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return panel.program("tab", tmp_path_factory.mktemp("panel"))


class PageTab:
    """A tab that runs the panel's client. Attributes: shown: what it shows now."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.shown: dict[str, Any] = {"state": "closed", "views": {}}

    async def ask(self, **command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def until(self, fact: Callable[[], Any]) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not fact():
                line = await self._process.stdout.readline()
                assert line, "the tab has ended"
                self.shown = json.loads(line)

    def view(self, session: str) -> dict[str, Any]:
        none: dict[str, Any] = {"histories": 0, "transcript": [], "running": False, "queued": [], "sending": []}
        return self.shown["views"].get(session, none)  # type: ignore[no-any-return]

    def transcript(self, session: str) -> list[tuple[Any, ...]]:
        return [entry(message) for message in self.view(session)["transcript"]]

    def text(self, session: str) -> str:
        return "".join(message["text"] or "" for message in self.view(session)["transcript"] if message["role"] == "assistant")


@pytest_asyncio.fixture
async def tabs(program: Path) -> AsyncIterator[Callable[[str], Any]]:
    processes: list[asyncio.subprocess.Process] = []

    async def tab(url: str) -> PageTab:
        address = url.replace("http", "ws").rstrip("/") + "/api/v1/ws"
        process = await asyncio.create_subprocess_exec(
            "node", "--experimental-websocket", str(program), address, TOKEN, "20",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**26,
        )  # fmt: skip
        processes.append(process)
        return PageTab(process)

    yield tab
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def test_whenever_it_joins_and_whatever_is_cut_it_shows_what_is_stored(house: LiveHouse, tabs: Callable[[str], Any]) -> None:
    server = await house.server()
    await house.node(server.watching)
    _, session = await house.add(TALK)
    early, middle, late = [await tabs(server.url) for _ in range(3)]
    await early.ask(do="watch", session=session)
    await early.until(lambda: "a19" in early.text(session))
    await early.ask(do="cut")
    await middle.ask(do="watch", session=session)
    await middle.until(lambda: "a19" in middle.text(session))
    assert middle.view(session)["running"]
    house.open_gate("one")
    await early.until(lambda: "b19" in early.text(session))
    await early.ask(do="cut")
    house.open_gate("two")
    for tab in (early, middle):
        await tab.until(lambda tab=tab: tab.text(session).endswith("c") and not tab.view(session)["running"])
    await late.ask(do="watch", session=session)
    await late.until(lambda: late.text(session).endswith("c"))
    stored = await house.transcript(session)
    assert early.transcript(session) == middle.transcript(session) == late.transcript(session) == stored
    assert early.view(session)["histories"] == 1  # what it missed came again, nothing else


async def test_a_message_typed_while_the_line_is_cut_is_queued_once(house: LiveHouse, tabs: Callable[[str], Any]) -> None:
    server = await house.server()
    await house.node(server.watching)
    _, session = await house.add(TALK)
    tab = await tabs(server.url)
    await tab.ask(do="watch", session=session)
    await tab.until(lambda: "a19" in tab.text(session))
    await tab.ask(do="cut")
    await tab.ask(do="send", session=session, text=script(["say", "second"]))
    assert await tab.until(lambda: tab.view(session)["sending"]) is None
    await tab.until(lambda: tab.view(session)["queued"])
    assert tab.view(session)["sending"] == []
    house.open_gate("one")
    house.open_gate("two")
    await tab.until(lambda: tab.text(session).endswith("second") and not tab.view(session)["running"])
    assert tab.transcript(session) == await house.transcript(session)
    assert await house.sql.fetchval("select count(*) from tasks") == 2


async def test_another_process_in_place_of_the_one_it_knew(house: LiveHouse, tabs: Callable[[str], Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = str(listening.getsockname()[1])
    api = await house.process("api", port=port)
    await house.node()
    _, session = await house.add(TALK)
    tab = await tabs(api.url)
    await tab.ask(do="watch", session=session)
    await tab.until(lambda: "a19" in tab.text(session))
    await api.kill()
    await tab.until(lambda: tab.shown["state"] == "waiting")
    house.open_gate("one")
    house.open_gate("two")
    await house.process("api", port=port)
    await tab.until(lambda: tab.text(session).endswith("c") and not tab.view(session)["running"])
    assert tab.view(session)["histories"] >= 2
    assert tab.transcript(session) == await house.transcript(session)
