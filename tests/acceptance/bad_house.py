"""A whole coder in this process, on a database of its own: what the tests of bad input and bad luck share.

The doors are the real ones: SQL on a connection of the test's own, HTTP over a socket. Tests wait for facts: triggers of
ours notify whenever a row of the queue, a change or a decision was written, and whoever waits looks again.

Invariant: `at_rest`, which every test ends with, finds nothing half done, in the database, in the repositories, in the
data directory and among the processes.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import httpx
import psycopg
from bad_git import git, repository
from psycopg import sql as pgsql

from coder.config import Settings
from coder.service import Ready, Service, prepare_logging

T = TypeVar("T")
TOKEN = "the-token-of-these-tests"
SECONDS = 30.0
ENDED = ("completed", "failed", "cancelled", "interrupted")
WATCHED = ("tasks", "session_queue", "pending_changes", "decisions", "session_worktrees")
FACTS = (
    "create function facts() returns trigger language plpgsql as $$ begin perform pg_notify('facts', ''); return null; end $$;"
    + "".join(f"create trigger facts after insert or update on {table} for each statement execute function facts();" for table in WATCHED)
)


def is_sentence(text: str | None) -> bool:
    """One line, one full stop, at its end; what stands in brackets or quotes is somebody else's words."""
    if not text or "\n" in text or "Traceback" in text or not text.endswith("."):
        return False
    own = text
    while (shorter := re.sub(r"\([^()]*\)|`[^`]*`", "", own)) != own:
        own = shorter
    return re.search(r"[.!?] +[A-Z]", own) is None


