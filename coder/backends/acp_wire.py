"""The standard streams of an ACP agent as messages: a transport for the official SDK, in place of its own.

The SDK's own transport reads a line of any length into memory, drops whole messages for one byte that is no UTF-8,
stops at a line of JSON that is no object, and starts a task for every update, so that nothing slows the agent down.
Here updates go straight to the turn, in order, and the pipe is not read on while a turn has more than it can take.

Invariant: at most one message is in memory, and that is at most `LINE_BYTES` long.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

LINE_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 65_536
ODD_BYTES = 8 * 1024 * 1024
ODD_LINE_BYTES = 4096

Hear = Callable[[str, Mapping[str, Any]], Awaitable[None]]


class Wire:
    """Messages to and from one process.

    Args:
        hear: takes a session's id and an update of it; the next message is read when it returns.
        odd: takes lines that are no messages, the beginning of each, as many as came at once: called for each of a flood of them,
            it would leave the loop no time for anything else.

    Attributes:
        over: set when the agent's output has ended, or is read no further.
        complaint: why it is read no further, None when it ended by itself.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hear: Hear, odd: Callable[[bytes], None]) -> None:
        self._reader = reader
        self._writer = writer
        self._hear = hear
        self._odd = odd
        self._lines = self._split()
        self._strange = bytearray()
        self._strange_bytes = 0
        self._sending = asyncio.Lock()
        self.over = asyncio.Event()
        self.complaint: str | None = None

    async def receive(self) -> dict[str, Any] | None:
        """The next message for the SDK: a request, or the answer to one; None at the end."""
        async for line in self._lines:
            message = _decoded(line)
            if message is None:
                self._strange += line[:ODD_LINE_BYTES] + b"\n"
                continue
            self._strange_bytes = 0
            if "id" in message:
                return message
            if message.get("method") == "session/update":
                params = message.get("params")
                update = params.get("update") if isinstance(params, dict) else None
                if isinstance(params, dict) and isinstance(update, dict):
                    await self._hear(str(params.get("sessionId")), update)
        self.over.set()
        return None

    async def send(self, message: dict[str, Any]) -> None:
        """Write a message; raises ConnectionError when the agent reads no more."""
        async with self._sending:
            self._writer.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            await self._writer.drain()

    async def close(self) -> None:
        """Close the agent's standard input."""
        self.over.set()
        self._writer.close()

    async def _split(self) -> AsyncIterator[bytes]:
        pieces: list[bytes] = []
        size = 0
        while chunk := await self._reader.read(CHUNK_BYTES):
            *lines, rest = chunk.split(b"\n")
            for line in lines:
                whole = b"".join([*pieces, line])
                pieces, size = [], 0
                if whole.strip():
                    yield whole
                else:
                    self._strange_bytes += 1
            if rest:
                pieces.append(rest)
                size += len(rest)
            if self._strange:
                self._odd(bytes(self._strange))
                self._strange_bytes += len(self._strange)
                self._strange.clear()
            if self._strange_bytes > ODD_BYTES:
                self.complaint = f"it printed {ODD_BYTES // 1024 // 1024} MB without a message of the protocol"
                return
            if size > LINE_BYTES:
                self.complaint = f"it sent a message longer than {LINE_BYTES // 1024 // 1024} MB"
                return
            await asyncio.sleep(0)  # reading what is there already gives nobody else a turn


def _decoded(line: bytes) -> dict[str, Any] | None:
    """A line as a message, None when it is none; bytes that are no UTF-8 become U+FFFD."""
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        message = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("id", 0), int | str | None):
        return None
    return message
