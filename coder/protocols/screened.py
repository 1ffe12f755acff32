"""Output that is text for people, as events: what `streams/reader.py` is for records, with the same methods."""

from __future__ import annotations

from coder.events import AgentEvent, TextDelta, Usage
from coder.protocols.terminal import Terminal

_LAST_LINES = 5
_LAST_CHARACTERS = 2_000


class Screened:
    """What a program shows on a terminal. It tells of no session, no usage and no tools; nothing in it is a stray."""

    total: Usage | None = None
    session: str | None = None
    failure: str | None = None
    busy = False

    def __init__(self) -> None:
        self._terminal = Terminal()
        self._last = ""

    @property
    def last_words(self) -> str:
        lines = [line.strip() for line in self._last.split("\n") if line.strip()]
        return "\n".join(lines[-_LAST_LINES:])

    def feed(self, content: bytes) -> list[AgentEvent]:
        return self._said(self._terminal.feed(content))

    def settle(self) -> list[AgentEvent]:
        """What has not changed for a moment; call it every now and then."""
        return self._said(self._terminal.settle())

    def close(self) -> list[AgentEvent]:
        return self._said(self._terminal.close())

    def take_strays(self) -> list[str]:
        return []

    def _said(self, text: str) -> list[AgentEvent]:
        self._last = (self._last + text)[-_LAST_CHARACTERS:]
        return [TextDelta(text)] if text else []
