"""Cache warming as rows: switched on and off, claimed by one node, rescheduled by turns and by warms."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID, uuid4

import psycopg
import pytest
from queuebench import Bench, Node, Row, ending, refused


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    return bench.node()


@pytest.fixture
def session(bench: Bench, node: Node) -> UUID:
    """One with a native turn behind it, which rests."""
    bench.add(bench.project(), model="m7", thinking_option_id="high")
    claimed = node.claim_one()
    node.finish(ending(claimed, model_history='["said"]'))
    return claimed.session_id


def row(bench: Bench) -> Row:
    return bench.one("select *, next_warm_at > clock_timestamp() as ahead from cache_warming")


def due(bench: Bench) -> None:
    bench.do("update cache_warming set next_warm_at = clock_timestamp() - interval '1 second'")


def claim(bench: Bench, node: Node) -> list[Row]:
    return bench.rows("select * from coder.claim_warming(%s, %s)", node.id, node.host)


def settle(bench: Bench, claimed: Row, given: int | None = 100, stopped: str | None = None, error: str | None = None) -> bool:
    cached, written = (None, None) if given is None else (given - 10, 1)
    call = "select coder.settle_warming(%s, %s, %s, %s, %s, %s, %s)"
    return bench.value(call, claimed.session_id, claimed.epoch, given, cached, written, stopped, error)


def test_it_is_off_until_it_is_switched_on(bench: Bench, node: Node, session: UUID) -> None:
    assert bench.rows("select * from cache_warming") == []
    assert bench.value("select coder.set_warming(%s)", session) is True
    assert (row(bench).enabled, row(bench).interval_seconds, row(bench).ahead) == (True, 240, True)
    assert bench.value("select extract(epoch from next_warm_at - clock_timestamp()) between 235 and 240 from cache_warming")
    assert bench.value("select coder.set_warming(%s, true)", session) is True
    assert claim(bench, node) == []
    assert bench.value("select coder.set_warming(%s)", session) is False
    assert (row(bench).enabled, row(bench).next_warm_at) == (False, None)
    assert bench.value("select coder.set_warming(%s, false)", session) is False
    with refused("CD404", "no session"):
        bench.do("select coder.set_warming(%s)", uuid4())


def test_the_interval_is_at_least_ten_seconds(bench: Bench, session: UUID) -> None:
    assert bench.value("select coder.set_warming_interval(%s, 10)", session) == 10
    assert (row(bench).enabled, row(bench).next_warm_at) == (False, None)
    bench.do("select coder.set_warming(%s, true)", session)
    bench.do("select coder.set_warming_interval(%s, 3600)", session)
    assert bench.value("select extract(epoch from next_warm_at - clock_timestamp()) between 3590 and 3600 from cache_warming")
    for seconds in (9, 0, -1, 86401, None, "NaN"):
        with refused("CD422", "10 to 86400"):
            bench.do("select coder.set_warming_interval(%s, %s::numeric)", session, seconds)
    with refused("23514"):
        bench.do("update cache_warming set interval_seconds = 9")


def test_what_is_due_is_claimed_once_and_scheduled_anew(bench: Bench, node: Node, session: UUID) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    due(bench)
    other = bench.node(node.host)
    (mine,) = claim(bench, node)
    assert (mine.session_id, mine.model_history, mine.model, mine.thinking, mine.spent_tokens) == (session, '["said"]', "m7", "high", 0)
    assert row(bench).ahead
    assert claim(bench, other) == []
    assert settle(bench, mine)
    after = row(bench)
    assert (after.warms, after.input_tokens, after.cached_tokens, after.output_tokens, after.ahead) == (1, 100, 90, 1, True)
    assert (after.last_input_tokens, after.last_cached_tokens) == (100, 90)
    assert after.last_warm_at is not None
    assert after.retention_seconds >= 0
    due(bench)
    (again,) = claim(bench, other)
    assert again.spent_tokens == 101
    assert settle(bench, mine) is False, "the claim after it fences it"
    assert settle(bench, again, None, error="The endpoint is away.")
    assert (row(bench).warms, row(bench).error, row(bench).ahead) == (1, "The endpoint is away.", True)


def test_a_claim_of_two_at_the_same_time(bench: Bench, node: Node, session: UUID) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    due(bench)
    with psycopg.connect(bench.dsn) as first, psycopg.connect(bench.dsn) as second:
        answers = [
            connection.execute("select * from coder.claim_warming(%s, %s)", (node.id, node.host)).fetchall()
            for connection in (first, second)
        ]
    assert [len(answer) for answer in answers] == [1, 0]


def test_a_session_with_a_turn_near_is_left(bench: Bench, node: Node, session: UUID) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    due(bench)
    bench.add(bench.value("select project_id from sessions"), session_id=session)
    assert claim(bench, node) == []
    running = node.claim_one()
    assert claim(bench, node) == []
    assert not row(bench).ahead
    node.finish(ending(running, model_history='["said", "more"]'))
    assert row(bench).ahead, "a turn schedules the next as well"
    assert claim(bench, node) == []


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled", "interrupted"])
def test_whatever_the_end_of_a_turn_the_next_warm_is_ahead(bench: Bench, node: Node, session: UUID, state: str) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    bench.add(bench.value("select project_id from sessions"), session_id=session)
    running = node.claim_one()
    due(bench)
    ear = bench.listen("warming")
    node.finish(ending(running, state, model_history='["said"]'))
    assert row(bench).ahead
    assert "warming" in ear.heard()


def test_closing_stops_it_and_reopening_leaves_it_off(bench: Bench, node: Node, session: UUID) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    due(bench)
    (mine,) = claim(bench, node)
    bench.do("select coder.close_session(%s)", session)
    assert (row(bench).enabled, row(bench).next_warm_at) == (False, None)
    assert settle(bench, mine), "what it took is recorded all the same"
    assert (row(bench).enabled, row(bench).next_warm_at, row(bench).input_tokens) == (False, None, 100)
    with refused("CD409", "closed"):
        bench.do("select coder.set_warming(%s, true)", session)
    bench.do("select coder.reopen_session(%s)", session)
    assert row(bench).enabled is False
    bench.do("select coder.set_warming(%s)", session)
    assert (row(bench).enabled, row(bench).warms, row(bench).input_tokens) == (True, 0, 0)


def test_it_stops_for_a_reason_that_stays_until_it_is_switched_on_again(bench: Bench, node: Node, session: UUID) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    due(bench)
    (mine,) = claim(bench, node)
    settle(bench, mine, None, "idle")
    assert (row(bench).enabled, row(bench).next_warm_at, row(bench).stopped) == (False, None, "idle")
    bench.do("select coder.set_warming(%s, true)", session)
    assert (row(bench).enabled, row(bench).stopped) == (True, None)


def test_another_host_s_session_and_a_dead_node_claim_nothing(bench: Bench, node: Node, session: UUID) -> None:
    bench.do("select coder.set_warming(%s, true)", session)
    bench.do("update session_queue set host_id = %s", node.host)
    due(bench)
    assert claim(bench, bench.node()) == []
    assert claim(bench, bench.node(node.host, "-1 second")) == []
    assert len(claim(bench, node)) == 1
