"""What went on lately, counted in stretches: how turns ended, what they had waited, their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from queuebench import Bench, Row, ending, refused

NO_TOKENS = {"input_tokens": 0, "cached_tokens": 0, "output_tokens": 0}


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def stats(bench: Bench, *arguments: Any) -> list[Row]:
    return bench.rows(f"select * from coder.stats({', '.join(['%s'] * len(arguments))})", *arguments)


def test_turns_count_where_they_began(bench: Bench) -> None:
    node, shop, lab = bench.node(), bench.project(), bench.project("lab")
    for project in (shop, shop, shop, lab, lab):
        bench.add(project)
    claimed = sorted(node.claim(5), key=lambda row: row.id)
    node.finish(
        ending(claimed[0], input_tokens=10, cached_tokens=5, output_tokens=3),
        ending(claimed[1], "failed", **NO_TOKENS),
        ending(claimed[2], "interrupted", **NO_TOKENS),
        ending(claimed[3], "cancelled", **NO_TOKENS | {"input_tokens": 7}),
    )
    bench.forced(
        "update tasks set created_at = clock_timestamp() - interval '2 hours 10 s', claimed_at = clock_timestamp() - interval '2 hours'"
        " where id = %s",
        claimed[3].id,
    )
    *_, earlier, between, now = stats(bench, "6 hours", 6)
    assert (now.began, now.completed, now.failed, now.interrupted, now.running) == (4, 1, 1, 1, 1)
    assert (now.input_tokens, now.cached_tokens, now.output_tokens) == (10, 5, 3)
    assert 0 <= now.wait_median_seconds <= now.wait_p95_seconds < 60
    assert (between.began, between.wait_median_seconds, between.input_tokens) == (0, None, 0)
    assert (earlier.began, earlier.cancelled, earlier.input_tokens) == (1, 1, 7)
    assert 9 < earlier.wait_median_seconds < 12
    assert [row.began for row in stats(bench, "6 hours", 6, bench.value("select name from projects where id = %s", shop))] == [0] * 5 + [3]
    assert [row.began for row in stats(bench, "1 hour", 1)] == [4]
    with refused("CD404", "no project nowhere"):
        stats(bench, "1 hour", 1, "nowhere")


def test_what_waits_for_its_time_is_not_waiting_before(bench: Bench) -> None:
    node, project = bench.node(), bench.project()
    task = bench.add(project, run_at=bench.value("select clock_timestamp()"))
    bench.forced("update tasks set created_at = clock_timestamp() - interval '1 day' where id = %s", task)
    node.claim_one()
    assert stats(bench)[-1].wait_p95_seconds < 60


def test_a_window_reads_its_own_turns_and_no_others(bench: Bench) -> None:
    """By the index on when turns began: 40,000 older ones cost nothing."""
    project = bench.project()
    task = bench.add(project)
    bench.node().run()
    bench.do("set session_replication_role = replica")
    bench.do(
        "insert into tasks (project_id, session_id, input, position, state, answer_state, spoken_in, created_at, claimed_at, ended_at)"
        " select t.project_id, t.session_id, repeat('x', 400), n, 'completed', 'complete', t.spoken_in, at, at, at from tasks t,"
        " lateral (select n, now() - interval '90 days' + n * interval '1 s' as at from generate_series(1, 40000) n) old where t.id = %s",
        task,
    )
    bench.do("vacuum analyze tasks")
    bench.do("reset session_replication_role")
    plan = "\n".join(row[0] for row in bench.rows("explain select * from tasks where claimed_at >= now() - interval '1 day'"))
    assert "tasks_by_start" in plan, plan
    assert sum(row.began for row in stats(bench)) == 1
