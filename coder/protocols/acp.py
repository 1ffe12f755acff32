"""The Agent Client Protocol, version 1: what an agent tells of one turn, as events. Pure.

The input is the wire's own JSON, decoded: agents send more than the protocol's models know (tool names, exit codes and
live output lie in `_meta`), and less (a call without status or kind, an update of a call that was never announced, a call
announced twice). So calls are upserted by their id, and what is not understood is passed over.

Invariant: whatever comes in, nothing is raised, and the work for one update is bounded by its own size: output that
arrives piece by piece is told anew only when it has grown by a tenth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from coder.events import (
    AgentEvent,
    AskedFor,
    Command,
    Commands,
    PermissionRequest,
    Plan,
    PlanEntry,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolStatus,
    Usage,
)
from coder.protocols.acp_output import exit_code, live_output, shown

LIVE_CHARACTERS = 1_048_576
"""Live output kept of one call; the agent's own account of the whole replaces it at the end."""
COMMANDS_SHOWN = 500
DESCRIBED = 300

KINDS: dict[str, AskedFor] = {
    **{kind: "read" for kind in ("read", "search")},
    **{kind: "edit" for kind in ("edit", "delete", "move")},
    "execute": "execute",
    "fetch": "fetch",
}
PATHS = ("path", "file_path", "filePath", "filepath", "abs_path", "absolute_path")
WRITTEN = ("content", "new_string", "newString", "new_str", "old_string", "oldString", "old_str", "edits", "diff", "patch")
_MILESTONE = 1.1


@dataclass(slots=True)
class _Call:
    """What is known of a tool call so far; None = not told yet."""

    id: str
    name: str = ""
    title: str = ""
    kind: str | None = None
    status: str | None = None
    input: Any = None
    content: list[Any] = field(default_factory=list)
    raw_output: Any = None
    exit_code: int | None = None
    paths: tuple[str, ...] = ()
    live: list[str] = field(default_factory=list)
    live_size: int = 0
    told_size: int = 0

    @property
    def state(self) -> ToolStatus:
        return "completed" if self.status == "completed" else "failed" if self.status == "failed" else "running"

    @property
    def called(self) -> str:
        """The tool: its name, else what it does, else how people are told of the call."""
        return self.name or (self.kind if self.kind in KINDS else "") or self.title or "tool"

    @property
    def given(self) -> str:
        """The arguments as JSON; where none were told, what people are told of the call, if that says more than the tool's name."""
        if self.input is None and self.title and self.title != self.called:
            return _json({"title": self.title})
        return _json(self.input)

    def event(self) -> ToolCall:
        self.told_size = self.live_size
        if len(self.live) > 1:
            self.live = ["".join(self.live)]
        output = shown(self.content, pending=self.status == "pending", raw=self.raw_output, live=self.live[0] if self.live else "")
        code = self.exit_code if self.state != "running" else None
        return ToolCall(self.id, self.called, self.given, self.state, output, code)

    def add_live(self, text: str) -> bool:
        """Keep live output; whether it has grown enough to be told."""
        kept = text[: max(0, LIVE_CHARACTERS - self.live_size)]
        if kept:
            self.live.append(kept)
            self.live_size += len(kept)
        return self.live_size > self.told_size * _MILESTONE


