"""The words of checks: a project's own command, run on what a turn left."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID

OUTPUT_CHARACTERS = 65_536
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|[ -/]*[0-~])")


class CheckState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check:
    """A check that a node has taken to run; `epoch` fences what it writes."""

    id: UUID
    epoch: int
    task_id: int
    change_id: UUID
    session_id: UUID
    command: str
    seconds: float
    network: bool
    worktree: Path


@dataclass(frozen=True, slots=True)
class Ran:
    """How a project's command ended.

    Attributes:
        exit_code: None when it was ended by us.
        ended: what became of it, to go on a sentence that begins with it: `ended with exit code 1`.
        output: what it printed, the middle cut out where that was too much.
    """

    exit_code: int | None
    ended: str
    output: str = ""


def shown(output: str) -> str:
    """What is kept of an output with its check: without colours and cursor movements, its middle cut out where it is long."""
    text = _ESCAPES.sub("", output).replace("\r\n", "\n")
    if len(text) <= OUTPUT_CHARACTERS:
        return text
    half = (OUTPUT_CHARACTERS - 80) // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters cut out here; the log file has more …]\n{text[-half:]}"
