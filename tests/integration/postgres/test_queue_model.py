"""Whatever people and nodes do in whatever order: `session_queue` says of every session exactly what its tasks say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from queuebench import Bench, Row, ending

FUTURE = "2099-01-01"
RUN_AT = st.sampled_from([None, None, "2020-01-01", FUTURE, "2098-01-01"])
PRIORITY = st.integers(-2, 2)
PICK = st.integers(0, 10**6)
WRONG = """
with facts as (
    select q.session_id, q.state, q.priority, q.ready_at, q.held_by, s.status, r.id as running,
           (r.id, r.epoch, r.node_id) is not distinct from (q.running_task, q.epoch, q.owner) as agrees,
           v.visible, v.priority as wanted, v.pending, v.due, h.state as held_state,
           exists (select from tasks x where x.retry_of = q.held_by) as decided
    from session_queue q join sessions s on s.id = q.session_id
    left join tasks r on r.session_id = q.session_id and r.state = 'running'
    left join tasks h on h.id = q.held_by
    left join lateral (
        select count(*) filter (where now_visible) as visible, max(t.priority) filter (where now_visible) as priority,
               count(*) as pending, min(t.run_at) filter (where not now_visible) as due
        from tasks t, lateral (select t.run_at is null or t.run_at <= clock_timestamp() as now_visible) x
        where t.session_id = q.session_id and t.state = 'pending'
    ) v on true
)
select case
    when not agrees then 'the queue and the task that runs disagree'
    when (state = 'running') <> (running is not null) then 'running without a task, or the other way round'
    when state = 'held' and (held_state not in ('interrupted', 'failed') or decided or status = 'closed') then 'held by nothing'
    when running is null and state <> 'held'
        and state <> case when visible > 0 then 'ready' when pending > 0 then 'scheduled' else 'idle' end
        then format('%s, but %s wait and %s could run', state, pending, visible)
    when state = 'ready' and priority <> wanted then format('priority %s, but a task of %s waits', priority, wanted)
    when state = 'scheduled' and ready_at <> due then format('due at %s, but a task at %s', ready_at, due)
    when status = 'closed' and pending > 0 then 'closed, but something waits'
    when status <> 'closed' and (status = 'active') <> (pending > 0 or running is not null) then format('shown as %s', status)
end as wrong, facts.* from facts
"""


class People(RuleBasedStateMachine):
    """People with SQL and two nodes, one step after the other."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        bench = self.bench
        bench.do("truncate projects, workspaces, hosts cascade")
        bench.do("insert into workspaces (id) values ('default')")
        self.project = bench.project()
        self.nodes = [bench.node(), bench.node()]
        self.claimed: list[Row] = []

    def pick(self, query: str, number: int) -> Any:
        rows = self.bench.rows(query)
        return rows[number % len(rows)][0] if rows else None

    def attempt(self, query: str, *values: Any) -> None:
        """Do it; one of coder's own refusals is an answer too."""
        try:
            self.bench.do(query, *values)
        except psycopg.Error as error:
            if not (error.sqlstate or "").startswith("CD"):
                raise

    @rule(run_at=RUN_AT, priority=PRIORITY, number=PICK, fresh=st.booleans())
    def insert(self, run_at: str | None, priority: int, number: int, fresh: bool) -> None:
        session = None if fresh else self.pick("select id from sessions order by created_at, id", number)
        query = "insert into tasks (project_id, input, run_at, priority, session_id, max_attempts) values (%s, 'x', %s, %s, %s, 2)"
        self.attempt(query, self.project, run_at, priority, session)

    @rule(number=PICK, column=st.sampled_from(["priority", "run_at", "position", "max_attempts"]), value=PRIORITY, run_at=RUN_AT)
    def edit(self, number: int, column: str, value: int, run_at: str | None) -> None:
        task = self.pick("select id from tasks where state = 'pending' order by id", number)
        given = {"run_at": run_at, "max_attempts": 2 + abs(value)}.get(column, value)
        self.attempt(f"update tasks set {column} = %s where id = %s", given, task)

    @rule(number=PICK, function=st.sampled_from(["cancel", "retry", "resume", "dismiss", "retry", "resume", "dismiss"]))
    def decide(self, number: int, function: str) -> None:
        wanted = "in ('pending', 'running')" if function == "cancel" else "in ('interrupted', 'failed', 'cancelled')"
        task = self.pick(f"select id from tasks where state {wanted} order by id", number)
        self.attempt(f"select coder.{function}(%s)", task)

    @rule(number=PICK, function=st.sampled_from(["close_session", "reopen_session"]))
    def close(self, number: int, function: str) -> None:
        self.attempt(f"select coder.{function}(%s)", self.pick("select id from sessions order by created_at, id", number))

    @rule(number=PICK, how=st.sampled_from(["continue", "hold"]))
    def on_failure(self, number: int, how: str) -> None:
        session = self.pick("select id from sessions order by created_at, id", number)
        self.attempt("update sessions set on_failure = %s where id = %s", how, session)

    @rule(node=st.integers(0, 1), size=st.integers(1, 3), seen=st.booleans())
    def claim(self, node: int, size: int, seen: bool) -> None:
        claimed = self.nodes[node].claim(size)
        if seen and claimed:
            self.nodes[node].seen(*claimed)
        self.claimed += claimed

    @precondition(lambda self: self.claimed)
    @rule(number=PICK, state=st.sampled_from(["completed", "failed", "cancelled", "interrupted", "pending"]), again=st.booleans())
    def finish(self, number: int, state: str, again: bool) -> None:
        claimed = self.claimed[number % len(self.claimed)] if again else self.claimed.pop(number % len(self.claimed))
        (row,) = self.nodes[0].finish(ending(claimed, state))
        assert row.verdict in ("ended", "fenced")

    @rule(node=st.integers(0, 1))
    def die(self, node: int) -> None:
        self.nodes[node].die()
        self.bench.do("select coder.reap()")
        self.nodes[node] = self.bench.node()

    @invariant()
    def the_queue_says_what_the_tasks_say(self) -> None:
        wrong = [row for row in self.bench.rows(WRONG) if row.wrong]
        assert not wrong, wrong
        streaming = (
            "select count(*) from messages m join tasks t on t.id = m.task_id where (m.state = 'streaming') <> (t.state = 'running') "
        )
        assert self.bench.value(streaming + "and m.role = 'assistant'") == 0

    @invariant()
    def nothing_needs_healing(self) -> None:
        assert self.bench.value("select coder.sweep(true)") == 0


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def test_the_queue_never_says_anything_but_what_its_tasks_say(bench: Bench) -> None:
    machine = type("Machine", (People,), {"bench": bench})
    checks = list(HealthCheck)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine, settings=settings(max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=checks, database=None)
    )
