"""Changes decided on in the terminal, hunk by hunk, with the keys of the panel.

What is written is stored at once, as draft comments; what is marked is decided with one key, by the fingerprint that was read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

from coder.cli.deciding import decide
from coder.cli.desk import Desk, actor
from coder.cli.review import MOST, WAITING
from coder.cli.screen import coloured
from coder.cli.sheet import Sheet
from coder.cli.sheet_view import AROUND, help_rows, painted, rows
from coder.cli.terminal import Terminal
from coder.errors import CoderError, NotFound


class Reviewing:
    """A person at a terminal, and the change that is looked at."""

    def __init__(self, at: Desk, branch: str | None, *, commit: bool, push: bool) -> None:
        self._at = at
        self._branch = branch
        self._commit = commit
        self._push = push
        self._said = ""
        self._help = False
        self._sheet: Sheet
        self._terminal = Terminal(self._screen)
        self._done: list[str] = []
        self._acts: dict[str, Callable[[], None]] = {
            "n": lambda: self._sheet.go(self._sheet.at + 1),
            "p": lambda: self._sheet.go(self._sheet.at - 1),
            "j": lambda: self._sheet.go_to_file(1),
            "k": lambda: self._sheet.go_to_file(-1),
            "down": lambda: self._sheet.move(1),
            "up": lambda: self._sheet.move(-1),
            " ": lambda: self._sheet.move(self._page()),
            "page down": lambda: self._sheet.move(self._page()),
            "b": lambda: self._sheet.move(-self._page()),
            "page up": lambda: self._sheet.move(-self._page()),
            "a": lambda: self._sheet.mark("approve"),
            "r": lambda: self._sheet.mark("reject"),
            "A": lambda: self._sheet.mark_file("approve"),
            "R": lambda: self._sheet.mark_file("reject"),
            "v": lambda: self._sheet.view(),
            "c": lambda: self._comment(self._sheet.place()),
            "C": lambda: self._comment({"path": self._sheet.part.path, "side": "new", "line": None}),
            "s": self._send,
            "u": self._read_again,
            "?": self._show_help,
        }

    def all(self, changes: list[str]) -> list[str]:
        """Review changes one after the other; answers what was done, as sentences."""
        with self._terminal.taken():
            for change in changes:
                try:
                    if not self._one(change):
                        break
                except EOFError:
                    break
        return self._done

    def _one(self, change: str) -> bool:
        """Whether the next one is to come: this one was decided on, or is gone."""
        try:
            self._open(change)
        except NotFound as error:
            self._done.append(error.message)
            return True
        while True:
            self._terminal.draw()
            key = self._terminal.key()
            if self._help:
                self._help = False
                continue
            self._said = ""
            try:
                if key in ("d", "enter"):
                    if self._decide():
                        return True
                elif key in ("q", "interrupt", "end"):
                    if self._leave(key):
                        return False
                elif key in self._acts:
                    self._acts[key]()
                else:
                    self._said = "That key does nothing here; ? shows the keys."
            except CoderError as error:
                self._said = error.message

    def _screen(self, columns: int, height: int) -> str:
        if self._help:
            return painted(help_rows(columns, height), coloured())
        self._height = height
        return painted(rows(self._sheet, columns, height, self._target(), self._said), coloured())

    def _target(self) -> str:
        return f"branch {self._branch}" if self._branch else f"{self._sheet.change['project']}'s checkout"

    def _page(self) -> int:
        return max(1, self._height - AROUND - 1)

    def _show_help(self) -> None:
        self._help = True

    def _row(self, change: str) -> dict[str, Any]:
        return self._at.door.row("change_get", change_id=UUID(change))

    def _comments(self, change: str) -> list[Any]:
        found = self._at.door.rows("comment_list", change_id=UUID(change), actor=actor(), limit=MOST)
        return [each for each in reversed(found) if each["state"] != "resolved"]

    def _open(self, change: str) -> None:
        row = self._row(change)
        if not row["files"]:
            raise NotFound(f"Change {change} has no files to look at.")
        self._sheet = Sheet(row, self._comments(change))
        if row["turn_outcome"] != "completed":
            self._said = f"Look twice: the turn that made this was {row['turn_outcome']}."
        elif row["warnings"]:
            self._said = row["warnings"][0]

    def _read_again(self) -> None:
        """The change as it is now, or the one that is open in its session by now, with the marks on what reads the same."""
        before = self._sheet.change
        session = self._at.door.row("session_get", session_id=UUID(before["session_id"]))
        row = self._row(session["open_change_id"] or before["id"])
        self._sheet = self._sheet.anew(row, self._comments(row["id"]))
        if row["id"] != before["id"]:
            self._said = f"This is change {row['id'][:8]}, which took the place of {before['id'][:8]}."
        elif row["state"] not in WAITING:
            self._said = f"Change {row['id'][:8]} is {row['state']}."
        else:
            self._said = "Read again."

    def _comment(self, place: dict[str, Any]) -> None:
        where = place["path"] if place["line"] is None else f"{place['path']}:{place['line']}"
        text = self._terminal.ask(f"{where}: ")
        if text is None or not text.strip():
            self._said = "Nothing was noted."
            return
        change = self._sheet.change["id"]
        self._at.door.row("change_comment", change_id=UUID(change), body=text, end_line=place["line"], actor=actor(), **place)
        self._sheet.comments = self._comments(change)
        self._said = f"Noted on {where}, as a draft; s sends it."

    def _send(self) -> None:
        message = self._terminal.ask("Before the comments (may be empty): ")
        if message is None:
            self._said = "Nothing was sent."
            return
        task = self._at.door.row("change_send", change_id=UUID(self._sheet.change["id"]), message=message or None, actor=actor())
        self._sheet.comments = self._comments(self._sheet.change["id"])
        self._said = f"Sent as task {task['id']}; u reads what the agent makes of it."
        self._done.append(f"Comments on change {self._sheet.change['id']} were sent as task {task['id']}.")

    def _decide(self) -> bool:
        """Decide as marked; whether nothing is left of the change."""
        sheet = self._sheet
        if not sheet.marks:
            self._said = "Nothing is marked yet; a approves the hunk that is shown, r rejects it."
            return False
        reason = self._terminal.ask("Enter decides, Esc goes back. Reason: ")
        if reason is None:
            self._said = "Nothing was decided."
            return False
        self._said = "Deciding…"
        self._terminal.draw()
        target: Literal["checkout", "branch"] = "branch" if self._branch else "checkout"
        parts = None if sheet.whole else sheet.decision()
        decision = decide(
            self._at, sheet.change, parts, reason or None, target=target, branch=self._branch, commit=self._commit, push=self._push
        )
        self._done.append(f"Change {sheet.change['id']}: {sheet.will()}, into {self._target()}.")
        if decision["left_change_id"] is None:
            return True
        self._open(decision["left_change_id"])
        self._said = f"Decided. What is left is change {decision['left_change_id'][:8]}."
        return False

    def _leave(self, key: str) -> bool:
        if not self._sheet.marks or key != "q":
            return True
        sure = self._terminal.ask("Marks are not decided on yet. Enter quits, Esc goes back: ")
        self._said = "" if sure is not None else "d decides as marked."
        return sure is not None
