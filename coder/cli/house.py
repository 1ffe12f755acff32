"""What the command line needs of the rest, as a Protocol; `main.py` implements it.

Every call may raise a `CoderError`, whose sentence is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from coder.change import Gone
    from coder.config import Settings
    from coder.ports import Finding, SyncDoor


class House(Protocol):
    """The wiring, as the commands see it. Nothing is opened before a command asks for it."""

    def settings(self) -> Settings: ...

    def door(self) -> SyncDoor:
        """A door over SQL; the caller closes it. Raises `Unavailable` when no database runs."""
        ...

    def live(self) -> tuple[str, str]:
        """The address of the API that runs on this data directory, and a token for it that lives as long as it does."""
        ...

    def up(self, role: Literal["all", "api", "dispatch"], demo: bool) -> int:
        """Run the service until it is stopped; answers its exit code."""
        ...

    def down(self) -> str:
        """Stop the service of this data directory; answers what was done, as a sentence."""
        ...

    def login(self) -> str:
        """The panel's address with a code that lets a browser in, once; raises `Unavailable` where no API runs here."""
        ...

    def migrate(self) -> str:
        """Bring the database's schema up to date; answers what was done, as a sentence."""
        ...

    def database_url(self) -> str: ...

    def psql(self) -> list[str]:
        """The command that opens psql on the database; arguments may follow."""
        ...

    def doctor(self) -> list[Finding]: ...

    def gc(self, dry_run: bool) -> list[Gone]:
        """Remove what has outlived its retention; answers what went, or would go."""
        ...

    def task_log(self, task_id: int) -> Path:
        """The file with what an agent printed beside its answer; raises `NotFound` where there is none."""
        ...

    def host_id(self) -> UUID: ...
