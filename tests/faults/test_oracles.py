"""The oracles can fail: each is shown what it exists to find."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from oracles import (
    o1_nothing_lost,
    o2_no_overlap,
    o3_order_kept,
    o4_recovered,
    o5_fenced,
    o6_attempts_within_limit,
    o7_frames_whole,
    survived,
)
from stage import Said, Stage

Say = Callable[..., None]
ONE, OTHER = UUID(int=1), UUID(int=2)


@pytest.fixture
def say(stage: Stage) -> Say:
    """Writes a line of the witness."""

    def write(what: str, task: int, session: UUID, epoch: int = 1) -> None:
        with (stage.folder / "witness").open("a") as witness:
            witness.write(f"{what} {task} {session} {epoch} 1 0.5\n")

    return write


async def ended(stage: Stage, task: int, state: str = "completed", epoch: int = 1) -> None:
    await stage.value("select set_config('coder.actor', 'node', false)")
    await stage.value("update tasks set state = $2, reason = 'user', epoch = $3, ended_at = now() where id = $1", task, state, epoch)
    await stage.value("update session_queue set state = 'idle'")


async def running(stage: Stage, task: int) -> None:
    """As a claim of a node that nobody knows leaves it."""
    await stage.value("select set_config('coder.actor', 'node', false)")
    await stage.value("update tasks set state = 'running', epoch = 1, node_id = $2, claimed_at = now() where id = $1", task, uuid4())
    await stage.value("update session_queue set state = 'running', owner = $2, epoch = 1, running_task = $1", task, uuid4())


@pytest.fixture
async def task(stage: Stage) -> int:
    await stage.furnish(projects=1, sessions=1)
    return await stage.add(0, "5")


async def test_what_is_lost_moves_or_is_not_witnessed_fails_o1(stage: Stage, task: int, say: Say) -> None:
    with pytest.raises(AssertionError, match="lost"):
        await o1_nothing_lost(stage, [task, task + 1])
    with pytest.raises(AssertionError, match="not at rest"):
        await o1_nothing_lost(stage, [task])
    await ended(stage, task, "cancelled")
    with pytest.raises(AssertionError, match="work was not done"):
        await o1_nothing_lost(stage, [task])
    await o1_nothing_lost(stage, [task], work_done=False)
    await ended(stage, task)
    with pytest.raises(AssertionError, match="agents ended"):
        await o1_nothing_lost(stage, [task])
    say("end", task, ONE)
    await o1_nothing_lost(stage, [task])
    say("end", task, ONE)
    with pytest.raises(AssertionError, match="agents ended"):
        await o1_nothing_lost(stage, [task])


@pytest.mark.parametrize(
    ("lines", "well"),
    [
        ("start 1 a, end 1 a, start 2 a, end 2 a", True),
        ("start 1 a, start 2 b, end 2 b, end 1 a", True),
        ("start 1 a, start 2 a, end 2 a", True),  # the first was killed
        ("start 1 a, start 2 a, end 1 a, end 2 a", False),
        ("start 1 a, end 1 a, end 1 a", False),
        ("start 1 a, overlap 2 a, start 2 a", False),
    ],
)
def test_turns_that_overlap_fail_o2(lines: str, well: bool) -> None:
    sessions = {"a": ONE, "b": OTHER}
    words = [line.split() for line in lines.split(", ")]
    witness = [Said(what, int(task), sessions[session], int(task), 1, 0.0) for what, task, session in words]
    if well:
        o2_no_overlap(witness)
    else:
        with pytest.raises(AssertionError):
            o2_no_overlap(witness)


async def test_what_starts_too_early_fails_o3(stage: Stage, task: int, say: Say) -> None:
    second = await stage.add(0, "5")
    together = await stage.copy([(0, "5"), (0, "5")])
    await ended(stage, task, "interrupted")
    again = await stage.value("select coder.retry($1)", task)
    for started in (task, again, second, *together):
        say("start", started, ONE)
    await o3_order_kept(stage)
    say("start", together[1], OTHER)
    say("start", together[0], OTHER)
    with pytest.raises(AssertionError, match="out of order"):
        await o3_order_kept(stage)
    (stage.folder / "witness").write_text("")
    say("start", second, ONE)
    say("start", again, ONE)
    with pytest.raises(AssertionError, match="out of order"):
        await o3_order_kept(stage)


async def test_what_nobody_looks_after_fails_o4(stage: Stage, task: int) -> None:
    await o4_recovered(stage, 0)
    await stage.value("update session_queue set state = 'idle'")
    with pytest.raises(AssertionError, match="waits in a session that rests"):
        await o4_recovered(stage, 0)
    await running(stage, task)
    with pytest.raises(AssertionError, match="without a live owner"):
        await o4_recovered(stage, 0)
    await stage.value("update tasks set state = 'completed', ended_at = now()")
    with pytest.raises(AssertionError, match="its session runs on"):
        await o4_recovered(stage, 0)


async def test_an_epoch_that_is_not_over_fails_o5(stage: Stage, task: int) -> None:
    await running(stage, task)
    await o5_fenced(stage, task, 0)
    with pytest.raises(AssertionError):
        await o5_fenced(stage, task, 1)


async def test_too_many_agents_fail_o6(stage: Stage, task: int, say: Say) -> None:
    for epoch in (1, 2, 3):
        say("start", task, ONE, epoch)
    await o6_attempts_within_limit(stage)
    say("start", task, ONE, 4)
    with pytest.raises(AssertionError, match="agents worked"):
        await o6_attempts_within_limit(stage)


@pytest.mark.parametrize(("numbers", "well"), [([1, 2, 3], True), ([1, 3], False), ([2, 3], False)])
async def test_a_gap_in_the_frames_fails_o7(stage: Stage, task: int, numbers: list[int], well: bool) -> None:
    for number in numbers:
        await stage.value("insert into frames (task_id, epoch, seq, payload) values ($1, 1, $2, '{}')", task, number)
    if well:
        await o7_frames_whole(stage)
    else:
        with pytest.raises(AssertionError, match="frames"):
            await o7_frames_whole(stage)


async def test_all_of_it_at_once(stage: Stage, task: int, say: Say) -> None:
    await ended(stage, task)
    say("start", task, ONE)
    say("end", task, ONE)
    await survived(stage, [task])
