"""Lines that a person types while other things go on; the terminal itself does the editing."""

from __future__ import annotations

import asyncio
import os
import sys
import termios
from collections.abc import Callable

PIECE_BYTES = 65_536


class Keyboard:
    """Standard input, line by line.

    Args:
        line: told each line without its end, and None at the end of the input.

    Attributes:
        terminal: whether a person is there.
    """

    def __init__(self, line: Callable[[str | None], None]) -> None:
        self._line = line
        self._rest = b""
        self._fd = -1
        self.terminal = sys.stdin is not None and sys.stdin.isatty()

    def listen(self) -> None:
        """Begin; needs a running loop."""
        if sys.stdin is None:  # it was closed before we began
            self._line(None)
            return
        self._fd = sys.stdin.fileno()
        try:
            asyncio.get_running_loop().add_reader(self._fd, self._read)
        except PermissionError:  # what is no stream, such as a file, can always be read
            while self._read():
                pass

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._fd = -1

    def forget(self) -> None:
        """Drop what was typed before it was asked for."""
        self._rest = b""
        if self.terminal:
            termios.tcflush(sys.stdin, termios.TCIFLUSH)

    def _read(self) -> bool:
        """Read what is there; whether more may come."""
        if self.terminal and os.tcgetpgrp(self._fd) != os.getpgrp():
            return True  # in the background: what is typed is the shell's, and reading it would stop us
        try:
            piece = os.read(self._fd, PIECE_BYTES)
        except OSError:  # the terminal has gone
            piece = b""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if not piece and self._rest:
            lines, self._rest = [self._rest], b""
        for line in lines:
            self._line(line.decode("utf-8", "surrogateescape"))
        if not piece:
            self.close()
            self._line(None)
        return bool(piece)