@dataclass
class House:
    """A coder that runs.

    Attributes:
        folder: where the projects of the tests lie.
        data: coder's data directory.
        client: speaks HTTP below `/api/v1`, with the token.
        sql: a person's connections.
    """

    folder: Path
    data: Path
    client: httpx.AsyncClient
    sql: asyncpg.Pool[Any]
    bell: asyncio.Event = field(default_factory=asyncio.Event)
    checkouts: list[Path] = field(default_factory=list)

    async def until(self, question: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Ask again whenever a fact was written, until the answer is true."""
        async with asyncio.timeout(SECONDS):
            while True:
                self.bell.clear()
                if answer := await question():
                    return answer
                try:
                    async with asyncio.timeout(1):  # facts that no row tells of, such as processes and files
                        await self.bell.wait()
                except TimeoutError:
                    assert what, "a wait has a name"

    async def project(self, path: Path | None = None, files: dict[str, str] | None = None, **columns: Any) -> str:
        """Add a project with a fresh repository, or at a path; answers its name, which is that of the repository's folder."""
        if path is None:
            path = repository(self.folder / f"project-{uuid4().hex[:8]}", files)
            self.checkouts.append(path)
        name = f"p-{uuid4().hex[:8]}" if path.parent != self.folder else path.name
        added = await self.client.post("/projects", json={"name": name, "path": str(path)})
        assert added.status_code == 201, added.text
        for column, value in columns.items():
            await self.sql.execute(f"update projects set {column} = $2 where name = $1", name, value)
        return name

    def checkout(self, project: str) -> Path:
        return self.folder / project

    async def queue(self, project: str, text: str, session: str | None = None, **columns: Any) -> int:
        """Insert a task the plain way; answers its id."""
        project_id = await self.sql.fetchval("select id from projects where name = $1", project)
        values = {"project_id": project_id, "input": text, **columns} | ({"session_id": session} if session else {})
        places = ", ".join(f"${number}" for number in range(1, len(values) + 1))
        task: int = await self.sql.fetchval(f"insert into tasks ({', '.join(values)}) values ({places}) returning id", *values.values())
        return task

    async def task(self, task: int) -> dict[str, Any]:
        row: dict[str, Any] = (await self.client.get(f"/tasks/{task}")).json()
        return row

    async def ended(self, task: int) -> dict[str, Any]:
        """The task once it has ended, as the API shows it."""

        async def look() -> dict[str, Any] | None:
            row = await self.task(task)
            return row if row["state"] in ENDED else None

        return await self.until(look, f"the end of task {task}")

    async def run(self, project: str, text: str, session: str | None = None, **columns: Any) -> dict[str, Any]:
        return await self.ended(await self.queue(project, text, session, **columns))

    async def completed(self, project: str, text: str, session: str | None = None, **columns: Any) -> dict[str, Any]:
        row = await self.run(project, text, session, **columns)
        assert row["state"] == "completed", row["error"]
        return row

    async def failed(self, reason: str, words: list[str], project: str, text: str, session: str | None = None, **columns: Any) -> Any:
        """Run a task that must fail for a reason, with one sentence that holds some words; answers the task."""
        row = await self.run(project, text, session, **columns)
        assert (row["state"], row["reason"]) == ("failed", reason), row
        assert is_sentence(row["error"]), row["error"]
        assert all(word in row["error"] for word in words), row["error"]
        return row

    async def messages(self, session: str) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await self.client.get(f"/sessions/{session}/messages?limit=200")).json()["items"]
        return listed

    async def answer(self, task: dict[str, Any]) -> dict[str, Any]:
        """What the agent said in a task's turn."""
        return next(m for m in await self.messages(task["session_id"]) if m["task_id"] == task["id"] and m["role"] == "assistant")

    async def change(self, session: str) -> dict[str, Any] | None:
        """The session's open change, whole."""
        shown = (await self.client.get(f"/sessions/{session}")).json()
        return (await self.client.get(f"/changes/{shown['open_change_id']}")).json() if shown["open_change_id"] else None

    async def open_change(self, task: dict[str, Any], *paths: str) -> dict[str, Any]:
        """The open change, which must be this task's and have just these files."""
        change = await self.change(task["session_id"])
        assert change is not None, task
        assert change["task_id"] == task["id"]
        assert sorted(file["path"] for file in change["files"]) == sorted(paths), change["files"]
        return change

    async def worktree(self, session: str) -> Path:
        return Path((await self.client.get(f"/sessions/{session}")).json()["worktree"])

    async def approve(self, change: dict[str, Any], **asked: Any) -> httpx.Response:
        return await self.client.post(f"/changes/{change['id']}/approve", json={"fingerprint": change["fingerprint"], **asked})

    async def approved(self, change: dict[str, Any], **asked: Any) -> dict[str, Any]:
        answer = await self.approve(change, **asked)
        assert answer.status_code == 200, answer.text
        decision: dict[str, Any] = answer.json()
        assert (decision["outcome"], decision["change_state"]) == ("approved", "approved")
        return decision

    async def state_of(self, change: dict[str, Any]) -> str:
        return str((await self.client.get(f"/changes/{change['id']}")).json()["state"])

    async def at_rest(self) -> None:
        """Wait until nothing runs any more, and find everything whole."""

        async def quiet() -> bool:
            busy = "select count(*) from session_queue where state not in ('idle', 'held')"
            deciding = "select count(*) from decisions where state in ('queued', 'running')"
            owed = "select count(*) from session_worktrees where unsnapshotted_task is not null or discard_decision is not null"
            return not any([await self.sql.fetchval(question) for question in (busy, deciding, owed)])

        await self.until(quiet, "rest")
        for nothing in (
            "select id, state from tasks where state = 'running'",
            "select m.id from messages m join tasks t on t.id = m.task_id where m.state = 'streaming'",
            "select t.id from tasks t where (select count(*) from messages m where m.task_id = t.id) not in (0, 2)",
            "select t.id, t.state, m.state from tasks t join messages m on m.task_id = t.id and m.role = 'assistant'"
            " where m.state <> case t.state when 'completed' then 'complete' else t.state end",
            "select c.id from pending_changes c where c.state = 'applying'",
            "select c.id from pending_changes c where c.file_count <> (select count(*) from change_files f where f.change_id = c.id)",
            "select s.id from sessions s join session_queue q on q.session_id = s.id where s.status = 'active' and q.state = 'idle'",
        ):
            assert [dict(row) for row in await self.sql.fetch(nothing)] == [], nothing
        told = await self.sql.fetch(
            "select error from tasks where error is not null union all select error from decisions where error is not null"
        )
        assert [row["error"] for row in told if not is_sentence(row["error"])] == []
        self._nothing_left_lying_about()

    def _nothing_left_lying_about(self) -> None:
        beside = [place.name for place in (self.data / "worktrees").glob("*/*")] if (self.data / "worktrees").is_dir() else []
        assert [name for name in beside if not re.fullmatch(r"[0-9a-f-]{36}(\.index|\.git-\d+)?", name)] == []
        for checkout in self.checkouts:
            if (checkout / ".git").is_dir():
                assert git(checkout, "for-each-ref", "refs/coder/plans") == ""
                assert list((checkout / ".git").glob("coder-staging-*")) == []
        assert guardians() == []


