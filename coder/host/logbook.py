"""The files of turns: `<data>/logs/<task>/agent.log`, and beside it what was too long to store."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path

from coder.errors import DiskFull
from coder.transcript import Spill


class FileLogbook:
    """Implements `ports.Logbook`."""

    def __init__(self, data_dir: Path) -> None:
        self._folder = data_dir / "logs"

    def path(self, task_id: int) -> Path:
        """The file that collects what the agent prints beside its answer; whoever writes first makes its folder."""
        return self._folder / f"{task_id}/agent.log"

    async def spill(self, task_id: int, spill: Spill) -> None:
        path = self.path(task_id).parent / spill.file
        try:
            await asyncio.to_thread(self._write, path, spill)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFull(what="what was too long to store of the turn", where=path) from error

    @staticmethod
    def _write(path: Path, spill: Spill) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with path.open("a" if spill.append else "w", encoding="utf-8", errors="replace") as file:
            file.write(spill.text)
