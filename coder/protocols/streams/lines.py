"""Bytes into lines, and lines into the records that are in them.

Invariant: how the bytes are cut makes no difference; no bytes raise; a line takes at most `LINE_BYTES` of memory, and its time is
linear in its length.
"""

from __future__ import annotations

import json
import re
from typing import Any

from coder.transcript import clean

LINE_BYTES = 16 * 1_048_576

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b\n]*(?:\x07|\x1b\\)?|[ -/]*[0-~])|[\x00-\x08\x0b-\x1f\x7f]")
_TRIES = 8
_decoder = json.JSONDecoder()

Record = dict[str, Any]


class Lines:
    """Takes bytes, gives lines without their end; None stands for one that is longer than `LINE_BYTES`, which is dropped."""

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, content: bytes) -> list[bytes | None]:
        first, *others = content.split(b"\n")
        self._add(first)
        lines: list[bytes | None] = []
        for piece in others:
            lines.append(self._take())
            self._add(piece)
        return lines

    def close(self) -> list[bytes | None]:
        """The last line, when it has no end."""
        return [self._take()] if self._size else []

    def _add(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._limit:
            self._pieces.clear()
        elif piece:
            self._pieces.append(piece)

    def _take(self) -> bytes | None:
        line = None if self._size > self._limit else b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return line


def records(line: bytes) -> list[Record | str]:
    """What is in a line: records (JSON objects with a `type`), and whatever stands beside them as text without escape sequences."""
    text = line.decode("utf-8", "replace")
    found: list[Record | str] = []
    begin = place = tries = 0
    while tries < _TRIES and (start := text.find("{", place)) >= 0:
        try:
            value, place = _decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            tries += 1
            place = start + 1
            continue
        if isinstance(value, dict) and isinstance(value.get("type"), str):
            found += [*_plain(text[begin:start]), value]
            begin = place
    return [*found, *_plain(text[begin:])]


def _plain(text: str) -> list[str]:
    text = clean(_ESCAPE.sub("", text)).rstrip()
    return [text] if text else []


def dig(value: Any, *path: str) -> Any:
    """What lies at a path of names in a record, None where it leads nowhere."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_at(value: Any, *path: str) -> str:
    """The text at a path; empty where there is none."""
    found = dig(value, *path)
    return found if isinstance(found, str) else ""


def number_at(value: Any, *path: str) -> int:
    """The count at a path; 0 where there is none."""
    found = dig(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**53 else 0


def code_at(value: Any, *path: str) -> int | None:
    """The exit code at a path; None where there is none."""
    found = dig(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) and abs(found) < 2**31 else None


def list_at(value: Any, *path: str) -> list[Any]:
    """The list at a path; empty where there is none."""
    found = dig(value, *path)
    return found if isinstance(found, list) else []


def as_json(value: Any) -> str:
    """A value as JSON text; `{}` for none."""
    return "{}" if value is None else json.dumps(value, ensure_ascii=False)


def prose(content: Any) -> str:
    """The text of a content that is a text, or a list of blocks with texts in them."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n".join(text for block in blocks if (text := text_at(block, "text")))
