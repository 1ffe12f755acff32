"""Decisions, rescues and discards of a node on a real database; what is asked of the worktrees, and in which order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from nodebench import BASE, QUICK, House

from coder.change import ConflictFile, ConflictHunk, Found
from coder.errors import CheckoutDirty, DiskFull, MergeConflict, Unavailable, WrongBranch
from coder.postgres.changes import PostgresChanges
from coder.runtime import reviewer


async def make_change(house: House, tree: str = "1" * 40, session: UUID | None = None) -> tuple[UUID, str, UUID]:
    """A turn that leaves a change; answers change, fingerprint and session."""
    task = await house.add(f"wait for {tree[:3]}", **({"session_id": session} if session else {}))
    session = await house.session_of(task)
    house.notebook.trees[session] = tree
    house.agent.let_go(f"wait for {tree[:3]}")
    assert await house.ended(task) == ["completed"]
    row = await house.sql.fetchrow("select id, fingerprint from pending_changes where task_id = $1", task)
    return row["id"], row["fingerprint"], session


async def approve(house: House, change: UUID, fingerprint: str, *more: object) -> UUID:
    places = "".join(f", ${number}" for number in range(3, 3 + len(more)))
    return UUID(str(await house.sql.fetchval(f"select coder.approve($1, $2{places})", change, fingerprint, *more)))


async def decided(house: House, decision: UUID) -> dict[str, Any]:
    await house.until("select ended_at from decisions where id = $1", decision)
    row = await house.sql.fetchrow("select state, outcome, error, facts from decisions where id = $1", decision)
    return dict(row) | {"facts": json.loads(row["facts"])}


async def state(house: House, change: UUID) -> str:
    return str(await house.sql.fetchval("select state from pending_changes where id = $1", change))


async def test_an_approval_is_planned_stored_carried_out_and_settled(house: House) -> None:
    await house.node()
    change, fingerprint, session = await make_change(house)
    house.notebook.calls.clear()
    decision = await approve(house, change, fingerprint, "branch", "feature/x")
    settled = await decided(house, decision)
    assert (settled["state"], settled["outcome"]) == ("done", "approved")
    assert (settled["facts"]["target"], settled["facts"]["branch"]) == ("branch", "feature/x")
    await house.notebook.did("plan", "carry_out", "forget")
    ((_, approval),) = [call for call in house.notebook.calls if call[0] == "plan"]
    assert (approval.snapshot_commit, approval.branch, approval.worktree.session_id) == ("1" * 40, "feature/x", session)
    assert approval.message.startswith("wait for 111\n\nAgent: native\n")
    tree = await house.sql.fetchrow("select base_commit, base_version from session_worktrees")
    assert (await state(house, change), tuple(tree)) == ("approved", ("1" * 40, 2))


@pytest.mark.parametrize(
    ("refusal", "outcome", "after"),
    [
        (CheckoutDirty(path="/srv/shop", files="a.py"), "checkout_dirty", "pending"),
        (WrongBranch("The branch feature/x is checked out in /srv/shop; name another."), "wrong_branch", "pending"),
        (ValueError("a fault of ours"), "internal", "pending"),
    ],
)
async def test_a_refused_plan_touches_nothing_and_leaves_the_change_open(
    house: House, refusal: Exception, outcome: str, after: str
) -> None:
    await house.node()
    change, fingerprint, _ = await make_change(house)
    house.notebook.faults["plan"] = refusal
    settled = await decided(house, await approve(house, change, fingerprint))
    assert (settled["state"], settled["outcome"], await state(house, change)) == ("failed", outcome, after)
    assert settled["error"].endswith(".")
    assert "carry_out" not in house.notebook.names()
    del house.notebook.faults["plan"]
    settled = await decided(house, await approve(house, change, fingerprint))
    assert (settled["outcome"], await state(house, change)) == ("approved", "approved")


async def test_a_conflict_is_recorded_with_its_files_and_can_be_approved_again(house: House) -> None:
    await house.node()
    change, fingerprint, _ = await make_change(house)
    conflicts = [ConflictFile(b"a.py", "both changed it", (ConflictHunk(3, "ours", "theirs"),))]
    house.notebook.faults["plan"] = MergeConflict(target="the checkout", files="a.py", conflicts=conflicts)
    settled = await decided(house, await approve(house, change, fingerprint))
    assert (settled["outcome"], await state(house, change)) == ("conflict", "conflicted")
    found = json.loads(await house.sql.fetchval("select conflicts from pending_changes"))
    assert found == [{"path": "a.py", "detail": "both changed it", "hunks": [{"line": 3, "ours": "ours", "theirs": "theirs"}]}]
    house.notebook.faults["plan"] = CheckoutDirty(path="/srv/shop", files="a.py")
    await decided(house, await approve(house, change, fingerprint))
    assert await state(house, change) == "conflicted", "nothing was looked at, so what was known still holds"
    house.notebook.faults.clear()
    await decided(house, await approve(house, change, fingerprint))
    assert await state(house, change) == "approved"


@pytest.mark.parametrize(
    ("found", "outcome", "after"),
    [(Found.OLD, "disk", "pending"), (Found.OTHER, "disk", "conflicted")],
)
async def test_what_stops_half_way_is_settled_by_looking(house: House, found: Found, outcome: str, after: str) -> None:
    await house.node()
    change, fingerprint, _ = await make_change(house)
    house.notebook.calls.clear()
    house.notebook.faults["carry_out"] = DiskFull(what="the checkout", where="/srv/shop")
    house.notebook.found, house.notebook.others = found, (b"z.py",)
    settled = await decided(house, await approve(house, change, fingerprint))
    assert (settled["state"], settled["outcome"], await state(house, change)) == ("failed", outcome, after)
    await house.notebook.did("plan", "carry_out", "examine", "forget")


async def test_what_is_written_in_part_is_tried_until_it_is_whole(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reviewer, "TRY_SECONDS", 0.01)
    await house.node()
    change, fingerprint, _ = await make_change(house)
    house.notebook.calls.clear()
    house.notebook.faults["carry_out"] = DiskFull(what="the checkout", where="/srv/shop")
    house.notebook.found = Found.MIXED
    decision = await approve(house, change, fingerprint)
    async with asyncio.timeout(20):
        while house.notebook.names().count("carry_out") < 3:
            await house.until("select pg_sleep(0.01) is not null")
    house.notebook.faults.clear()
    assert (await decided(house, decision))["outcome"] == "approved"


async def test_decisions_of_one_project_are_carried_out_one_after_the_other(house: House) -> None:
    await house.node()
    await house.node()
    changes = [await make_change(house, digit * 40) for digit in "123"]
    house.notebook.paused = asyncio.Event()
    decisions = [await approve(house, change, fingerprint) for change, fingerprint, _ in changes]
    await house.until("select count(*) = 1 from decisions where state = 'running' and plan is not null")
    await house.until("select pg_sleep(0.5) is not null")
    assert house.notebook.names().count("plan") == 1
    house.notebook.paused.set()
    assert [(await decided(house, decision))["outcome"] for decision in decisions] == ["approved"] * 3
    planned = [call[1].decision_id for call in house.notebook.calls if call[0] == "plan"]
    assert planned == decisions


async def test_a_turn_that_ends_while_its_change_is_applied_waits_and_measures_anew(house: House) -> None:
    await house.node()
    change, fingerprint, session = await make_change(house)
    house.notebook.paused = asyncio.Event()
    task = await house.add("wait second", session_id=session)
    await house.agent.until("spoke wait second")
    decision = await approve(house, change, fingerprint)
    await house.until("select state = 'applying' from pending_changes where id = $1", change)
    house.notebook.trees[session] = "2" * 40
    house.agent.let_go("wait second")
    await house.agent.until("end wait second")
    await house.until("select pg_sleep(0.3) is not null")
    assert (await house.task(task))["state"] == "running"
    house.notebook.paused.set()
    assert (await decided(house, decision))["outcome"] == "approved"
    assert await house.ended(task) == ["completed"]
    assert ("diff", 2) in house.notebook.calls
    new = await house.sql.fetchrow("select state, base_commit, base_version, snapshot_tree from pending_changes where task_id = $1", task)
    assert tuple(new) == ("pending", "1" * 40, 2, "2" * 40)


async def test_a_superseded_change_is_not_applied(house: House) -> None:
    """The approval waits in the queue while the session's next turn ends."""
    node = await house.node()
    change, fingerprint, _ = await make_change(house)
    await node.stop()
    decision = await approve(house, change, fingerprint)
    await house.sql.execute("set coder.actor = 'node'")
    await house.sql.execute("set coder.actor = 'node'")
    await house.sql.execute("update pending_changes set state = 'superseded' where id = $1", change)
    house.notebook.calls.clear()
    await house.node()
    settled = await decided(house, decision)
    assert (settled["outcome"], await state(house, change)) == ("superseded", "superseded")
    assert "carry_out" not in house.notebook.names()
    assert "superseded" in settled["error"]


