"""F3, F4, F9: the line between a dispatcher and PostgreSQL breaks: the ear alone, everything for a while, or just one answer."""

from __future__ import annotations

import asyncio
import time

import pytest
from oracles import o4_recovered, survived
from proxy import BOTH, TO_CLIENT, TO_SERVER, Proxy
from stage import NodeProcess, Stage, until

LEASE, BEAT, POLL = 3.0, 1.0, 0.5
LISTENING = """
select pid from pg_stat_activity where application_name = 'coder-listen' and datname = current_database()
and state = 'idle' and query like 'select pg_notify%' and pid <> $1
"""


# ── F9: an answer is lost ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("statement", ["coder.finish(", "coder.mark_seen(", "coder.record_worktree(", "coder.beat(", "coder.reap("])
async def test_the_answer_to_a_commit_is_lost(stage: Stage, statement: str) -> None:
    """What was committed counts once, and what was not told is found out."""
    await stage.furnish(projects=1, sessions=8)
    async with Proxy(stage.dsn).serving() as proxy:
        await stage.node(dsn=proxy.dsn, listen=stage.dsn, lease=15, beat=1, poll=POLL)
        first = await stage.copy([(session, "5") for session in range(4)])
        await until(lambda: all(stage.said("end", task) for task in first), 10, "the first tasks have ended")
        proxy.lose_answer_to(statement)
        ids = first + [await stage.add(session, "10") for session in range(8) for _ in range(2)]
        await asyncio.wait_for(proxy.lost.wait(), 10)
        await stage.all_rest(15)
        await survived(stage, ids)
        assert await stage.value("select count(*) from tasks where state = 'completed' and cost_tokens = 12") == len(ids)
        messages = "select count(*) from messages where role = 'assistant' and state = 'complete' and text = 'at work'"
        assert await stage.value(messages) == len(ids)


async def test_the_answer_to_a_claim_is_lost(stage: Stage) -> None:
    """Tasks that the database gave to a node which never heard of it run all the same, soon."""
    await stage.furnish(projects=1, sessions=20)
    async with Proxy(stage.dsn).serving() as proxy:
        await stage.node(dsn=proxy.dsn, listen=stage.dsn, lease=60, beat=1, poll=POLL)
        ids: list[int] = []
        for session in range(20):
            proxy.lose_answer_to("coder.claim(")
            ids.append(await stage.add(session, "5"))
            await asyncio.wait_for(proxy.lost.wait(), 10)
            if proxy.lost_rows:
                break
        else:
            raise AssertionError("no claim that took a task was ever lost")
        await stage.all_rest(POLL + 2)
        await survived(stage, ids)
        assert await stage.value("select array_agg(attempts order by id) from tasks") == [1] * (len(ids) - 1) + [2]


# ── F4: a partition ──────────────────────────────────────────────────────────────────────────────────


async def test_every_connection_falls_into_a_hole(stage: Stage) -> None:
    """Lines that nobody answers on any more are dropped and made anew, and no turn suffers."""
    await stage.furnish(projects=1, sessions=4)
    async with Proxy(stage.dsn).serving() as proxy:
        await stage.node(dsn=proxy.dsn, listen=proxy.dsn, lease=15, beat=1, poll=POLL, answer=1)
        ids = await stage.copy([(session, "100") for session in range(4) for _ in range(4)])
        await stage.started(*ids[::4])
        for ways in ({TO_SERVER}, {TO_CLIENT}, set(BOTH)):
            proxy.swallow(frozenset(ways))
            ends = len(stage.witness())
            await until(lambda ends=ends: len(stage.witness()) >= ends + 6, 10, "work goes on over new lines")
        await stage.all_rest(20)
        await survived(stage, ids)
        assert await stage.value("select count(*) from tasks where state <> 'completed'") == 0


async def agents_end(node: NodeProcess, seconds: float) -> None:
    await until(lambda: not node.family(), seconds, f"the agents of {node.name} are gone")


async def test_a_partition_shorter_than_the_lease_hurts_nobody(stage: Stage) -> None:
    await stage.furnish(projects=1, sessions=6)
    async with Proxy(stage.dsn).serving() as proxy:
        await asyncio.gather(
            stage.node(dsn=proxy.dsn, listen=proxy.dsn, lease=12, beat=1, poll=POLL, slots=3),
            stage.node(lease=12, beat=1, poll=POLL, slots=3),
        )
        ids = await stage.copy([(session, str(stage.rng.randrange(300))) for session in range(6) for _ in range(5)])
        await stage.started(*ids[::5])
        for ways in ({TO_SERVER}, {TO_CLIENT}, set(BOTH)):
            proxy.partition(frozenset(ways))
            ends = len(stage.witness())
            await until(lambda ends=ends: len(stage.witness()) >= ends + 6, 5, "work goes on elsewhere")
            proxy.heal()
        await stage.all_rest(20)
        await survived(stage, ids)
        assert await stage.value("select count(*) from tasks where reason is not null or attempts <> 1") == 0


