"""Claim + finish + advance through `coder.postgres.tasks`, in groups, as a node does it; and whether depth matters."""

from __future__ import annotations

import asyncio
from time import perf_counter

from coder.task import Ending, ExecutionPath, Left, Outcome
from tests.bench.bed import Bed, Queue
from tests.bench.figure import Figure, Rounds, alternate
from tests.bench.floors import raw_claims

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
    """Against raw single claims on ten connections."""
    tasks = 2000 if bed.quick else 10000
    async with bed.database() as queue, raw_claims(queue.dsn) as raw:
        sessions = tasks // 5

        async def program() -> float:
            await queue.connection.execute("truncate sessions, tasks cascade")
            await queue.fill(sessions, 5)
            await queue.settle()
            return await cycles(queue, tasks)

        rounds = await alternate(lambda: raw.rate(tasks // 2), program, 3 if bed.quick else 7)
    against = "raw single claims, ten connections"
    return [rounds.figure(f"claim + finish + advance, groups of {GROUP} on {CONNECTIONS} connections", "/s", against, ">=", 2)]


async def depth(bed: Bed) -> list[Figure]:
    """The same with more and more waiting tasks: each depth in its own database, chunks in turn, topped up in between."""
    return []


__all__ = ["Rounds", "claim_finish", "cycles", "depth"]
