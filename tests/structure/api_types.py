"""The description of the HTTP API as JSON, for the panel's types: `python -m tests.structure.api_types FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

from coder.config import Settings
from coder.web.app import build


def draw() -> str:
    door: Any = None  # describing asks nobody
    return json.dumps(build(door, Settings(_env_file=None), UUID(int=0)).openapi())  # type: ignore[call-arg]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw())
