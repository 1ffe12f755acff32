"""A command of coder on a terminal, and somebody who reads and types there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

PATIENCE_SECONDS = 60.0
COLUMNS = 100


class Terminal:
    """Args: folder: where the command runs; settings: `CODER_*` variables without that prefix, in small letters."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self._folder = folder
        self._arguments = arguments
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")}
        own = {f"CODER_{name.upper()}": value for name, value in settings.items()}
        self._environment = {**inherited, **own, "TERM": "xterm", "NO_COLOR": "1"}
        self.process: asyncio.subprocess.Process | None = None
        self.shown = ""
        self._bytes = b""
        self._master = -1
        self._changed = asyncio.Event()
        self._silent = asyncio.Event()

    async def open(self) -> Terminal:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "coder", *self._arguments,
            stdin=slave, stdout=slave, stderr=slave, cwd=self._folder, env=self._environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        asyncio.get_running_loop().add_reader(self._master, self._read)
        return self

    def _read(self) -> None:
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # Linux says EIO where the other side is closed
            piece = b""
        if not piece:
            asyncio.get_running_loop().remove_reader(self._master)
            self._silent.set()
        self._bytes += piece
        self.shown = self._bytes.decode(errors="replace").replace("\r\n", "\n")
        self._changed.set()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def until(self, fact: str | Callable[[str], object]) -> None:
        """Wait until the terminal shows something."""
        wanted: Callable[[str], object] = (lambda shown: fact in shown) if isinstance(fact, str) else fact
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not wanted(self.shown):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"the terminal does not show {fact!r}, but:\n{self.shown}") from None

    async def ended(self) -> int:
        """Wait for the command's end; answers its exit code, and leaves everything in `shown`."""
        assert self.process is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            code = await self.process.wait()
            await self._silent.wait()
        return code

    async def close(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(signal.SIGKILL)
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)
