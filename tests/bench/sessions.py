"""The list of sessions among a million: the first page of every combination of filters."""

from __future__ import annotations

from itertools import product
from statistics import median
from time import perf_counter

from coder.postgres.door import PostgresDoor
from coder.postgres.pool import open_pool
from coder.runtime.clock import SystemClock
from tests.bench.bed import Bed, Queue
from tests.bench.figure import Figure

PROJECTS, WORKSPACES = 50, 200
PAGE = 51
"""What the API asks for to show 50 and know whether there are more."""

# Project 0 and workspace 0 have a third each, and share a ninth; project 1 and workspace 2 share nothing. A tenth of the sessions
# have a directory of their own, a hundredth are active.
FILL = """
insert into sessions (id, project_id, workspace_id, status, closed_at, cwd, title, created_at, last_activity_at)
select gen_random_uuid(), p.id, w.id, s.status, case when s.status = 'closed' then now() end,
       case when n % 10 = 0 then p.path || '/d' || n / 10 % 20 end, 'session ' || n, at, at
from generate_series(1, $1::int) n
join lateral (select case when n % 3 = 0 then 0 else n % 50 end as project,
                     case when n % 9 in (0, 1, 2) then 0 else n / 7 % 200 end as workspace,
                     case when n % 100 = 1 then 'active' when n % 4 = 0 then 'idle' else 'closed' end as status) s on true
join bench_projects p on p.number = s.project
join bench_workspaces w on w.number = case when s.project = 1 and s.workspace = 2 then 3 else s.workspace end
cross join lateral (select now() - make_interval(secs => n::bigint * 7919 % $1 * 2) as at) a
"""
PLACES = """
create temp table bench_projects as
    select row_number() over (order by name) - 1 as number, id, path from projects where name like 'p%';
create temp table bench_workspaces as select row_number() over (order by id) - 1 as number, id from workspaces where id like 'w%';
"""


async def fill(queue: Queue, count: int) -> None:
    run = queue.connection.execute
    await run(
        "insert into projects (name, path) select 'p' || to_char(n, 'FM000'), '/srv/p' || n from generate_series(0, $1::int - 1) n",
        PROJECTS,
    )
    await run(
        "insert into workspaces (id, default_cwd) "
        "select 'w' || to_char(n, 'FM000'), case when n % 5 = 0 then '/srv/p' || n % 50 || '/d0' end "
        "from generate_series(0, $1::int - 1) n",
        WORKSPACES,
    )
    await run("set coder.actor = 'node'")
    await run(PLACES)
    await run(FILL, count)
    await run(
        "insert into session_worktrees (session_id, project_id, host_id, repository, path, base_commit) "
        "select id, project_id, $1, '/srv', '/srv/worktrees/' || id, repeat('0', 40) from sessions where title like '%00'",
        queue.host,
    )
    await queue.settle()


async def sessions(bed: Bed) -> list[Figure]:
    """Every combination of filters, the worst one against what the issue asks."""
    count = 100_000 if bed.quick else 1_000_000
    rounds = 3 if bed.quick else 7
    async with bed.database() as queue:
        await fill(queue, count)
        # A bound of the statistics, about which the planner knows least.
        bounds = "select (histogram_bounds::text::uuid[])[50] from pg_stats where tablename = 'sessions' and attname = 'id'"
        begins = str(await queue.connection.fetchval(bounds))
        worktree = await queue.connection.fetchval("select path from session_worktrees limit 1")
        pool = await open_pool(queue.dsn, size=1, plan_anew=True)
        door = PostgresDoor(pool, SystemClock())
        times: dict[tuple[str | None, ...], float] = {}
        for project, workspace, status, cwd, q in product(
            (None, "p000", "p001", "p049"), (None, "w000", "w002", "w005"), (None, "active", "idle,closed"),
            (None, "/srv/p0", "/srv/p1/d3", "/srv/p5/d0", worktree), (None, begins[:1], begins[:4], begins),
        ):  # fmt: skip
            given = {"project": project, "workspace_id": workspace, "statuses": status and status.split(","), "cwd": cwd, "q": q}
            taken = []
            for _ in range(rounds):
                started = perf_counter()
                await door.rows("session_list", limit=PAGE, **given)
                taken.append((perf_counter() - started) * 1000)
            times[project, workspace, status, cwd, q] = median(taken)
        await pool.close()
    slowest = max(times, key=lambda filters: times[filters])
    named = ", ".join(str(word) for word in slowest if word is not None) or "no filter"
    return [
        Figure(f"list of {count:,} sessions, p50 of the slowest of {len(times)} combinations ({named})", times[slowest], "ms", target=20),
        Figure("the same, p50 of all combinations", median(times.values()), "ms"),
        Figure("the same, no filter", times[None, None, None, None, None], "ms"),
    ]
