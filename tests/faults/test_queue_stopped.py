"""F5 and rolling restarts: a dispatcher is frozen longer than its lease, or asked to stop while it works."""

from __future__ import annotations

import asyncio
import signal

import pytest
from oracles import o4_recovered, o5_fenced, survived
from proxy import Proxy
from stage import NodeProcess, Stage, until

LEASE, BEAT, POLL = 3.0, 1.0, 0.5


async def agents_end(node: NodeProcess) -> None:
    await until(lambda: not node.family(), LEASE + 2, "the guardians have ended the agents of a node that cannot")


@pytest.mark.parametrize("alone", [False, True], ids=["another takes over", "alone"])
async def test_frozen_longer_than_the_lease(stage: Stage, alone: bool) -> None:
    """Guardians end the agents in time; what the node writes when it thaws is fenced, and it works on under a new id."""
    await stage.furnish(projects=1, sessions=3)
    frozen = await stage.node(lease=LEASE, beat=BEAT, poll=POLL)
    ids = [await stage.add(0, "family gate"), await stage.add(1, "mute family gate")]
    await stage.started(*ids)
    await stage.seen(ids[0])
    epochs = [row["epoch"] for row in await stage.rows("select epoch from tasks order by id")]
    first = frozen.ids[0]
    frozen.signal(signal.SIGSTOP)
    await agents_end(frozen)
    over = "select not exists (select from nodes where id = $1 and lease_until > clock_timestamp())"
    assert not await stage.value(over, first), "the agents have to be gone before the lease is over"
    if not alone:
        other = await stage.node(lease=LEASE, beat=BEAT, poll=POLL)
        await until(lambda: stage.value("select state = 'interrupted' from tasks where id = $1", ids[0]), LEASE + POLL + 2, "it is reaped")
        await o4_recovered(stage, 2)
        stage.open_gate()
        await stage.all_rest(10)
        other.signal(signal.SIGTERM)
        assert await other.ended(20) == 0
    else:
        await until(lambda: stage.value(over, first), LEASE + 2, "its lease is over")
        stage.open_gate()
    before = {row["id"]: row for row in await stage.rows("select * from tasks")}
    frozen.signal(signal.SIGCONT)
    ids.append(await stage.add(2, "5"))
    await stage.all_rest(10)
    await survived(stage, ids)
    after = {row["id"]: row for row in await stage.rows("select * from tasks")}
    assert after[ids[-1]]["node_id"] != first, "it works on under a new id"
    if alone:
        assert after[ids[0]]["state"] == "interrupted"
        assert after[ids[0]]["reason"] == "lease_lost"
    else:
        assert {task: after[task] for task in before} == before, "something was written late"
        await o5_fenced(stage, ids[0], epochs[0] - 1)
    await o5_fenced(stage, ids[1], epochs[1])


async def test_a_rolling_restart_interrupts_nobody(stage: Stage) -> None:
    """One of two dispatchers at a time is asked to stop, drains, and is started again, under load."""
    await stage.furnish(projects=2, sessions=12)
    pace = {"lease": 15, "beat": 5, "poll": POLL, "drain": 20}
    nodes = await asyncio.gather(stage.node(**pace, slots=4), stage.node(**pace, slots=4))
    ids = await stage.copy([(session, str(stage.rng.randrange(60))) for _ in range(12) for session in range(12)])
    for number, node in enumerate(nodes):
        ends = len(stage.witness())
        await until(lambda ends=ends: len(stage.witness()) >= ends + 30, 10, "both are at work")
        node.signal(signal.SIGTERM)
        assert await node.ended(25) == 0
        assert not node.family()
        assert not await stage.value("select exists (select from nodes where id = $1)", node.ids[0]), "it signed off"
        if number == 0:
            await stage.node(**pace, slots=4)
    await stage.all_rest(30)
    await survived(stage, ids)
    assert await stage.value("select count(*) from tasks where attempts <> 1 or reason is not null") == 0


async def test_a_stop_without_time_to_drain(stage: Stage) -> None:
    """What nobody has seen anything of goes back with its attempt; what was seen is interrupted and waits for a person."""
    await stage.furnish(projects=1, sessions=6)
    node = await stage.node(lease=60, beat=20, drain=0)
    seen = [await stage.add(session, "family gate") for session in range(3)]
    unseen = [await stage.add(session, "mute family gate") for session in range(3, 6)]
    behind = [await stage.add(session, "5") for session in range(6)]
    await stage.started(*seen, *unseen)
    await stage.seen(*seen)
    node.signal(signal.SIGTERM)
    assert await node.ended(10) == 0
    assert not node.family()
    states = {row["id"]: (row["state"], row["reason"], row["attempts"]) for row in await stage.rows("select * from tasks")}
    assert [states[task] for task in seen] == [("interrupted", "shutdown", 1)] * 3
    assert [states[task] for task in unseen + behind] == [("pending", None, 0)] * 9
    assert await stage.value("select count(*) from nodes") == 0
    queue = "select array_agg(q.state order by t.id) from session_queue q join tasks t on t.session_id = q.session_id where t.id = any ($1)"
    assert await stage.value(queue, seen + unseen) == ["held"] * 3 + ["ready"] * 3
    assert await stage.value("select count(*) from messages where state = 'streaming'") == 0
    await o4_recovered(stage, 0)
    stage.open_gate()
    await stage.node(lease=60, beat=20)
    await stage.all_rest(10)
    await survived(stage, seen + unseen + behind)
    assert await stage.value("select max(attempts) from tasks where id = any ($1)", unseen) == 1


async def test_a_stop_while_the_database_cannot_be_reached(stage: Stage) -> None:
    """It stops all the same, in the time that draining and the lease give it, and leaves no process; another node does the rest."""
    await stage.furnish(projects=1, sessions=3)
    async with Proxy(stage.dsn).serving() as proxy:
        node = await stage.node(dsn=proxy.dsn, listen=proxy.dsn, lease=LEASE, beat=BEAT, poll=POLL, drain=0.2, answer=1)
        ids = [await stage.add(0, "family gate"), await stage.add(1, "mute family gate"), await stage.add(2, "300")]
        await stage.started(*ids)
        await stage.seen(ids[0], ids[2])
        proxy.partition()
        node.signal(signal.SIGTERM)
        assert await node.ended(LEASE + 6) == 0
        assert not node.family()
        other = await stage.node(lease=LEASE, beat=BEAT, poll=POLL)
        await o4_recovered(stage, LEASE + POLL + 2)
        stage.open_gate()
        await stage.all_rest(10)
        await survived(stage, ids)
        assert other.returncode is None
