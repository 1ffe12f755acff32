"""A review in the terminal without a terminal: parts, marks, places of comments, and rows that fit."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from coder.cli.sheet import Sheet
from coder.cli.sheet_view import help_rows, painted, rows

HUNKS = (
    ("a.py", 1, "@@ -1,3 +1,4 @@", [" one", "-two", "+2", "+2.5", " three"]),
    ("a.py", 20, "@@ -20 +21 @@ def f():", ["-twenty", "+20", "\\ No newline at end of file"]),
    ("b.py", 0, "@@ -0,0 +1,2 @@", ["+new", "+lines"]),
)


def change(id: str = "7a4d9f60", hunks: Any = HUNKS, **more: Any) -> dict[str, Any]:
    diff: list[str] = []
    files: dict[str, dict[str, Any]] = {}
    for path, start, head, lines in hunks:
        file = files.setdefault(path, {"path": path, "old_path": None, "operation": "modified", "additions": 1, "deletions": 1,
                                       "old_mode": "100644", "new_mode": "100644", "hunks": []})  # fmt: skip
        if not file["hunks"]:
            diff += [f"diff --git a/{path} b/{path}", f"--- a/{path}", f"+++ b/{path}"]
        diff.append(head)
        new = int(head.split("+")[1].split(" ")[0].split(",")[0])
        file["hunks"].append({"number": len(file["hunks"]) + 1, "old_start": start, "new_start": new, "old_lines": 0, "new_lines": 0,
                              "diff_line": len(diff), "diff_lines": len(lines) + 1})  # fmt: skip
        diff += lines
    blob = {"path": "logo.png", "old_path": "l.png", "operation": "renamed", "additions": None, "deletions": None,
            "old_mode": "100644", "new_mode": "100755", "hunks": []}  # fmt: skip
    return {
        "id": id, "title": "Add a test", "project": "demo", "agent": "native", "turn_outcome": "completed", "check_state": "failed",
        "additions": 9, "deletions": 2, "files": [*files.values(), blob], "diff": "\n".join(diff),
    } | more  # fmt: skip


def comment(path: str, line: int | None, side: str = "new", **more: Any) -> dict[str, Any]:
    return {
        "path": path,
        "line": line,
        "end_line": line,
        "side": side,
        "outdated": False,
        "author": "ada",
        "state": "open",
        "body": "Hm.",
    } | more


def shown(sheet: Sheet, columns: int = 100, height: int = 40) -> list[str]:
    return [text for _, text in rows(sheet, columns, height, "demo's checkout", "")]


def test_parts_are_the_hunks_and_the_files_without_any() -> None:
    sheet = Sheet(change())
    assert [(part.path, part.hunk) for part in sheet.parts] == [("a.py", 1), ("a.py", 2), ("b.py", 1), ("logo.png", None)]
    assert [(line.old, line.new) for line in sheet.parts[0].lines] == [(1, 1), (2, None), (None, 2), (None, 3), (3, 4)]
    assert [(line.old, line.new) for line in sheet.parts[1].lines] == [(20, None), (None, 21), (None, None)]
    assert sheet.parts[3].about == "renamed binary from l.png mode 100644 to 100755"
    assert sheet.line == 1, "the first line that was edited"


def test_one_goes_by_hunk_by_file_and_by_line_and_never_out() -> None:
    sheet = Sheet(change())
    for step, at in ((1, 2), (1, 3), (1, 3), (-1, 2), (-1, 0), (-1, 0)):
        sheet.go_to_file(step)
        assert sheet.at == at
    sheet.go(99)
    assert sheet.at == 3
    sheet.go(-5)
    sheet.move(99)
    assert (sheet.at, sheet.line) == (0, 4)
    sheet.move(-99)
    assert sheet.line == 0


def test_marks_become_the_smallest_decision() -> None:
    sheet = Sheet(change())
    sheet.mark("approve")
    assert sheet.at == 1
    sheet.mark("reject")
    sheet.mark("approve")
    assert sheet.decision() == [
        {"path": "a.py", "hunk": 1, "verdict": "approve"},
        {"path": "a.py", "hunk": 2, "verdict": "reject"},
        {"path": "b.py", "verdict": "approve"},
    ]
    assert (sheet.whole, sheet.will()) == (False, "2 approved, 1 rejected, 1 left")
    sheet.go(1)
    sheet.mark("reject")
    assert 1 not in sheet.marks, "the same once more takes it back"
    sheet.mark("approve")
    sheet.go(3)
    sheet.mark("approve")
    assert sheet.whole
    sheet.go(0)
    sheet.mark_file("reject")
    assert ({0, 1} <= {n for n, mark in sheet.marks.items() if mark == "reject"}, sheet.at) == (True, 2)
    sheet.go(0)
    sheet.mark_file("reject")
    assert not {0, 1} & sheet.marks.keys()


@given(st.dictionaries(st.integers(0, 3), st.sampled_from(["approve", "reject"])))
def test_a_decision_names_exactly_what_was_marked(marks: dict[int, Any]) -> None:
    sheet = Sheet(change())
    sheet.marks = marks
    named: dict[int, str] = {}
    for part in sheet.decision():
        for number, each in enumerate(sheet.parts):
            if each.path == part["path"] and part.get("hunk", each.hunk) == each.hunk:
                assert number not in named, "no part is named twice"
                named[number] = part["verdict"]
    assert named == marks


def test_viewed_files_are_gone_over() -> None:
    sheet = Sheet(change())
    sheet.view()
    assert (sheet.viewed, sheet.at) == ({"a.py"}, 2)
    sheet.go(3)
    sheet.view()
    assert sheet.at == 2
    sheet.view()
    assert sheet.viewed == {"a.py", "b.py", "logo.png"}
    sheet.view()
    assert sheet.viewed == {"a.py", "logo.png"}


def test_comments_have_their_places() -> None:
    sheet = Sheet(change(), [comment("a.py", 2, "old", body="why gone"), comment("a.py", 2), comment("a.py", None, body="the file"),
                             comment("a.py", 99, body="elsewhere", outdated=True), comment("b.py", 2, body="last")])  # fmt: skip
    assert sheet.place() == {"path": "a.py", "side": "old", "line": 2}
    sheet.move(1)
    assert sheet.place() == {"path": "a.py", "side": "new", "line": 2}
    text = shown(sheet)
    at = next(number for number, line in enumerate(text) if line.endswith("-two"))
    assert text[at + 1] == "   │ ada (open): why gone"
    assert text[at + 3] == "   │ ada (open): Hm."
    assert any("on the file (open): the file" in line for line in text)
    assert any("on line 99, outdated (open): elsewhere" in line for line in text)
    assert not any("last" in line for line in text)
    sheet.go(1)
    assert not any("the file" in line for line in shown(sheet)), "over the first part of a file alone"
    sheet.go(3)
    assert sheet.place() == {"path": "logo.png", "side": "new", "line": None}


def test_what_took_a_changes_place_keeps_the_marks_on_what_reads_the_same() -> None:
    sheet = Sheet(change())
    for verdict in ("approve", "reject", "approve"):
        sheet.mark(verdict)  # type: ignore[arg-type]
    sheet.viewed = {"a.py", "b.py"}
    other = [(*HUNKS[1][:3], [*HUNKS[1][3][:1], "+twenty!"]), ("b.py", 5, "@@ -5,0 +6,2 @@", HUNKS[2][3])]
    again = sheet.anew(change("11111111", other), [])
    assert [(part.path, again.marks.get(number)) for number, part in enumerate(again.parts)] == [
        ("a.py", None), ("b.py", "approve"), ("logo.png", None)]  # fmt: skip
    assert again.viewed == {"b.py"}
    assert again.part.path == "logo.png", "where one was"


@given(st.integers(4, 120), st.integers(7, 60), st.text(max_size=40), st.integers(0, 3), st.integers(0, 9))
def test_every_row_fits_and_moves_no_cursor(columns: int, height: int, text: str, at: int, line: int) -> None:
    words = text.replace("\n", " ")
    hunks = [("w\x1b[2J\t\u4e16.py", 1, "@@ -1 +1,9 @@", [f"+{words}\x1b[H\t世界" for _ in range(30)]), *HUNKS]
    sheet = Sheet(change(hunks=hunks, title=text), [comment("a.py", 2, body=text + "\x07")])
    sheet.go(at)
    sheet.move(line)
    screen = rows(sheet, columns, height, "demo's checkout", text)
    assert len(screen) == height
    assert any(row.startswith("›") for _, row in screen), "the line under the cursor is on the screen"
    for _, row in screen:
        assert cell_len(row) <= columns
        assert not any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 for each in row)
    assert painted(screen, True).count("\r\n") == height - 1


@pytest.mark.parametrize("height", [1, 3, 7, 40])
def test_a_small_terminal_shows_what_it_can(height: int) -> None:
    assert len(rows(Sheet(change()), 20, height, "x", "")) == height
    assert len(help_rows(20, height)) <= height
