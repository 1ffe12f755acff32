"""`coder.enqueue` and its idempotency key: the same request again is the same task, another request is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from queuebench import Bench, refused


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def test_a_project_is_named_by_its_name_or_its_id(bench: Bench) -> None:
    project = bench.project("shop")
    for name in ("shop", str(project), str(project).upper()):
        assert bench.task(bench.value("select coder.enqueue(%s, 'a')", name)).project_id == project
    for name in ("Shop", "", None, "shop "):
        with refused("CD404", "There is no project"):
            bench.do("select coder.enqueue(%s, 'a')", name)


def test_named_arguments_and_nulls_mean_the_defaults(bench: Bench) -> None:
    bench.project("shop")
    task = bench.task(
        bench.value(
            "select coder.enqueue('shop', 'a', p_priority => null, p_max_attempts => null, p_labels => null, p_timeout => '5 minutes', "
            "p_workspace_id => 'w', p_agent => 'opencode', p_run_at => now() + interval '1 h')"
        )
    )
    assert (task.priority, task.max_attempts, task.labels, task.agent, task.workspace_id) == (0, 3, [], "opencode", "w")
    assert (task.timeout.total_seconds(), bench.queue(task.session_id).state) == (300, "scheduled")


def test_the_same_request_again_answers_the_same_task(bench: Bench) -> None:
    bench.project("shop")
    ask = "select coder.enqueue('shop', 'a', p_agent => ' x ', p_labels => '{l}', p_idempotency_key => 'k')"
    first = bench.value(ask)
    ear = bench.listen("tasks_new")
    assert bench.value(ask) == first
    bench.do("update tasks set cancel_requested_at = now()")
    assert bench.value(ask) == first
    assert (ear.heard(), bench.value("select count(*) from sessions")) == ([], 1)


@pytest.mark.parametrize(
    "other",
    [
        "'b'",
        "'a', p_agent => 'y'",
        "'a', p_model => 'm'",
        "'a', p_priority => 1::smallint",
        "'a', p_labels => '{l}'",
        "'a', p_run_at => '2099-01-01'",
        "'a', p_timeout => '1 h'",
        "'a', p_max_attempts => 1::smallint",
        "'a', p_workspace_id => 'w'",
        "'a', p_session_id => (select id from sessions limit 1)",
    ],
)
def test_another_request_with_the_same_key_is_refused(bench: Bench, other: str) -> None:
    bench.project("shop")
    first = bench.value("select coder.enqueue('shop', 'a', p_idempotency_key => 'k')")
    with refused("CD412", "'k' already belongs to task", str(first), "use another key"):
        bench.do(f"select coder.enqueue('shop', {other}, p_idempotency_key => 'k')")
    assert bench.value("select count(*) from tasks") == 1


def test_a_key_names_the_session_too(bench: Bench) -> None:
    project = bench.project("shop")
    mine, other = (bench.session_of(bench.add(project)) for _ in range(2))
    ask = "select coder.enqueue('shop', 'a', p_session_id => %s, p_idempotency_key => 'k')"
    first = bench.value(ask, mine)
    assert bench.value(ask, mine) == first
    with refused("CD412"):
        bench.do(ask, other)


def test_a_key_counts_within_its_project(bench: Bench) -> None:
    bench.project("shop"), bench.project("bank")
    ids = {bench.value("select coder.enqueue(%s, 'a', p_idempotency_key => 'k')", name) for name in ("shop", "bank")}
    assert len(ids) == 2
    project = bench.value("select id from projects where name = 'bank'")
    with refused("23505"):
        bench.add(project, idempotency_key="k")


def test_two_at_once_make_one_task(bench: Bench) -> None:
    bench.project("shop")
    start = threading.Barrier(4)
    connections = [bench.connect(autocommit=True) for _ in range(4)]

    def ask(number: int) -> list[int]:
        answers = []
        for key in range(20):
            start.wait(20)
            query = "select coder.enqueue('shop', 'a', p_idempotency_key => %s)"
            answers.append(connections[number].execute(query, [f"k{key}"]).fetchone()[0])
        return answers

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, range(4)))
    assert all(each == answers[0] for each in answers)
    assert bench.value("select count(*) from tasks") == bench.value("select count(*) from sessions") == 20


def test_a_key_whose_first_request_was_rolled_back_is_free(bench: Bench) -> None:
    bench.project("shop")
    ask = "select coder.enqueue('shop', %s, p_idempotency_key => 'k')"
    second = bench.connect(autocommit=True)
    with bench.connect() as first, ThreadPoolExecutor(1) as pool:
        first.execute(ask, ["a"])
        waiting = pool.submit(lambda: second.execute(ask, ["b"]).fetchone()[0])
        first.rollback()
        assert bench.task(waiting.result(20)).input == "b"
