"""A link to a PostgreSQL server that can be cut or go silent: a small TCP proxy in this process."""

from __future__ import annotations

import asyncio
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

from psycopg.conninfo import conninfo_to_dict


class Link:
    """Forwards between `dsn` and the server of the DSN it is made with. Use as an async context."""

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._given = urlsplit(dsn)
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._accepted: asyncio.Queue[None] = asyncio.Queue()
        self.dsn = ""

    async def __aenter__(self) -> Link:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        account = self._given.netloc.rpartition("@")[0]
        self.dsn = urlunsplit(self._given._replace(netloc=f"{account}@127.0.0.1:{port}", query=""))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Swallow nothing and pass on nothing, as a network that drops packets does; connections stay open."""
        self._open.clear()

    def restore(self) -> None:
        self._open.set()

    async def connected(self, seconds: float) -> None:
        """Wait for the next connection that nobody has waited for yet."""
        async with asyncio.timeout(seconds):
            await self._accepted.get()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = str(self._target.get("host", "")), self._target.get("port", 5432)
        if host.startswith("/"):
            far = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        else:
            far = await asyncio.open_connection(host or "127.0.0.1", int(port or 5432))
        self._writers |= {writer, far[1]}
        self._accepted.put_nowait(None)
        for source, sink in ((reader, far[1]), (far[0], writer)):
            pump = asyncio.create_task(self._pump(source, sink))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while chunk := await source.read(65536):
                await self._open.wait()
                sink.write(chunk)
        except OSError:
            return  # the other side has gone; so do we
        finally:
            sink.close()
