"""Bad clients are closed with a reason, and nobody else is affected."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from typing import Any
from uuid import UUID

import pytest
from agents.scripted import script
from livebench import LiveHouse
from rude import deaf, shout, still_well
from tab import TOKEN
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from coder.errors import Unavailable
from coder.frame_log import History
from coder.postgres.door import PostgresDoor
from coder.runtime.clients import SUBSCRIPTIONS
from coder.web import live

OPEN = script(["say", "hello"], ["gate", "go"], ["say", " again"])


async def refused(url: str, **given: Any) -> tuple[int, dict[str, Any]]:
    with pytest.raises(InvalidStatus) as refusal:
        await connect(url.replace("http", "ws") + "api/v1/ws", **given)
    response = refusal.value.response
    assert response.body is not None
    return response.status_code, json.loads(response.body)


async def test_without_a_token_from_another_origin_or_with_a_token_in_the_address_nobody_is_let_in(house: LiveHouse) -> None:
    server = await house.server()
    assert (await refused(server.url))[1]["code"] == "unauthorized"
    status, problem = await refused(server.url, subprotocols=["coder.v1", "bearer.wrong"])
    assert (status, problem["code"]) == (401, "unauthorized")
    with pytest.raises(InvalidStatus):
        await connect(server.url.replace("http", "ws") + f"api/v1/ws?token={TOKEN}")
    headers = {"Authorization": f"Bearer {TOKEN}"}
    status, problem = await refused(server.url, additional_headers=headers, origin="https://elsewhere.example")
    assert (status, problem["code"]) == (403, "foreign_origin")
    own = server.url.rstrip("/")
    async with connect(own.replace("http", "ws") + "/api/v1/ws", additional_headers=headers, origin=own) as line:  # type: ignore[arg-type]
        assert line.subprotocol is None


@pytest.mark.parametrize(
    ("garbage", "code"),
    [
        ("not json", 4400),
        (b"\x00\x01", 4400),
        ("[]", 4400),
        ("nul", 4400),
        (json.dumps({"type": "ack", "seq": 1, "x": "y" * 1_000_000}), 1009),
        ("x" * 1_000_000, 4400),
        ('{"type":"chat.send","text":"' + "x" * 5_000_000, 1009),
    ],
    ids=["words", "binary", "array", "broken", "long-operation", "long-garbage", "too-long"],
)
async def test_what_cannot_be_read_closes_the_socket_with_a_reason(house: LiveHouse, garbage: str | bytes, code: int) -> None:
    server = await house.server()
    tab, other = house.tab(server.url), house.tab(server.url)
    await tab.open()
    await other.open()
    with suppress(ConnectionClosed):  # what is too long is refused while it is still sent
        await tab.send(garbage)
    await tab.until(lambda: tab.closed)
    assert tab.end is not None
    assert tab.end[0] == code
    assert tab.end[1]
    await still_well(house, other)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        ({"type": "dance"}, "invalid_input"),
        ({}, "invalid_input"),
        ({"type": "ack"}, "invalid_input"),
        ({"type": "ack", "seq": -1}, "invalid_input"),
        ({"type": "ack", "seq": "1"}, "invalid_input"),
        ({"type": "pong", "extra": 1}, "invalid_input"),
        ({"type": "chat.subscribe", "session_id": "x"}, "invalid_input"),
        ({"type": "chat.subscribe", "session_id": "00000000-0000-0000-0000-000000000000"}, "not_found"),
        ({"type": "chat.send", "client_message_id": "m", "text": "x"}, "invalid_input"),
        ({"type": "chat.send", "client_message_id": "m", "text": "  ", "project": "shop"}, "invalid_input"),
        ({"type": "chat.send", "client_message_id": "m", "text": "a\0b", "project": "shop"}, "invalid_input"),
        ({"type": "chat.send", "client_message_id": "m", "text": "\ud800", "project": "shop"}, "invalid_input"),
        ({"type": "chat.send", "client_message_id": "m", "text": "x", "project": "nowhere"}, "not_found"),
        ({"type": "hello", "client_id": "abcdefgh"}, "invalid_input"),
        ({"type": "surface.subscribe", "session_id": "00000000-0000-0000-0000-000000000000", "surface": "x"}, "invalid_input"),
    ],
    ids=lambda given: given.get("type", "none") if isinstance(given, dict) else "",
)
async def test_an_operation_that_cannot_be_done_is_answered_with_a_sentence(house: LiveHouse, operation: dict[str, Any], code: str) -> None:
    server = await house.server()
    tab = house.tab(server.url)
    await tab.open()
    await tab.send(operation)
    if operation.get("text") == "\ud800":
        await tab.until(lambda: tab.errors or tab.closed)
        assert tab.closed or tab.errors[0]["code"] == code
        return
    await tab.until(lambda: tab.errors)
    error = tab.errors[0]
    assert (error["code"], error["operation"]) == (code, operation.get("type"))
    assert error["message"].endswith(".")
    await still_well(house, tab)


async def test_a_message_that_cannot_be_or_was_queued_before_opens_no_closed_session(house: LiveHouse) -> None:
    server = await house.server()
    _, session = await house.add("say nothing")
    tab = house.tab(server.url)
    await tab.open()
    sent = {"type": "chat.send", "client_message_id": "m", "text": "once", "session_id": session}
    await tab.send(sent)
    await tab.until(lambda: tab.accepted)
    await house.sql.execute("select coder.close_session($1)", UUID(session))
    await tab.send({**sent, "client_message_id": "n", "text": " "})
    await tab.send(sent)
    await tab.until(lambda: tab.errors and len(tab.accepted) == 2)
    assert await house.sql.fetchval("select status from sessions where id = $1", UUID(session)) == "closed"
    await tab.send({**sent, "client_message_id": "o"})
    await tab.until(lambda: len(tab.accepted) == 3)
    assert await house.sql.fetchval("select status from sessions where id = $1", UUID(session)) == "active"


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ('{"type": "pong"}', "The first message of a socket is `hello`; connect again and send it."),
        ('{"type": "hello", "client_id": "abcdefgh", "since": null}', "`since` is not acceptable: input should be a valid integer."),
    ],
    ids=["another", "wrong"],
)
async def test_a_first_message_that_is_no_hello_closes(house: LiveHouse, first: str, reason: str) -> None:
    server = await house.server()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with connect(server.url.replace("http", "ws") + "api/v1/ws", additional_headers=headers) as line:
        await line.send(first)
        await line.wait_closed()
        assert line.close_code == 4400
        assert line.close_reason == reason


async def test_a_socket_that_says_nothing_is_closed(house: LiveHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "HELLO_SECONDS", 0.2)
    server = await house.server()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with connect(server.url.replace("http", "ws") + "api/v1/ws", additional_headers=headers) as line:
        await line.wait_closed()
        assert (line.close_code, line.close_reason) == (4408, "No `hello` came within 0.2 s; send it first.")


async def new_sessions(house: LiveHouse, number: int) -> list[str]:
    query = "insert into sessions (project_id) select $1 from generate_series(1, $2::int) returning id"
    return [str(row["id"]) for row in await house.sql.fetch(query, house.project, number)]


async def test_a_flood_of_subscriptions_is_bounded_and_others_go_on(house: LiveHouse) -> None:
    server = await house.server()
    sessions = await new_sessions(house, SUBSCRIPTIONS + 50)
    tab, other = house.tab(server.url), house.tab(server.url)
    await tab.open()
    await other.open()
    tab.wanted |= set(sessions)
    for session in sessions:
        await tab.send({"type": "chat.subscribe", "session_id": session})
    await still_well(house, other)
    await tab.until(lambda: len(tab.errors) == 50)
    assert {error["code"] for error in tab.errors} == {"too_many"}
    assert len(tab.views) == SUBSCRIPTIONS
    for _ in range(1_000):
        await tab.send({"type": "chat.subscribe", "session_id": sessions[0]})
    await other.send({"type": "chat.unsubscribe", "session_id": sessions[0]})
    await still_well(house, other)
    await tab.until(lambda: tab.views[sessions[0]].histories > 100)


@pytest.mark.parametrize(
    "operation",
    [{"type": "chat.subscribe"}, {"type": "surface.subscribe", "surface": "cache-warming"}, {"type": "dance"}],
    ids=["sessions", "surfaces", "garbage"],
)
async def test_ten_thousand_subscriptions_or_refusals_end_the_socket_and_nobody_else(house: LiveHouse, operation: dict[str, str]) -> None:
    server = await house.server()
    sessions = await new_sessions(house, 500)
    tab, other = house.tab(server.url), house.tab(server.url)
    await tab.open()
    await other.open()
    tab.wanted |= set(sessions)
    with suppress(ConnectionClosed):  # before it has asked for all
        for session in sessions * 20:
            await tab.send({**operation, "session_id": session})
            await tab.send({"type": "ack", "seq": 0})
    await tab.until(lambda: tab.closed)
    assert tab.end is not None
    assert tab.end[0] == 4429
    assert tab.end[1].startswith(f"{live.REFUSED_MOST} operations in a row were refused; the last: ")
    assert len(tab.errors) <= live.REFUSED_MOST  # what was not sent by then is not waited for
    await still_well(house, other)


async def test_refusals_with_something_done_in_between_end_nothing(house: LiveHouse) -> None:
    server = await house.server()
    _, session = await house.add("say nothing")
    tab = house.tab(server.url)
    await tab.open()
    for _ in range(3):
        for _ in range(live.REFUSED_MOST - 50):
            await tab.send({"type": "dance"})
        await tab.subscribe(session)
    assert tab.closed is None


async def test_a_client_that_never_reads_and_subscribes_on_and_on_fills_no_memory(house: LiveHouse) -> None:
    server = await house.server(ping=1.0)
    task, session = await house.add("x" * 1_000_000)
    await house.sql.execute("update tasks set cancel_requested_at = now() where id = $1", task)
    await house.sql.execute("select coder.queue_message($1, $2) from generate_series(1, 3)", UUID(session), "x" * 1_000_000)
    other = house.tab(server.url)
    await other.open()
    raw = await deaf(server.url)
    await shout(raw, {"type": "hello", "client_id": "never-reads"})
    read = 0
    history = server.watching._sessions.history

    async def counted(session: str) -> History:
        nonlocal read
        read += 1
        return await history(session)

    server.watching._sessions.history = counted  # type: ignore[method-assign]
    for _ in range(100):
        await shout(raw, {"type": "chat.subscribe", "session_id": session})
    async with asyncio.timeout(20):
        while not read or len(server.watching.clients) < 2:  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0.02)
        client = server.watching.clients._clients["admin", "never-reads"]
        while client.socket is not None:
            with suppress(OSError):
                await shout(raw, {"type": "pong"})
            await asyncio.sleep(0.02)
    assert read <= 10
    raw.close()
    await still_well(house, other)


async def test_a_client_that_gives_no_sign_of_life_is_closed_and_one_that_answers_stays(house: LiveHouse) -> None:
    server = await house.server(ping=0.2)
    dead, alive = house.tab(server.url), house.tab(server.url)
    dead.pongs = False
    await dead.open()
    await alive.open()
    await dead.until(lambda: dead.closed)
    assert dead.end == (4408, "Nothing was heard of this client for 0.4 s.")
    await alive.until(lambda: alive.pings >= 5)
    await still_well(house, alive)


async def test_a_client_that_never_reads_is_dropped_and_nobody_waits_for_it(house: LiveHouse) -> None:
    server = await house.server(ping=2.0)
    await house.node(server.watching)
    big = script(["big", 30, 200_000], ["gate", "go"], ["say", "done"])
    _, session = await house.add(big)
    raw = await deaf(server.url)
    for operation in ({"type": "hello", "client_id": "never-reads"}, {"type": "chat.subscribe", "session_id": session}):
        await shout(raw, operation)
    tab = house.tab(server.url)
    await tab.open()
    view = await tab.subscribe(session)
    await tab.until(lambda: sum(frame["type"] == "tool_call" for frame in view.frames) >= 30)
    house.open_gate("go")
    await tab.until(lambda: view.ended)
    assert view.transcript == await house.transcript(session)
    client = server.watching.clients._clients["admin", "never-reads"]
    async with asyncio.timeout(20):
        while client.socket is not None:  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0.02)
    raw.close()


async def test_who_asks_and_reads_no_answer_is_dropped(house: LiveHouse) -> None:
    server = await house.server(ping=2.0)
    other = house.tab(server.url)
    await other.open()
    raw = await deaf(server.url)
    await shout(raw, {"type": "hello", "client_id": "asks-only"})
    with suppress(OSError):  # dropped while it still asks
        for number in range(100_000):
            await shout(raw, {"type": "chat.subscribe", "session_id": f"{number}"})
    client = server.watching.clients._clients["admin", "asks-only"]
    async with asyncio.timeout(20):
        while client.socket is not None:  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0.02)
    raw.close()
    await still_well(house, other)


async def test_sockets_are_bounded_and_one_that_leaves_makes_room(house: LiveHouse) -> None:
    server = await house.server(max_sockets=2)
    first, second = house.tab(server.url), house.tab(server.url)
    await first.open()
    await second.open()
    status, problem = await refused(server.url, additional_headers={"Authorization": f"Bearer {TOKEN}"})
    assert (status, problem["code"]) == (429, "too_many")
    assert "CODER_MAX_SOCKETS" in problem["detail"]
    await still_well(house, first)
    await second.cut()
    third = house.tab(server.url)
    async with asyncio.timeout(20):
        while True:
            with suppress(InvalidStatus):  # it is not known yet that the second has gone
                await third.open()
                break
            await asyncio.sleep(0.02)
    await still_well(house, third)
    await still_well(house, first)


@pytest.mark.parametrize("busy", [False, True], ids=["silent", "asking"])
async def test_a_token_that_is_revoked_loses_its_open_sockets_and_no_other(house: LiveHouse, busy: bool) -> None:
    token = "another-token"
    await house.sql.execute("insert into api_tokens (name, hash) values ('guest', $1)", hashlib.sha256(token.encode()).digest())
    server = await house.server(ping=25.0 if busy else 0.3)
    guest, other = house.tab(server.url, token=token), house.tab(server.url)
    await guest.open()
    await other.open()
    await still_well(house, guest)
    await house.sql.execute("update api_tokens set revoked_at = now() where name = 'guest'")
    async with asyncio.timeout(20):
        while busy and not guest.closed:
            with suppress(ConnectionClosed):
                await guest.send({"type": "chat.unsubscribe", "session_id": "00000000-0000-0000-0000-000000000000"})
            await asyncio.sleep(0.1)
    await guest.until(lambda: guest.closed)
    assert guest.end == (4401, "The token or login of this socket holds no longer; connect again with another.")
    await still_well(house, other)
    status, problem = await refused(server.url, subprotocols=["coder.v1", f"bearer.{token}"])
    assert (status, problem["code"]) == (401, "unauthorized")


async def test_a_database_that_is_away_closes_no_socket(house: LiveHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await house.server(ping=0.2)
    tab = house.tab(server.url)
    await tab.open()
    asked = 0

    async def away(self: PostgresDoor, statement: str, **parameters: Any) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        raise Unavailable("The database is away.")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresDoor, "row", away)
        await tab.until(lambda: asked >= 3)
    await still_well(house, tab)


async def test_two_tabs_of_one_browser_do_not_disturb_each_other(house: LiveHouse) -> None:
    server = await house.server()
    await house.node(server.watching)
    _, session = await house.add(OPEN)
    first, second = house.tab(server.url), house.tab(server.url)
    for tab in (first, second):
        await tab.open()
        await tab.subscribe(session)
        await tab.until(lambda tab=tab: tab.views[session].turns and tab.views[session].text == "hello")
    await first.send({"type": "ack", "seq": 10**9})
    await first.send({"type": "chat.unsubscribe", "session_id": session})
    await first.cut()
    await first.open(epoch="00000000-0000-0000-0000-000000000000")
    house.open_gate("go")
    for tab in (first, second):
        await tab.until(lambda tab=tab: tab.views[session].ended or len(tab.views[session].messages) == 2)
        assert tab.views[session].transcript == await house.transcript(session)
    assert (second.resets, second.views[session].histories, second.closed) == (0, 1, None)
