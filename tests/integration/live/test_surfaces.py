"""The surface `cache-warming`: seen from every process, used by anybody, told after it was stored."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from agents.scripted import script
from livebench import LiveHouse
from tab import Tab

NAME = "cache-warming"


def about(session: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": f"surface.{kind}", "session_id": session, "surface": NAME, **more}


async def seen(house: LiveHouse, url: str, session: str) -> Tab:
    """A tab that sees the surface."""
    tab = house.tab(url)
    await tab.open()
    await tab.send(about(session, "subscribe"))
    await tab.until(lambda: tab.surfaces)
    return tab


def ahead(state: dict[str, Any]) -> bool:
    return datetime.fromisoformat(state["timer"]["next_warm_at"]) > datetime.now(UTC)


async def test_everybody_sees_it_switched_on_changed_and_off(house: LiveHouse) -> None:
    near, far = await house.server(), await house.server()
    _, session = await house.add(script(["say", "hello"]))
    tabs = [await seen(house, server.url, session) for server in (near, far)]
    for tab in tabs:
        (first,) = tab.surfaces
        assert (first["type"], first["session_id"], first["surface"]) == ("surface", session, NAME)
        assert (first["state"]["enabled"], first["state"]["interval_seconds"]) == (False, 240)
        assert first["state"]["timer"] == {"next_warm_at": None, "last_warm_at": None}
    for invoked, enabled, interval in (
        ({"action": "toggle"}, True, 240),
        ({"action": "interval", "value": 60}, True, 60),
        ({"action": "toggle", "value": False}, False, 60),
        ({"action": "toggle", "value": True}, True, 60),
        ({"action": "toggle"}, False, 60),
    ):
        before = [len(tab.surfaces) for tab in tabs]
        await tabs[0].send(about(session, "invoke", **invoked))
        for tab, count in zip(tabs, before, strict=True):
            await tab.until(lambda tab=tab, count=count: len(tab.surfaces) > count)
            update = tab.surfaces[-1]
            assert (update["type"], update["session_id"]) == ("surface_update", session)
            assert (update["state"]["enabled"], update["state"]["interval_seconds"]) == (enabled, interval)
            assert ahead(update["state"]) if enabled else update["state"]["timer"]["next_warm_at"] is None
    for tab in tabs:
        assert len(tab.surfaces) == 6
        assert tab.errors == []


async def test_the_timer_is_ahead_after_a_turn_and_the_update_says_so(house: LiveHouse) -> None:
    server = await house.server()
    await house.node(server.watching)
    task, session = await house.add(script(["say", "hello"], ["usage", 10, 4, 2]))
    await house.ended(task)
    tab = await seen(house, server.url, session)
    await tab.send(about(session, "invoke", action="toggle", value=True))
    await tab.until(lambda: len(tab.surfaces) == 2)
    await house.sql.execute("update cache_warming set next_warm_at = now() - interval '1 minute'")
    again, _ = await house.add(script(["say", "more"], ["usage", 10, 4, 2, 12]), session)
    await house.ended(again)
    await tab.until(lambda: ahead(tab.surfaces[-1]["state"]))
    assert await house.sql.fetchval("select next_warm_at > now() from cache_warming")


async def test_a_lost_line_stops_nothing_and_what_was_missed_comes_again(house: LiveHouse) -> None:
    server = await house.server()
    _, session = await house.add(script(["say", "hello"]))
    tab = await seen(house, server.url, session)
    await tab.send(about(session, "invoke", action="toggle", value=True))
    await tab.until(lambda: len(tab.surfaces) == 2)
    await tab.cut()
    assert await house.sql.fetchval("select enabled from cache_warming")
    await house.sql.execute("select coder.set_warming_interval($1, 30)", UUID(session))
    await tab.open()
    await tab.until(lambda: tab.surfaces[-1]["state"]["interval_seconds"] == 30)
    assert tab.answers[-1] in ("current", "replay")
    await house.sql.execute("select coder.close_session($1)", UUID(session))
    await tab.until(lambda: not tab.surfaces[-1]["state"]["enabled"])


async def test_who_unsubscribes_is_told_nothing_more(house: LiveHouse) -> None:
    server = await house.server()
    _, session = await house.add(script(["say", "hello"]))
    leaving, staying = [await seen(house, server.url, session) for _ in range(2)]
    await leaving.send(about(session, "unsubscribe"))
    await leaving.send({"type": "chat.subscribe", "session_id": str(uuid4())})  # answered after it
    await leaving.until(lambda: leaving.errors)
    await staying.send(about(session, "invoke", action="toggle"))
    await staying.until(lambda: len(staying.surfaces) == 2)
    assert len(leaving.surfaces) == 1


@pytest.mark.parametrize(
    ("operation", "code", "words"),
    [
        (about("S", "subscribe", surface="weather"), "invalid_input", "no surface 'weather'"),
        (about("S", "invoke", surface="weather", action="toggle"), "invalid_input", "no surface 'weather'"),
        (about("S", "invoke", action="burn"), "invalid_input", "'burn'"),
        (about("S", "invoke", action="toggle", value="on"), "invalid_input", "'on'"),
        (about("S", "invoke", action="toggle", value=1), "invalid_input", "toggle"),
        (about("S", "invoke", action="interval"), "invalid_input", "interval"),
        (about("S", "invoke", action="interval", value=True), "invalid_input", "interval"),
        (about("S", "invoke", action="interval", value=9.9), "invalid_input", "10 to 86400 seconds; 9.9 is not"),
        (about(str(UUID(int=7)), "subscribe"), "not_found", "no session"),
        (about(str(UUID(int=7)), "invoke", action="toggle"), "not_found", "no session"),
    ],
)
async def test_what_cannot_be_is_a_sentence(house: LiveHouse, operation: dict[str, Any], code: str, words: str) -> None:
    server = await house.server()
    _, session = await house.add(script(["say", "hello"]))
    tab = house.tab(server.url)
    await tab.open()
    about_it = session if operation["session_id"] == "S" else operation["session_id"]
    await tab.send({**operation, "session_id": about_it})
    await tab.until(lambda: tab.errors)
    (error,) = tab.errors
    assert (error["code"], error["about"], error["operation"]) == (code, about_it, operation["type"])
    assert words in error["message"]
    assert await house.sql.fetchval("select count(*) from cache_warming") == 0
