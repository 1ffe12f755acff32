"""The schema, every named statement and the core of the queue on each PostgreSQL that this machine has."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import majors
import pytest
from queuebench import Bench, ending, make_change

from coder.postgres.embedded import EmbeddedServer
from coder.postgres.schema import VERSION, migrate
from coder.postgres.statements import load

INSTALLED = majors.servers()
SQL_FILES = sorted(path.name for path in (Path(__file__).parents[3] / "coder/postgres").glob("*.sql"))


@pytest.fixture(scope="module", params=INSTALLED)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A migrated database on a server of this major version, which lives as long as its tests."""
    with tempfile.TemporaryDirectory(prefix="coder-test-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("coder.postgres.embedded.find_binaries", lambda major=None: INSTALLED[request.param])
        server = EmbeddedServer(Path(directory), durable=False)
        server.start()
        try:
            assert migrate(server.dsn) == (0, VERSION)
            with Bench(server.dsn) as bench:
                assert bench.sql.info.server_version // 10000 == request.param
                yield bench
        finally:
            server.stop()


def test_no_major_version_is_left_out_in_ci() -> None:
    wanted = majors.WANTED_IN_CI if os.environ.get("CI") == "true" else (18,)
    assert set(wanted) <= set(INSTALLED), f"only {', '.join(map(str, INSTALLED))} were found; see tests/integration/postgres/majors.py"


def test_every_named_statement_can_be_prepared(bench: Bench) -> None:
    statements = [statement for file in SQL_FILES for statement in load(file).values()]
    assert len(statements) > 40
    for statement in statements:
        bench.do(f"prepare checked as {statement.sql}")
        kinds = bench.value("select parameter_types from pg_prepared_statements where name = 'checked'")
        assert len(kinds) == len(statement.parameters), statement.name
        bench.do("deallocate checked")


def test_a_day_of_the_queue(bench: Bench) -> None:
    """Insert, copy, claim, see, put back, finish, interrupt, resume, reap, schedule, cancel, approve, reject, close."""
    project, node = bench.project(), bench.node()
    first = bench.value("select coder.enqueue('shop', 'a', p_idempotency_key => 'k', p_priority => 1::smallint)")
    assert bench.value("select coder.enqueue('shop', 'a', p_idempotency_key => 'k', p_priority => 1::smallint)") == first
    session = bench.session_of(first)
    with bench.sql.cursor().copy("copy tasks (project_id, input, session_id) from stdin") as copy:
        for number in range(200):
            copy.write_row((project, f"task {number}", session if number % 2 else None))
    claimed = node.claim(8)
    assert first in [each.id for each in claimed]
    assert sorted(node.seen(*claimed)) == sorted(each.id for each in claimed)
    states = ["completed", "failed", "cancelled", "interrupted", "pending", "completed", "completed", "completed"]
    rows = node.finish(*[ending(each, state) for each, state in zip(claimed, states, strict=True)])
    assert [row.verdict for row in rows] == ["ended"] * 8
    held = bench.value("select id from tasks where state = 'interrupted'")
    assert bench.task(bench.value("select coder.resume(%s)", held)).retry_of == held
    late = bench.add(project, run_at="2099-01-01")
    assert bench.queue(bench.session_of(late)).state == "scheduled"
    assert bench.value("select coder.cancel(%s)", late) == "cancelled"
    while running := node.claim(50):
        node.finish(*[ending(each) for each in running])
    assert bench.value("select count(*) from tasks where state in ('pending', 'running')") == 0
    assert bench.value("select count(*) from session_queue where state <> 'idle'") == 0
    bench.add(project, session_id=session)
    lost = node.claim_one()
    node.die()
    assert [row.state for row in bench.rows("select * from coder.reap()")] == ["pending"]
    node = bench.node()
    assert node.claim_one().id == lost.id
    assert bench.value("select coder.sweep(true)") == 0


def test_a_change_from_snapshot_to_decision(bench: Bench) -> None:
    project, node = bench.project("bank"), bench.node()
    change = make_change(node, project, priority=9)
    bench.do("select coder.approve(%s, %s)", change.id, change.fingerprint)
    decision = bench.one("select * from coder.claim_decision(%s, %s)", node.id, node.host)
    assert bench.value("select coder.begin_applying(%s, %s, '{}')", decision.id, decision.epoch) == "applying"
    query = "select coder.settle_decision(%s, %s, 'approved', null, '{}', 'approved', '[]', '[]')"
    assert bench.value(query, decision.id, decision.epoch) is True
    second = make_change(node, project, "2" * 40, session_id=change.session_id, priority=9)
    bench.do("select coder.reject(%s, %s, 'no')", second.id, second.fingerprint)
    assert [row.state for row in bench.rows("select state from changes order by created_at")] == ["approved", "rejected"]
    bench.do("select coder.close_session(%s)", change.session_id)
    assert bench.one("select * from coder.show_session(%s)", change.session_id).status == "closed"
    assert bench.one("select * from coder.show_task(%s)", change.task_id).change_id == change.id
    assert bench.one("select * from coder.show_decision(%s)", decision.id).outcome == "approved"
