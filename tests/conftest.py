"""What the whole suite shares: one real PostgreSQL per run, and a fresh database per test.

The server is the first of: CODER_TEST_DATABASE_URL (a role that may create databases) · a container, when
CODER_TEST_POSTGRES=container or nothing else is there · the embedded server, with its guarantees switched off for speed.
`schema.sql` is applied once, to a template; each test gets a copy. Tests open their own connections.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from coder.errors import Unavailable
from coder.postgres.embedded import EmbeddedServer, find_binaries

SCHEMA = Path(__file__).resolve().parents[1] / "schema.sql"


# A shell that starts a job in the background has it ignore Ctrl-C, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long tests as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out unless they are asked for: not skipped, since nobody waits for them."""
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The DSN of an administrator on the server of this run."""
    given = os.environ.get("CODER_TEST_DATABASE_URL")
    if given:
        yield given
    elif os.environ.get("CODER_TEST_POSTGRES") == "container" or not _has_binaries():
        yield from _container()
    else:
        with tempfile.TemporaryDirectory(prefix="coder-test-") as directory:
            server = EmbeddedServer(Path(directory), durable=False)
            server.start()
            try:
                yield server.dsn
            finally:
                server.stop()


def _has_binaries() -> bool:
    try:
        find_binaries()
    except Unavailable:
        return False
    return True


def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    with PostgresContainer("postgres:16", driver=None) as container:
        yield container.get_connection_url()


def _on_database(dsn: str, name: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{name}"))


@pytest.fixture(scope="session")
def template_database(postgres_server: str) -> Iterator[str]:
    """The name of a database that holds `schema.sql` and nothing else."""
    name = f"coder_template_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        with psycopg.connect(_on_database(postgres_server, name)) as connection:
            connection.execute(SCHEMA.read_bytes())
    yield name
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(postgres_server: str, template_database: str) -> Iterator[str]:
    """The DSN of a fresh database with the schema in it, dropped after the test with whatever is connected to it."""
    name = f"coder_test_{uuid4().hex[:12]}"
    names = {"name": sql.Identifier(name), "template": sql.Identifier(template_database)}
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy").format(**names))
    yield _on_database(postgres_server, name)
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))
