"""A house for each test: a fresh database, and nodes on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from nodebench import House, house_on


@pytest.fixture(autouse=True)
def _lean_logs() -> None:
    """What a node says goes to pytest's captured output as one line, without the values of local variables."""
    plain = structlog.processors.format_exc_info
    structlog.configure(processors=[structlog.processors.add_log_level, plain, structlog.processors.KeyValueRenderer()])


@pytest_asyncio.fixture
async def house(database: str, tmp_path: Path) -> AsyncIterator[House]:
    async with house_on(database, tmp_path) as house:
        yield house
