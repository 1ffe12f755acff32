"""Clients without manners, and whether the others notice."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from typing import Any

from livebench import LiveHouse
from tab import TOKEN, Tab


async def still_well(house: LiveHouse, other: Tab) -> None:
    _, session = await house.add("say nothing")
    await other.subscribe(session)
    assert other.closed is None


async def deaf(url: str) -> sockets.socket:
    """A WebSocket whose other side takes nothing but its handshake."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    raw = sockets.socket()
    raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, (host, int(port)))
    handshake = (
        f"GET /api/v1/ws HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    )
    await loop.sock_sendall(raw, handshake.encode())
    assert b" 101 " in await loop.sock_recv(raw, 4096)
    return raw


async def shout(raw: sockets.socket, operation: dict[str, Any]) -> None:
    text = json.dumps(operation).encode()
    await asyncio.get_running_loop().sock_sendall(raw, bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
