"""The events of a turn on their way from an agent's process to whoever reads them.

Invariant: memory is bounded, however fast the agent and slow the reader: neighbouring deltas become one event, a tool
call's newer snapshot takes the place of its older one, and `room()` holds the agent's reader while the feed is full.

Everything belongs to one event loop and to one reader.
"""

from __future__ import annotations

import asyncio
from collections import deque

from coder.events import AgentEvent, ReasoningDelta, TextDelta, ToolCall

FEED_CHARACTERS = 4_000_000
_SMALL = 200


class Feed:
    """An iterator of events that ends, or raises, once `end` was called and all before it was read."""

    def __init__(self) -> None:
        self._events: deque[AgentEvent] = deque()
        self._pieces: list[str] = []
        self._kind: type[TextDelta] | type[ReasoningDelta] = TextDelta
        self._size = 0
        self._over = False
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    def put(self, event: AgentEvent) -> None:
        """Add an event; one that comes after the end is dropped."""
        if self._over:
            return
        if isinstance(event, TextDelta | ReasoningDelta):
            if type(event) is not self._kind:
                self._settle()
                self._kind = type(event)
            self._pieces.append(event.text)
        else:
            self._settle()
            last = self._events[-1] if self._events else None
            if isinstance(event, ToolCall) and isinstance(last, ToolCall) and last.id == event.id:
                self._size -= _size(self._events.pop())
            self._events.append(event)
        self._size += _size(event)
        if self._size > FEED_CHARACTERS:
            self._room.clear()
        self._news.set()

    def end(self, error: Exception | None = None) -> None:
        """No more events; the first call counts."""
        if not self._over:
            self._over, self._error = True, error
            self._room.set()
            self._news.set()

    async def room(self) -> None:
        """Wait until there is room for more, or nobody wants any."""
        await self._room.wait()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> AgentEvent:
        while not self._events and not self._pieces:
            if self._over:
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        if not self._events:
            self._settle()
        event = self._events.popleft()
        self._size -= _size(event)
        if self._size <= FEED_CHARACTERS:
            self._room.set()
        return event

    def _settle(self) -> None:
        if self._pieces:
            joined = self._kind("".join(self._pieces))
            # Each piece was counted with what an event costs beside its text.
            self._size -= _SMALL * (len(self._pieces) - 1)
            self._events.append(joined)
            self._pieces.clear()


def _size(event: AgentEvent) -> int:
    if isinstance(event, TextDelta | ReasoningDelta):
        return _SMALL + len(event.text)
    return _SMALL + (len(event.input) + len(event.output) if isinstance(event, ToolCall) else 0)
