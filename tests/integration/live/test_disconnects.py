"""Random disconnects: whatever line breaks when, and whichever API dies, every client ends with exactly what is stored.

The tabs themselves fail at a number out of order, a turn that starts twice, or a frame of a session they did not ask for.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest
from agents.scripted import script
from livebench import LiveHouse, Process, free_port
from tab import Tab
from websockets.exceptions import ConnectionClosed, InvalidHandshake

SEED = 20260301
SESSIONS = 5


@dataclass
class Count:
    left: int
    answers: int = 0


def talk(rng: random.Random) -> str:
    steps: list[list[object]] = [["think", "hm "]]
    for number in range(rng.randint(1, 4)):
        steps += [["many", rng.randint(1, 15), 0.005, f"w{number}."], ["tool", f"t{number}", "running", ""]]
        steps.append(["tool", f"t{number}", rng.choice(["completed", "failed"]), "out" * rng.randint(0, 50)])
    return script(*steps)


async def roam(tab: Tab, urls: list[str], sessions: list[str], rng: random.Random, count: Count) -> None:
    """Connect to either API, watch for a moment, lose the line; as long as there are disconnects left."""
    while count.left > 0:
        tab.url = f"ws{rng.choice(urls).removeprefix('http')}api/v1/ws"
        try:
            await tab.open()
            if not tab.closed:
                missing = [session for session in sessions if session not in tab.wanted]
                tab.wanted.update(missing)
                tab.unanswered.update(missing)
                for session in missing:
                    await tab.send({"type": "chat.subscribe", "session_id": session})
                await asyncio.sleep(rng.uniform(0, 0.15))
                count.left -= 1
        except (OSError, ConnectionClosed, InvalidHandshake):
            await asyncio.sleep(0.05)  # the API is being restarted
        await tab.cut()


async def agrees(tab: Tab, session: str, stored: list[tuple[object, ...]]) -> None:
    """Wait until a tab shows what is stored, the newest 200 messages of it. One that the server closes comes back, as any client."""

    def shows() -> bool:
        return session in tab.views and tab.views[session].transcript[-200:] == stored[-200:]

    try:
        while not shows():
            await tab.until(lambda: shows() or tab.closed)
            if tab.closed:
                print(f"{tab.client_id} was closed: {tab.end}")
                await tab.cut()
                await tab.open()
    except TimeoutError:
        view = tab.views.get(session)
        print(f"{tab.client_id} {session}: unanswered {tab.unanswered}, {tab.answers[-5:]}, errors {tab.errors[-3:]}, closed {tab.closed}")
        print(f"shown {view and view.transcript[-3:]}\nstored {stored[-3:]}\nlast frames {view and view.frames[-5:]}")
        raise


async def wander(house: LiveHouse, disconnects: int, clients: int) -> dict[str, int]:
    rng = random.Random(SEED)
    ports = [free_port(), free_port()]
    first, second = await asyncio.gather(*(house.process("api", port=str(port)) for port in ports))
    apis: list[Process] = [first, second]
    urls = [api.url for api in apis]
    await house.node()
    sessions = [(await house.add(talk(rng)))[1] for _ in range(SESSIONS)]
    count, tabs = Count(disconnects), [house.tab(urls[0]) for _ in range(clients)]
    stopped = asyncio.Event()

    async def work() -> None:
        """Never let a session run dry."""
        while not stopped.is_set():
            if await house.sql.fetchval("select count(*) from tasks where state = 'pending'") < SESSIONS:
                for session in sessions:
                    await house.add(talk(rng), session)
            await asyncio.sleep(0.05)

    async def murder() -> None:
        """Kill one API when a third of the disconnects are over, start it again, and so once more."""
        for share in (2 / 3, 1 / 3):
            while count.left > disconnects * share:  # noqa: ASYNC110 - what happens meanwhile is what counts
                await asyncio.sleep(0.02)
            await apis[0].kill()
            apis[0] = await house.process("api", port=str(ports[0]))

    working = asyncio.create_task(work())
    wishes = [rng.sample(sessions, rng.randint(1, SESSIONS)) for _ in tabs]
    roaming = [roam(tab, urls, wish, random.Random(rng.random()), count) for tab, wish in zip(tabs, wishes, strict=True)]
    await asyncio.gather(murder(), *roaming)
    stopped.set()
    await working
    await house.until("select not exists (select from tasks where state in ('pending', 'running'))")
    stored = {session: await house.transcript(session) for session in sessions}
    for tab, wish in zip(tabs, wishes, strict=True):
        tab.url = f"ws{rng.choice(urls).removeprefix('http')}api/v1/ws"
        await tab.open()
        for session in wish:
            await agrees(tab, session, stored[session])
        assert tab.wanted == set(wish)
    kinds = [answer for tab in tabs for answer in tab.answers]
    summary = {kind: kinds.count(kind) for kind in ("current", "replay", "reset")}
    summary["turns"] = await house.sql.fetchval("select count(*) from tasks")
    summary["frames"] = sum(len(view.frames) for tab in tabs for view in tab.views.values())
    print(f"{disconnects} disconnects of {clients} clients: {summary}")
    return summary


async def test_300_disconnects_of_20_clients_with_an_api_killed_and_started_again(house: LiveHouse) -> None:
    summary = await wander(house, 300, 20)
    assert all(summary[kind] for kind in ("current", "replay", "reset")), summary


@pytest.mark.long
async def test_10_000_disconnects_of_200_clients(house: LiveHouse) -> None:
    summary = await wander(house, 10_000, 200)
    assert all(summary[kind] for kind in ("current", "replay", "reset")), summary