def refused(answer: httpx.Response, code: str, *words: str) -> dict[str, Any]:
    """The problem that a decision was refused with; its sentence must hold some words."""
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["code"]) == (409, code), problem
    assert is_sentence(problem["detail"]), problem
    assert all(word in problem["detail"] for word in words), problem
    return problem


def guardians() -> list[int]:
    """The processes of ours that guard an agent or a command."""
    found = []
    for thread in os.listdir("/proc/self/task"):
        for pid in Path(f"/proc/self/task/{thread}/children").read_text().split():
            try:
                if "guard.py" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(int(pid))
            except FileNotFoundError:
                continue
    return found


def alive(pid: int) -> bool:
    """Whether a process lives; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def fresh_database(server: str, template: str) -> Iterator[str]:
    """The `database` fixture of the suite, for longer than one test."""
    name = f"coder_bad_{uuid4().hex[:12]}"
    names = {"name": pgsql.Identifier(name), "template": pgsql.Identifier(template)}
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(pgsql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy").format(**names))
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
        admin.execute(pgsql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@asynccontextmanager
async def open_house(folder: Path, server: str, template: str, **settings: Any) -> AsyncIterator[House]:
    """Start a coder.

    Args:
        folder: for its data and its projects.
        server: where databases are made.
        template: the name of the database with the schema.
        settings: instead of those of `.env`, which plays no part.
    """
    for library in ("coder.backends.native_turn", "pydantic_ai.models.openai"):
        importlib.import_module(library)  # else the first turn of all takes seconds longer, which is nobody's subject here
    with fresh_database(server, template) as dsn:
        given = {
            "data_dir": folder / "data",
            "port": 0,
            "admin_token": TOKEN,
            "default_model": "m1",
            "drain_seconds": 0,
            "poll_seconds": 0.5,
            "sandbox": "off",  # what is bad here is what an agent does that nothing holds
        }
        chosen = Settings(_env_file=None, **given | settings, database_url=dsn)
        prepare_logging(chosen)
        service = Service(chosen, "all")
        ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()

        async def said(what: Ready) -> None:
            ready.set_result(what)

        sql, ear = await asyncpg.create_pool(dsn, min_size=1, max_size=4), await asyncpg.connect(dsn)
        await sql.execute(FACTS)
        serving = asyncio.create_task(service._serve(dsn, said))  # `run` wants the main thread's event loop to itself
        try:
            await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
            async with httpx.AsyncClient(
                base_url=f"{ready.result().url}api/v1", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=SECONDS
            ) as client:
                house = House(folder / "projects", folder / "data", client, sql)
                house.folder.mkdir()
                await ear.add_listener("facts", lambda *_: house.bell.set())
                yield house
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            await sql.close()
            await ear.close()
