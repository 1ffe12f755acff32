"""Watchers for measurements, in a process of their own: `python -m tests.bench.watchers PORT COUNT FIRST`, sessions on standard input.

It opens COUNT sockets, each watching the session of its number modulo how many there are, and reads them with as little work as
possible. Commands come as lines: `count` answers how many frames came so far, `delays` the milliseconds since every time that
texts said (`@<CLOCK_MONOTONIC>@`), and forgets them.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

FRAME = b'"seq":'
STAMP = re.compile(rb"@(\d+\.\d+)@")
KEPT = 64


class Watcher(asyncio.Protocol):
    """A socket that counts."""

    def __init__(self, port: int, number: int, session: str, path: str) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.frames = 0
        self.delays: list[float] = []
        self._rest = self._tail = b""
        self._head = b""
        self._session = session
        self._number = number
        self._port = port
        self._path = path

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        transport.write(  # type: ignore[attr-defined]
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer bench\r\n\r\n".encode()
        )

    def say(self, operation: dict[str, object]) -> None:
        text = json.dumps(operation).encode()
        assert len(text) < 126, "one length byte"
        self._transport.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        if not self.opened.done():
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            assert b" 101 " in head, head
            self.opened.set_result(None)
            if self._session:
                self.say({"type": "hello", "client_id": f"watcher-{self._number:06}"})
                self.say({"type": "chat.subscribe", "session_id": self._session})
        # What the end of a chunk cut in two is found with the next; what was found is not found again.
        self.frames += (self._tail + data).count(FRAME)
        self._tail = data[-(len(FRAME) - 1) :]
        data, last = self._rest + data, 0
        for stamp in STAMP.finditer(data):
            self.delays.append((now - float(stamp[1])) * 1000)
            last = stamp.end()
        self._rest = data[max(last, len(data) - KEPT) :]


async def main(port: int, count: int, first: int, path: str, sessions: list[str]) -> None:
    loop = asyncio.get_running_loop()
    watchers = []
    for number in range(first, first + count):
        session = sessions[number % len(sessions)] if sessions else ""
        _, watcher = await loop.create_connection(lambda s=session, n=number: Watcher(port, n, s, path), "127.0.0.1", port)  # type: ignore[misc]
        await watcher.opened
        watchers.append(watcher)
    print("open", flush=True)
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        if line == "count":
            print(sum(watcher.frames for watcher in watchers), flush=True)
        else:
            print(json.dumps([round(delay, 3) for watcher in watchers for delay in watcher.delays]), flush=True)
            for watcher in watchers:
                watcher.delays.clear()


if __name__ == "__main__":
    port, count, first, path = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    asyncio.run(main(port, count, first, path, sys.stdin.readline().split()))
