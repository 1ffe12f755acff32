"""Who comes back gets exactly what it missed, or is told that nobody knows any more."""

from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest
from agents.scripted import script
from livebench import LiveHouse

from coder.outbox import KEPT_MOST_SECONDS
from coder.runtime import clients as registry

TALK = script(["many", 30, 0.005, "a"], ["gate", "one"], ["many", 30, 0.005, "b"], ["gate", "two"], ["say", "c"])


@pytest.fixture
async def session(house: LiveHouse) -> str:
    return (await house.add(TALK))[1]


async def test_nothing_missed_is_current_and_goes_on(house: LiveHouse, session: str) -> None:
    server = await house.server()
    await house.node(server.watching)
    tab = house.tab(server.url)
    await tab.open()
    view = await tab.subscribe(session)
    await tab.until(lambda: view.turns and "a29" in view.text)
    await tab.cut()
    await tab.open()
    house.open_gate("one")
    house.open_gate("two")
    await tab.until(lambda: view.ended)
    assert tab.answers == ["current", "current"]
    assert view.histories == 1
    assert view.transcript == await house.transcript(session)


async def test_what_was_said_while_a_client_was_away_is_not_lost(house: LiveHouse, session: str) -> None:
    server = await house.server()
    await house.node(server.watching)
    tab, other = house.tab(server.url), house.tab(server.url)
    for each in (tab, other):
        await each.open()
        await each.subscribe(session)
    view = tab.views[session]
    await tab.until(lambda: view.turns and "a29" in view.text)
    await tab.cut()
    house.open_gate("one")
    house.open_gate("two")
    await other.until(lambda: other.views[session].ended)
    await tab.open()
    await tab.until(lambda: view.ended)
    assert (view.histories, tab.resets) == (1, 0)
    assert view.transcript == await house.transcript(session)


async def test_what_was_sent_and_lost_on_the_line_is_sent_again_with_its_numbers(house: LiveHouse, session: str) -> None:
    server = await house.server()
    await house.node(server.watching)
    tab = house.tab(server.url, acks=False)
    await tab.open()
    view = await tab.subscribe(session)
    seen = (tab.cursor or 0, len(view.frames), deepcopy(view.turns))
    await tab.until(lambda: view.turns and "a29" in view.text)
    await tab.cut()
    # As if the line had broken before any of it arrived.
    whole, tab.cursor = list(view.frames), seen[0]
    view.frames, view.turns = view.frames[: seen[1]], seen[2]
    await tab.open()
    assert tab.answers[-1] == "replay"
    await tab.until(lambda: view.turns and "a29" in view.text)
    assert view.frames == whole
    house.open_gate("one")
    house.open_gate("two")
    await tab.until(lambda: view.ended)
    assert view.transcript == await house.transcript(session)


@pytest.mark.parametrize("lie", ["future", "epoch", "pruned", "negative"])
async def test_what_nobody_knows_any_more_is_a_reset(house: LiveHouse, session: str, lie: str) -> None:
    server = await house.server()
    await house.node(server.watching)
    tab = house.tab(server.url, acks=lie != "pruned")
    await tab.open()
    view = await tab.subscribe(session)
    await tab.until(lambda: view.turns and "a29" in view.text)
    await tab.cut()
    if lie == "pruned":
        client = server.watching.clients._clients["admin", tab.client_id]
        client.outbox.prune(client.outbox.seen + KEPT_MOST_SECONDS + 60)
        await tab.open(since=1)
    elif lie == "epoch":
        await tab.open(epoch="00000000-0000-0000-0000-000000000000")
    else:
        await tab.open(since=10**9 if lie == "future" else -3)
    assert tab.answers[-1] == "reset"
    await tab.until(lambda: view.histories == 2)
    assert tab.resets == 1
    house.open_gate("one")
    house.open_gate("two")
    await tab.until(lambda: view.ended)
    assert view.transcript == await house.transcript(session)


async def test_an_acknowledgement_from_the_future_harms_nothing(house: LiveHouse, session: str) -> None:
    server = await house.server()
    await house.node(server.watching)
    tab = house.tab(server.url)
    await tab.open()
    view = await tab.subscribe(session)
    await tab.send({"type": "ack", "seq": 10**12})
    await tab.until(lambda: view.turns and "a29" in view.text)
    await tab.cut()
    await tab.open()
    house.open_gate("one")
    house.open_gate("two")
    await tab.until(lambda: view.ended)
    assert (tab.resets, view.histories) == (0, 1)
    assert view.transcript == await house.transcript(session)


async def test_a_duplicated_tab_closes_the_older_and_both_end_right(house: LiveHouse, session: str) -> None:
    server = await house.server()
    await house.node(server.watching)
    tab = house.tab(server.url)
    await tab.open()
    view = await tab.subscribe(session)
    await tab.until(lambda: view.turns and "a29" in view.text)
    copy = house.tab(server.url, client_id=tab.client_id)
    copy.epoch, copy.cursor, copy.wanted = tab.epoch, tab.cursor, {session}
    await copy.open()
    await tab.until(lambda: tab.closed)
    assert tab.end == (4409, "This client has opened a newer socket.")
    # A live client that gets 4409 takes a new id; the copy knows nothing of the session and asks for it.
    await tab.cut()
    tab.client_id, tab.epoch, tab.cursor = "another-tab", None, 0
    await tab.open()
    await tab.subscribe(session)
    await copy.subscribe(session)
    house.open_gate("one")
    house.open_gate("two")
    for each in (tab, copy):
        await each.until(lambda each=each: each.views[session].ended)
        assert each.views[session].transcript == await house.transcript(session)


async def test_a_client_that_is_idle_for_an_hour_is_forgotten_and_one_that_is_here_is_not(house: LiveHouse, session: str) -> None:
    server = await house.server()
    here, gone = house.tab(server.url), house.tab(server.url)
    for tab in (here, gone):
        await tab.open()
        await tab.subscribe(session)
    await gone.cut()
    known = server.watching.clients
    async with asyncio.timeout(20):
        while known._clients["admin", gone.client_id].socket is not None:  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0.01)
    for client in list(known._clients.values()):
        client.outbox.seen -= 3601
    known.clean()
    assert [client_id for _, client_id in known._clients] == [here.client_id]
    assert len(server.watching.hub.subscribers(session)) == 1
    await gone.open()
    assert gone.answers[-1] == "reset"


async def test_with_too_many_clients_those_that_are_away_make_room(house: LiveHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "CLIENTS", 2)
    server = await house.server()
    first, second, third, fourth = (house.tab(server.url) for _ in range(4))
    await first.open()
    await second.open()
    await second.cut()
    await third.open()
    assert len(server.watching.clients) == 2
    await fourth.open()
    assert fourth.end is not None
    assert fourth.end[0] == 4429
