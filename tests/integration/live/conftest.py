"""A house for each test, with APIs and nodes on request."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from livebench import LiveHouse, live_house


@pytest.fixture(autouse=True)
def _lean_logs() -> None:
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()]
    )


@pytest_asyncio.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[LiveHouse]:
    async with live_house(database, tmp_path) as house:
        yield house