class Translation:
    """The updates of one turn, in the order they come.

    Args:
        cwd: absolute directory that relative paths start from.
    """

    def __init__(self, cwd: str) -> None:
        self._cwd = PurePosixPath(cwd)
        self._calls: dict[str, _Call] = {}
        self._counted = False
        self._context: int | None = None
        self.said = False

    @property
    def running(self) -> bool:
        """Whether a tool runs."""
        return any(call.state == "running" for call in self._calls.values())

    def update(self, update: Mapping[str, Any]) -> list[AgentEvent]:
        """Translate the `update` of one `session/update`."""
        kind = update.get("sessionUpdate")
        if kind == "agent_message_chunk":
            text = _text(update.get("content"))
            self.said = self.said or bool(text.strip())
            return [*([TextDelta(text)] if text else []), *self._request_usage(update)]
        if kind == "agent_thought_chunk":
            text = _text(update.get("content"))
            return [ReasoningDelta(text)] if text else []
        if kind in ("tool_call", "tool_call_update"):
            self.said = True
            return self._tool(update)
        if kind == "plan":
            return [Plan(tuple(_entries(update.get("entries"))))]
        if kind == "available_commands_update":
            return [Commands(commands(update))]
        if kind == "usage_update":
            return self._fullness(update)
        return []

    def asked(self, request_id: str, tool_call: Mapping[str, Any]) -> list[AgentEvent]:
        """Translate a `session/request_permission`; what it tells of the call is kept."""
        events = self._tool(tool_call, asked=True)
        call = self._calls[str(tool_call.get("toolCallId"))]
        kind = _kind(call)
        request = PermissionRequest(request_id, call.called, kind, _title(call, kind), call.given, self._absolute(call, kind), call.id)
        return [*events, request]

    def ended(self, result: Mapping[str, Any]) -> list[AgentEvent]:
        """Translate the answer to `session/prompt`: calls that never began, and its usage, unless that was told request by request."""
        unbegun = [call for call in self._calls.values() if call.status == "pending"]
        for call in unbegun:
            call.status = "failed"  # not every agent tells so of one it was not allowed
        usage = _usage(result.get("usage") or _quota(result), self._context)
        return [*(call.event() for call in unbegun), *([usage] if usage is not None and not self._counted else [])]

    def _tool(self, update: Mapping[str, Any], *, asked: bool = False) -> list[AgentEvent]:
        call_id = str(update.get("toolCallId") or "")
        call = self._calls.get(call_id)
        before = call.event() if call is not None and asked else None
        fresh = call is None
        if call is None:
            call = self._calls[call_id] = _Call(call_id)
        ended = call.state != "running"
        changed = fresh | _merge(call, update)
        live = live_output(update.get("_meta"))
        grown = bool(live) and call.add_live(live)
        if ended and call.state == "running":
            call.status = "completed"  # a late repetition of how it began; ends are final
        if asked and not fresh:
            event = call.event()
            return [event] if event != before else []
        return [call.event()] if changed or grown else []

    def _absolute(self, call: _Call, kind: AskedFor) -> tuple[str, ...]:
        found = [*call.paths]
        if isinstance(call.input, Mapping) and kind != "execute":
            found += [value for name in PATHS if isinstance(value := call.input.get(name), str) and value]
        return tuple(dict.fromkeys(str(self._cwd / path) for path in found))

    def _request_usage(self, update: Mapping[str, Any]) -> list[AgentEvent]:
        meta = update.get("_meta")
        usage = _usage(meta.get("usage"), None) if isinstance(meta, Mapping) else None
        if usage is None:
            return []
        self._counted = True
        return [Usage(usage.input_tokens, usage.cached_tokens, usage.output_tokens, usage.input_tokens + usage.output_tokens)]

    def _fullness(self, update: Mapping[str, Any]) -> list[AgentEvent]:
        used = _count(update.get("used"))
        if not used or used == self._context:
            return []
        self._context = used
        return [Usage(0, 0, 0, used, _count(update.get("size")) or None)]


def commands(update: Mapping[str, Any]) -> tuple[Command, ...]:
    """The commands of an `available_commands_update`; qwen's comes to half a megabyte, so each is cut to what people read."""
    found = []
    for each in _items(update.get("availableCommands"))[:COMMANDS_SHOWN]:
        hint = each.get("input")
        hint = hint.get("hint") if isinstance(hint, Mapping) else ""
        if name := str(each.get("name") or "").lstrip("/"):
            found.append(Command(name, str(each.get("description") or "")[:DESCRIBED], str(hint or "")[:DESCRIBED]))
    return tuple(found)


