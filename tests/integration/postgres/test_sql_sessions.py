"""Sessions and workspaces with plain SQL: titles, directories, and what the database refuses."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from queuebench import Bench, ending, refused


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


def test_directories_are_written_without_what_says_nothing(bench: Bench) -> None:
    for given, kept in (
        ("/", "/"), ("//", "/"),
        ("/a//b/./c/", "/a/b/c"), ("/a/../../b", "/b"), ("/a/..", "/"), ("/a b/\u00e9", "/a b/\u00e9"), ("/...", "/..."),
    ):  # fmt: skip
        assert bench.value("select coder.normal_path(%s)", given) == kept
    for path, root, inside in (("/a", "/a", True), ("/a/b", "/a", True), ("/ab", "/a", False), ("/a", "/", True), ("/a", "/a/b", False)):
        assert bench.value("select coder.is_inside(%s, %s)", path, root) is inside


def test_the_directory_of_a_session_is_inside_its_project(bench: Bench) -> None:
    session = bench.session_of(bench.add(bench.project()))
    bench.do("update sessions set cwd = '/srv/shop//api/' where id = %s", session)
    assert bench.value("select cwd from sessions") == "/srv/shop/api"
    for cwd in ("/srv/shop/..", "/srv/shopping", "../x"):
        with refused("CD422", "not inside project shop"):
            bench.do("update sessions set cwd = %s", cwd)
    with refused("CD404", "no session"):
        bench.do("select coder.set_cwd(%s, 'api')", uuid4())
    bench.do("select coder.set_cwd(%s, null)", session)
    assert bench.value("select effective_cwd from coder.show_session(%s)", session) == "/srv/shop"


def test_workspaces_are_named_whole_and_default_stays(bench: Bench) -> None:
    for name in ("abc\n", "\nabc", "-a", "", "A"):
        with refused("CD422", "1 to 40"):
            bench.do("select coder.add_workspace(%s)", name)
        with refused("23514"):
            bench.do("insert into workspaces (id) values (%s)", name)
    with refused("CD409", "default"):
        bench.do("delete from workspaces where id = 'default'")
    with refused("CD409", "default"):
        bench.do("select coder.delete_workspace('default')")
    with refused("CD422", "absolute"):
        bench.do("update workspaces set default_cwd = 'api'")
    with refused("23514"):
        bench.do("update workspaces set title = repeat('x', 201)")


def test_a_task_that_is_run_again_brings_no_workspace_back(bench: Bench) -> None:
    task = bench.add(bench.project(), workspace_id="lab")
    bench.do("select coder.cancel(%s)", task)
    assert bench.value("select coder.delete_workspace('lab')") == 1
    session = bench.session_of(task)
    bench.do("select coder.reopen_session(%s)", session)
    again = bench.value("select coder.retry(%s)", task)
    assert bench.session_of(again) == session
    assert bench.rows("select id from workspaces") == [("default",)]
    assert bench.value("select workspace_id from sessions") == "default"


def test_a_native_conversation_goes_on_in_a_chat_that_knows_its_summary(bench: Bench) -> None:
    project, node = bench.project(), bench.node()
    task = bench.add(project, model="m7")
    session = bench.session_of(task)
    with refused("CD409", "no native conversation"):
        bench.do("select coder.compact(%s)", session)
    first = node.claim_one()
    assert first.compacts is False
    node.finish(ending(first, execution_path="native", model_history='["said"]', context_tokens=900, context_limit=1000))
    compaction = bench.value("select coder.compact(%s)", session)
    assert bench.value("select coder.compact(%s)", session) == compaction, "the one that waits"
    claim = node.claim_one()
    assert (claim.id, claim.compacts, claim.chat_id, claim.model, claim.model_history) == (
        compaction,
        True,
        first.chat_id,
        "m7",
        '["said"]',
    )
    node.finish(ending(claim, model_history='["summary"]', context_tokens=950, context_limit=1000, compacts=True))
    shown = bench.one("select compacted_from, context_size, context_limit from coder.show_session(%s)", session)
    assert shown == (first.chat_id, None, 1000)
    assert bench.value("select model_history::text from chats where id = %s", first.chat_id) == '["said"]'
    assert bench.value("select context_size from chats where id = %s", first.chat_id) == 900
    bench.add(project, session_id=session)
    after = node.claim_one()
    assert (after.model_history, after.compacts) == ('["summary"]', False)
    assert bench.value("select compacted_from from chats where id = %s", after.chat_id) == first.chat_id


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_a_compaction_that_does_not_come_to_its_end_leaves_the_chat(bench: Bench, state: str) -> None:
    project, node = bench.project(), bench.node()
    first = node.claim_one() if bench.add(project) else None
    node.finish(ending(first, execution_path="native", model_history='["said"]'))
    bench.do("select coder.compact(%s)", first.session_id)
    claim = node.claim_one()
    node.finish(ending(claim, state, execution_path="native", model_history='["half"]', compacts=True))
    assert bench.rows("select id, model_history::text from chats") == [(first.chat_id, '["said"]')]
    again = bench.value("select coder.retry(%s)", claim.id)
    assert bench.task(again).compacts is True
    assert node.claim_one().id == again


def test_only_coder_says_that_a_task_compacts(bench: Bench) -> None:
    project = bench.project()
    with refused("CD422", "inserted as pending"):
        bench.add(project, compacts=True)
    task = bench.add(project)
    with refused("CD422", "written by coder alone"):
        bench.do("update tasks set compacts = true where id = %s", task)
    with refused("CD404", "no session"):
        bench.do("select coder.compact(%s)", uuid4())
    bench.do("select coder.close_session(%s)", bench.session_of(task))
    with refused("CD409", "closed"):
        bench.do("select coder.compact(%s)", bench.session_of(task))
