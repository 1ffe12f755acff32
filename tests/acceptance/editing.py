"""A long file of the package with five places to edit, far enough from each other for a hunk each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from checkout import Checkout
from running import Coder

LONG = "more_itertools/recipes.py"
PLACES = (10, 30, 50, 70, 90)


def with_edits(text: str, *numbers: int, word: str = "edited") -> str:
    """The text with so many of its places edited, by number from 1."""
    lines = text.split("\n")
    for number in numbers:
        lines[PLACES[number - 1] - 1] = f"# {word} {number}"
    return "\n".join(lines)


def edits(*numbers: int, word: str = "edited") -> str:
    """What a task says to have places edited."""
    script = "; ".join(f"{PLACES[number - 1]}s/.*/# {word} {number}/" for number in numbers)
    return f"run: sed -i '{script}' {LONG}"


def decide(coder: Coder, change: dict[str, Any], status: int = 200, **how: Any) -> Any:
    return coder.post(f"/changes/{change['id']}/decide", status, **{"fingerprint": change["fingerprint"], **how})


def part(hunk: int | None, verdict: str, path: str = LONG) -> dict[str, Any]:
    return {"path": path, "hunk": hunk, "verdict": verdict}


def worktree_of(coder: Coder, session: str) -> Checkout:
    """The session's worktree, once nothing is owed to it."""
    coder.until(lambda: coder.worktree(session)["shifts"] == [])
    return Checkout(Path(coder.worktree(session)["path"]))


def hunks(change: dict[str, Any], path: str = LONG) -> list[int]:
    (file,) = (file for file in change["files"] if file["path"] == path)
    return [hunk["number"] for hunk in file["hunks"]]
