"""The command line on a real database: over SQL, and over HTTP to a real uvicorn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_runner import Cli, Served
from standin import TOKEN, StandIn


@pytest.fixture
def node(database: str) -> Iterator[StandIn]:
    standin = StandIn(database)
    yield standin
    standin.close()


@pytest.fixture
def variables(database: str, node: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a command that talks SQL."""
    (tmp_path / "host-id").write_text(f"{node.host}\n")
    monkeypatch.chdir(tmp_path)
    return {"CODER_DATABASE_URL": database, "CODER_DATA_DIR": str(tmp_path), "NO_COLOR": "1"}


@pytest.fixture
def sql(variables: dict[str, str], node: StandIn) -> Cli:
    return Cli(variables, node)


@pytest.fixture(params=["sql", "http"])
def cli(request: pytest.FixtureRequest, database: str, variables: dict[str, str], node: StandIn) -> Iterator[Cli]:
    if request.param == "sql":
        yield Cli(variables, node)
        return
    with Served(database, node) as served:
        # A database that cannot be reached proves that nothing goes around the API.
        yield Cli(variables | {"CODER_DATABASE_URL": "postgresql://127.0.0.1:1/none", "CODER_URL": served.url, "CODER_TOKEN": TOKEN}, node)
