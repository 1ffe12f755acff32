"""A faulty line between a node and PostgreSQL: a TCP proxy that delays, cuts, swallows, or loses one answer.

Faults are one way (`TO_SERVER`, `TO_CLIENT`) or both. It knows just enough of the frontend protocol (PostgreSQL manual,
"Message Formats") to tell when a statement is executed. It speaks no TLS: its DSN asks for none.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

TO_SERVER, TO_CLIENT = "to server", "to client"
BOTH = frozenset({TO_SERVER, TO_CLIENT})
READY = b"Z\x00\x00\x00\x05I"
DATA_ROW = ord("D")
CHUNK = 65536


class Statements:
    """Follows what a client sends: which statement is executed when."""

    def __init__(self) -> None:
        self._rest = b""
        self._begun = False
        self._texts: dict[bytes, bytes] = {}

    def executed(self, chunk: bytes) -> list[bytes]:
        """The texts of the statements that this chunk binds."""
        self._rest += chunk
        found = []
        while True:
            head = 1 if self._begun else 0  # the first message has no type
            if len(self._rest) < head + 4:
                return found
            size = head + struct.unpack_from("!i", self._rest, head)[0]
            if len(self._rest) < size:
                return found
            message, self._rest = self._rest[:size], self._rest[size:]
            kind, body = message[:head], message[head + 4 :]
            self._begun = True
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self._texts[name] = text
            elif kind == b"B":
                found.append(self._texts.get(body.split(b"\0", 2)[1], b""))


class Line:
    """One connection through the proxy. `swallowed` directions never deliver anything again."""

    def __init__(self, proxy: Proxy, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._writers = {TO_CLIENT: client, TO_SERVER: server}
        self._statements = Statements()
        self.swallowed: set[str] = set()
        self._answer = b""
        self.losing = False

    def cut(self) -> None:
        for writer in self._writers.values():
            writer.transport.abort()

    async def pump(self, reader: asyncio.StreamReader, direction: str) -> None:
        """Carry bytes one way until either end closes."""
        while chunk := await reader.read(CHUNK):
            if self._proxy.delay:
                await asyncio.sleep(self._proxy.delay)
            await self._proxy.open_ways[direction].wait()
            if direction == TO_SERVER:
                self._listen(chunk)
            elif self.losing:
                self._lose(chunk)
                continue
            if direction not in self.swallowed:
                self._writers[direction].write(chunk)
                await self._writers[direction].drain()
        # The end of a stream travels like the rest: not at all through a hole, late through a partition.
        if direction in self.swallowed:
            await asyncio.Event().wait()
        await self._proxy.open_ways[direction].wait()
        self._writers[direction].close()

    def _lose(self, chunk: bytes) -> None:
        """Collect the answer until it is whole, which is after the commit, then cut the line."""
        self._answer += chunk
        if self._answer.endswith(READY):
            at, self._proxy.lost_rows = 0, 0
            while at < len(self._answer):
                self._proxy.lost_rows += self._answer[at] == DATA_ROW
                at += 1 + int(struct.unpack_from("!i", self._answer, at + 1)[0])
            self._proxy.lost.set()
            self.cut()

    def _listen(self, chunk: bytes) -> None:
        wanted = self._proxy.wanted
        if any(wanted is not None and wanted in text for text in self._statements.executed(chunk)):
            self._proxy.wanted, self.losing = None, True


class Proxy:
    """Attributes: delay: seconds that each chunk waits; lost: set once an answer was lost, which had lost_rows; lines: the open ones."""

    def __init__(self, dsn: str) -> None:
        self._upstream = dsn
        self._serving: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.delay = 0.0
        self.refusing = False
        self.wanted: bytes | None = None
        self.lost = asyncio.Event()
        self.lost_rows = 0
        self.lines: set[Line] = set()
        self.open_ways = {direction: asyncio.Event() for direction in BOTH}
        self.heal()

    @property
    def dsn(self) -> str:
        """The database through this proxy."""
        assert self._serving is not None
        host, port = self._serving.sockets[0].getsockname()
        found = urlsplit(self._upstream)
        return f"postgresql://{found.username}:{found.password}@{host}:{port}{found.path}?sslmode=disable"

    def partition(self, ways: frozenset[str] = BOTH) -> None:
        """Hold everything that goes these ways, new connections included, as a broken network does."""
        for way in ways:
            self.open_ways[way].clear()

    def heal(self) -> None:
        """Let what was held go on."""
        self.refusing = False
        for way in self.open_ways.values():
            way.set()

    def swallow(self, ways: frozenset[str] = BOTH) -> None:
        """Lose for ever what goes these ways on the present lines, as a forgotten NAT entry does; new lines work."""
        for line in self.lines:
            line.swallowed |= ways

    def cut(self, *, refuse: bool = False) -> None:
        """Reset every line; with `refuse` new ones too, until `heal`."""
        self.refusing = refuse
        for line in list(self.lines):
            line.cut()

    def lose_answer_to(self, text: str) -> None:
        """Let the next statement that holds this text be carried out, swallow its answer and cut the line; then `lost` is set."""
        self.lost.clear()
        self.wanted = text.encode()

    async def _carry(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        if self.refusing:
            to_client.transport.abort()
            return
        try:
            from_server, to_server = await connect(self._upstream)
        except OSError:  # the server is away: the client sees a reset
            to_client.transport.abort()
            return
        line = Line(self, to_client, to_server)
        self.lines.add(line)
        ways = {
            asyncio.create_task(line.pump(from_client, TO_SERVER)),
            asyncio.create_task(line.pump(from_server, TO_CLIENT)),
        }
        self._pumps |= ways
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.lines.discard(line)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._pumps -= ways
            to_client.close()
            to_server.close()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        self._serving = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        try:
            yield self
        finally:
            self._serving.close()
            self.cut(refuse=True)
            for pump in self._pumps:
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)


async def connect(dsn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To the server of a DSN, by TCP, or by unix socket when its host is a directory."""
    found = urlsplit(dsn)
    given = {name: values[0] for name, values in parse_qs(found.query).items()}
    host, port = given.get("host", found.hostname or "127.0.0.1"), int(given.get("port", found.port or 5432))
    if host.startswith("/"):
        return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
    return await asyncio.open_connection(host, port)
