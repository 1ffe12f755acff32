"""An agent's home as coder reads and writes files in it.

Invariant: nothing outside the home is read or written: its agent, which may be confined to it, can have put a link, or a pipe that
would be waited for, in the place of any file. What the agent's own programs do there is their business.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coder.backends.confine import Confined, Refused
from coder.errors import AgentUnavailable

MOST_BYTES = 4_194_304
OURS = 0o600


class AgentHome:
    """Files of coder's in an agent's home.

    All but `remove` raise AgentUnavailable where the agent made a link that leads out of its home, or no file, of what it is about.

    Args:
        agent: its name, for sentences.
    """

    def __init__(self, path: Path, agent: str) -> None:
        self.path = path
        self._agent = agent

    def make(self, folder: str) -> None:
        """Make a directory, with the home, where it is missing."""
        with self._files(folder) as files, files.parent(f"{folder}/file", create=True):
            return

    def read(self, name: str) -> bytes:
        """A file's content, or its beginning where it is longer than `MOST_BYTES`. Raises OSError where there is none."""
        with self._files(name) as files, open(files.open(name), "rb") as file:
            return file.read(MOST_BYTES)

    def write(self, name: str, content: bytes, *, mode: int = OURS, changed: float | None = None) -> None:
        """Put a file in place, with its directories.

        Args:
            changed: when it is to look changed; None = now.
        """
        with self._files(name) as files:
            files.store(name, content, mode=mode)
            if changed is not None:
                with files.parent(name) as (directory, last):
                    os.utime(last, (changed, changed), dir_fd=directory, follow_symlinks=False)

    def changed(self, name: str) -> float:
        """When a file was changed; before all times where there is none."""
        with self._files(name) as files, suppress(FileNotFoundError), files.parent(name) as (directory, last):
            return os.stat(last, dir_fd=directory, follow_symlinks=False).st_mtime
        return float("-inf")

    def remove(self, name: str) -> None:
        """Delete a file where there is one; behind a link that leads out of the home there is none of ours."""
        with suppress(FileNotFoundError, AgentUnavailable), self._files(name) as files, files.parent(name) as (directory, last):
            os.unlink(last, dir_fd=directory)

    @contextmanager
    def _files(self, name: str) -> Iterator[Confined]:
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            yield Confined(self.path, self.path)
        except Refused as refused:
            detail = f"in its home {self.path}, {name} is no file, or a link that leads out of it; remove that, then retry"
            raise AgentUnavailable(agent=self._agent, detail=detail) from refused
