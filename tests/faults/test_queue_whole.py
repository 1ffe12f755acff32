"""The queue without faults: many projects, many sessions, two dispatchers, and everything once, in order, one at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

from oracles import survived
from stage import Stage


async def test_every_task_once_and_in_order(stage: Stage) -> None:
    await stage.furnish(projects=10, sessions=40)
    tasks = [(session, str(stage.rng.randrange(6))) for session in range(40) for _ in range(10)]
    stage.rng.shuffle(tasks)
    await asyncio.gather(stage.node(lease=15, beat=5), stage.node(lease=15, beat=5))
    ids = await stage.copy(tasks)
    await stage.all_rest(60)
    await survived(stage, ids)
    counts = Counter((said.what, said.task) for said in stage.witness())
    assert counts == Counter({(what, task): 1 for task in ids for what in ("start", "end")})
    rows = await stage.rows(
        "select node_id, count(*) as tasks, max(attempts) as attempts from tasks where state = 'completed' group by node_id"
    )
    assert len(rows) == 2, "both dispatchers took part"
    assert sum(row["tasks"] for row in rows) == 400
    assert {row["attempts"] for row in rows} == {1}
