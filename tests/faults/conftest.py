"""What the fault tests share: a stage per test, and the seed of its chances."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from stage import Stage


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


@pytest.fixture
def long(request: pytest.FixtureRequest) -> bool:
    """Whether to run the long tests whole."""
    return bool(request.config.getoption("--long"))
