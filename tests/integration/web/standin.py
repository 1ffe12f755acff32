"""A node made of SQL alone: it claims tasks, ends turns with a change and settles decisions by the functions nodes call.

The API and the command line are tested against it, so that their tests need neither agents nor git.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

TOKEN = "a-token-of-the-tests"
DIFF = b"diff --git a/caf\xe9.txt b/caf\xe9.txt\nnew file mode 100644\n--- /dev/null\n+++ b/caf\xe9.txt\n@@ -0,0 +1 @@\n+ol\xe9\n"


def tree(seed: str) -> str:
    return hashlib.sha1(seed.encode()).hexdigest()


class StandIn:
    """One host with one live node, a token, and a project.

    Args:
        dsn: a fresh database with the schema.
    """

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True, row_factory=dict_row)
        self.host = uuid4()
        self.node = uuid4()
        self.run("listen decisions_new")
        self.run("insert into hosts (id, name) values (%s, 'here')", self.host)
        self.run("insert into nodes (id, host_id, version, lease_until) values (%s, %s, '0', '2100-01-01')", self.node, self.host)
        self.run("insert into api_tokens (name, hash) values ('tester', %s)", hashlib.sha256(TOKEN.encode()).digest())
        self.project = self.row("select id, name from coder.add_project('demo', '/srv/demo', %s)", self.host)

    def run(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        cursor = self.connection.execute(query, arguments)
        return cursor.fetchall() if cursor.description else []

    def row(self, query: str, *arguments: Any) -> dict[str, Any]:
        (row,) = self.run(query, *arguments)
        return row

    def count(self, table: str) -> int:
        return int(self.row(f"select count(*) as n from {table}")["n"])

    def add(self, text: str = "do it", **columns: Any) -> int:
        """Queue a task as psql would; answers its id."""
        columns = {"project_id": self.project["id"], "input": text, **columns}
        places = ", ".join(["%s"] * len(columns))
        return int(self.row(f"insert into tasks ({', '.join(columns)}) values ({places}) returning id", *columns.values())["id"])

    def claim(self) -> dict[str, Any]:
        """Start the one task that may run."""
        return self.row("select * from coder.claim(%s, %s, 1)", self.node, self.host)

    def end(self, claim: dict[str, Any], state: str = "completed", content: str | None = "one", diff: bytes = DIFF) -> UUID | None:
        """End a turn; with `content` its worktree holds something to decide on. Answers the change."""
        snapshot = None
        if content is not None:
            self.run(
                "select coder.record_worktree(%s, %s, %s, '/srv/demo', %s, %s, 'main', '{}')",
                claim["id"], claim["epoch"], self.host, f"/srv/worktrees/{claim['session_id']}", tree("base"),
            )  # fmt: skip
            base = self.row("select base_version, base_commit from session_worktrees where session_id = %s", claim["session_id"])
            snapshot = _snapshot(content, base)
        ending = {
            "task_id": claim["id"], "epoch": claim["epoch"], "session_id": str(claim["session_id"]), "state": state,
            "reason": {"failed": "provider", "interrupted": "crash", "cancelled": "user"}.get(state),
            "error": "The model did not answer." if state == "failed" else None, "output_summary": "All done.", "input_tokens": 10,
            "cached_tokens": 5, "output_tokens": 3, "execution_path": "native", "agent_used": "native", "text": "All done.",
            "reasoning": "", "tool_calls": [], "remark_ids": [],
            "notices": [], "chat_id": str(claim["chat_id"]), "model_history": None, "snapshot": snapshot, "diff": 1 if snapshot else None,
            "context_tokens": 13, "unsnapshotted": False,
        }  # fmt: skip
        rows = self.run("select * from coder.finish(%s, %s, '{}', '{}')", Jsonb([ending]), [diff] if snapshot else [])
        (verdict,) = [row for row in rows if row["verdict"] != "left"]
        assert verdict["verdict"] == "ended"
        return verdict["change_id"]

    def change(self, text: str = "do it", **ending: Any) -> dict[str, Any]:
        """A whole turn that leaves a change; answers its row."""
        self.add(text)
        return self.row("select * from pending_changes where id = %s", self.end(self.claim(), **ending))

    def settle(self, outcome: str = "approved", error: str | None = None, facts: dict[str, Any] | None = None) -> UUID | None:
        """Carry out the oldest decision; answers it, None when there is none."""
        claims = self.run("select id, epoch from coder.claim_decision(%s, %s)", self.node, self.host)
        if not claims:
            return None
        decision, epoch = claims[0]["id"], claims[0]["epoch"]
        assert self.row("select coder.begin_applying(%s, %s, '{}') as verdict", decision, epoch)["verdict"] == "applying"
        state = {"approved": "approved", "conflict": "conflicted"}.get(outcome, "pending")
        self.run(
            "select coder.settle_decision(%s, %s, %s, %s, %s, %s, '[]', '[]')",
            decision,
            epoch,
            outcome,
            error,
            json.dumps(facts or {}),
            state,
        )
        return UUID(str(decision))

    def settle_next(self, outcome: str = "approved", **what: Any) -> UUID:
        """Carry out the next decision as soon as it is stored."""
        while (decision := self.settle(outcome, **what)) is None:
            assert list(self.connection.notifies(timeout=30, stop_after=1)), "no decision came"
        return decision

    def close(self) -> None:
        self.connection.close()


def _snapshot(content: str, base: dict[str, Any]) -> dict[str, Any]:
    base_tree = tree(f"tree of {base['base_commit']}")
    files = [
        {"path": b"caf\xe9.txt".hex(), "display": "caf\ufffd.txt", "old_path": None, "operation": "added", "additions": 1, "deletions": 0,
         "old_mode": "000000", "new_mode": "100644", "hunks": [[0, 0, 1, 1, 5, 2]]}
    ]  # fmt: skip
    return {
        "number": 1, "base_commit": base["base_commit"], "base_tree": base_tree, "base_version": base["base_version"],
        "commit": tree(f"c{content}"), "tree": tree(content),
        "fingerprint": hashlib.sha256(f"{base_tree}:{tree(content)}".encode()).hexdigest(), "empty": False,
        "warnings": [], "files": files,
    }  # fmt: skip
