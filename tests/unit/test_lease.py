"""A node's lease: renewed in time, given up in time, and never taken up again under the same id."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from fake_clock import FakeClock
from structlog.testing import capture_logs

from coder.errors import Unavailable
from coder.runtime.lease import RETRY_SECONDS, Lease

HOST = UUID(int=9)


@dataclass
class Database:
    """What a lease sees of the database."""

    clock: FakeClock
    nodes: dict[UUID, float] = field(default_factory=dict)
    away: Exception | None = None
    slow: float = 0.0
    reaped: list[UUID] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    async def answer(self, said: str) -> None:
        self.told.append(said)
        if self.slow:
            await self.clock.sleep(self.slow)
        if self.away is not None:
            raise self.away

    async def register(self, node: UUID, host: UUID, lease: float) -> None:
        await self.answer("register")
        self.nodes[node] = lease

    async def beat(self, node: UUID, lease: float) -> bool:
        await self.answer("beat")
        return node in self.nodes

    async def reap(self, node: UUID | None = None, epochs: object = None) -> int:
        await self.answer("reap")
        return 0

    async def leave(self, node: UUID) -> None:
        await self.answer("leave")
        self.nodes.pop(node, None)


@dataclass
class Guards:
    deadlines: list[float] = field(default_factory=list)
    killed: int = 0

    def renew(self, deadline: float) -> None:
        self.deadlines.append(deadline)

    def kill_all_now(self) -> None:
        self.killed += 1

    async def stop_all(self) -> None: ...


@dataclass
class Node:
    """A lease of 15 s that beats every 5 s, and gives up 3 s before the end."""

    clock: FakeClock = field(default_factory=FakeClock)
    guards: Guards = field(default_factory=Guards)
    lost: int = 0
    remembered: list[UUID] = field(default_factory=list)
    remembers: bool = True

    def __post_init__(self) -> None:
        self.database = Database(self.clock)
        self.lease = Lease(
            self.database,  # type: ignore[arg-type]
            self.guards,
            self.clock,
            HOST,
            seconds=15.0,
            beat=5.0,
            lost=self.lose,
            remember=self.remember,
        )

    def lose(self) -> None:
        self.lost += 1

    def remember(self, node: UUID) -> None:
        if not self.remembers:
            raise OSError(28, "No space left on device")
        self.remembered.append(node)


@asynccontextmanager
async def leased() -> AsyncIterator[Node]:
    node = Node()
    await node.lease.start()
    await node.clock.settle()
    try:
        async with asyncio.timeout(20):
            with capture_logs():
                yield node
    finally:
        node.database.away, node.database.slow = None, 0
        await node.lease.stop()


async def test_a_node_is_remembered_before_it_is_registered_and_used() -> None:
    node = Node()
    node.database.away = Unavailable("not up yet")
    with pytest.raises(Unavailable):
        await node.lease.start()
    assert (len(node.remembered), node.lease.node) == (1, None)
    node.database.away = None
    await node.lease.start()
    assert node.lease.node == node.remembered[1]
    await node.lease.start()
    assert len(node.remembered) == 2
    await node.lease.stop()
    await node.lease.stop()
    assert (node.database.nodes, node.lease.node) == ({}, None)


async def test_every_beat_moves_the_deadline_measured_from_before_it_was_sent() -> None:
    async with leased() as node:
        start = node.clock.monotonic()
        assert node.guards.deadlines == [start + 12]
        node.database.slow = 1.0
        await node.clock.advance(5)
        await node.clock.advance(1)
        assert node.guards.deadlines[-1] == start + 5 + 12
        await node.clock.advance(60)
        assert (node.lost, node.guards.killed) == (0, 0)


async def test_a_database_that_is_away_shorter_than_the_lease_costs_nothing() -> None:
    async with leased() as node:
        first = node.lease.node
        node.database.away = Unavailable("restarting")
        await node.clock.advance(11)
        assert node.lost == 0
        node.database.away = None
        await node.clock.advance(RETRY_SECONDS)
        await node.clock.advance(60)
        assert (node.lost, node.lease.node) == (0, first)


@pytest.mark.parametrize("fault", [Unavailable("gone"), ValueError("a fault of ours"), OSError("no route")])
async def test_turns_end_before_the_lease_does_and_the_node_goes_on_under_a_new_id(fault: Exception) -> None:
    async with leased() as node:
        first = node.lease.node
        node.database.away = fault
        await node.clock.advance(11.9)
        assert (node.lost, node.guards.killed) == (0, 0)
        await node.clock.advance(0.2)
        assert (node.lost, node.guards.killed, node.lease.node) == (1, 1, None)
        await node.clock.advance(60)
        assert node.lost == 1
        node.database.away = None
        await node.clock.advance(RETRY_SECONDS + 5)
        assert node.lease.node not in (None, first)
        await node.clock.advance(60)
        assert node.lost == 1


async def test_a_beat_that_is_never_answered_does_not_hide_the_deadline() -> None:
    async with leased() as node:
        node.database.slow = 10_000
        await node.clock.advance(11.9)
        assert node.lost == 0
        await node.clock.advance(0.2)
        assert node.lost == 1


async def test_a_node_that_was_reaped_ends_its_turns_at_once() -> None:
    async with leased() as node:
        first = node.lease.node
        node.database.nodes.clear()
        await node.clock.advance(5)
        assert (node.lost, node.guards.killed, node.lease.node) == (1, 1, None)
        await node.clock.advance(RETRY_SECONDS)
        assert node.lease.node not in (None, first)
        assert list(node.database.nodes) == [node.lease.node]


async def test_a_late_answer_does_not_bring_a_lost_lease_back() -> None:
    """The beat was sent in time, but its answer comes after the guardians have ended the agents."""
    async with leased() as node:
        first = node.lease.node
        node.database.slow = 9.0
        await node.clock.advance(5 + 7.1)
        assert (node.lost, node.lease.node) == (1, None)
        await node.clock.advance(2)
        deadlines = list(node.guards.deadlines)
        assert node.lease.node is None
        assert deadlines[-1] < node.clock.monotonic()
        node.database.slow = 0
        await node.clock.advance(20)
        assert node.lease.node not in (None, first)


async def test_a_full_disk_keeps_a_node_from_a_new_id_but_not_for_ever() -> None:
    async with leased() as node:
        node.database.nodes.clear()
        node.remembers = False
        await node.clock.advance(5 + 60)
        assert (node.lost, node.lease.node) == (1, None)
        node.remembers = True
        await node.clock.advance(5)
        assert node.lease.node is not None


async def test_a_stop_without_a_database_is_no_error() -> None:
    node = Node()
    await node.lease.start()
    node.database.away = Unavailable("gone")
    await node.lease.stop()
    assert node.lease.node is None
