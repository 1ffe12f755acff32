"""How uvicorn speaks WebSocket here: its sans-I/O protocol, without compression, and without patience.

Invariants: a connection whose other side does not take what is left to send is dropped, since closing alone would wait for it for
ever; who sends a flood, of frames of any kind, takes a few milliseconds at a time, and what is answered to pings that nobody reads
is not kept; frames that bring no message are counted, and too many end the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from coder.web.live import MESSAGE_BYTES

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent
    from websockets.frames import Frame

LINGER_SECONDS = 5.0
READ_BYTES = 4_096
"""What is read of a connection before others have their turn: up to 700 frames."""
EMPTY_FRAMES = 10_000
"""Pieces of a message, pings and pongs, between two messages."""


class ImpatientProtocol(WebSocketsSansIOProtocol):
    """One connection. While anything of it is unread, its transport is paused."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._unread = bytearray()
        self._empty = 0

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if not self._unread and len(data) <= READ_BYTES:
            super().data_received(data)
            return
        if not self._unread:
            self.loop.call_soon(self._read)
        self._unread += data
        self.transport.pause_reading()

    def _read(self) -> None:
        if self.transport.is_closing():
            self._unread.clear()
            return
        data = bytes(self._unread[:READ_BYTES])
        del self._unread[:READ_BYTES]
        super().data_received(data)
        if self._unread:
            self.loop.call_soon(self._read)
        elif not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if self._unread and not self.transport.is_closing():  # that may have let it read on
            self.transport.pause_reading()
        return message

    def send_receive_event_to_app(self) -> None:
        self._empty = 0
        super().send_receive_event_to_app()

    def handle_cont(self, event: Frame) -> None:
        super().handle_cont(event)
        if not event.fin:
            self._count()

    def handle_pong(self, event: Frame) -> None:
        super().handle_pong(event)
        self._count()

    def handle_ping(self) -> None:
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()  # its answer, which nobody reads
        self._count()

    def _count(self) -> None:
        self._empty += 1
        if self._empty > EMPTY_FRAMES and self.conn.state is State.OPEN and not self.close_sent:
            self.frames = []
            self.conn.send_close(4429, f"{EMPTY_FRAMES} frames came without a message; send fewer pings and larger pieces.")
            self.handle_parser_exception()


SETTINGS: dict[str, Any] = {
    "ws": ImpatientProtocol,
    "ws_max_size": MESSAGE_BYTES,
    "ws_per_message_deflate": False,
    "ws_ping_interval": None,  # ours are frames, so that a page sees them too
    "ws_ping_timeout": None,
}
"""For `uvicorn.Config`."""
