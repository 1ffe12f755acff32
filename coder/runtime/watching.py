"""The live view of one process with an API: hub, clients and follower together, and how somebody begins to watch.

Subscribing: register first (frames of the session are held back from then on), then read the history, then send history, the
turn so far and what was held back. What the history already shows as ended is left out of the two latter, so nothing is shown
twice; whatever ended after it was read is among them, so nothing is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from coder.errors import CoderError, Unavailable
from coder.frame_log import SessionLog
from coder.outbox import Told
from coder.ports import Clock, Wakeups
from coder.runtime.clients import Client, Clients, Subscription
from coder.runtime.follower import Follower
from coder.runtime.hub import Hub
from coder.runtime.surfaces import Surfaces
from coder.warming import WarmingLog

AGAIN_SECONDS = 0.1
AGAIN_TIMES = 20
READERS = 4

log = structlog.get_logger(__name__)


class Watching:
    """Args: poll: seconds between two looks when no bell rings."""

    def __init__(self, sessions: SessionLog, warming: WarmingLog, clock: Clock, *, poll: float) -> None:
        self.hub = Hub()
        self.clients = Clients(self.hub, clock)
        self.surfaces = Surfaces(warming, clock, poll=poll)
        self.follower = Follower(sessions, self.hub, clock, poll=poll, resync=self._resync)
        self._sessions = sessions
        self._clock = clock
        self._reading = asyncio.Semaphore(READERS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, wakeups: Wakeups) -> None:
        """Take up work; the bells are the process's, which may be started already."""
        wakeups.on_hint("frames", self.follower.hint)
        for channel in ("tasks_new", "tasks_cancel", "decisions_new"):
            wakeups.on(channel, self.follower.ring)
        wakeups.on_hint("warming", self.surfaces.hint)
        await wakeups.start()
        self.follower.start()
        self._begin(self.surfaces.run(), "surfaces")
        self._begin(self.clients.run(), "clients")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.follower.stop()

    async def subscribe(self, client: Client, session: str) -> None:
        """Show a session to a client from now on.

        Raises:
            NotFound: there is no such session.
            TooMany: the client watches too many already.
            Unavailable: the database is away.
        """
        subscription, fold = client.subscribe(session)
        turn = [Told(frame) for frame in fold.frames()] if fold is not None else []
        away = (fold.started.turn_id, fold.started.task_id, set(fold.away)) if fold is not None and fold.away else None
        try:
            async with self._reading:
                history = await self._sessions.history(session)
                if away is not None:
                    turn += await self._away(*away)
        except BaseException:
            if client.subscriptions.get(session) is subscription:
                client.unsubscribe(session)
            raise
        if client.subscriptions.get(session) is subscription:  # else it was reset, or has left meanwhile
            self.follower.follow(session, history)
            subscription.release(history, turn)

    async def _away(self, turn: int, task: int, parts: set[int]) -> list[Told]:
        """The calls that a fold has no room for, which were or are about to be stored. Raises `Unavailable` when they are not."""
        for _ in range(AGAIN_TIMES):
            calls = await self._sessions.calls(turn, task, parts)
            if len(calls) == len(parts):
                return [Told(call) for call in calls]
            await self._clock.sleep(AGAIN_SECONDS)
        raise Unavailable(f"Parts of the turn of task {task} are not stored yet; subscribe again in a moment.")

    def _resync(self, session: str) -> None:
        """Give all watchers of a session everything anew: what they were told may not be what is stored."""
        log.info("a session's watchers are given it anew", session=session)
        for subscriber in self.hub.subscribers(session):
            if isinstance(subscriber, Subscription):
                self._begin(self._again(subscriber), f"resync-{session}")

    async def _again(self, subscription: Subscription) -> None:
        client, session = subscription.client, subscription.session
        if client.subscriptions.get(session) is not subscription:
            return
        try:
            await self.subscribe(client, session)
        except CoderError as error:
            client.reset(error.message)

    def _begin(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
