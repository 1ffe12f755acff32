"""`coder up` whose agent is scripted: `python live_service.py ROLE GATES`, settings from `CODER_*`. Ends with its parent."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from agents.scripted import ScriptedBackend

from coder.config import Settings
from coder.service import Ready, Service


async def say(ready: Ready) -> None:
    print(f"ready {ready.url}", flush=True)


def end_with_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    role: Any = sys.argv[1]
    threading.Thread(target=end_with_parent, daemon=True).start()
    backend = ScriptedBackend(Path(sys.argv[2]))
    sys.exit(Service(Settings(_env_file=None), role, lambda _: {"native": backend}).run(say))  # type: ignore[call-arg]


if __name__ == "__main__":
    main()
