"""A person at a real terminal: a command on a pseudo-terminal of its own, keys that are pressed, and what the screen shows."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

PATIENCE_SECONDS = 30.0


class Terminal:
    """Args: argv, environment, folder: of the command."""

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path, columns: int = 100, rows: int = 30) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(columns, rows)
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.raw = b""
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "xterm-256color", "LANG": "C.UTF-8"},
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        if hasattr(self, "_screen"):
            self._screen.resize(rows, columns)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, *words: str, gone: str = "") -> str:
        """The screen once it shows all of these words, and others no more."""
        return self._wait(lambda: all(word in self.text for word in words) and not (gone and gone in self.text), f"{words}, not {gone!r}")

    def ended(self, code: int = 0) -> str:
        """What stands on the terminal once the command has ended."""
        self._wait(lambda: self.process.poll() is not None, "its end")
        while self._read(0.05):
            pass
        assert self.process.returncode == code, self.text
        return self.text

    def echoes(self) -> bool:
        """Whether the terminal is as a shell wants it."""
        return bool(termios.tcgetattr(self._ours)[3] & termios.ECHO)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def _wait(self, fact: Callable[[], bool], what: str) -> str:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not fact():
            assert time.monotonic() < deadline, f"the terminal does not show {what}:\n{self.text}"
            self._read(0.05)
        return self.text

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self._ours, 65536)
        except OSError:  # nobody is at the other end any more
            return False
        self.raw += piece
        self._stream.feed(piece)
        return bool(piece)