@pytest.mark.parametrize(
    ("found", "outcome", "after", "calls"),
    [
        (Found.NEW, "approved", "approved", ["examine", "forget"]),
        (Found.OLD, "approved", "approved", ["examine", "carry_out", "forget"]),
        (Found.MIXED, "approved", "approved", ["examine", "carry_out", "forget"]),
        (Found.OTHER, "conflict", "conflicted", ["examine", "forget"]),
    ],
)
async def test_an_approval_that_a_dead_node_had_begun(house: House, found: Found, outcome: str, after: str, calls: list[str]) -> None:
    node = await house.node()
    change, fingerprint, _ = await make_change(house)
    await node.stop()
    decision = await approve(house, change, fingerprint)
    dead = uuid4()
    claimed = await house.sql.fetchrow("select id, epoch from coder.claim_decision($1, $2)", dead, house.host)
    plan = {"target": "checkout", "repository": "/srv/shop", "keep_ref": "r", "branch": None, "old_commit": None, "new_commit": None}
    plan["files"] = [[b"a.py".hex(), "aa", "100644", "bb", "100644"]]
    values = (claimed["id"], claimed["epoch"], json.dumps(plan))
    assert await house.sql.fetchval("select coder.begin_applying($1, $2, $3)", *values) == "applying"
    house.notebook.calls.clear()
    house.notebook.found, house.notebook.others = found, (b"a.py",)
    await house.node()
    settled = await decided(house, decision)
    assert (settled["outcome"], await state(house, change)) == (outcome, after)
    await house.notebook.did(*calls)
    if outcome == "approved":
        written = await house.sql.fetchrow("select path, blob, mode from checkout_files")
        assert tuple(written) == (b"a.py", "bb", "100644")
    else:
        assert "a.py" in settled["error"]


