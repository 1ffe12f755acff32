"""The turn's log file: what happens beside an agent's answer.

Invariant: a line is on disk when the call returns, and the endpoint's key is in none of our lines.

Omitted on purpose: rotation; a command's output is bounded here, the number of commands by the turn's request limit.
"""

from __future__ import annotations

from pathlib import Path

RAW_BYTES = 10_000_000


class TurnLog:
    """Appends to one file.

    Args:
        path: the file; its folder is made with the first line.
        secret: what must never be in it, None for nothing.
    """

    def __init__(self, path: Path, secret: str | None) -> None:
        self._path = path
        self._secret = secret
        self._raw = 0
        self._there = False

    def line(self, text: str) -> None:
        """Append a line of ours. What follows by `raw` may be `RAW_BYTES` long again."""
        self._raw = 0
        if self._secret:
            text = text.replace(self._secret, "***")
        self._append(text.encode("utf-8", "replace") + b"\n")

    def raw(self, chunk: bytes) -> None:
        """Append output as it came, up to the bound since the last line of ours."""
        if self._raw < RAW_BYTES:
            self._append(chunk[: RAW_BYTES - self._raw])
            self._raw += len(chunk)
            if self._raw >= RAW_BYTES:
                self._append(b"\n[... output beyond 10 MB is not logged]\n")

    def _append(self, content: bytes) -> None:
        if not self._there:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._there = True
        with self._path.open("ab") as file:
            file.write(content)
