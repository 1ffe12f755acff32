"""Floods of WebSocket frames that carry nothing: they end with a reason, take a moment at a time, and fill no memory."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import Any

import pytest
import uvicorn
from livebench import LiveHouse
from rude import deaf, still_well
from uvicorn.server import ServerState

from coder.web import protocol

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, PIECE, PING, PONG = b"\x01", b"\x00", b"\x89", b"\x8a"


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return kind + bytes([0x80 | len(payload)]) + b"\0\0\0\0" + payload


@pytest.mark.parametrize(
    "flood", [frame(PIECE), frame(PING), frame(PING, b"x" * 125), frame(PONG)], ids=["pieces", "pings", "long", "pongs"]
)
async def test_frames_without_a_message_end_the_connection_and_nobody_elses(house: LiveHouse, flood: bytes) -> None:
    server = await house.server()
    other = house.tab(server.url)
    await other.open()
    raw = await deaf(server.url)
    loop = asyncio.get_running_loop()
    with suppress(OSError):  # it ends before all was sent
        await loop.sock_sendall(raw, frame(TEXT) + flood * 100_000)
    said = b""
    with suppress(OSError):
        async with asyncio.timeout(20):
            while more := await loop.sock_recv(raw, 65_536):
                said = (said + more)[-1_000:]
    raw.close()
    await still_well(house, other)
    if PING not in flood:  # of those, the answers may be all it got to read
        assert struct.pack(">H", 4429) + b"10000 frames came without a message; send fewer pings and larger pieces." in said


class Transport:
    """A connection that takes what is written and reads nothing."""

    def __init__(self) -> None:
        self.paused = False
        self.written = 0
        self.closed = False

    def get_extra_info(self, name: str) -> Any:
        return None

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


async def app(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] == "websocket.receive":
        pass


@pytest.fixture
async def connection() -> tuple[protocol.ImpatientProtocol, Transport]:
    """One that is open."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", **protocol.SETTINGS)
    made, transport = protocol.ImpatientProtocol(config, ServerState(), {}), Transport()
    made.connection_made(transport)  # type: ignore[arg-type]
    made.data_received(HANDSHAKE)
    async with asyncio.timeout(20):
        while not made.handshake_complete:  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0)
    return made, transport


async def test_others_have_their_turn_while_much_is_read(connection: tuple[protocol.ImpatientProtocol, Transport]) -> None:
    made, transport = connection
    most = protocol.READ_BYTES // len(frame(PONG))
    made.data_received(frame(PONG) * 8_000)
    assert transport.paused
    turns, seen = 0, made._empty
    async with asyncio.timeout(20):
        while transport.paused:
            await asyncio.sleep(0)
            assert made._empty - seen <= most + 1
            turns, seen = turns + 1, made._empty
    assert made._empty == 8_000
    assert turns >= 8_000 // (most + 1)
    assert not transport.closed


async def test_messages_in_much_that_is_read_are_whole_and_in_order(connection: tuple[protocol.ImpatientProtocol, Transport]) -> None:
    made, transport = connection
    got: list[str] = []
    take = made.queue.put_nowait
    made.queue.put_nowait = lambda event: (got.append(str(event.get("text"))), take(event))[1]  # type: ignore[method-assign, func-returns-value]
    texts = [f"message {number} ".encode() * 8 for number in range(500)]
    whole = b"".join(frame(b"\x81", text) for text in texts)
    for at in range(0, len(whole), 20_000):
        made.data_received(whole[at : at + 20_000])
    async with asyncio.timeout(20):
        while len(got) < len(texts) or transport.paused:  # noqa: ASYNC110 - nobody says so
            await asyncio.sleep(0)
    assert got == [text.decode() for text in texts]


async def test_pings_are_answered_to_who_reads_the_answers(connection: tuple[protocol.ImpatientProtocol, Transport]) -> None:
    made, transport = connection
    before = transport.written
    made.data_received(frame(PING, b"there?"))
    assert transport.written - before == len(b"\x8a\x06there?")
    made.pause_writing()
    before = transport.written
    for _ in range(30):
        made.data_received(frame(PING, b"x" * 100) * 30 + frame(b"\x81", b"{}"))
    assert transport.written == before
    made.resume_writing()
    made.data_received(frame(PING, b"there?"))
    assert transport.written - before == len(b"\x8a\x06there?")