async def test_an_approval_survives_a_database_that_goes_away_in_the_middle(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node lives on under its id, so nobody else may take the decision over: it must do so itself."""
    settle = PostgresChanges.settle_decision
    failed: list[str] = []

    async def cut(self: PostgresChanges, *args: Any, **kwargs: Any) -> bool:
        if len(failed) < 2:
            failed.append("cut")
            raise Unavailable("The connection was cut.")
        return await settle(self, *args, **kwargs)

    monkeypatch.setattr(PostgresChanges, "settle_decision", cut)
    await house.node()
    change, fingerprint, _ = await make_change(house)
    settled = await decided(house, await approve(house, change, fingerprint))
    assert (settled["outcome"], await state(house, change), len(failed)) == ("approved", "approved", 2)


async def test_a_node_that_stops_finishes_the_decision_at_hand(house: House) -> None:
    node = await house.node()
    change, fingerprint, _ = await make_change(house)
    house.notebook.paused = asyncio.Event()
    await approve(house, change, fingerprint)
    await house.until("select state = 'applying' from pending_changes where id = $1", change)
    stopping = asyncio.create_task(node.stop())
    await house.until("select pg_sleep(0.2) is not null")
    assert not stopping.done()
    house.notebook.paused.set()
    await stopping
    assert await state(house, change) == "approved"


async def test_a_rejection_that_discards_puts_the_worktree_back_while_the_session_rests(house: House) -> None:
    await house.node()
    change, fingerprint, session = await make_change(house)
    await house.sql.execute("select coder.reject($1, $2, 'wrong way', 'discard')", change, fingerprint)
    await house.until("select discard_decision is null from session_worktrees where session_id = $1", session)
    assert ("reset", BASE) in house.notebook.calls
    task = await house.add("say next", session_id=session)
    assert await house.ended(task) == ["completed"]
    assert house.agent.turns[-1].prompt.splitlines()[0] == (
        "A reviewer rejected the change of task 1 with this reason: wrong way. That work was taken out of the worktree again."
    )
    assert await house.sql.fetchval("select count(*) from pending_changes where state = 'pending'") == 0


async def test_a_discard_waits_for_the_turn_that_runs(house: House) -> None:
    await house.node()
    change, fingerprint, session = await make_change(house)
    task = await house.add("wait second", session_id=session)
    await house.agent.until("spoke wait second")
    await house.sql.execute("select coder.reject($1, $2, null, 'discard')", change, fingerprint)
    await house.until("select pg_sleep(0.4) is not null")
    assert ("reset", BASE) not in house.notebook.calls
    house.agent.let_go("wait second")
    assert await house.ended(task) == ["completed"]
    await house.until("select discard_decision is null from session_worktrees where session_id = $1", session)
    assert ("reset", BASE) in house.notebook.calls


async def test_a_discard_that_is_owed_is_done_before_the_session_s_next_turn(house: House) -> None:
    node = await house.node()
    change, fingerprint, session = await make_change(house)
    await node.stop()
    await house.sql.execute("select coder.reject($1, $2, 'no', 'discard')", change, fingerprint)
    task = await house.add("say next", session_id=session)
    house.notebook.calls.clear()
    house.agent.order.clear()
    await house.node(replace(QUICK, poll=60.0))
    assert await house.ended(task) == ["completed"]
    names = house.notebook.names()
    assert names.count("reset") == 1
    assert names.index("reset") < names.index("snapshot")


async def test_what_somebody_else_settled_meanwhile_is_not_settled_again(house: House) -> None:
    """The claim said that a discard is owed; whoever held the worktree until then has done it."""
    node = await house.node()
    change, fingerprint, session = await make_change(house)
    await node.stop()
    decision = await house.sql.fetchval("select coder.reject($1, $2, 'no', 'discard')", change, fingerprint)
    task = await house.add("say next", session_id=session)
    house.notebook.calls.clear()
    house.notebook.held.add(session)
    await house.node()
    await house.until("select state = 'running' from tasks where id = $1", task)
    await house.sql.execute("select coder.discarded($1, $2)", session, decision)
    house.notebook.held.clear()
    assert await house.ended(task) == ["completed"]
    assert house.notebook.names() == ["ensure", "snapshot"]


async def crash(house: House, seen: bool, tree: str) -> tuple[int, UUID]:
    """A turn of a node that died in the middle of it."""
    task = await house.add("say x")
    session = await house.session_of(task)
    dead = uuid4()
    await house.sql.execute("insert into hosts values ($1, 'here') on conflict do nothing", house.host)
    query = "insert into nodes (id, host_id, version, lease_until) values ($1, $2, '1', clock_timestamp() + '1 h')"
    await house.sql.execute(query, dead, house.host)
    claimed = await house.sql.fetchrow("select * from coder.claim($1, $2, 1)", dead, house.host)
    values = (task, claimed["epoch"], house.host, BASE)
    assert await house.sql.fetchval("select coder.record_worktree($1, $2, $3, '/srv/shop', '/srv/w', $4, 'main', '{}')", *values)
    if seen:
        await house.sql.execute("select coder.mark_seen($1, $2)", [task], [claimed["epoch"]])
    house.notebook.trees[session] = tree
    await house.sql.execute("delete from nodes")
    return task, session


async def test_the_work_of_a_crashed_turn_becomes_its_change(house: House) -> None:
    task, session = await crash(house, seen=True, tree="1" * 40)
    await house.node()
    row = await house.until("select id from pending_changes where task_id = $1", task)
    change = await house.sql.fetchrow("select state, turn_outcome, snapshot_tree from pending_changes where id = $1", row)
    assert tuple(change) == ("pending", "interrupted", "1" * 40)
    assert (await house.task(task))["state"] == "interrupted"
    tree = await house.sql.fetchrow("select unsnapshotted_task, snapshots from session_worktrees where session_id = $1", session)
    assert tuple(tree) == (None, 1)


async def test_a_crashed_turn_nobody_saw_is_just_run_again(house: House) -> None:
    task, _ = await crash(house, seen=False, tree=BASE)
    await house.node()
    assert await house.ended(task) == ["completed"]
    assert (await house.task(task))["attempts"] == 2


@pytest.mark.parametrize("fault", [DiskFull(what="the snapshot", where="/srv"), ValueError("a fault of ours")])
async def test_one_worktree_that_cannot_be_settled_keeps_no_other_waiting(house: House, fault: Exception) -> None:
    first, session = await crash(house, seen=True, tree="1" * 40)
    second, _ = await crash(house, seen=True, tree="2" * 40)
    snapshot = house.notebook.snapshot

    async def choose(worktree: Any) -> Any:
        if worktree.session_id == session:
            raise fault
        return await snapshot(worktree)

    patched: Callable[[Any], Any] = choose
    house.notebook.snapshot = patched  # type: ignore[method-assign]
    await house.node()
    await house.until("select count(*) = 1 from pending_changes where task_id = $1", second)
    house.notebook.snapshot = snapshot  # type: ignore[method-assign]
    await house.until("select count(*) = 1 from pending_changes where task_id = $1", first)


async def test_worktrees_of_sessions_closed_long_ago_are_removed_unless_something_is_open(house: House) -> None:
    node = await house.node(replace(QUICK, retention=0.0))
    _, _, open_one = await make_change(house, "1" * 40)
    change, fingerprint, done = await make_change(house, "2" * 40)
    await house.sql.execute("select coder.reject($1, $2)", change, fingerprint)
    await make_change(house, "3" * 40)
    for session in (open_one, done):
        await house.sql.execute("select coder.close_session($1)", session)
    (would,) = await node.janitor.collect(dry_run=True)
    assert (would.path, would.why[:30]) == (f"/srv/worktrees/{done}", "its session is closed since 20")
    assert "remove" not in house.notebook.names()
    assert await node.janitor.collect(dry_run=False) == [would]
    assert [call for call in house.notebook.calls if call[0] == "remove"] == [("remove", done)]
    assert await node.janitor.collect(dry_run=False) == []
