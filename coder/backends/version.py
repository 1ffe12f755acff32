"""What version an agent's program says it is; asked again only when the program changed."""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import PIPE, STDOUT

from coder.backends.command import HeadTail
from coder.backends.launcher import Launcher
from coder.errors import TurnError

SECONDS = 20.0
BYTES = 4096
NUMBERS = re.compile(r"\d+\.\d+[\w.+-]*")


class Version:
    """Asks one agent's program."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._known: tuple[tuple[str, float], tuple[str | None, str]] | None = None

    async def of(self, path: str) -> tuple[str | None, str]:
        """The version of the program at that path, and a sentence when it does not tell. What else it prints beside it is passed over."""
        mark = (path, await asyncio.to_thread(os.path.getmtime, path))
        if self._known is None or self._known[0] != mark:
            self._known = (mark, await self._asked(path))
        return self._known[1]

    async def _asked(self, path: str) -> tuple[str | None, str]:
        argv = self._launcher.spec.version_command or (path, "--version")
        await asyncio.to_thread(self._launcher.home.mkdir, parents=True, exist_ok=True, mode=0o700)
        try:
            guarded = await self._launcher.spawn(
                argv, cwd=self._launcher.home, worktree=None, network=False, asks=False, stdout=PIPE, stderr=STDOUT
            )
        except TurnError as error:
            return None, error.message
        said = HeadTail(BYTES)
        try:
            async with asyncio.timeout(SECONDS):
                while guarded.stdout is not None and (chunk := await guarded.stdout.read(BYTES)):
                    said.add(chunk)
                code = await guarded.wait()
        except TimeoutError:
            return None, f"{' '.join(argv)} did not end within {SECONDS:.0f} s"
        finally:
            await guarded.stop()
        text = said.text()
        if code != 0:
            return None, f"{' '.join(argv)} ended with {code}: {next((line.strip() for line in text.splitlines() if line.strip()), '')}"
        found = NUMBERS.search(text)
        return (found[0], "") if found else (None, f"{' '.join(argv)} prints no version")
