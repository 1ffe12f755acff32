"""Connections to PostgreSQL, and its errors in our words.

The pool plans every statement anew (`plan_cache_mode`) only where asked: the door's filters are optional, the queue's are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import asyncpg

from coder.errors import CoderError, Conflict, Contended, DiskFull, InvalidInput, NotFound, Stale, Superseded, Unavailable

APPLICATION = "coder"
ANSWER_SECONDS = 15.0


class IdempotencyConflict(Conflict):
    """{message}"""

    code = "idempotency_conflict"


SENTENCES: dict[str, type[CoderError]] = {
    "CD404": NotFound,
    "CD409": Conflict,
    "CD410": Stale,
    "CD411": Superseded,
    "CD412": IdempotencyConflict,
    "CD422": InvalidInput,
}
DETAILS = {"CD410": "fingerprint", "CD411": "superseded_by"}
"""The fact that an error's DETAIL is."""


def in_our_words(sqlstate: str | None, message: str, detail: str | None = None) -> CoderError | None:
    """The `CoderError` for an SQLSTATE and the server's message, None where it is a fault of ours.

    Source: PostgreSQL manual, appendix A "Error Codes"; CDnnn are our own (schema.sql).
    """
    if sqlstate is None:
        return None
    if sqlstate in SENTENCES:
        return SENTENCES[sqlstate](message, **{DETAILS[sqlstate]: detail} if detail and sqlstate in DETAILS else {})
    if sqlstate == "53100":
        return DiskFull(what="the database", where="PostgreSQL")
    if sqlstate.startswith(("08", "28", "3D", "53", "55000", "57P")):
        return Unavailable(f"The database cannot serve this right now ({message.rstrip('.')}); try again in a moment.")
    if sqlstate in ("40001", "40P01", "55P03", "57014"):  # serialization, deadlock, lock timeout, cancelled
        return Contended(f"The database gave this up for now, since others are at the same rows ({message.rstrip('.')}); try again.")
    if sqlstate == "42P01":
        return Unavailable(f"The database lacks coder's schema ({message.rstrip('.')}); run `coder migrate`.")
    if sqlstate == "23505":
        return Conflict(f"This already exists ({message.rstrip('.')}); use another name or key.")
    if sqlstate.startswith(("22", "23")):
        return InvalidInput(f"The database refuses this: {message.rstrip('.')}; correct the value.")
    return None


@contextmanager
def our_words() -> Iterator[None]:
    """Turn what asyncpg raises inside into `CoderError`s; faults of ours pass unchanged."""
    try:
        yield
    except asyncpg.PostgresError as error:
        known = in_our_words(error.sqlstate, error.message or str(error), error.detail)
        if known is None:
            raise
        raise known from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        # InternalClientError: the server has said that it goes away, and the end of the connection is still to be read.
        if isinstance(error, asyncpg.exceptions.DataError):
            raise InvalidInput(f"A value is not acceptable: {error}; correct it.") from error
        raise Unavailable(f"The database cannot be reached ({error or type(error).__name__}); is it running?") from error


async def open_pool(dsn: str, *, size: int, least: int = 0, plan_anew: bool = False, name: str = APPLICATION) -> asyncpg.Pool[Any]:
    """A pool of at most `size` connections; raises `Unavailable` when the first cannot be made."""
    settings = {"application_name": name, "timezone": "UTC"}
    if plan_anew:
        settings["plan_cache_mode"] = "force_custom_plan"
    with our_words():
        return await asyncpg.create_pool(
            dsn,
            min_size=least,
            max_size=size,
            server_settings=settings,
            command_timeout=120,
            max_inactive_connection_lifetime=300,
            reset=leave_as_it_is,
        )


async def fetch(pool: asyncpg.Pool[Any], sql: str, arguments: Sequence[Any], seconds: float | None = None) -> list[asyncpg.Record]:
    """Run one statement of a node; raises `Unavailable` when there is no answer within `seconds` (default `ANSWER_SECONDS`).

    A connection that stays silent is dropped: asyncpg would ask the server to cancel and wait for that answer too, and
    neither comes out of a broken line. What the statement may have done all the same is found out: writes are fenced.
    """
    clock = asyncio.get_running_loop().time
    seconds = ANSWER_SECONDS if seconds is None else seconds
    deadline = clock() + seconds
    with our_words():
        async with pool.acquire(timeout=seconds) as connection:
            try:
                return list(await connection.fetch(sql, *arguments, timeout=max(0.001, deadline - clock())))
            except TimeoutError:
                connection.terminate()
                raise


async def leave_as_it_is(_connection: object) -> None:
    """Spare the round trip of asyncpg's reset: every statement of ours is one transaction that leaves no state behind."""
