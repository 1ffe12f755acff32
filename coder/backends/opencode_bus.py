"""The one reader of a server's `GET /global/event`, and the inboxes it fills, one per turn.

Invariant: an inbox either gets every event of its sessions in order, or is told `Lost` where some are missing: the stream broke,
or more came than an inbox holds. Events are not replayed by the server, so whoever is told so asks the server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
import orjson

from coder.protocols.event_stream import EventStream, TooLong
from coder.protocols.opencode import child_of, session_of

SILENT_SECONDS = 30.0  # a heartbeat comes every 10 s
AGAIN_SECONDS = (0.0, 0.1, 0.3, 1.0)
INBOX_BYTES = 32 * 1_048_576
IGNORED = frozenset({"sync", "plugin.added", "server.heartbeat", "server.connected"})


@dataclass(frozen=True, slots=True)
class Lost:
    """Events are missing here."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The server has ended."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Nothing new: look again."""


@dataclass(frozen=True, slots=True)
class Oversized:
    """An event was too long to be read."""


Item = Mapping[str, Any] | Lost | Gone | Nudge | Oversized


class Inbox:
    """What was heard for one turn and not read yet."""

    bound: ClassVar[int] = INBOX_BYTES

    def __init__(self) -> None:
        self._items: deque[tuple[Item, int]] = deque()
        self._size = 0
        self._filled = asyncio.Event()

    def put(self, item: Item, size: int = 0) -> None:
        """Add an item; one too many, and all that waits is dropped for a `Lost`."""
        if self._size + size > self.bound and self._items:
            self._items.clear()
            self._size = 0
            self._items.append((Lost(), 0))
        self._items.append((item, size))
        self._size += size
        self._filled.set()

    def lose(self) -> None:
        """Events are missing from here on."""
        self.put(Lost())

    async def get(self, seconds: float | None = None) -> Item | None:
        """The next item, None when none came in that time."""
        if not self._items:
            self._filled.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._filled.wait()
            except TimeoutError:
                return None
        item, size = self._items.popleft()
        self._size -= size
        return item


class Bus:
    """Reads a server's events as long as it is told to.

    Args:
        client: speaks with the server, with its address and password.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._routes: dict[str, Inbox] = {}
        self.connected = asyncio.Event()
        self._broken = asyncio.Event()
        self._again = False

    def attach(self, session: str, inbox: Inbox) -> None:
        """Send what is about a session, and about those it starts, to an inbox."""
        self._routes[session] = inbox

    def detach(self, inbox: Inbox) -> None:
        self._routes = {session: each for session, each in self._routes.items() if each is not inbox}

    def tell_all(self, item: Item) -> None:
        for inbox in set(self._routes.values()):
            inbox.put(item)

    async def over(self, seconds: float) -> None:
        """Wait until the present stream has been read to its end, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._broken.wait()

    async def read(self) -> None:
        """Read until cancelled, with a new stream whenever one breaks."""
        attempt = 0
        while True:
            try:
                async with self._client.stream("GET", "/global/event", timeout=httpx.Timeout(10.0, read=SILENT_SECONDS)) as answer:
                    answer.raise_for_status()
                    stream = EventStream()
                    async for chunk in answer.aiter_raw():
                        if not self.connected.is_set():
                            self._begin()
                        attempt = 0
                        for event in stream.feed(chunk):
                            self._hand_out(event)
            except (httpx.HTTPError, httpx.StreamError):
                pass  # it broke or fell silent: the same as an end
            self.connected.clear()
            self._broken.set()
            self._again = True
            await asyncio.sleep(AGAIN_SECONDS[min(attempt, len(AGAIN_SECONDS) - 1)])
            attempt += 1

    def _begin(self) -> None:
        """The server has said that it is connected: what follows is heard."""
        self.connected.set()
        self._broken.clear()
        if self._again:
            self.tell_all(Lost())

    def _hand_out(self, event: bytes | TooLong) -> None:
        if isinstance(event, TooLong):
            for session, inbox in self._routes.items():
                if session.encode() in event.head:
                    inbox.put(Oversized())
            return
        try:
            payload = _parsed(event)["payload"]
            kind = payload["type"]
        except (ValueError, KeyError, TypeError):
            self.tell_all(Lost())  # whoever it was for finds out what it was
            return
        if kind in IGNORED or not isinstance(payload, dict):
            return
        if (child := child_of(payload)) and (parents := self._routes.get(child[1])) is not None:
            self._routes[child[0]] = parents
        if (to := self._routes.get(session_of(payload))) is not None:
            to.put(payload, len(event))


def _parsed(event: bytes) -> Any:
    """The JSON of an event; bytes that are no UTF-8 become U+FFFD."""
    try:
        return orjson.loads(event)
    except ValueError:
        return orjson.loads(event.decode("utf-8", "replace"))
