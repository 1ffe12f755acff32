"""A native session's cache is kept warm by a real service: over a restart, until the session is closed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from checkout import Checkout
from running import Coder, running

if TYPE_CHECKING:
    from pathlib import Path

    from model_server import ModelServer

pytest_plugins = ("model_server",)


@pytest.fixture
def coder(tmp_path: Path, model_server: ModelServer) -> Iterator[Coder]:
    """One of its own, since it is stopped and started again."""
    yield from running(Coder(tmp_path / "coder", model_base_url=model_server.openai, default_model="m1", poll_seconds="0.5"))


def warmed(coder: Coder, count: int) -> dict[str, Any]:
    """The row once that many warms were sent; it is made due, instead of waiting for its time."""
    coder.psql("update cache_warming set next_warm_at = clock_timestamp() where enabled")
    query = "select *, next_warm_at > clock_timestamp() as ahead from cache_warming where warms = %s"
    return coder.until(lambda: next(iter(coder.rows(query, count)), None))


def test_a_warm_session(coder: Coder, project: str, checkout: Checkout, model_server: ModelServer) -> None:
    word = "kept-warm-by-a-service"
    session = coder.turn(project, f"say: {word}")["session_id"]
    sent = len(model_server.requests(word))
    assert coder.psql(f"select coder.set_warming('{session}')") == "t"
    row = warmed(coder, 1)
    assert (row["input_tokens"], row["output_tokens"], row["ahead"], row["error"]) == (1200, 34, True, None)
    last, warm = model_server.requests(word)[-2:]
    assert warm["messages"] == last["messages"]
    assert warm["tools"] == last["tools"]
    coder.stop()
    coder.start()
    assert warmed(coder, 2)["ahead"]
    assert len(model_server.requests(word)) == sent + 2
    coder.turn(project, "say: on with it", session=session)
    assert coder.row("select next_warm_at > clock_timestamp() as ahead from cache_warming")["ahead"]
    coder.post(f"/sessions/{session}/close", 200)
    assert coder.row("select enabled, next_warm_at from cache_warming") == {"enabled": False, "next_warm_at": None}
