"""The door over psycopg, for the command line: the same statements, no event loop, no NOTIFY."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.raw_cursor import RawCursor

from coder.errors import InvalidInput, Unavailable
from coder.postgres.door import STATEMENTS, missing
from coder.postgres.pool import in_our_words


@contextmanager
def our_words() -> Iterator[None]:
    """Turn what psycopg raises inside into `CoderError`s."""
    try:
        yield
    except psycopg.Error as error:
        known = in_our_words(error.diag.sqlstate, error.diag.message_primary or str(error), error.diag.message_detail)
        if known is not None:
            raise known from error
        if isinstance(error, psycopg.OperationalError):
            reason = (str(error).strip().splitlines() or ["no answer"])[0]
            raise Unavailable(
                f"The database cannot be reached ({reason}); start it with `coder up`, or correct CODER_DATABASE_URL."
            ) from error
        if error.diag.sqlstate is None and isinstance(error, psycopg.ProgrammingError):
            raise InvalidInput(f"The database's address is not acceptable ({error}); correct CODER_DATABASE_URL.") from error
        raise


class PsycopgDoor:
    """Implements `ports.SyncDoor` on one autocommit connection, opened at the first statement."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection[Any] | None = None

    def _fetch(self, statement: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        found = STATEMENTS[statement]
        with our_words():
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._dsn, autocommit=True, connect_timeout=5, application_name="coder-cli", cursor_factory=RawCursor
                )
            return self._connection.execute(found.sql, found.arguments(parameters)).fetchall()

    def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        return [row[0] for row in self._fetch(statement, parameters)]

    def row(self, statement: str, **parameters: Any) -> dict[str, Any]:
        rows = self.rows(statement, **parameters)
        if not rows:
            raise missing(STATEMENTS[statement], parameters)
        return rows[0]

    def blob(self, statement: str, **parameters: Any) -> bytes:
        rows = self._fetch(statement, parameters)
        if not rows or rows[0][0] is None:
            raise missing(STATEMENTS[statement], parameters)
        return bytes(rows[0][0])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
