"""The line to the live view: a client of `/api/v1/ws` (docs/wire.md) that goes on where it broke.

It says which frames it has, answers pings, subscribes again after a `reset`, and sends again what was not answered. Frames come
out in order and, but for what a `session_history` begins anew, once. Who reads them has to bear that a session is told again
from its history on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from coder.cli.desk import LOOPBACK, PATIENCE_SECONDS
from coder.errors import CoderError, InvalidInput, NotFound, Unauthorized, Unavailable

ACK_SECONDS = 5.0
CLOSE_SECONDS = 1.0
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
FINAL = {1009: InvalidInput, 4400: InvalidInput, 4401: Unauthorized}
"""Close codes after which the same again would end the same."""
NEWER = 4409

Broken = (OSError, ConnectionClosed, InvalidHandshake, TimeoutError)


class Line:
    """One client.

    Args:
        where: the address of a coder (`http://host:port`) and a token for it, asked for before each connection: one that was
            started again may have others.
        broke, back: told that the line is gone, and that it holds again.
    """

    def __init__(self, where: Callable[[], tuple[str, str]], broke: Callable[[], None], back: Callable[[], None]) -> None:
        self._where = where
        self._broke = broke
        self._back = back
        self._socket: ClientConnection | None = None
        self._known = False
        self._wanted: set[str] = set()
        self._unanswered: set[str] = set()
        self._refused: set[str] = set()
        self._unsent: dict[str, dict[str, Any]] = {}
        self._start_anew()

    def _start_anew(self) -> None:
        self._client_id = uuid4().hex
        self._epoch: str | None = None
        self._cursor = 0

    async def watch(self, session: str) -> None:
        """Subscribe to a session; its history comes among the frames."""
        self._wanted.add(session)
        self._unanswered.add(session)
        await self._send({"type": "chat.subscribe", "session_id": session})

    async def say(self, operation: dict[str, Any]) -> None:
        """Queue a message (`chat.send`); it is sent until it was answered by `accepted` or an `error`."""
        self._unsent[operation["client_message_id"]] = operation
        await self._send(operation)

    async def frames(self) -> AsyncGenerator[dict[str, Any], None]:
        """Everything the client is told, until whoever reads it stops.

        Raises:
            Unavailable: nothing could be reached for so long, or nothing at all.
            Unauthorized: the token is not known.
            NotFound: a session that is to be watched does not exist there.
        """
        pause, deadline = FIRST_PAUSE, 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with await self._connect() as self._socket:
                    acks = asyncio.create_task(self._keep_up())
                    try:
                        async for message in self._socket:
                            content = orjson.loads(message)
                            for frame in content if isinstance(content, list) else [content]:
                                if frame["type"] == "hello":
                                    pause, deadline = FIRST_PAUSE, 0.0
                                await self._take(frame)
                                yield frame
                    finally:
                        acks.cancel()
                self._judge(self._socket.close_code, self._socket.close_reason)
                gone = self._gone("it was closed")
            except Broken as error:
                if isinstance(error, ConnectionClosed) and error.rcvd is not None:
                    self._judge(error.rcvd.code, error.rcvd.reason)
                gone = self._gone(str(error) or type(error).__name__)
            except Unavailable as error:  # no service runs here at this moment
                gone = error
            if self._socket is not None and not deadline:
                self._broke()
            self._socket = None
            deadline = deadline or loop.time() + PATIENCE_SECONDS
            if not self._known or loop.time() > deadline:
                raise gone
            await asyncio.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, LONGEST_PAUSE)

    def _gone(self, why: str) -> Unavailable:
        return Unavailable(f"The live view of coder cannot be reached ({why}); start it with `coder up`, or correct CODER_URL.")

    async def _connect(self) -> ClientConnection:
        """A socket on which `hello` was said; its answer is the first frame."""
        url, token = self._where()
        host = urlsplit(url).hostname
        address = f"ws{url.rstrip('/').removesuffix('/api/v1').removeprefix('http')}/api/v1/ws"
        headers = {"Authorization": f"Bearer {token}"}
        try:
            socket = await connect(
                address,
                additional_headers=headers,
                max_size=None,
                compression=None,
                close_timeout=CLOSE_SECONDS,
                proxy=None if host in LOOPBACK else True,
            )
        except InvalidURI as error:
            raise InvalidInput(f"CODER_URL is {url!r}, which is no address; set it to one like http://127.0.0.1:8390.") from error
        except InvalidStatus as error:
            if error.response.status_code == 401:
                raise Unauthorized(
                    f"coder at {url} does not know the token; set CODER_TOKEN to the one printed at its first start."
                ) from error
            if error.response.status_code not in (429, 502, 503, 504):
                raise InvalidInput(f"{url} answers {error.response.status_code}, but not as coder does; correct CODER_URL.") from error
            raise
        hello = {"type": "hello", "client_id": self._client_id, "epoch": self._epoch, "since": self._cursor}
        await socket.send(orjson.dumps(hello).decode())
        return socket

    def _judge(self, code: int | None, reason: str | None) -> None:
        """Whether a line that was closed may be tried again; raises what it means if not."""
        if code in FINAL:
            raise FINAL[code](reason or None)
        if code == NEWER:  # somebody has our id, which is theirs from now on
            self._start_anew()

    async def _take(self, frame: dict[str, Any]) -> None:
        """Keep what the protocol asks of a client."""
        if frame["seq"]:
            self._cursor = frame["seq"]
        match frame["type"]:
            case "hello":
                self._epoch = frame["epoch"]
                if frame["answer"] == "reset":
                    self._cursor = 0
                else:
                    await self._ask()
                if self._known:
                    self._back()
                self._known = True
                for operation in list(self._unsent.values()):
                    await self._send(operation)
            case "reset":
                self._unanswered = set(self._wanted)
                await self._ask()
            case "session_history":
                self._unanswered.discard(frame["session_id"])
            case "ping":
                await self._send({"type": "pong"})
            case "accepted":
                self._unsent.pop(frame["client_message_id"], None)
                if frame["session_id"] not in self._wanted:  # who sends is subscribed
                    self._wanted.add(frame["session_id"])
                    self._unanswered.add(frame["session_id"])
            case "error":
                self._fail(frame)

    def _fail(self, frame: dict[str, Any]) -> None:
        if frame["operation"] == "chat.send":
            self._unsent.pop(frame["about"], None)
        elif frame["operation"] == "chat.subscribe" and frame["code"] == "not_found":
            raise NotFound(
                f"{frame['message'].rstrip('.')}; the live view is that of another database: correct CODER_URL, or CODER_DATABASE_URL."
            )
        elif frame["operation"] == "chat.subscribe":
            if frame["code"] != Unavailable.code:
                raise CoderError(frame["message"])
            self._refused.add(frame["about"])

    async def _ask(self) -> None:
        """A subscription holds once its history came; whether one that was sent before arrived is not known."""
        for session in self._unanswered:
            await self._send({"type": "chat.subscribe", "session_id": session})

    async def _send(self, operation: dict[str, Any]) -> None:
        """Send, if there is a line; what must arrive is sent again when there is one."""
        if self._socket is not None:
            with suppress(ConnectionClosed):
                await self._socket.send(orjson.dumps(operation).decode())

    async def _keep_up(self) -> None:
        """Say what we have, and ask again for what could not be had a moment ago."""
        told = 0
        while True:
            await asyncio.sleep(ACK_SECONDS)
            if self._cursor > told:
                told = self._cursor
                await self._send({"type": "ack", "seq": told})
            if self._refused:
                self._refused.clear()
                await self._ask()
