"""What the fault tests share: a stage per test, and the seed of its chances."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from stage import Stage

from coder.postgres.embedded import EmbeddedServer
from coder.postgres.schema import migrate


@pytest.fixture
def seed() -> int:
    """Printed, so that a failure can be had again: CODER_TEST_SEED sets it."""
    seed = int(os.environ.get("CODER_TEST_SEED") or random.SystemRandom().randrange(10**6))
    print(f"CODER_TEST_SEED={seed}")
    return seed


@pytest.fixture
async def stage(database: str, tmp_path: Path, seed: int) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as nodes:
        stage = Stage(database, tmp_path, nodes, seed)
        yield stage
    await stage.close()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server of the module's own that may be restarted and keeps its promises: what it acknowledged is on disk."""
    with tempfile.TemporaryDirectory(prefix="c-") as directory:
        server = EmbeddedServer(Path(directory))
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
async def durable(server: EmbeddedServer, tmp_path: Path, seed: int) -> AsyncIterator[Stage]:
    """A stage on that server."""
    name = f"restarted_{uuid4().hex[:8]}"
    with psycopg.connect(server.dsn, autocommit=True) as admin:
        admin.execute(f"create database {name}".encode())
    dsn = urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}"))
    migrate(dsn)
    async with AsyncExitStack() as nodes:
        stage = Stage(dsn, tmp_path, nodes, seed)
        yield stage
    await stage.close()