def _merge(call: _Call, update: Mapping[str, Any]) -> bool:
    """Take over what an update tells; whether that changed anything that is shown."""
    before = (call.name, call.title, call.status, call.input, call.content, call.raw_output, call.exit_code)
    call.name = str(update.get("name") or _tool_name(update.get("_meta")) or call.name)
    call.title = str(update.get("title") or call.title)
    call.kind = str(update["kind"]) if update.get("kind") else call.kind
    call.status = str(update["status"]) if update.get("status") else call.status
    call.input = update["rawInput"] if update.get("rawInput") is not None else call.input
    call.raw_output = update["rawOutput"] if update.get("rawOutput") is not None else call.raw_output
    if isinstance(update.get("content"), list):
        call.content = update["content"]
    if (code := exit_code(update.get("rawOutput"), update.get("_meta"))) is not None:
        call.exit_code = code
    places = [*_items(update.get("locations")), *(each for each in _items(update.get("content")) if each.get("type") == "diff")]
    if found := tuple(path for place in places if isinstance(path := place.get("path"), str) and path):
        call.paths = tuple(dict.fromkeys(found))
    return before != (call.name, call.title, call.status, call.input, call.content, call.raw_output, call.exit_code)


def _kind(call: _Call) -> AskedFor:
    """What using the tool comes to; an agent that says `other` is judged by the arguments."""
    if call.kind in KINDS:
        return KINDS[call.kind]
    given = call.input if isinstance(call.input, Mapping) else {}
    if _command(call):
        return "execute"
    if isinstance(given.get("url"), str):
        return "fetch"
    if any(isinstance(given.get(name), str) for name in PATHS):
        return "edit" if any(name in given for name in WRITTEN) else "read"
    return "other"


def _command(call: _Call) -> str:
    given = call.input if isinstance(call.input, Mapping) else {}
    for name in ("command", "cmd"):
        value = given.get(name)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list) and value:
            return " ".join(map(str, value))
    return ""


def _title(call: _Call, kind: AskedFor) -> str:
    given = call.input if isinstance(call.input, Mapping) else {}
    if kind == "execute" and (command := _command(call)):
        return command
    if kind == "fetch" and isinstance(given.get("url"), str):
        return str(given["url"])
    named = next((str(given[name]) for name in PATHS if isinstance(given.get(name), str)), "")
    if kind in ("read", "edit") and (named or call.paths):
        return named or ", ".join(call.paths)
    return call.title or call.name or call.id


def _tool_name(meta: Any, depth: int = 2) -> str:
    """The tool's own name, which agents put at different depths of `_meta`."""
    if not isinstance(meta, Mapping):
        return ""
    if isinstance(name := meta.get("toolName"), str):
        return name
    return next((found for inner in meta.values() if depth and (found := _tool_name(inner, depth - 1))), "")


def _usage(found: Any, context: int | None) -> Usage | None:
    if not isinstance(found, Mapping):
        return None
    given, written = _count(found.get("inputTokens")), _count(found.get("outputTokens"))
    cached, stored = _count(found.get("cachedReadTokens")), _count(found.get("cachedWriteTokens"))
    if not given and not written:
        return None
    # Some count cached tokens as input, some beside it; the total tells.
    beside = _count(found.get("totalTokens")) >= given + written + cached + stored
    return Usage(given + (cached + stored if beside else 0), cached, written, context)


def _quota(result: Mapping[str, Any]) -> Any:
    """What gemini tells in its own way."""
    meta = result.get("_meta")
    quota = meta.get("quota") if isinstance(meta, Mapping) else None
    counts = quota.get("token_count") if isinstance(quota, Mapping) else None
    return {"inputTokens": counts.get("input_tokens"), "outputTokens": counts.get("output_tokens")} if isinstance(counts, Mapping) else None


def _entries(entries: Any) -> Iterator[PlanEntry]:
    for each in _items(entries):
        status = each.get("status")
        yield PlanEntry(str(each.get("content") or ""), status if status in ("in_progress", "completed") else "pending")


def _text(block: Any) -> str:
    """A content block as text."""
    if not isinstance(block, Mapping):
        return ""
    resource = block.get("resource")
    found = (
        block.get("text") or block.get("uri") or (resource.get("text") or resource.get("uri") if isinstance(resource, Mapping) else None)
    )
    return found if isinstance(found, str) else f"[{block['type']}]" if block.get("type") in ("image", "audio") else ""


def _items(found: Any) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []


def _count(found: Any) -> int:
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0


def _json(value: Any) -> str:
    if isinstance(value, str) and re.match(r"\s*[{\[]", value):
        return value
    return "{}" if value is None else json.dumps(value, ensure_ascii=False)
