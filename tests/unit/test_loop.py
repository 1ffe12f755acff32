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


def test_an_agent_s_pipes_close_with_it_also_where_nobody_reads_them() -> None:
    source = (
        "import os\n"
        "from pathlib import Path\n"
        "from coder.backends.guardian import Guardians\n"
        "from coder.host.loop import run\n"
        "async def spawn(guardians):\n"
        "    agent = await guardians.spawn(['cat', '/dev/zero'], cwd=Path('/'), env={'PATH': os.defpath}, limit=1024)\n"
        "    await agent.stdout.readexactly(65536)\n"
        "    await agent.stop()\n"
        "def descriptors(): return len(os.listdir('/proc/self/fd'))\n"
        "async def main():\n"
        "    guardians = Guardians()\n"
        "    await spawn(guardians)\n"  # the loop opens some of its own with the first
        "    before = descriptors()\n"
        "    for _ in range(5): await spawn(guardians)\n"
        "    loop = asyncio.get_running_loop()\n"
        "    deadline = loop.time() + 10\n"
        "    while descriptors() > before and loop.time() < deadline: await asyncio.sleep(0)\n"
        "    print(descriptors() - before)\n"
        "import asyncio, gc\n"
        "gc.disable()\n"  # what only the collector would close counts as open
        "run(main())"
    )
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, cwd=TOP)
    assert int(done.stdout) <= 0, done.stdout
