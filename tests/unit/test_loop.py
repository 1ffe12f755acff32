"""The loop of a service is libuv's, and the service and its measurements run on nothing else."""

from __future__ import annotations

import asyncio
import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]


def test_what_runs_runs_on_libuv_and_older_objects_are_left_alone() -> None:
    # In a process of its own: what is frozen here would stay so for every other test.
    source = (
        "import asyncio, gc\n"
        "from coder.host.loop import run\n"
        "async def which(): return type(asyncio.get_running_loop()).__module__\n"
        "print(run(which()), gc.get_freeze_count() > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=TOP)
    assert done.stdout.split() == ["uvloop", "True"]


def test_an_error_of_what_runs_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from coder.host.loop import run

    monkeypatch.setattr(gc, "freeze", lambda: None)
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)

    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run(fail())


@pytest.mark.parametrize("file", ["coder/service.py", "tests/bench/__main__.py"])
def test_the_service_and_its_measurements_use_it(file: str) -> None:
    text = (TOP / file).read_text()
    assert re.search(r"^from coder\.host\.loop import run$", text, re.M), file
    assert "asyncio.run(" not in text, file
