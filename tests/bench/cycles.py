"""Claim + finish + advance through `coder.postgres.tasks`, in groups, as a node does it; and whether depth matters."""

from __future__ import annotations

import asyncio
from time import perf_counter

from coder.task import Ending, ExecutionPath, Left, Outcome
from tests.bench.bed import Bed, Queue
from tests.bench.figure import Figure, alternate
from tests.bench.floors import prototype, raw_claims

CONNECTIONS = 2
GROUP = 50


async def cycles(queue: Queue, tasks: int, *, connections: int = CONNECTIONS, group: int = GROUP) -> float:
    """Claim and finish so many tasks; answers cycles per second."""
    done = 0

    async def work() -> None:
        nonlocal done
        left: list[Left] = []
        while done < tasks or left:
            claimed = await queue.store.claim(queue.node, queue.host, min(group, tasks - done)) if done < tasks else []
            if not claimed and not left:
                return
            done += len(claimed)
            endings = [
                Ending(
                    each.task,
                    Outcome.COMPLETED,
                    text="done",
                    summary="done",
                    input_tokens=10,
                    output_tokens=2,
                    execution_path=ExecutionPath.NATIVE,
                    agent_used="native",
                )
                for each in claimed
            ]
            left = list((await queue.store.finish(endings, left)).left)

    started = perf_counter()
    await asyncio.gather(*(work() for _ in range(connections)))
    return done / (perf_counter() - started)


async def claim_finish(bed: Bed) -> list[Figure]:
    """Against raw single claims on ten connections; and the same of a bare prototype, which is what the design could reach here."""
    tasks = 2000 if bed.quick else 10000
    async with bed.database() as queue, raw_claims(queue.dsn) as raw, prototype(queue.dsn, CONNECTIONS, GROUP) as bare:
        sessions = tasks // 5

        async def program() -> float:
            await queue.empty()
            await queue.fill(sessions, 5)
            await queue.settle()
            return await cycles(queue, tasks)

        rounds = await alternate(lambda: raw.rate(tasks // 2), program, 3 if bed.quick else 7)
        best = await alternate(lambda: raw.rate(tasks // 2), lambda: bare.rate(tasks), 3 if bed.quick else 7)
    against = "raw single claims, ten connections"
    return [
        rounds.figure(f"claim + finish + advance, groups of {GROUP} on {CONNECTIONS} connections", "/s", against, ">=", 2),
        best.figure("the same of two bare tables that keep no turn", "/s", against, ">=", None),
    ]


async def depth(bed: Bed) -> list[Figure]:
    """The same with ever more waiting tasks, each depth in a database of its own, in turns with the shallow one."""
    deepest, chunk = (100_000, 1000) if bed.quick else (1_000_000, 3000)
    async with bed.database() as shallow, bed.database() as deep, bed.database() as long:
        await deep.fill(deepest // 10, 10)
        await deep.settle()
        await long.fill(1)
        await long.more(100_000)
        await long.fill(1000)
        await long.settle()

        async def on(queue: Queue) -> float:
            await queue.fill(chunk)
            await queue.settle()
            return 1e6 / await cycles(queue, chunk)

        async def floor() -> float:
            await shallow.empty()
            return await on(shallow)

        rounds = 3 if bed.quick else 5
        many = await alternate(floor, lambda: on(deep), rounds)
        one = await alternate(floor, lambda: on(long), rounds)
    against = f"the same with {chunk:,} waiting"
    return [
        many.figure(f"a cycle with {deepest:,} waiting", "us", against, "<=", 1.4, 1.2),
        one.figure("a cycle with 100,000 waiting in one session", "us", against, "<=", 1.4, 1.2),
    ]
