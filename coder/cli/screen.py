"""What commands print: exact JSON, or tables and fields for people.

The invariant: text of agents and users reaches a terminal without control characters, so that no diff and no title
can move the cursor, hide a line or reverse the reading direction. JSON escapes them by itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

_KEPT = frozenset("\t\n")
_UNSEEN = [*range(0x20), *range(0x7F, 0xA0), 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF]
_SHOWN = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in (*_UNSEEN, *range(0xD800, 0xE000)) if chr(code) not in _KEPT
}
_STYLES = (("+++", "1"), ("---", "1"), ("+", "32"), ("-", "31"), ("@@", "36"), ("diff ", "1"))

CELL_CHARACTERS = 120


def visible(text: str) -> str:
    """Text in which every control character, bidi mark and lone surrogate is written out, as in `\\x1b`."""
    return text.translate(_SHOWN)


def one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def put(text: str = "") -> None:
    """A line for people on standard output."""
    print(visible(text).encode(sys.stdout.encoding or "utf-8", "replace").decode(sys.stdout.encoding or "utf-8"))


def progress(text: str) -> None:
    """A line about what is going on, on standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def put_json(value: Any) -> None:
    """One JSON document, indented for a terminal; ASCII where the output cannot take more."""
    wide = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not wide, indent=2 if sys.stdout.isatty() else None))


def coloured() -> bool:
    """Whether standard output wants colours (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def when(moment: str | None) -> str:
    """An RFC 3339 time as local time to the second."""
    if not moment or not moment[0].isdigit():
        return moment or ""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(text: str) -> str:
    """A cell's text: what is longer than any title is cut, here and in a pipe; `--json` has it whole."""
    return text if len(text) <= CELL_CHARACTERS else text[: CELL_CHARACTERS - 1] + "…"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
    """Rows under headings; on a terminal the last column is cut to its width, elsewhere a cell has at most 120 characters.

    Args:
        empty: what to say, on standard error, when there are none.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[short(one_line("" if cell is None else str(cell))) for cell in row] for row in rows]
    if not cells:
        progress(empty)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    shown = Table(box=None, pad_edge=False, header_style="bold" if coloured() else "")
    for column, width in zip(columns, widths, strict=True):
        shown.add_column(column, no_wrap=True, overflow="ellipsis", min_width=None if column == columns[-1] else width)
    for row in cells:
        shown.add_row(*(Text(cell) for cell in row))
    # Wide characters take two columns; elsewhere than on a terminal nothing is cut.
    whole = None if sys.stdout.isatty() else 2 * sum(widths) + 2 * len(widths)
    Console(width=whole, no_color=None if coloured() else True, highlight=False, emoji=False).print(shown)


def fields(row: Mapping[str, Any], **shown: Any) -> None:
    """The fields of one thing, a line each; empty ones are left out. `shown` replaces or adds."""
    values = {**row, **shown}
    width = max(map(len, values))
    for name, value in values.items():
        if value in (None, "", [], {}):
            continue
        if name.endswith(("_at", "_until", "deadline")) and isinstance(value, str):
            value = when(value)
        put(f"{name:<{width}}  " + _words(value).rstrip("\n").replace("\n", "\n" + " " * (width + 2)))


def _words(value: Any) -> str:
    """A value for people: an object's fields a line each, what is deeper as JSON, texts as they are."""
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {_word(inner)}" for name, inner in value.items())
    return ", ".join(map(_word, value)) if isinstance(value, list) else str(value)


def _word(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (Mapping, list, bool, type(None))) else str(value)


def put_diff(diff: str) -> None:
    """A diff, coloured where colours are wanted."""
    painted = coloured()
    for line in diff.split("\n"):
        style = next((style for start, style in _STYLES if line.startswith(start)), None) if painted else None
        if style is None:
            put(line)
        else:
            print(f"\x1b[{style}m{visible(line)}\x1b[0m")


def put_conflicts(conflicts: Iterable[Mapping[str, Any]]) -> None:
    """Where a change and its target clash: each file, and in it the lines that both edited."""
    for file in conflicts:
        put(file["detail"].strip() or f"{file['path']}: both sides changed it")
        for hunk in file["hunks"]:
            put(f"{file['path']}:{hunk['line']}")
            put_diff("".join(f"{mark}{line}\n" for mark, side in (("-", "ours"), ("+", "theirs")) for line in hunk[side].splitlines())[:-1])
