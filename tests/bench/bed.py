"""Where measurements happen: one durable embedded PostgreSQL per run, a fresh database per figure, and what fills it."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID, uuid4

import asyncpg

from coder.postgres.embedded import EmbeddedServer
from coder.postgres.pool import open_pool
from coder.postgres.schema import migrate
from coder.postgres.tasks import PostgresTasks

QUEUE_CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Bed:
    """Attributes: server: DSN of the server's own database; place: a directory for files; quick: smaller sizes."""

    server: str
    place: Path
    quick: bool

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Queue]:
        """A database with the schema, one project, one live node, and the program's own queue code on it."""
        name = f"bench_{uuid4().hex[:8]}"
        admin = await asyncpg.connect(self.server)
        await admin.execute(f"create database {name}")
        dsn = urlunsplit(urlsplit(self.server)._replace(path=f"/{name}"))
        migrate(dsn)
        pool, lease = await open_pool(dsn, size=QUEUE_CONNECTIONS), await open_pool(dsn, size=1)
        connection = await asyncpg.connect(dsn)
        try:
            store, host, node = PostgresTasks(pool, lease), uuid4(), uuid4()
            await store.register_host(host, "bench")
            await store.register(node, host, 86400)
            project = await connection.fetchval("insert into projects (name, path) values ('bench', $1) returning id", str(self.place))
            yield Queue(dsn, connection, store, host, node, project)
        finally:
            await connection.close()
            await pool.close()
            await lease.close()
            await admin.execute(f"drop database {name} with (force)")
            await admin.close()


@dataclass(frozen=True, slots=True)
class Queue:
    """One database of a bed. Attributes: connection: for filling and looking; store: the program's own queue code."""

    dsn: str
    connection: asyncpg.Connection[Any]
    store: PostgresTasks
    host: UUID
    node: UUID
    project: UUID

    async def fill(self, sessions: int, each: int = 1) -> None:
        """Queue tasks in new sessions through the front door, bare INSERTs."""
        await self.connection.execute(
            "with first as (insert into tasks (project_id, input) select $1, 'x' from generate_series(1, $2::int) returning session_id)"
            " select count(*) from first",
            self.project,
            sessions,
        )
        if each > 1:
            await self.more(each - 1)

    async def more(self, each: int) -> None:
        """Queue more tasks in every session there is."""
        await self.connection.execute(
            "insert into tasks (project_id, session_id, input) select project_id, id, 'x' from sessions, generate_series(1, $1::int)", each
        )

    async def empty(self) -> None:
        """Away with every task and session."""
        tables = await self.connection.fetch(
            "select relname from pg_class where relname = any ('{sessions, tasks, frames}') and relkind = 'r'"
        )
        await self.connection.execute(f"truncate {', '.join(row['relname'] for row in tables)} cascade")

    async def settle(self) -> None:
        """What autovacuum does in time, now: a measurement must not depend on when it comes.

        Tables that are still empty are left alone, as autovacuum leaves them.
        """
        rows = await self.connection.fetch("select relid::regclass::text as name from pg_stat_user_tables where n_live_tup > 0")
        if rows:
            await self.connection.execute("vacuum analyze " + ", ".join(row["name"] for row in rows))
        await self.connection.execute("checkpoint")

    async def waiting(self) -> int:
        """Tasks that are pending or running."""
        by_state = "(select count(*) from tasks where waiting) + (select count(*) from session_queue where state = 'running')"
        return int(await self.connection.fetchval(f"select {by_state}"))  # each has an index; both at once would read the whole table


@contextmanager
def server(quick: bool) -> Iterator[Bed]:
    """Run a durable server in a temporary directory. Call it from the main thread."""
    with tempfile.TemporaryDirectory(prefix="coder-bench-") as directory:
        embedded = EmbeddedServer(Path(directory), durable=True)
        embedded.start()
        try:
            yield Bed(embedded.dsn, Path(directory), quick)
        finally:
            embedded.stop()
