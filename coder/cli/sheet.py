"""A change as it is reviewed in the terminal: its parts in order, which one is looked at, and what is to become of each. Pure.

A part is what can be decided on by itself: a hunk, or a whole file that has none (binary, renamed, another mode). The invariant:
what `decision` names is exactly what was marked on the parts that were shown, in the words of the change's fingerprint.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Verdict = Literal["approve", "reject"]
Side = Literal["old", "new"]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a part as the diff has it; its number before and after, None where it is not there."""

    words: str
    old: int | None = None
    new: int | None = None

    @property
    def edited(self) -> bool:
        return (self.old is None) != (self.new is None)


@dataclass(frozen=True, slots=True)
class Part:
    """Args: hunk: its number in the file, None of a file that has none. about: what stands over it."""

    path: str
    hunk: int | None
    about: str
    lines: tuple[Line, ...]


@dataclass
class Sheet:
    """The review of one change.

    Attributes:
        change: as the API answers it.
        at: the part that is looked at.
        line: the line of it under the cursor.
        marks: what is to become of parts, by their place; those without are left.
        viewed: the files that were looked through.
    """

    change: Mapping[str, Any]
    comments: list[Mapping[str, Any]] = field(default_factory=list)
    at: int = 0
    line: int = 0
    marks: dict[int, Verdict] = field(default_factory=dict)
    viewed: set[str] = field(default_factory=set)
    parts: list[Part] = field(init=False)

    def __post_init__(self) -> None:
        self.parts = list(parts_of(self.change))
        self.go(0)

    @property
    def part(self) -> Part:
        return self.parts[self.at]

    def go(self, to: int) -> None:
        """Look at a part, at the first line that was edited; beyond either end, at the last one there."""
        self.at = max(0, min(to, len(self.parts) - 1))
        edited = [number for number, line in enumerate(self.part.lines) if line.edited]
        self.line = edited[0] if edited else 0

    def go_to_file(self, step: int) -> None:
        """Look at the first part of the next file (1) or the one before (-1)."""
        files = list(dict.fromkeys(part.path for part in self.parts))
        wanted = max(0, min(files.index(self.part.path) + step, len(files) - 1))
        self.go(next(number for number, part in enumerate(self.parts) if part.path == files[wanted]))

    def move(self, lines: int) -> None:
        self.line = max(0, min(self.line + lines, len(self.part.lines) - 1))

    def mark(self, verdict: Verdict) -> None:
        """Mark the part and look at the next; the same mark again takes it away."""
        if self.marks.get(self.at) == verdict:
            del self.marks[self.at]
        else:
            self.marks[self.at] = verdict
            self.go(self.at + 1)

    def mark_file(self, verdict: Verdict) -> None:
        """Mark all parts of the file and look at the next file; when all had this mark, it is taken away."""
        numbers = [number for number, part in enumerate(self.parts) if part.path == self.part.path]
        if all(self.marks.get(number) == verdict for number in numbers):
            for number in numbers:
                del self.marks[number]
            return
        self.marks |= dict.fromkeys(numbers, verdict)
        self.go_to_file(1)

    def view(self) -> None:
        """The file was looked through: go to the next that was not; once more takes it back."""
        path = self.part.path
        if path in self.viewed:
            self.viewed.discard(path)
            return
        self.viewed.add(path)
        ahead = [*range(self.at, len(self.parts)), *range(self.at)]
        unseen = next((number for number in ahead if self.parts[number].path not in self.viewed), None)
        if unseen is not None:
            self.go(unseen)

    def place(self) -> dict[str, Any]:
        """Where a comment would stand: the line under the cursor, or the file where there is none."""
        line = self.part.lines[self.line]
        side: Side = "old" if line.new is None and line.old is not None else "new"
        return {"path": self.part.path, "side": side, "line": line.old if side == "old" else line.new}

    def said_here(self, line: Line | None) -> list[Mapping[str, Any]]:
        """The comments on a line of the part, or on its file (None): there too those that no part of it shows."""
        mine = [each for each in self.comments if each["path"] == self.part.path]
        if line is not None:
            return [each for each in mine if on(each, line)]
        if self.at and self.parts[self.at - 1].path == self.part.path:
            return []
        shown = [line for part in self.parts if part.path == self.part.path for line in part.lines]
        return [each for each in mine if not any(on(each, line) for line in shown)]

    def decision(self) -> list[dict[str, Any]]:
        """The parts of a decision (`change_decide`): files whose parts all have one mark as files, other marks by hunk."""
        by_file: dict[str, list[int]] = defaultdict(list)
        for number, part in enumerate(self.parts):
            by_file[part.path].append(number)
        decided: list[dict[str, Any]] = []
        for path, numbers in by_file.items():
            marks = {self.marks.get(number) for number in numbers}
            if len(marks) == 1:
                decided += [{"path": path, "verdict": mark} for mark in marks if mark is not None]
                continue
            decided += [
                {"path": path, "hunk": self.parts[number].hunk, "verdict": self.marks[number]} for number in numbers if number in self.marks
            ]
        return decided

    @property
    def whole(self) -> bool:
        """Whether everything is approved."""
        return set(self.marks) == set(range(len(self.parts))) and set(self.marks.values()) == {"approve"}

    def will(self) -> str:
        """What a decision would do, in words."""
        count = {verdict: sum(mark == verdict for mark in self.marks.values()) for verdict in ("approve", "reject")}
        left = len(self.parts) - len(self.marks)
        return f"{count['approve']} approved, {count['reject']} rejected, {left} left"

    def anew(self, change: Mapping[str, Any], comments: list[Mapping[str, Any]]) -> Sheet:
        """The review of what took this change's place: marks stay on parts that read the same, and so does what was viewed of them."""
        known = {(part.path, texts(part)): number for number, part in enumerate(self.parts)}
        again = Sheet(change, comments)
        kept = [(number, known.get((part.path, texts(part)))) for number, part in enumerate(again.parts)]
        again.marks = {number: self.marks[before] for number, before in kept if before is not None and before in self.marks}
        new = {again.parts[number].path for number, before in kept if before is None}
        again.viewed = self.viewed - new
        here = [number for number, before in kept if before == self.at]
        here += [number for number, part in enumerate(again.parts) if part.path == self.part.path]
        again.go(here[0] if here else 0)
        return again


