"""The API on a real database, called without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from standin import TOKEN, StandIn
from web_client import Api

from coder.config import Settings
from coder.git.checkout import find_checkout
from coder.git.compare import compare
from coder.postgres.door import PostgresDoor
from coder.postgres.pool import open_pool
from coder.runtime.clock import SystemClock
from coder.web.app import build


@pytest.fixture
def node(database: str) -> Iterator[StandIn]:
    standin = StandIn(database)
    yield standin
    standin.close()


@pytest.fixture
async def api(database: str, node: StandIn) -> AsyncIterator[Api]:
    pool = await open_pool(database, size=4, plan_anew=True)
    app = build(PostgresDoor(pool, SystemClock()), Settings(_env_file=None), node.host, look=find_checkout, compare=compare)
    transport = httpx.ASGITransport(app)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://coder.test", headers=headers) as client:
        yield Api(app, client, node)
    await pool.close()
