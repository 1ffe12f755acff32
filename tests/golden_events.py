"""Events as JSON lines, for files of recorded wire input and what coder makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coder.events import AgentEvent


def as_lines(events: Iterable[AgentEvent]) -> list[str]:
    """An event a line, its kind first."""
    return [json.dumps({"event": type(event).__name__, **asdict(event)}, ensure_ascii=False) for event in events]


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]
