"""A database as its two kinds of users see it: people who write SQL, and nodes that call the queue's functions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.rows import namedtuple_row

from coder.change import fingerprint

Row = Any
BASE = "b" * 40
CLAIM = "select * from coder.claim(%s, %s, %s)"
FINISH = "select * from coder.finish(%s::jsonb, %s::bytea[], %s::uuid[], %s::bigint[])"


@contextmanager
def refused(sqlstate: str, *words: str) -> Iterator[None]:
    """What is inside must fail with this SQLSTATE; coder's own say a whole sentence, with all of the words in it."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    sentence = caught.value.diag.message_primary or ""
    assert caught.value.sqlstate == sqlstate, f"{caught.value.sqlstate}: {sentence}"
    assert all(word in sentence for word in words), sentence
    if sqlstate.startswith("CD"):
        assert sentence.endswith(".") or sentence.endswith(")."), sentence
        assert sentence[0].isupper(), sentence


class Bench:
    """One connection of a person (autocommit), more on request, and nodes.

    Use as a context; every connection is closed at its end.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._stack = ExitStack()
        self.sql = self.connect(autocommit=True)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def connect(self, *, autocommit: bool = False) -> psycopg.Connection[Row]:
        """Another client. Nothing it waits for in a lock lasts longer than 10 s, so that a test fails instead of hanging."""
        connection = psycopg.connect(self.dsn, autocommit=autocommit, row_factory=namedtuple_row, options="-c lock_timeout=10s")
        self._stack.callback(connection.close)
        return connection

    def rows(self, query: str, *values: Any) -> list[Row]:
        return self.sql.execute(query, values or None).fetchall()

    def one(self, query: str, *values: Any) -> Row:
        (row,) = self.rows(query, *values)
        return row

    def value(self, query: str, *values: Any) -> Any:
        return self.one(query, *values)[0]

    def forced(self, query: str, *parameters: Any) -> None:
        """Put a row into a state that only coder may give it."""
        self.do("select set_config('coder.actor', 'node', false)")
        try:
            self.do(query, *parameters)
        finally:
            self.do("select set_config('coder.actor', '', false)")

    def do(self, query: str, *values: Any) -> None:
        self.sql.execute(query, values or None)

    def project(self, name: str = "shop", host: UUID | None = None) -> UUID:
        return self.value("insert into projects (name, path, host_id) values (%s, '/srv/shop', %s) returning id", name, host)

    def add(self, project: UUID, input: str = "fix it", **columns: Any) -> int:
        """A plain INSERT; answers the task's id."""
        names = ["project_id", "input", *columns]
        query = f"insert into tasks ({', '.join(names)}) values ({', '.join(['%s'] * len(names))}) returning id"
        return self.value(query, project, input, *columns.values())

    def task(self, task: int) -> Row:
        return self.one("select * from tasks where id = %s", task)

    def session_of(self, task: int) -> UUID:
        return self.value("select session_id from tasks where id = %s", task)

    def queue(self, session: UUID) -> Row:
        return self.one("select * from session_queue where session_id = %s", session)

    def message(self, task: int, role: str = "assistant") -> Row:
        return self.one("select * from messages where task_id = %s and role = %s", task, role)

    def node(self, host: UUID | None = None, lease: str = "1 hour") -> Node:
        host = host or uuid4()
        self.do("insert into hosts (id, name) values (%s, 'h') on conflict do nothing", host)
        node = uuid4()
        self.do(
            "insert into nodes (id, host_id, version, lease_until) values (%s, %s, '1', clock_timestamp() + %s::interval)",
            node,
            host,
            lease,
        )
        return Node(self, node, host)

    def listen(self, *channels: str) -> Ear:
        connection = self.connect(autocommit=True)
        for channel in (*channels, "done"):
            connection.execute(f"listen {channel}")
        return Ear(self, connection)


@dataclass
class Ear:
    """What was notified since it was last asked."""

    bench: Bench
    connection: psycopg.Connection[Row]

    def heard(self) -> list[str]:
        """The channels that rang, in order; a bell of our own marks the end, since commits notify in their order."""
        self.bench.do("select pg_notify('done', '')")
        rung: list[str] = []
        for note in self.connection.notifies(timeout=10):
            if note.channel == "done":
                return rung
            rung.append(note.channel)
        raise AssertionError("our own notification was not heard within 10 s")