def on(comment: Mapping[str, Any], line: Line) -> bool:
    """Whether a comment stands on a line: the last, when it is about several."""
    number = line.old if comment["side"] == "old" else line.new
    return not comment["outdated"] and number is not None and comment["end_line"] == number


def texts(part: Part) -> tuple[str, ...]:
    return tuple(line.words for line in part.lines)


def parts_of(change: Mapping[str, Any]) -> Iterable[Part]:
    """The parts of a change, in the order of its diff."""
    diff = change["diff"].split("\n")
    for file in change["files"]:
        counts = "binary" if file["additions"] is None else f"+{file['additions']} -{file['deletions']}"
        about = f"{file['operation']} {counts}"
        if file["old_path"]:
            about += f" from {file['old_path']}"
        if file["old_mode"] != file["new_mode"] and file["operation"] not in ("added", "deleted"):
            about += f" mode {file['old_mode']} to {file['new_mode']}"
        for hunk in file["hunks"]:
            start = hunk["diff_line"]
            yield Part(file["path"], hunk["number"], about, tuple(_lines(hunk, diff[start : start + hunk["diff_lines"] - 1])))
        if not file["hunks"]:
            yield Part(file["path"], None, about, (Line("(nothing of it can be shown as lines)"),))


def _lines(hunk: Mapping[str, Any], shown: list[str]) -> Iterable[Line]:
    old, new = hunk["old_start"], hunk["new_start"]
    for words in shown:
        kind = words[:1]
        if kind == "\\":
            yield Line(words)
            continue
        yield Line(words, None if kind == "+" else old, None if kind == "-" else new)
        old += kind != "+"
        new += kind != "-"
