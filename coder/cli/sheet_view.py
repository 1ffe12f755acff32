"""How a review looks in a terminal: rows of text for its width and height. Pure.

The invariant: a row is never wider than the terminal, and text of agents and users moves no cursor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len, set_cell_size

from coder.cli.screen import one_line, visible
from coder.cli.sheet import Line, Sheet

BOLD, DIM, GREEN, RED, CYAN, YELLOW, REVERSE = "1", "2", "32", "31", "36", "33", "7"
WORDS = {"approve": "approved", "reject": "rejected", None: "left"}
STYLES = {"+": GREEN, "-": RED, "\\": DIM}
AROUND = 6
"""Rows that are not the part: three over it, three under it."""
TAB = 8
SHORT = "n p hunk · j k file · a approve · r reject · c comment · v viewed · d decide · s send · ? keys · q quit"
KEYS = (
    ("n, p", "next and previous hunk"),
    ("j, k", "next and previous file"),
    ("down, up", "next and previous line; space, b: a screenful"),
    ("a", "approve the hunk; once more: leave it"),
    ("r", "reject the hunk; once more: leave it"),
    ("A, R", "approve, reject all hunks of the file"),
    ("c", "comment on the line; C: on the file"),
    ("v", "the file is viewed; on to the next that is not"),
    ("d, Enter", "decide as marked; what is left stays for later"),
    ("s", "send your draft comments to the agent"),
    ("u", "read the change again, and what took its place"),
    ("?", "these keys"),
    ("q", "quit; marks are forgotten, comments stay drafts"),
)
Row = tuple[str, str]
"""A style (SGR numbers, '' for none) and text."""


def rows(sheet: Sheet, columns: int, height: int, target: str, said: str) -> list[Row]:
    """The whole screen.

    Args:
        target: where what is approved goes, in words.
        said: what coder has to say at the moment; '' = the keys.
    """
    change, part = sheet.change, sheet.part
    check = f" · check {change['check_state']}" if change["check_state"] else ""
    hunks = [each for each in sheet.parts if each.path == part.path]
    place = f"hunk {part.hunk} of {len(hunks)}" if part.hunk else "whole file"
    viewed = " · viewed" if part.path in sheet.viewed else ""
    counts = f"+{change['additions']} -{change['deletions']}"
    head: list[Row] = [
        (BOLD, change["title"]),
        (DIM, f"{change['project']} · {change['agent']} · {change['turn_outcome']}{check} · {counts} · {change['id'][:8]}"),
        (CYAN, f"{part.path} · {part.about} · {place} · {WORDS[sheet.marks.get(sheet.at)]}{viewed}"),
    ]
    drafts = sum(each["state"] == "draft" for each in sheet.comments)
    noted = f" · {drafts} draft comments" if drafts else ""
    foot: list[Row] = [
        ("", ""),
        (BOLD, f"part {sheet.at + 1} of {len(sheet.parts)} · {sheet.will()}{noted} · into {target}"),
        (YELLOW if said else DIM, said or SHORT),
    ]
    room = max(1, height - AROUND)
    body, cursor = _body(sheet, columns)
    top = max(0, min(cursor - room // 2, len(body) - room))
    shown = body[top : top + room]
    whole = [*head, *shown, *[("", "")] * (room - len(shown)), *foot]
    return [(style, fit(text, columns)) for style, text in whole[:height]]


def help_rows(columns: int, height: int) -> list[Row]:
    lines: list[Row] = [(BOLD, "Keys"), ("", ""), *(("", f"{keys:<10}{does}") for keys, does in KEYS), ("", ""), (DIM, "any key goes back")]
    return [(style, fit(text, columns)) for style, text in lines[:height]]


def fit(text: str, columns: int) -> str:
    """One row: cut to the terminal's width, wide characters counted as two."""
    flat = visible(text.expandtabs(TAB).replace("\n", " "))
    return flat if cell_len(flat) <= columns else set_cell_size(flat, max(0, columns - 1)) + "…"


def _body(sheet: Sheet, columns: int) -> tuple[list[Row], int]:
    """The part's rows, and which of them is under the cursor."""
    body: list[Row] = list(_said(sheet, None, columns))
    cursor = len(body)
    width = max((len(str(number)) for line in sheet.part.lines for number in (line.old, line.new) if number), default=1)
    for number, line in enumerate(sheet.part.lines):
        if number == sheet.line:
            cursor = len(body)
        mark = "›" if number == sheet.line else " "
        old, new = ("" if each is None else str(each) for each in (line.old, line.new))
        style = STYLES.get(line.words[:1], "")
        body.append(
            (f"{style};{REVERSE}".strip(";") if number == sheet.line else style, f"{mark}{old:>{width}} {new:>{width}} {line.words}")
        )
        body += _said(sheet, line, columns)
    return body, cursor


def _said(sheet: Sheet, line: Line | None, columns: int) -> Iterator[Row]:
    for each in sheet.said_here(line):
        where = "" if line is not None else " on the file" if each["line"] is None else f" on line {each['line']}, outdated"
        yield (YELLOW, f"   │ {one_line(each['author'])}{where} ({each['state']}): {one_line(each['body'])}")


def painted(screen: Sequence[Row], coloured: bool) -> str:
    """The screen as a terminal takes it: every row from its beginning, the rest of it and of the screen wiped."""
    out = ["\x1b[H"]
    for number, (style, text) in enumerate(screen):
        end = "" if number == len(screen) - 1 else "\r\n"
        out.append(f"\x1b[{style}m{text}\x1b[0m\x1b[K{end}" if coloured and style else f"{text}\x1b[K{end}")
    return "".join(out) + "\x1b[J"
