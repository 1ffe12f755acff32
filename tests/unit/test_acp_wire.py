"""The wire of an ACP agent, fed by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from coder.backends.acp_wire import CHUNK_BYTES, ODD_BYTES, Wire


class Heard:
    """What a wire hands out."""

    def __init__(self, *pieces: bytes) -> None:
        self.updates: list[Mapping[str, Any]] = []
        self.odd: list[bytes] = []
        reader = asyncio.StreamReader()
        for piece in pieces:
            reader.feed_data(piece)
        reader.feed_eof()
        self.wire = Wire(reader, None, self._hear, self.odd.append)  # type: ignore[arg-type]  # nothing is written

    async def _hear(self, session: str, update: Mapping[str, Any]) -> None:
        self.updates.append(update)


MESSAGE = b'{"jsonrpc":"2.0","id":1,"result":{}}\n'


async def test_lines_that_are_no_messages_come_in_order_and_not_one_by_one() -> None:
    """Each of them is written to a log: one at a time, a flood of them held the loop until the node lost its lease."""
    lines = b"".join(b"%d\n" % number for number in range(100_000))
    heard = Heard(lines, MESSAGE, b"last\n")
    assert await heard.wire.receive() == {"jsonrpc": "2.0", "id": 1, "result": {}}
    assert await heard.wire.receive() is None
    assert b"".join(heard.odd) == lines + b"last\n"
    assert len(heard.odd) <= len(lines) // CHUNK_BYTES + 2
    assert heard.wire.complaint is None


async def test_who_never_says_a_message_is_read_no_further() -> None:
    for line in (b"y\n", b"\n", b"[1]\n"):
        heard = Heard(line * (2 * ODD_BYTES // len(line)))
        assert await heard.wire.receive() is None
        assert heard.wire.complaint == "it printed 8 MB without a message of the protocol"
        assert sum(map(len, heard.odd)) <= ODD_BYTES + CHUNK_BYTES


async def test_messages_among_them_start_the_count_anew() -> None:
    heard = Heard(*[b"y\n" * (ODD_BYTES // 4), MESSAGE] * 3)
    for _ in range(3):
        assert await heard.wire.receive() is not None
    assert await heard.wire.receive() is None
    assert heard.wire.complaint is None
