"""The transcript of a turn: a pure fold of what the agent says into what is stored.

Invariant: what `Transcript` holds can always be stored (no U+0000, no lone surrogate, every tool input is JSON) and
is always bounded: 1 MB of text, 1 MB of reasoning, 256 KB per tool input and output. What goes beyond a bound is
never lost silently: a notice says so, and the whole is handed out as spills for the caller to write to files.

Omitted on purpose: files, frames and message ids; time. `apply` is called by one task at a time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar

from coder.events import AgentEvent, Commands, Notice, Plan, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.task import SUMMARY_CHARACTERS

TEXT_BYTES = 1_048_576
TOOL_BYTES = 262_144
MOST_COMMANDS = 500
MOST_ENTRIES = 200
LINE_CHARACTERS = 1000

_MARK = "\n[… cut here, {total:,} bytes in all; the whole is in the turn's file {file}]"
_LONG = "The {what} is longer than {bound:,} bytes; what is stored ends there, the whole is in the turn's file {file}."


@dataclass(frozen=True, slots=True)
class Spill:
    """A piece of something that outgrew its bound, to be written to a file beside the turn.

    Attributes:
        file: a plain name made by us (`text.txt`, `reasoning.txt`, `tool-3.txt`, `tool-3-input.txt`), safe as a file name.
        text: what to write.
        append: whether it goes behind what was spilled under this name; else it replaces that.
    """

    file: str
    text: str
    append: bool


def clean(text: str) -> str:
    """The text without what PostgreSQL refuses: U+0000 and lone surrogates become U+FFFD.

    Two halves of a surrogate pair that stand side by side (JSON escapes decoded apart) become the character they mean.
    """
    if text.isascii():
        return text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\x00", "\ufffd")


def clean_json(text: str) -> str:
    """JSON text with every string in it cleaned; what is no JSON becomes one JSON string.

    Empty text becomes `{}`: agents send that for a call without arguments.
    """
    if not text.strip():
        return "{}"
    try:
        value = json.loads(text)
        return text if clean(text) == text and "\\u" not in text else json.dumps(clean_value(value), ensure_ascii=False)
    except (ValueError, RecursionError):
        return json.dumps(clean(text), ensure_ascii=False)


def clean_value(value: Any) -> Any:
    """A JSON value with every string in it cleaned."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [clean_value(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean_value(item) for key, item in value.items()}
    return value


Event = TypeVar("Event")


def cleaned(event: Event) -> Event:
    """An event with every text in it cleaned, those of the words it holds included."""
    changes: dict[str, Any] = {}
    for each in fields(event):  # type: ignore[arg-type]
        value = getattr(event, each.name)
        if isinstance(value, str):
            changes[each.name] = clean(value)
        elif isinstance(value, tuple):
            changes[each.name] = tuple(clean(item) if isinstance(item, str) else cleaned(item) for item in value)
    return replace(event, **changes)  # type: ignore[type-var]


def _shortened(event: Event) -> Event:
    """A command or an entry of a plan with every text in it cleaned and cut to a line's length: it is shown, not read whole."""
    event = cleaned(event)
    changes: dict[str, Any] = {}
    for each in fields(event):  # type: ignore[arg-type]
        value = getattr(event, each.name)
        if isinstance(value, str) and len(value) > LINE_CHARACTERS:
            changes[each.name] = value[: LINE_CHARACTERS - 1] + "…"
    return replace(event, **changes) if changes else event  # type: ignore[type-var]


class _Prose:
    """Text that grows by deltas, up to `TEXT_BYTES`."""

    def __init__(self, what: str, file: str) -> None:
        self._what = what
        self._file = file
        self._pieces: list[str] = []
        self._size = 0
        self._full = False

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, delta: str) -> tuple[str, Notice | None, Spill | None]:
        """What of a clean delta still fits, the notice when it is the first that does not, and what to spill."""
        if self._full:
            return "", None, Spill(self._file, delta, append=True)
        raw = delta.encode()
        if self._size + len(raw) <= TEXT_BYTES:
            self._pieces.append(delta)
            self._size += len(raw)
            return delta, None, None
        self._full = True
        whole = self.text + delta
        fits = raw[: TEXT_BYTES - self._size].decode("utf-8", "ignore")
        self._pieces.append(fits)
        notice = Notice(_LONG.format(what=self._what, bound=TEXT_BYTES, file=self._file))
        return fits, notice, Spill(self._file, whole, append=False)


