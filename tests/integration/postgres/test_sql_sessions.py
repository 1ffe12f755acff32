"""Sessions and workspaces with plain SQL: titles, directories, and what the database refuses."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from queuebench import Bench, refused


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
