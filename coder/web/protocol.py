"""How uvicorn speaks WebSocket here: its sans-I/O protocol, without compression, and without patience."""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from coder.web.live import MESSAGE_BYTES

LINGER_SECONDS = 5.0


class ImpatientProtocol(WebSocketsSansIOProtocol):
    """Drops a connection whose other side does not take what is left to send: closing alone would wait for it for ever."""

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if self.transport.get_write_buffer_size():
            self.loop.call_later(LINGER_SECONDS, self.transport.abort)


SETTINGS: dict[str, Any] = {
    "ws": ImpatientProtocol,
    "ws_max_size": MESSAGE_BYTES,
    "ws_per_message_deflate": False,
    "ws_ping_interval": None,  # ours are frames, so that a page sees them too
    "ws_ping_timeout": None,
}
"""For `uvicorn.Config`."""
