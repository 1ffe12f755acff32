"""The stored frames: fenced, stored once, hinted at within the size of a notification, and let go of."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from agents.scripted import script
from livebench import LiveHouse

from coder.errors import NotFound
from coder.frame_log import FrameRow, Watch
from coder.frames import Delta, ToolCallFrame, UsageFrame
from coder.postgres.frames import PostgresFrames
from coder.postgres.pool import open_pool


@pytest.fixture
async def frames(house: LiveHouse) -> AsyncIterator[PostgresFrames]:
    pool = await open_pool(house.dsn, size=2)
    yield PostgresFrames(pool)
    pool.terminate()


async def claimed(house: LiveHouse) -> tuple[int, int, str]:
    """A task that runs under a node that is no process: its id, epoch and session."""
    host, node = uuid4(), uuid4()
    await house.sql.execute("insert into hosts (id, name) values ($1, 'there')", host)
    await house.sql.execute("insert into nodes (id, host_id, version, lease_until) values ($1, $2, '0', '2100-01-01')", node, host)
    task, session = await house.add("do it")
    epoch = await house.sql.fetchval("select epoch from coder.claim($1, $2, 1)", node, host)
    await house.sql.execute("select coder.mark_seen(array[$1::bigint], array[$2::bigint])", task, epoch)
    return task, epoch, session


def row(task: int, epoch: int, seq: int, frame: Delta | ToolCallFrame | UsageFrame) -> FrameRow:
    return FrameRow(task, epoch, seq, json.dumps(frame.wire()))


async def stored(house: LiveHouse) -> list[tuple[int, str]]:
    rows = await house.sql.fetch("select seq, payload ->> 'text' as text from frames order by task_id, epoch, seq")
    return [(each["seq"], each["text"]) for each in rows]


async def test_rows_of_another_epoch_or_of_a_turn_that_ended_are_dropped_and_those_stored_before_stay(
    house: LiveHouse, frames: PostgresFrames
) -> None:
    task, epoch, session = await claimed(house)
    await frames.append([row(task, epoch, 1, Delta(session, epoch, 1, "a")), row(task, epoch - 1, 1, Delta(session, epoch, 1, "x"))], set())
    await frames.append([row(task, epoch, 1, Delta(session, epoch, 1, "again")), row(task, epoch, 2, Delta(session, epoch, 1, "b"))], set())
    assert await stored(house) == [(1, "a"), (2, "b")]
    await house.sql.execute("update nodes set lease_until = '-infinity'")
    await house.sql.execute("select coder.reap()")
    await frames.append([row(task, epoch, 3, Delta(session, epoch, 1, "late"))], set())
    assert await stored(house) == [(1, "a"), (2, "b")]


async def test_a_reaped_turn_keeps_what_it_said_by_part_and_the_latest_of_each_call(house: LiveHouse, frames: PostgresFrames) -> None:
    task, epoch, session = await claimed(house)
    runs = {"id": "a", "name": "run", "input": "{}", "status": "running", "output": "", "exit_code": None}
    said = [
        Delta(session, epoch, 1, "one "),
        ToolCallFrame(session, epoch, 2, runs),
        Delta(session, epoch, 3, "three"),
        Delta(session, epoch, 1, "more "),
        ToolCallFrame(session, epoch, 2, runs | {"status": "completed"}),
        ToolCallFrame(session, epoch, 4, runs | {"id": "b"}),
        UsageFrame(session, epoch, 1, 0, 1, 5),
        UsageFrame(session, epoch, 10, 4, 2, 12),
    ]
    await frames.append([row(task, epoch, seq, frame) for seq, frame in enumerate(said, 1)], set())
    await house.sql.execute("update nodes set lease_until = '-infinity'")
    await house.sql.execute("select coder.reap()")
    message = await house.sql.fetchrow("select state, text, tool_calls from messages where task_id = $1 and role = 'assistant'", task)
    assert (message["state"], message["text"]) == ("interrupted", "one more three")
    assert [(call["id"], call["status"]) for call in json.loads(message["tool_calls"])] == [("a", "completed"), ("b", "failed")]
    query = (
        "select input_tokens, cached_tokens, output_tokens, cost_tokens, output_summary, context_size from tasks t, chats where t.id = $1"
    )
    assert tuple(await house.sql.fetchrow(query, task)) == (10, 4, 2, 12, "one more three", 12)


async def test_old_frames_go_and_those_of_turns_that_run_or_have_just_ended_stay(house: LiveHouse, frames: PostgresFrames) -> None:
    task, epoch, session = await claimed(house)
    await frames.append([row(task, epoch, 1, Delta(session, epoch, 1, "a"))], set())
    assert await frames.prune() == 0
    await house.sql.execute("update nodes set lease_until = '-infinity'")
    await house.sql.execute("select coder.reap()")
    assert await frames.prune() == 0
    await house.sql.execute("set coder.actor = 'node'")
    await house.sql.execute("update tasks set ended_at = ended_at - interval '6 minutes'")
    assert await frames.prune() == 1


async def test_hints_fit_into_notifications(house: LiveHouse, frames: PostgresFrames) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    listening = await asyncpg.connect(house.dsn)
    await listening.add_listener("frames", lambda *given: heard.put_nowait(given[3]))
    sessions = {str(uuid4()) for _ in range(450)}
    await frames.append([], sessions)
    async with asyncio.timeout(20):
        hints = [await heard.get() for _ in range(3)]
    assert set(" ".join(hints).split()) == sessions
    assert all(len(hint) < 8000 for hint in hints)
    await frames.append([], {str(uuid4()) for _ in range(2001)})
    async with asyncio.timeout(20):
        assert await heard.get() == "*"
    await frames.append([], set())
    await frames.append([], {"00000000-0000-0000-0000-000000000001"})
    async with asyncio.timeout(20):
        assert await heard.get() == "00000000-0000-0000-0000-000000000001", "nothing to hint at rings nothing"
    listening.terminate()


async def test_a_session_that_is_none_is_a_sentence(house: LiveHouse, frames: PostgresFrames) -> None:
    with pytest.raises(NotFound, match="There is no session"):
        await frames.history(str(uuid4()))


async def test_a_long_history_is_cut_and_says_so(house: LiveHouse, frames: PostgresFrames) -> None:
    task, session = await house.add("x" * 1_000_000)
    await house.sql.execute("select coder.cancel($1)", task)
    await house.sql.execute("set coder.actor = 'node'")
    turn = "update tasks set epoch = 1, spoken_in = gen_random_uuid(), answer_state = 'complete', answer = $2 where id = $1"
    await house.sql.execute(turn, task, "x" * 3_500_000)
    await house.sql.execute("reset coder.actor")
    history = (await frames.history(session)).frame
    assert [message["role"] for message in history.messages] == ["assistant"], "both would be more than 4 MB"
    assert history.more


@pytest.mark.parametrize("running", [False, True], ids=["idle", "busy"])
async def test_a_look_answers_every_turn_that_ended_or_says_that_there_may_be_others(
    house: LiveHouse, frames: PostgresFrames, running: bool
) -> None:
    await house.node()
    first, session = await house.add(script(["say", "x"]))
    tasks = [first, *[(await house.add(script(["say", "x"]), session))[0] for _ in range(9)]]
    await house.ended(*tasks)
    if running:
        task, _ = await house.add(script(["gate", "never"]), session)
        await house.until("select state = 'running' from tasks where id = $1", task)
    epochs = [row["epoch"] for row in await house.sql.fetch("select epoch from tasks where ended_at is not null order by epoch")]
    for known in range(len(epochs) + 1):
        floor = epochs[known - 1] if known else 0
        (sight,) = await frames.look([Watch(session, 0, 0, 0, floor, {})])
        told = [turn.started.turn_id for turn in sight.ended]
        assert sight.gap or told == epochs[known:], f"{len(epochs) - known} turns ended"
        assert (sight.running is not None) is running
