"""Apply the schema: `schema.sql` to an empty database, `migrations/NNNN.sql` steps to an older one.

Everything happens in one transaction under an advisory lock, so that any number of nodes may start at once.
A process runs on any schema whose `min_compatible` is at most its own version: N and N+1 work side by side.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import psycopg
from psycopg.raw_cursor import RawCursor

from coder.errors import Unavailable
from coder.postgres.statements import load
from coder.postgres.sync import our_words

STATEMENTS = load("server.sql")
VERSION = 1
LOWEST_SERVER = 150000
LOCK = 0x636F646572  # "coder"


def schema_text() -> str:
    """`schema.sql`, from the installed package or from the checkout it runs in."""
    packaged = files("coder") / "schema.sql"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schema.sql").read_text(encoding="utf-8")


def steps() -> dict[int, str]:
    """The migration steps by the version they lead to."""
    folder = Path(__file__).parent / "migrations"
    return {int(path.stem): path.read_text(encoding="utf-8") for path in sorted(folder.glob("[0-9]*.sql"))}


def migrate(dsn: str) -> tuple[int, int]:
    """Bring a database to this version.

    Returns:
        The version it had (0 for an empty one) and the one it has.

    Raises:
        Unavailable: the server is too old, cannot be reached, or its schema is too new for this program.
    """
    with (
        our_words(),
        psycopg.connect(dsn, connect_timeout=10, application_name="coder-migrate", cursor_factory=RawCursor) as connection,
    ):
        if connection.info.server_version < LOWEST_SERVER:
            found = connection.info.server_version // 10000
            raise Unavailable(f"The server runs PostgreSQL {found}; coder needs 15 or newer, so point CODER_DATABASE_URL at one.")
        connection.execute(STATEMENTS["lock_schema"].sql, (LOCK,))
        if connection.execute(STATEMENTS["has_schema"].sql).fetchone() == (False,):
            connection.execute(schema_text().encode())
            return 0, VERSION
        before, compatible = version_of(connection)
        check(before, compatible)
        for number, text in steps().items():
            if number > before:
                connection.execute(text.encode())
        return before, max(before, VERSION)


def version_of(connection: psycopg.Connection[tuple[object, ...]]) -> tuple[int, int]:
    """The schema's version and the oldest program version it still serves."""
    row = connection.execute(STATEMENTS["schema_version"].sql).fetchone()
    if row is None:
        raise Unavailable(
            "The database has a table schema_version without a row; it is not coder's: point CODER_DATABASE_URL at another database."
        )
    return int(str(row[0])), int(str(row[1]))


def check(version: int, min_compatible: int) -> None:
    """Refuse a schema that is too new for this program; one that is too old is what `migrate` is for."""
    if min_compatible > VERSION:
        raise Unavailable(f"The database has schema version {version}, which this coder (schema {VERSION}) is too old for; update coder.")