@pytest.mark.parametrize(
    "how", ["partition", *(pytest.param(how, marks=pytest.mark.long) for how in ("partition to client", "swallow and refuse", "refuse"))]
)
async def test_a_partition_longer_than_the_lease(stage: Stage, how: str) -> None:
    """The agents are gone before anybody else may take their sessions; the node is fenced, and works on under a new id once it is back."""
    await stage.furnish(projects=1, sessions=4)
    async with Proxy(stage.dsn).serving() as proxy:
        cut_off = await stage.node(dsn=proxy.dsn, listen=proxy.dsn, lease=LEASE, beat=BEAT, poll=POLL, answer=3)
        ids = [await stage.add(0, "family gate"), await stage.add(1, "mute family gate"), await stage.add(2, "family 1500")]
        await stage.started(*ids)
        await stage.seen(ids[0], ids[2])
        begun = time.monotonic()
        if how.startswith("partition"):
            proxy.partition(frozenset({TO_CLIENT}) if how.endswith("client") else BOTH)
        else:
            if how.startswith("swallow"):
                proxy.swallow()
            else:
                proxy.cut()
            proxy.refusing = True
        other = await stage.node(lease=LEASE, beat=BEAT, poll=POLL)
        gone = "select not exists (select from nodes where id = $1 and lease_until > clock_timestamp())"
        first = cut_off.ids[0]
        if how == "partition to client":  # its beats still arrive: only its own clock can end it
            await agents_end(cut_off, LEASE + 2)
        await until(lambda: stage.value(gone, first), LEASE + 5, "the lease of the node that is cut off is over")
        assert not cut_off.family(), "its agents outlive its lease"
        await o4_recovered(stage, LEASE + POLL + 2 - (time.monotonic() - begun) + (LEASE if how == "partition to client" else 0))
        stage.open_gate()
        ids += [await stage.add(3, "5") for _ in range(3)]
        await stage.all_rest(10)
        assert other.returncode is None
        before = await stage.rows("select * from tasks order by id")
        proxy.heal()
        back = "select count(*) from nodes where lease_until > clock_timestamp()"

        async def two_nodes() -> bool:
            return bool(await stage.value(back) == 2)

        await until(two_nodes, LEASE + 5, "the node that was cut off is registered anew")
        assert await stage.value("select id from nodes where id = $1", first) is None
        other.signal(15)
        assert await other.ended(20) == 0
        assert await stage.rows("select * from tasks order by id") == before, "something was written late"
        ids += [await stage.add(session, "5") for session in range(4)]
        await stage.all_rest(10)
        await survived(stage, ids)
        assert await stage.value("select count(*) from tasks where id = any ($1) and node_id = $2", ids[-4:], first) == 0


# ── F3: the ear alone ────────────────────────────────────────────────────────────────────────────────


async def listens(stage: Stage, apart_from: int = 0) -> int:
    """Wait until a node listens, on another connection than that; answers the server process."""
    await until(lambda: stage.value(LISTENING, apart_from), 10, "the node listens")
    return int(await stage.value(LISTENING, apart_from))


async def test_the_listening_connection_is_ended(stage: Stage) -> None:
    await stage.furnish(projects=1, sessions=1)
    await stage.node(lease=15, beat=5, poll=60)
    ear = await listens(stage)
    assert await stage.value("select pg_terminate_backend($1)", ear)
    during = await stage.add(0, "5")  # its notification reaches nobody
    await listens(stage, ear)
    await until(lambda: stage.said("end", during), 5, "what came meanwhile runs: each subscription looks at the queue")
    after = await stage.add(0, "5")
    await until(lambda: stage.said("end", after), 5, "the bell rings again")
    await stage.all_rest(5)
    await survived(stage, [during, after])


async def test_the_listening_connection_falls_into_a_hole(stage: Stage) -> None:
    """Nobody says that it is gone: the poll does the work, until the echo is missed and the node listens anew."""
    await stage.furnish(projects=1, sessions=1)
    async with Proxy(stage.dsn).serving() as proxy:
        await stage.node(listen=proxy.dsn, lease=15, beat=5, poll=POLL, probe=1.0, echo=1.0)
        ear = await listens(stage)
        proxy.swallow()
        begun = time.monotonic()
        during = await stage.add(0, "5")
        await until(lambda: stage.said("end", during), POLL + 2, "the poll finds it")
        await listens(stage, ear)
        print(f"listening again after {time.monotonic() - begun:.2f} s")
        await stage.all_rest(5)
        await survived(stage, [during])
