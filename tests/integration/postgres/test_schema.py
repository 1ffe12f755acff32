"""Applying the schema: once, however many do it at the same time; step by step; and never to what is not ours to touch."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from coder.errors import Unavailable
from coder.postgres import schema
from coder.postgres.schema import migrate

CATALOGUE = """
select 'column', table_schema || '.' || table_name || '.' || column_name,
    concat_ws(' ', data_type, is_nullable, column_default, is_identity)
    from information_schema.columns where table_schema in ('public', 'coder')
union all select 'constraint', conrelid::regclass || ' ' || conname, pg_get_constraintdef(oid) from pg_constraint
    where connamespace = 'public'::regnamespace
union all select 'index', indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index join pg_class c on c.oid = indrelid
    where c.relnamespace = 'public'::regnamespace
union all select 'trigger', tgname, pg_get_triggerdef(oid) from pg_trigger where not tgisinternal
union all select 'function', oid::regprocedure::text, pg_get_functiondef(oid) from pg_proc where pronamespace = 'coder'::regnamespace
union all select 'options', oid::regclass::text, reloptions::text from pg_class where relnamespace = 'public'::regnamespace
order by 1, 2, 3
"""


@pytest.fixture
def empty(postgres_server: str) -> Iterator[str]:
    """The DSN of a database with nothing in it."""
    name = f"coder_empty_{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    yield urlunsplit(urlsplit(postgres_server)._replace(path=f"/{name}"))
    with psycopg.connect(postgres_server, autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def catalogue(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(CATALOGUE).fetchall()


def versions(dsn: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute("select version, min_compatible from schema_version order by 1").fetchall()


def test_an_empty_database_gets_the_schema_and_keeps_it(empty: str, database: str) -> None:
    assert migrate(empty) == (0, schema.VERSION)
    assert migrate(empty) == (schema.VERSION, schema.VERSION)
    assert versions(empty) == [(1, 1)]
    assert len(catalogue(empty)) > 300
    assert catalogue(empty) == catalogue(database)


def test_many_at_once_apply_it_once(empty: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = sorted(pool.map(lambda _: migrate(empty), range(6)))
    assert answers == [(0, 1)] + [(1, 1)] * 5
    assert versions(empty) == [(1, 1)]


def test_a_failure_leaves_nothing_behind(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = schema.schema_text()
    monkeypatch.setattr(schema, "schema_text", lambda: whole + "select 1 / 0;")
    with pytest.raises(Exception, match="division by zero"):
        migrate(empty)
    assert catalogue_is_empty(empty)
    monkeypatch.undo()
    assert migrate(empty) == (0, 1)


def catalogue_is_empty(dsn: str) -> bool:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select to_regnamespace('coder'), to_regclass('public.schema_version')").fetchone()
        return row == (None, None)


def test_an_older_schema_is_brought_up_step_by_step(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(empty)
    steps = {
        1: "this is never run: the schema has it",
        2: "create table second (x int); insert into schema_version values (2, 1)",
        3: "alter table second add y int; insert into schema_version values (3, 2)",
    }
    monkeypatch.setattr(schema, "steps", lambda: steps)
    monkeypatch.setattr(schema, "VERSION", 3)
    assert migrate(empty) == (1, 3)
    assert migrate(empty) == (3, 3)
    assert versions(empty) == [(1, 1), (2, 1), (3, 2)]
    steps[4] = "create table third (x int); insert into schema_version values (4, 2); select 1 / 0"
    with pytest.raises(Exception, match="division by zero"):
        migrate(empty)
    assert versions(empty) == [(1, 1), (2, 1), (3, 2)]


def test_a_newer_schema_that_still_serves_us_is_used_as_it_is(empty: str) -> None:
    migrate(empty)
    with psycopg.connect(empty) as connection:
        connection.execute("insert into schema_version values (2, 1)")
    assert migrate(empty) == (2, 2)
    assert versions(empty) == [(1, 1), (2, 1)]


def test_a_schema_that_is_too_new_is_refused(empty: str) -> None:
    migrate(empty)
    with psycopg.connect(empty) as connection:
        connection.execute("insert into schema_version values (2, 1), (3, 2)")
    with pytest.raises(Unavailable, match=r"schema version 3, which this coder \(schema 1\) is too old for; update coder\."):
        migrate(empty)


def test_somebody_else_s_schema_version_is_not_touched(empty: str) -> None:
    with psycopg.connect(empty) as connection:
        connection.execute("create table schema_version (version int primary key, min_compatible int)")
    with pytest.raises(Unavailable, match="it is not coder's"):
        migrate(empty)
    with psycopg.connect(empty) as connection:
        assert connection.execute("select to_regnamespace('coder')").fetchone() == (None,)


def test_an_old_server_and_no_server_are_told_apart(empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        migrate("postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setattr(schema, "LOWEST_SERVER", 990000)
    with pytest.raises(Unavailable, match=r"The server runs PostgreSQL \d+; coder needs 15 or newer"):
        migrate(empty)
    assert catalogue_is_empty(empty)


def test_the_steps_are_numbered_without_a_gap_up_to_this_version() -> None:
    assert sorted(schema.steps()) == list(range(2, schema.VERSION + 1))
