"""What a command works with: the house, and a door that is opened when it is needed."""

from __future__ import annotations

import getpass
import os
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coder.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from coder.cli.house import House
    from coder.ports import SyncDoor

PATIENCE_SECONDS = 30.0
"""How long somebody who waits for something lets a service that is being restarted come back."""

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""Hosts that no proxy leads to."""

Json = Annotated[bool, typer.Option("--json", help="Print exact JSON on standard output, and nothing else there.")]
Limit = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many rows.")]
TaskId = Annotated[int, typer.Argument(min=1, max=2**63 - 1, metavar="TASK", help="The task's id.", show_default=False)]


class Desk:
    """One command's working place.

    Args:
        house: the wiring.
    """

    def __init__(self, house: House) -> None:
        self.house = house
        self._door: SyncDoor | None = None

    @property
    def remote(self) -> bool:
        """Whether commands go to another coder over HTTP (CODER_URL)."""
        return bool(self.house.settings().url)

    @property
    def door(self) -> SyncDoor:
        if self._door is None:
            self._door = self._open()
        return self._door

    def _open(self) -> SyncDoor:
        settings = self.house.settings()
        if not settings.url:
            return self.house.door()
        from coder.cli.http_door import HttpDoor

        return HttpDoor(settings.url, settings.token.get_secret_value() if settings.token else "")

    def live(self) -> tuple[str, str]:
        """Where the live view is, as an address and a token: at CODER_URL, or of the service of this machine.

        Raises:
            Unavailable: no service with an API runs here.
        """
        settings = self.house.settings()
        if settings.url:
            return settings.url, settings.token.get_secret_value() if settings.token else ""
        return self.house.live()

    def close(self) -> None:
        door, self._door = self._door, None
        if door is not None:
            door.close()

    def patiently(self, statement: str, **parameters: Any) -> dict[str, Any]:
        """A row, for somebody who waits: while nothing can be reached, it is tried again for a while."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self.door.row(statement, **parameters)
            except Unavailable:
                self.close()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def only_here(self, what: str) -> None:
        """Refuse what HTTP has no way for."""
        if self.remote:
            raise InvalidInput(f"{what} is on the machine that runs coder; run this there, without CODER_URL.")


def desk(context: typer.Context) -> Desk:
    """The desk of a command."""
    found = context.obj
    assert isinstance(found, Desk), "build() puts it there"
    return found


def actor() -> str:
    """Who decides, as the database records it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in some containers
        return f"uid {os.getuid()}"


def sound(text: str, what: str) -> str:
    """Text that can be stored.

    Raises:
        InvalidInput: it holds NUL, or bytes that are not UTF-8.
    """
    if "\0" in text:
        raise InvalidInput(f"{what} contains the character U+0000, which cannot be stored; leave it out.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"{what} is not UTF-8; encode it as UTF-8.")
    return text


def from_stdin(given: str) -> str:
    """A text argument; `-` stands for what is on standard input.

    Raises:
        InvalidInput: that cannot be stored.
    """
    return sound(sys.stdin.buffer.read().decode("utf-8", "surrogateescape"), "The input") if given == "-" else given
