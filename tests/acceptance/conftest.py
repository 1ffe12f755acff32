"""What the walks share: a service, and one clone of a real package per test as its project.

Modules that start and stop or kill their service have a fixture `coder` of their own.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from bad_house import House, open_house
from bad_model import BadModel, bad_model
from checkout import Checkout, clone_of, fetch_package
from running import Coder, running

if TYPE_CHECKING:
    from model_server import ModelServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def model() -> AsyncIterator[BadModel]:
    """An endpoint that answers what a test scripts, bytes as they are."""
    async with bad_model() as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, template_database: str, model_server: ModelServer
) -> AsyncIterator[House]:
    """A node and its doors in the test's own process."""
    async with open_house(tmp_path_factory.mktemp("house"), postgres_server, template_database, model_base_url=model_server.openai) as made:
        yield made


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Checkout:
    """The package with its history of one commit; tests clone it. It is downloaded once for all runs."""
    cache = pytestconfig.cache
    downloads = cache.mkdir("packages") if cache is not None else tmp_path_factory.mktemp("downloads")
    return fetch_package(downloads, tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="session")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Coder]:
    yield from running(Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1"))


@pytest.fixture
def checkout(package: Checkout, tmp_path: Path) -> Checkout:
    """A clone of a test's own, in a directory whose name has seen life."""
    return clone_of(package.path, tmp_path / "Ada's Projekte für uns" / "more itertools")


@pytest.fixture
def project(coder: Coder, checkout: Checkout, request: pytest.FixtureRequest) -> str:
    """The name of the clone as a project, which is the test's."""
    name = re.sub(r"[^\w]+", "-", request.node.name).strip("-")
    coder.post("/projects", 201, name=name, path=str(checkout.path))
    return name
