"""How to tell that the queue survived: O1 to O7 of the design, each a function that fails with what it found.

What ran when is asked of the witness, which no database fault can forge; what is recorded is asked of the database.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from stage import Said, Stage, until

AT_REST = ("completed", "failed", "cancelled", "interrupted")

STRAYS = """
select 'runs without a live owner' as what, q.session_id, q.running_task as task from session_queue q
where q.state = 'running' and not exists (select from nodes n where n.id = q.owner and n.lease_until > clock_timestamp())
union all
select 'is running without its session', t.session_id, t.id from tasks t
where t.state = 'running' and not exists (
    select from session_queue q where q.session_id = t.session_id and q.state = 'running' and q.running_task = t.id and q.epoch = t.epoch)
union all
select 'has ended, but its session runs on', q.session_id, q.running_task from session_queue q join tasks t on t.id = q.running_task
where q.state = 'running' and (t.state <> 'running' or t.epoch <> q.epoch)
union all
select 'waits in a session that rests', t.session_id, t.id from tasks t join session_queue q on q.session_id = t.session_id
where t.state = 'pending' and (q.state = 'idle' or q.state = 'scheduled' and (t.run_at is null or t.run_at < clock_timestamp()))
"""

CHAINS = """
with recursive chain as (
    select id, id as root, session_id, state, reason, epoch, attempts, max_attempts from tasks where retry_of is null
    union all
    select t.id, c.root, t.session_id, t.state, t.reason, t.epoch, t.attempts, t.max_attempts from tasks t join chain c on t.retry_of = c.id
) select * from chain order by root, id
"""

GAPS = """
select task_id, epoch, count(*), count(distinct seq), min(seq), max(seq) from frames group by task_id, epoch
having count(*) <> max(seq) or count(distinct seq) <> count(*) or min(seq) <> 1
"""


async def o1_nothing_lost(stage: Stage, acknowledged: list[int], *, work_done: bool = True) -> None:
    """Every acknowledged task is there and at rest in one state; with `work_done` it, or what a person put in its place, is completed."""
    rows = {row["id"]: row for row in await stage.rows(CHAINS)}
    assert set(acknowledged) <= rows.keys(), f"acknowledged, but lost: {set(acknowledged) - rows.keys()}"
    moving = {row["id"]: row["state"] for row in rows.values() if row["state"] not in AT_REST}
    assert not moving, f"not at rest: {moving}"
    if work_done:
        last = {row["root"]: row for row in rows.values()}
        undone = {root: (row["state"], row["reason"]) for root, row in last.items() if row["state"] != "completed"}
        assert not undone, f"the work was not done: {undone}"
    ends = Counter((said.task, said.epoch) for said in stage.witness() if said.what == "end")
    for row in rows.values():
        if row["state"] == "completed":
            assert ends[row["id"], row["epoch"]] == 1, f"task {row['id']} is completed by epoch {row['epoch']}, but the agents ended {ends}"


def o2_no_overlap(witness: list[Said]) -> None:
    """At the agent processes, turns of one session never overlap: by their locks, and by the order of their lines."""
    assert not [said for said in witness if said.what == "overlap"]
    at_work: dict[Any, Said] = {}
    for said in witness:
        if said.what == "end":
            holder = at_work.pop(said.session, None)
            assert holder is not None, f"{said} ended without being at work"
            assert (holder.task, holder.epoch) == (said.task, said.epoch), f"{said} ended while {holder} was at work"
        elif said.what == "start":
            at_work[said.session] = said  # one before it without an end was ended from outside, or the lock would have shown it


async def o3_order_kept(stage: Stage) -> None:
    """In a session what was acknowledged before another was sent starts before it; what a person runs again comes in its task's place."""
    roots = {row["id"]: row["root"] for row in await stage.rows(CHAINS)}
    order: dict[Any, list[int]] = defaultdict(list)
    for said in stage.witness():
        if said.what == "start":
            order[said.session].append(roots[said.task])
    for session, started in order.items():
        for number, early in enumerate(started):
            wrong = [late for late in started[number + 1 :] if stage.precedes(late, early)]
            assert not wrong, f"session {session} ran out of order: {early} before {wrong}"


async def strays(stage: Stage) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await stage.rows(STRAYS)]


async def o4_recovered(stage: Stage, seconds: float) -> None:
    """Within so many seconds nothing runs without a live owner and nothing waits in a session that rests."""
    found: list[list[tuple[Any, ...]]] = []

    async def none() -> bool:
        found.append(await strays(stage))
        return not found[-1]

    try:
        await until(none, seconds, "nothing strays")
    except AssertionError as late:
        raise AssertionError(f"{late}: {found[-1]}") from None


async def o5_fenced(stage: Stage, task: int, epoch: int) -> None:
    """Whatever is written under an epoch that is over changes no row."""

    async def recorded() -> list[Any]:
        tables = {
            "tasks": "id = $1",
            "messages": "task_id = $1",
            "session_queue": "session_id = (select session_id from tasks where id = $1)",
        }
        return [await stage.value(f"select jsonb_agg(to_jsonb(t)) from {table} t where {where}", task) for table, where in tables.items()]

    before = await recorded()
    session = await stage.value("select session_id from tasks where id = $1", task)
    assert await stage.rows("select coder.mark_seen($1, $2)", [task], [epoch]) == []
    worktree = "select coder.record_worktree($1, $2, gen_random_uuid(), '/elsewhere', '/elsewhere', repeat('a', 40), null, '{}')"
    assert await stage.value(worktree, task, epoch) is False
    ending = (
        "jsonb_build_array(jsonb_build_object('task_id', $1::bigint, 'epoch', $2::bigint, 'session_id', $3::uuid, 'state', 'completed',"
        " 'text', 'late', 'snapshot', null, 'remark_ids', '[]'::jsonb, 'unsnapshotted', true))"
    )
    rows = await stage.rows(f"select verdict from coder.finish({ending}, '{{}}', '{{}}', '{{}}')", task, epoch, session)
    assert [row["verdict"] for row in rows] == ["fenced"]
    assert await stage.rows("select * from coder.advance($1, $2)", [session], [epoch]) == []
    assert await recorded() == before


async def o6_attempts_within_limit(stage: Stage, given_back: int = 0) -> None:
    """No task has had more attempts than it may, nor more agents than attempts and what drains may have given back."""
    epochs: dict[int, set[int]] = defaultdict(set)
    for said in stage.witness():
        epochs[said.task].add(said.epoch)
    for row in await stage.rows(CHAINS):
        assert row["attempts"] <= row["max_attempts"], f"task {row['id']} had {row['attempts']} attempts"
        assert len(epochs[row["id"]]) <= row["max_attempts"] + given_back, (
            f"agents worked on task {row['id']} under epochs {epochs[row['id']]}"
        )


async def o7_frames_whole(stage: Stage) -> None:
    """The frames of a turn are numbered from 1 without gap or repetition."""
    gaps = [tuple(row) for row in await stage.rows(GAPS)]
    assert not gaps, f"frames (task, epoch, count, distinct, first, last): {gaps}"


async def survived(stage: Stage, acknowledged: list[int], *, work_done: bool = True, given_back: int = 0) -> None:
    """All that holds once everything has come to rest, whatever happened before."""
    await o1_nothing_lost(stage, acknowledged, work_done=work_done)
    o2_no_overlap(stage.witness())
    await o3_order_kept(stage)
    await o4_recovered(stage, 2)
    await o6_attempts_within_limit(stage, given_back)
    await o7_frames_whole(stage)