class Transcript:
    """What a turn has said so far.

    `tool_calls` holds the latest snapshot of each call in the order the calls were first seen.
    """

    def __init__(self) -> None:
        self._text = _Prose("answer", "text.txt")
        self._reasoning = _Prose("reasoning", "reasoning.txt")
        self._calls: dict[str, ToolCall] = {}
        self._usage = Usage(0, 0, 0)
        self._notices: list[str] = []
        self._spills: list[Spill] = []
        self._commands = Commands(())
        self._plan = Plan(())

    @property
    def text(self) -> str:
        return self._text.text

    @property
    def reasoning(self) -> str:
        return self._reasoning.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(self._calls.values())

    @property
    def usage(self) -> Usage:
        """The turn's tokens: the sums over its requests; `context_tokens` as of the last request that told it."""
        return self._usage

    @property
    def notices(self) -> tuple[str, ...]:
        return tuple(self._notices)

    @property
    def commands(self) -> Commands:
        """The slash commands the agent last told of."""
        return self._commands

    @property
    def plan(self) -> Plan:
        """The agent's plan as it last told it."""
        return self._plan

    def apply(self, event: AgentEvent) -> tuple[AgentEvent, ...]:
        """Fold one event in and answer what watchers get for it: cleaned, within the bounds, with a notice where it was cut."""
        if isinstance(event, TextDelta):
            fits, notice, spill = self._text.add(clean(event.text))
            return self._said((TextDelta(fits),) if fits else (), notice, spill)
        if isinstance(event, ReasoningDelta):
            fits, notice, spill = self._reasoning.add(clean(event.text))
            return self._said((ReasoningDelta(fits),) if fits else (), notice, spill)
        if isinstance(event, ToolCall):
            call = self._bounded(event)
            self._calls[call.id] = call
            return (call,)
        if isinstance(event, Usage):
            self._usage = Usage(
                self._usage.input_tokens + event.input_tokens,
                self._usage.cached_tokens + event.cached_tokens,
                self._usage.output_tokens + event.output_tokens,
                self._usage.context_tokens if event.context_tokens is None else event.context_tokens,
                self._usage.context_limit if event.context_limit is None else event.context_limit,
            )
            return (event,)
        if isinstance(event, Notice):
            return self._said((), Notice(clean(event.text)), None)
        if isinstance(event, Commands):
            self._commands = Commands(tuple(_shortened(each) for each in event.commands[:MOST_COMMANDS]))
            return (self._commands,)
        if isinstance(event, Plan):
            self._plan = Plan(tuple(_shortened(each) for each in event.entries[:MOST_ENTRIES]))
            return (self._plan,)
        return (cleaned(event),)

    def summary(self, characters: int = SUMMARY_CHARACTERS) -> str:
        """The first `characters` characters of the answer."""
        return self.text[:characters]

    def tool_calls_json(self) -> str:
        """The tool calls as a JSON array of `{id, name, input, status, output, exit_code}`; `input` is itself JSON text."""
        calls = [
            {"id": c.id, "name": c.name, "input": c.input, "status": c.status, "output": c.output, "exit_code": c.exit_code}
            for c in self._calls.values()
        ]
        return json.dumps(calls, ensure_ascii=False)

    def take_spills(self) -> tuple[Spill, ...]:
        """What outgrew its bound since the last call, in order; the fold keeps none of it."""
        spills, self._spills = tuple(self._spills), []
        return spills

    def end_tools(self, status: Literal["completed", "failed"] = "failed") -> tuple[ToolCall, ...]:
        """Give every call that still runs an end, since the turn has one; answers the snapshots that changed."""
        ended = tuple(replace(call, status=status) for call in self._calls.values() if call.status == "running")
        self._calls.update((call.id, call) for call in ended)
        return ended

    def _said(self, events: tuple[AgentEvent, ...], notice: Notice | None, spill: Spill | None) -> tuple[AgentEvent, ...]:
        if spill is not None:
            self._spills.append(spill)
        if notice is None:
            return events
        self._notices.append(notice.text)
        return (*events, notice)

    def _bounded(self, event: ToolCall) -> ToolCall:
        call_id = clean(event.id)
        number = list(self._calls).index(call_id) + 1 if call_id in self._calls else len(self._calls) + 1
        arguments = clean_json(event.input)
        if len(arguments.encode()) > TOOL_BYTES:
            # A cut JSON text is none; a JSON string that holds its beginning is. Quoting at most doubles it.
            arguments = json.dumps(self._cut(f"tool-{number}-input.txt", arguments, TOOL_BYTES // 2), ensure_ascii=False)
        output = self._cut(f"tool-{number}.txt", clean(event.output), TOOL_BYTES)
        return ToolCall(call_id, clean(event.name), arguments, event.status, output, event.exit_code)

    def _cut(self, file: str, text: str, bound: int) -> str:
        raw = text.encode()
        if len(raw) <= bound:
            return text
        self._spills.append(Spill(file, text, append=False))
        mark = _MARK.format(total=len(raw), file=file)
        return raw[: bound - len(mark.encode())].decode("utf-8", "ignore") + mark
