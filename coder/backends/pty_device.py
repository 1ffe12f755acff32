"""A pseudo-terminal: the end a program gets, and the end that is read here.

Invariant: reading never blocks the loop, and takes no more at a time than is asked for, so that whoever reads slowly slows the
program down instead of filling memory.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager

ROWS = 50


class Device:
    """Our end of a pseudo-terminal.

    Args:
        master: its descriptor, this object's own from here on.
    """

    def __init__(self, master: int) -> None:
        self._master: int | None = master
        os.set_blocking(master, False)

    async def read(self, most: int, seconds: float) -> bytes | None:
        """What was written meanwhile, as soon as there is any; empty when nobody can write any more, None when the time was over."""
        if self._master is None:
            return b""
        if not await self._readable(self._master, seconds):
            return None
        pieces: list[bytes] = []
        while most > 0:
            try:
                piece = os.read(self._master, most)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EIO:  # how Linux says that the other end is closed
                    raise
                piece = b""
            if not piece:
                if not pieces:
                    self.close()
                break
            pieces.append(piece)
            most -= len(piece)
        return b"".join(pieces)

    def close(self) -> None:
        """Give the terminal up; may be called again."""
        if self._master is not None:
            os.close(self._master)
            self._master = None

    @staticmethod
    async def _readable(descriptor: int, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        readable: asyncio.Future[bool] = loop.create_future()

        def answer(so: bool) -> None:
            if not readable.done():
                readable.set_result(so)

        loop.add_reader(descriptor, answer, True)
        timer = loop.call_later(seconds, answer, False)
        try:
            return await readable
        finally:
            timer.cancel()
            loop.remove_reader(descriptor)


@contextmanager
def terminal(columns: int, *, lines_as_written: bool) -> Iterator[tuple[Device, int]]:
    """A new pseudo-terminal without echo: our end, and the descriptor for the program, which is closed at the end of the context.

    Args:
        columns: width of its window.
        lines_as_written: leave line ends as they are; else they move the cursor to the line's beginning, as on any terminal.
    """
    master, slave = pty.openpty()
    device = Device(master)
    try:
        modes = termios.tcgetattr(slave)
        modes[3] &= ~(termios.ECHO | termios.ECHONL)
        if lines_as_written:
            modes[1] &= ~termios.OPOST
        termios.tcsetattr(slave, termios.TCSANOW, modes)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
        yield device, slave
    except BaseException:
        device.close()
        raise
    finally:
        os.close(slave)
