"""The API behind a real uvicorn on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import httpx
import pytest
import uvicorn
from standin import TOKEN
from web_client import Api


@pytest.fixture
async def address(api: Api) -> AsyncIterator[str]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_a_task_over_a_socket(address: str) -> None:
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        added = await client.post("/api/v1/tasks", json={"project": "demo", "input": "naïve 🦆"})
        assert added.status_code == 201
        assert (await client.get(added.headers["location"])).json()["input"] == "naïve 🦆"
        assert (await client.get("/api/v1/projects/caf%C3%A9")).json()["detail"].startswith("There is no project café")


async def test_a_body_that_is_too_large_is_refused_unread(address: str) -> None:
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        f"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 5000000000\r\n\r\n{{".encode()
    )
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413")
    writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(address: str, api: Api) -> None:
    host, port = address.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST /api/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n{{".encode())
    await writer.drain()
    writer.transport.abort()
    async with httpx.AsyncClient(base_url=address) as client:
        assert (await client.get("/ready")).status_code == 200
    assert api.node.run("select from tasks") == []
