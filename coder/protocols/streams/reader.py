"""Reads the output of a one-shot command in one of the formats.

Invariant: nothing the command says is lost. What is no record of the format becomes a notice, up to a bound, and all of it goes to
whoever calls `take_strays`; of a command that writes no record at all it is the answer.
"""

from __future__ import annotations

from collections import deque

from coder.events import AgentEvent, Notice, TextDelta, Usage
from coder.protocols.streams.claude import Claude, Qwen
from coder.protocols.streams.codex import Codex
from coder.protocols.streams.format import Format, less
from coder.protocols.streams.goose import Goose
from coder.protocols.streams.lines import LINE_BYTES, Lines, as_json, records
from coder.protocols.streams.opencode import Opencode

FORMATS: dict[str, type[Format]] = {"claude": Claude, "codex": Codex, "qwen": Qwen, "goose": Goose, "opencode": Opencode}

SHOWN = 4_000
"""Characters that notices show of what is no record."""
HELD = 65_536
"""Characters without any record after which they are taken for the answer."""
_LAST = 5
_LAST_CHARACTERS = 400


class Reader:
    """One turn's output in a format.

    Args:
        before: what the conversation had used before this turn; None when that is not known.
    """

    def __init__(self, name: str, before: Usage | None) -> None:
        self._format = FORMATS[name]()
        self._before = before
        self._lines = Lines()
        self._said: list[str] = []
        self._size = 0
        self._recognised = False
        self._plain = False
        self._told = 0
        self._strays: list[str] = []
        self._last: deque[str] = deque(maxlen=_LAST)
        self.total: Usage | None = None

    @property
    def session(self) -> str | None:
        return self._format.session

    @property
    def failure(self) -> str | None:
        """The agent's own words for why the turn failed, None unless it did."""
        return self._format.failure

    @property
    def busy(self) -> bool:
        """Whether a tool runs."""
        return bool(self._format.running)

    @property
    def last_words(self) -> str:
        """The last lines that were no records."""
        return "\n".join(self._last)

    def feed(self, content: bytes) -> list[AgentEvent]:
        """Take what the command wrote; answers the events in it."""
        return [event for line in self._lines.feed(content) for event in self._line(line)]

    def close(self) -> list[AgentEvent]:
        """The events that the end brings; nothing is fed after it."""
        events = [event for line in self._lines.close() for event in self._line(line)]
        events += self._usage(self._format.close())
        return [*events, *(self._tell() if self._recognised else self._answer())]

    def take_strays(self) -> list[str]:
        """The lines since the last call that were no records, or of an unknown type."""
        strays, self._strays = self._strays, []
        return strays

    def _line(self, line: bytes | None) -> list[AgentEvent]:
        if line is None:
            return [Notice(f"A line of more than {LINE_BYTES // 1_048_576} MB was left out.")]
        events: list[AgentEvent] = []
        for found in records(line):
            if isinstance(found, str):
                events += self._stray(found)
                continue
            read = self._format.read(found)
            if read is None:
                self._strays.append(as_json(found))
                continue
            if not self._recognised and not self._plain:
                self._recognised = True
            events += [*self._tell(), *self._usage(read)]
        return events

    def _usage(self, events: list[AgentEvent]) -> list[AgentEvent]:
        """Events with usage as this turn's own."""
        if not self._format.cumulative:
            return events
        kept: list[AgentEvent] = []
        for event in events:
            if isinstance(event, Usage):
                self.total = event
                if self._before is None:
                    continue
                event = less(event, self._before)
            kept.append(event)
        return kept

    def _stray(self, text: str) -> list[AgentEvent]:
        self._strays.append(text)
        self._last.append(text[:_LAST_CHARACTERS])
        if self._plain:
            return [TextDelta(text + "\n")]
        if self._recognised and self._told + self._size > SHOWN:
            return []
        self._said.append(text)
        self._size += len(text) + 1
        if not self._recognised and self._size > HELD:
            self._plain = True
            return self._answer()
        return []

    def _answer(self) -> list[AgentEvent]:
        text, self._said, self._size = "\n".join(self._said), [], 0
        return [TextDelta(text + "\n")] if text else []

    def _tell(self) -> list[AgentEvent]:
        """A notice of what was said beside the records since the last one."""
        if not self._said or self._plain:
            return []
        text, self._said = "\n".join(self._said), []
        room = SHOWN - self._told
        self._told, self._size = self._told + len(text) + 1, 0
        if len(text) <= room:
            return [Notice(text)]
        return [Notice(text[:room] + "\n[… what it prints beside its answer from here on is in the turn's log]")] if room > 0 else []
