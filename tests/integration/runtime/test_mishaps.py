"""What a node survives: bells that are lost, a lease that is lost, a database that restarts, endings that cannot be stored."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from nodebench import QUICK, House, house_on

from coder.errors import DiskFull, Unavailable
from coder.ports import Claimed
from coder.postgres.embedded import EmbeddedServer
from coder.postgres.listener import Silence
from coder.postgres.schema import migrate
from coder.postgres.tasks import PostgresTasks
from coder.task import Ending, Left, Stored

LISTENING = "select pid from pg_stat_activity where application_name = 'coder-listen' and datname = current_database()"


class Faulty:
    """The real store, except for what a test puts in its way."""

    def __init__(self, store: PostgresTasks) -> None:
        self._store = store
        self.groups: list[list[int]] = []
        self.refuses: dict[str, Exception] = {}
        self.hold = asyncio.Event()
        self.hold.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def finish(self, endings: list[Ending], left: list[Left]) -> Stored:
        await self.hold.wait()
        self.groups.append([ending.task.id for ending in endings])
        for ending in endings:
            for part, error in self.refuses.items():
                if part in ending.task.input and (ending.snapshot is not None or "whole" not in part) and ending.text:
                    raise error
        return await self._store.finish(endings, left)


def faulty(house: House) -> list[Faulty]:
    """Every store of nodes started from now on."""
    made: list[Faulty] = []

    def wrap(store: PostgresTasks) -> Faulty:
        made.append(Faulty(store))
        return made[-1]

    house.wrap = wrap
    return made


async def test_work_goes_on_without_any_bell(house: House) -> None:
    house.wakeups = Silence
    await house.node()
    first = await house.add("wait x")
    second = await house.add("say y", session_id=await house.session_of(first))
    await house.agent.until("spoke wait x")
    await house.sql.fetchval("select coder.cancel($1)", first)
    assert await house.ended(first, second) == ["cancelled", "completed"]


async def test_a_listen_connection_that_is_cut_is_made_anew_while_polls_carry_on(house: House) -> None:
    await house.node()
    first = await house.until(LISTENING)
    for _ in range(3):
        await house.sql.fetchval(f"select count(pg_terminate_backend(pid)) from ({LISTENING}) x")
        assert await house.ended(await house.add("say x")) == ["completed"]
    second = await house.until(f"select pid from ({LISTENING}) x where pid <> {first}")
    assert second != first


@pytest.mark.parametrize("how", ["its row is gone", "another reaped it"])
async def test_a_node_that_lost_its_lease_ends_its_turns_and_goes_on_under_a_new_id(house: House, how: str) -> None:
    await house.node(replace(QUICK, beat=0.3))
    seen, unseen = await house.add("wait seen"), await house.add("mute unseen")
    await house.agent.until("spoke wait seen", "start mute unseen")
    await house.until("select first_event_at from tasks where id = $1", seen)
    before = await house.sql.fetchval("select id from nodes")
    if how == "another reaped it":
        await house.sql.execute("update nodes set lease_until = '-infinity'")
        await house.sql.fetch("select * from coder.reap()")
    else:
        await house.sql.execute("delete from nodes")
    await house.agent.until("end wait seen", "end mute unseen")
    assert await house.ended(seen) == ["interrupted"]
    assert (await house.task(seen))["reason"] == "lease_lost"
    house.agent.let_go("mute unseen")
    assert await house.ended(unseen) == ["completed"]
    assert (await house.task(unseen))["attempts"] == 2
    assert await house.until("select id from nodes") != before
    assert house.agent.most_of_a_session == 1
    assert await house.ended(await house.add("say next")) == ["completed"]


async def test_the_work_of_a_node_that_is_gone_is_recovered_by_another(house: House) -> None:
    dead = await house.sql.fetchval(
        "with h as (insert into hosts values (gen_random_uuid(), 'gone') returning id) "
        "insert into nodes (id, host_id, version, lease_until) select gen_random_uuid(), id, '1', now() + '500 ms' from h returning id"
    )
    task = await house.add("say x")
    host = await house.sql.fetchval("select host_id from nodes")
    assert len(await house.sql.fetch("select * from coder.claim($1, $2, 5)", dead, host)) == 1
    await house.node()
    assert await house.ended(task) == ["completed"]
    assert (await house.task(task))["attempts"] == 2


async def test_the_answer_to_a_claim_may_get_lost(house: House) -> None:
    """The database has given the task to this node, which never heard of it: it is let go by the next look."""

    class Deaf(Faulty):
        lost = 0

        async def claim(self, node: Any, host: Any, count: int) -> list[Claimed]:
            claimed = await self._store.claim(node, host, count)
            if claimed and self.lost < 2:
                self.lost += 1
                raise Unavailable("The connection was cut before the answer came.")
            return claimed

    house.wrap = Deaf
    await house.node()
    task = await house.add("say x")
    assert await house.ended(task) == ["completed"]
    assert (await house.task(task))["attempts"] == 3


async def test_endings_that_come_together_share_a_transaction_and_a_bad_one_harms_nobody(house: House) -> None:
    stores = faulty(house)
    await house.node()
    names = ["good 1", "bad", "good 2", "good 3"]
    tasks = [await house.add(f"wait {name}") for name in names]
    await house.agent.until(*[f"spoke wait {name}" for name in names])
    stores[0].refuses["bad"] = ValueError("this one cannot be stored")
    stores[0].hold.clear()
    first = await house.add("say first")
    await house.agent.until("end say first")
    for name in names:
        house.agent.let_go(f"wait {name}")
    await house.agent.until(*[f"end wait {name}" for name in names])
    await house.until("select pg_sleep(0.1) is not null")
    stores[0].hold.set()
    assert await house.ended(first, *tasks) == ["completed", "completed", "failed", "completed", "completed"]
    bad = await house.task(tasks[1])
    assert (bad["reason"], (await house.message(tasks[1]))["state"]) == ("internal", "failed")
    assert "could not be stored whole (ValueError: this one cannot be stored)" in bad["error"]
    assert set(tasks) in [set(group) for group in stores[0].groups], "they were tried together"


async def test_a_change_the_disk_has_no_room_for_leaves_the_words_and_is_caught_up_with(house: House) -> None:
    stores = faulty(house)
    task = await house.add("wait whole")
    session = await house.session_of(task)
    house.notebook.trees[session] = "1" * 40
    await house.node()
    await house.agent.until("spoke wait whole")
    stores[0].refuses["whole"] = DiskFull(what="the database", where="PostgreSQL")
    house.agent.let_go("wait whole")
    assert await house.ended(task) == ["failed"]
    row, said = await house.task(task), await house.message(task)
    assert (row["reason"], said["text"]) == ("disk", "working on it; done: wait whole")
    stores[0].refuses.clear()
    await house.until("select count(*) = 1 from pending_changes where task_id = $1 and state = 'pending'", task)
    assert await house.sql.fetchval("select unsnapshotted_task from session_worktrees") is None


async def test_a_producer_that_keeps_its_transaction_open_delays_nobody_s_end(house: House) -> None:
    await house.node()
    task = await house.add("wait x")
    session = await house.session_of(task)
    await house.agent.until("spoke wait x")
    transaction = house.sql.transaction()
    await transaction.start()
    await house.add("say behind", session_id=session)
    other = await connect(house)
    house.agent.let_go("wait x")
    await house.until("select ended_at from tasks where id = $1", task, connection=other)
    await other.execute("insert into tasks (project_id, input) values ($1, 'say elsewhere')", house.project)
    await house.until("select ended_at from tasks where input = 'say elsewhere'", connection=other)
    await transaction.commit()
    await house.until("select state = 'completed' from tasks where input = 'say behind'", connection=other)
    other.terminate()


async def connect(house: House) -> Any:
    import asyncpg

    return await asyncpg.connect(house.dsn)


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[tuple[EmbeddedServer, House]]:
    """A house on a server of its own, which the test may stop and start, with a short path for its socket."""
    with tempfile.TemporaryDirectory(prefix="c-") as directory:
        server = EmbeddedServer(Path(directory), durable=True)
        server.start()
        try:
            migrate(server.dsn)
            async with house_on(server.dsn, tmp_path) as house:
                yield server, house
        finally:
            server.stop()


async def restart(server: EmbeddedServer, house: House) -> None:
    server.stop()
    server.start()
    house.sql = await connect(house)


async def test_turns_outlive_a_restart_of_the_database(own_server: tuple[EmbeddedServer, House]) -> None:
    server, house = own_server
    node = await house.node()
    task = await house.add("wait x")
    other = await house.add("mute y")
    await house.agent.until("spoke wait x", "start mute y")
    await house.until("select first_event_at from tasks where id = $1", task)
    before = await house.sql.fetchval("select id from nodes")
    await restart(server, house)
    house.agent.let_go("wait x")
    house.agent.let_go("mute y")
    assert await house.ended(task, other) == ["completed", "completed"]
    assert [(await house.task(each))["attempts"] for each in (task, other)] == [1, 1]
    assert await house.sql.fetchval("select id from nodes") == before
    assert await house.ended(await house.add("say next")) == ["completed"]
    await node.stop()
    assert await house.sql.fetchval("select count(*) from nodes") == 0


async def test_an_ending_waits_for_a_database_that_is_away(own_server: tuple[EmbeddedServer, House]) -> None:
    server, house = own_server
    await house.node()
    task = await house.add("wait x")
    await house.agent.until("spoke wait x")
    await house.until("select first_event_at from tasks where id = $1", task)
    server.stop()
    house.agent.let_go("wait x")
    await house.agent.until("end wait x")
    server.start()
    house.sql = await connect(house)
    assert await house.ended(task) == ["completed"]
    assert (await house.message(task))["text"] == "working on it; done: wait x"


async def test_a_node_stops_although_the_database_is_away(own_server: tuple[EmbeddedServer, House]) -> None:
    server, house = own_server
    node = await house.node(replace(QUICK, drain=0.2, lease=1.5))
    task = await house.add("wait x")
    await house.agent.until("spoke wait x")
    await house.until("select first_event_at from tasks where id = $1", task)
    server.stop()
    async with asyncio.timeout(15):
        await node.stop()
    assert house.agent.order[-1] == "end wait x"
    server.start()
    house.sql = await connect(house)
    await house.until("select clock_timestamp() > max(lease_until) from nodes")
    await house.node()
    assert await house.ended(task) == ["interrupted"]
