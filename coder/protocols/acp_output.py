"""What a tool call of an ACP agent has put out, as text: content blocks, diffs, terminals, raw output. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

_FENCE = re.compile(r"\A```[\w-]*\n(.*)\n```\s*\Z", re.S)
_EXIT = re.compile(r"\AExit code (\d{1,3})\n")
_WORDS = ("output", "stdout", "stderr", "text", "error", "message")


def shown(content: list[Any], *, pending: bool, raw: Any, live: str) -> str:
    """The output of a call: of what it says in several ways, the first that says anything.

    Args:
        content: its content blocks; texts of a call that waits describe it and are no output.
        raw: its `rawOutput`.
        live: what it put out piece by piece.
    """
    if isinstance(raw, Mapping) and exit_code(raw, None) is not None and isinstance(found := raw.get("output"), str):
        return found  # of a command; qwen's text wraps it in what else it knows
    text = "\n".join(_blocks(content, texts=not pending))
    if text:
        match = _FENCE.match(text)
        return match[1] if match else text
    return live or _raw(raw)


def _blocks(content: list[Any], *, texts: bool) -> Iterator[str]:
    for block in content:
        if not isinstance(block, Mapping):
            continue
        if block.get("type") == "diff":
            yield difference(str(block.get("path") or ""), block.get("oldText"), block.get("newText"))
        inner = block.get("content")
        if texts and isinstance(inner, Mapping) and isinstance(text := inner.get("text"), str) and text:
            yield text


def difference(path: str, old: Any, new: Any) -> str:
    """A changed text as one hunk: what both have in common at the start and at the end is left out.

    Not the smallest diff there is, but one that costs no more than reading the texts.
    """
    before = old.splitlines() if isinstance(old, str) else []
    after = new.splitlines() if isinstance(new, str) else []
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    removed, added = before[start : len(before) - end], after[start : len(after) - end]
    head = [f"--- {path if isinstance(old, str) else '/dev/null'}", f"+++ {path}"]
    place = f"@@ -{start + bool(removed)},{len(removed)} +{start + bool(added)},{len(added)} @@"
    return "\n".join([*head, place, *(f"-{line}" for line in removed), *(f"+{line}" for line in added)])


def _raw(raw: Any) -> str:
    if isinstance(raw, str):
        return raw
    if isinstance(raw, Mapping):
        parts = [value for word in _WORDS if isinstance(value := raw.get(word), str) and value]
        return "\n".join(dict.fromkeys(parts)) if parts else json.dumps(raw, ensure_ascii=False)
    return "" if raw is None else json.dumps(raw, ensure_ascii=False)


def exit_code(raw: Any, meta: Any) -> int | None:
    """The exit code of a command that ended, where the agent tells one."""
    terminal = meta.get("terminal_exit") if isinstance(meta, Mapping) else None
    beside = raw.get("metadata") if isinstance(raw, Mapping) else None
    for place in (raw, beside, terminal):
        if isinstance(place, Mapping):
            for name in ("exit_code", "exitCode", "exit"):
                if isinstance(code := place.get(name), int) and not isinstance(code, bool):
                    return code
    match = _EXIT.match(raw) if isinstance(raw, str) else None
    return int(match[1]) if match else None


def live_output(meta: Any) -> str:
    """What an update's `_meta` adds to the output of a running command (codex: its terminal; goose: chunks)."""
    if not isinstance(meta, Mapping):
        return ""
    for name in ("terminal_output_delta", "terminal_output"):
        piece = meta.get(name)
        if isinstance(piece, Mapping) and isinstance(text := piece.get("data"), str):
            return text
    told = meta.get("toolNotification")
    params = told.get("params") if isinstance(told, Mapping) else None
    chunks = params.get("chunks") if isinstance(params, Mapping) else None
    if not isinstance(chunks, list):
        return ""
    return "".join(text for chunk in chunks if isinstance(chunk, Mapping) and isinstance(text := chunk.get("output"), str))