@dataclass
class Node:
    """A dispatcher as the database knows it."""

    bench: Bench
    id: UUID
    host: UUID

    def claim(self, count: int = 1) -> list[Row]:
        return self.bench.rows(CLAIM, self.id, self.host, count)

    def claim_one(self) -> Row:
        (claimed,) = self.claim(1)
        return claimed

    def run(self, count: int = 1) -> list[int]:
        """Claim and complete; answers the tasks in the order they were claimed."""
        claimed = self.claim(count)
        self.finish(*[ending(each) for each in claimed])
        return [each.id for each in claimed]

    def seen(self, *claimed: Row) -> list[int]:
        query = "select * from coder.mark_seen(%s, %s)"
        return [row[0] for row in self.bench.rows(query, [each.id for each in claimed], [each.epoch for each in claimed])]

    def finish(self, *endings: dict[str, Any], left: Sequence[Row] = (), diffs: Sequence[bytes] = ()) -> list[Row]:
        sessions, epochs = [each.session_id for each in left], [each.epoch for each in left]
        return self.bench.rows(FINISH, json.dumps(endings, default=str), list(diffs), sessions, epochs)

    def record_worktree(self, claimed: Row, path: str = "/srv/worktrees/1") -> bool:
        query = "select coder.record_worktree(%s, %s, %s, '/srv/shop', %s, %s, 'main', '{}')"
        return self.bench.value(query, claimed.id, claimed.epoch, self.host, path, BASE)

    def die(self) -> None:
        """The lease runs out."""
        self.bench.do("update nodes set lease_until = clock_timestamp() - interval '1 s' where id = %s", self.id)


def ending(claimed: Row, state: str = "completed", **more: Any) -> dict[str, Any]:
    """An ending as `coder.finish` reads it."""
    reason = {"failed": "provider", "cancelled": "user", "interrupted": "shutdown", "pending": "shutdown"}.get(state)
    return {
        "task_id": claimed.id,
        "epoch": claimed.epoch,
        "session_id": claimed.session_id,
        "chat_id": claimed.chat_id,
        "state": state,
        "reason": reason,
        "error": None,
        "notices": [],
        "output_summary": "done",
        "input_tokens": 10,
        "cached_tokens": 4,
        "output_tokens": 2,
        "context_tokens": 12,
        "execution_path": "native",
        "agent_used": "native",
        "text": "done",
        "reasoning": "",
        "tool_calls": [],
        "remark_ids": [remark["id"] for remark in claimed.remarks],
        "model_history": None,
        "snapshot": None,
        "diff": None,
        "unsnapshotted": False,
    } | more


def snapshot(tree: str, base: str = BASE, version: int = 1, number: int = 1, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """A snapshot as `coder.store_change` reads it: one file modified, one renamed, unless nothing changed."""
    files = [
        {"path": b"a.py".hex(), "display": "a.py", "old_path": None, "operation": "modified", "additions": 3, "deletions": 1},
        {"path": b"c.py".hex(), "display": "c.py", "old_path": b"b.py".hex(), "operation": "renamed", "additions": 0, "deletions": None},
    ]
    modes = {"old_mode": "100644", "new_mode": "100644"}
    return {
        "number": number,
        "base_commit": base,
        "base_tree": base,
        "base_version": version,
        "commit": tree,
        "tree": tree,
        "fingerprint": fingerprint(base, tree),
        "empty": tree == base,
        "warnings": list(warnings),
        "files": [] if tree == base else [file | modes for file in files],
    }


def make_change(node: Node, project: UUID, tree: str = "1" * 40, **columns: Any) -> Row:
    """Run a task that leaves a change; answers the change."""
    node.bench.add(project, "make it round\nand green", **columns)
    claimed = node.claim_one()
    if claimed.worktree is None:
        assert node.record_worktree(claimed)
        version = 1
    else:
        version = claimed.worktree["base_version"]
    base = node.bench.value("select base_commit from session_worktrees where session_id = %s", claimed.session_id)
    (verdict,) = node.finish(ending(claimed, snapshot=snapshot(tree, base, version), diff=1), diffs=[b"diff --git a/a.py b/a.py\n"])
    assert verdict.verdict == "ended"
    return node.bench.one("select * from pending_changes where id = %s", verdict.change_id)
