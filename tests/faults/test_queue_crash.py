"""F1: a dispatcher dies by kill -9 at every point that has a name; somebody takes over, and it leaves no process behind."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from oracles import o4_recovered, o5_fenced, survived
from stage import KILLED, NodeProcess, Stage, until

from coder.host.slot import take

POINTS = ("claim.before", "claim.after", "seen.before", "seen.after", "running", "finish.before", "finish.after")
LEASE, BEAT, POLL = 3.0, 1.0, 0.5
RECOVERED = LEASE + POLL + 2


def work(stage: Stage, sessions: int, each: int) -> list[tuple[int, str]]:
    """Short tasks, a third of them with children that only KILL ends, some silent until they are done."""
    words = ["5", "15", "family 10", "mute 5"]
    tasks = [(session, stage.rng.choice(words)) for session in range(sessions) for _ in range(each)]
    stage.rng.shuffle(tasks)
    return tasks


async def dies(node: NodeProcess) -> float:
    """Wait until it has killed itself and all of its processes are gone; answers when it died."""
    assert await node.ended(20) == KILLED
    died = time.monotonic()
    await node.family_ends()
    return died


@pytest.mark.parametrize("point", POINTS)
async def test_restarted_after_a_kill(stage: Stage, point: str) -> None:
    """The lease is long: a successor on the same data directory knows at once that its predecessor is gone."""
    await stage.furnish(projects=2, sessions=5)
    doomed = await stage.node(lease=60, beat=20, slots=4, kill=f"{point}:{stage.rng.randint(1, 3)}")
    ids = await stage.copy(work(stage, 5, 3))
    died = await dies(doomed)
    await stage.node(lease=60, beat=20, slots=4)
    await o4_recovered(stage, 4 - (time.monotonic() - died))
    await stage.all_rest(20)
    await survived(stage, ids)
    assert not doomed.family()


async def test_a_survivor_takes_over_when_the_lease_is_over(stage: Stage) -> None:
    """Seven dispatchers die, one at each point, none comes back; the one that was there all along does their work."""
    await stage.furnish(projects=3, sessions=16)
    pace = {"lease": LEASE, "beat": BEAT, "poll": POLL}
    survivor = await stage.node(**pace, slots=4)
    doomed = await asyncio.gather(*(stage.node(**pace, slots=2, kill=f"{point}:{stage.rng.randint(1, 2)}") for point in POINTS))
    ids = await stage.copy(work(stage, 16, 4))
    died = max(await asyncio.gather(*(dies(node) for node in doomed)))
    await o4_recovered(stage, RECOVERED - (time.monotonic() - died))
    await stage.all_rest(30)
    await survived(stage, ids)
    assert survivor.returncode is None
    assert await stage.value("select count(*) from tasks where reason = 'crash'") == 0, "nobody could know of a crash here"


async def test_a_restart_on_the_same_data_directory_recovers_at_once(stage: Stage) -> None:
    """What was seen is interrupted by the crash, what was not runs again, long before the lease would have ended."""
    await stage.furnish(projects=1, sessions=2)
    seen, unseen = await stage.add(0, "family gate"), await stage.add(1, "mute family gate")
    first = await stage.node(lease=60, beat=20)
    await stage.seen(seen)
    await stage.started(unseen)
    epochs = {row["id"]: row["epoch"] for row in await stage.rows("select id, epoch from tasks")}
    await first.kill()
    begun = time.monotonic()
    second = await stage.node(lease=60, beat=20)

    async def again() -> bool:
        return await stage.state(seen) == "interrupted" and len([said for said in stage.witness() if said.task == unseen]) == 2

    await until(again, 5, "both tasks are recovered")
    print(f"recovered {time.monotonic() - begun:.2f} s after the kill")
    assert await stage.value("select reason from tasks where id = $1", seen) == "crash"
    assert await stage.value("select attempts from tasks where id = $1", unseen) == 2
    assert await stage.value("select state from session_queue where session_id = $1", stage.sessions[0][0]) == "held"
    assert {row["id"] for row in await stage.rows("select id from nodes")} == set(second.ids), "the dead node is gone"
    for task, epoch in epochs.items():
        await o5_fenced(stage, task, epoch if task == unseen else epoch - 1)
    stage.open_gate()
    await stage.all_rest(10)
    await survived(stage, [seen, unseen])


def test_nobody_waits_for_a_slot_that_was_just_taken(tmp_path: Path) -> None:
    """Two dispatchers start at once: the second must not take the first for dead before it has said who it is."""

    def wait(_: float) -> None:
        raise AssertionError("it waits for the other to die")

    slots = [take(tmp_path, wait) for _ in range(2)]
    assert [slot.path.name for slot in slots] == ["0.lock", "1.lock"]
    for slot in slots:
        slot.release()
