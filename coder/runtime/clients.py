"""The clients of this process: their outboxes and subscriptions, which outlive their sockets.

A client id belongs to one tab of one user. Whoever comes back with the epoch of this registry and the last number it has gets
exactly what it missed, or is told to subscribe again; another process, or this one after a restart, has another epoch.

Bounds: subscriptions of a client, what waits for it and what is kept for it (`outbox.py`), and how many clients there are.
Omitted on purpose: sockets (`web/live.py` is one side of a `Client`), the database.
"""

from __future__ import annotations

import asyncio
from uuid import uuid4

import structlog

from coder.errors import TooMany
from coder.frame_log import History
from coder.frames import Frame
from coder.live import Fold
from coder.outbox import QUEUED_CHARACTERS, QUEUED_FRAMES, SLOW, Outbox, Return, Told
from coder.ports import Clock
from coder.runtime.hub import Hub

SUBSCRIPTIONS = 200
CLIENTS = 10_000
JANITOR_SECONDS = 60.0
UNKNOWN = "This client is not known here any more."

log = structlog.get_logger(__name__)


class Subscription:
    """One client's view of one session. Until its history was read, what comes is held back.

    Attributes:
        floor: turns up to this one are in the history that was sent, so nothing of them is told again.
    """

    __slots__ = ("_held", "_weight", "client", "floor", "session")

    def __init__(self, client: Client, session: str) -> None:
        self.client = client
        self.session = session
        self.floor = 0
        self._held: list[Told] | None = []
        self._weight = 0

    def tell(self, told: Told) -> None:
        held = self._held
        if held is None:
            if told.turn == 0 or told.turn > self.floor:
                self.client.tell(told)
            return
        held.append(told)
        self._weight += told.weight
        if len(held) > QUEUED_FRAMES or self._weight > QUEUED_CHARACTERS:
            self.client.reset(SLOW)

    def release(self, history: History, turn: list[Told]) -> None:
        """Send what is stored, then the turn so far, then what was held back; then everything as it comes."""
        held, self._held, self.floor = self._held or [], None, history.floor
        shown = [told for told in (*turn, *held) if told.turn == 0 or told.turn > self.floor]
        self.client.outbox.open([Told(history.frame), *shown])
        self.client.bell.set()


class Client:
    """One client. Attributes: bell: rung when something waits; socket: whoever sends it, None while the client is away;
    surfaces: those it sees, by session and name."""

    __slots__ = ("_hub", "bell", "id", "outbox", "socket", "subscriptions", "surfaces")

    def __init__(self, id: str, hub: Hub, now: float) -> None:
        self.id = id
        self.outbox = Outbox(now)
        self.subscriptions: dict[str, Subscription] = {}
        self.surfaces: set[tuple[str, str]] = set()
        self.bell = asyncio.Event()
        self.socket: object | None = None
        self._hub = hub

    def tell(self, told: Told) -> None:
        """Push a frame; a client that does not read what it has is reset."""
        if self.outbox.push(told):
            self.bell.set()
        else:
            self.reset(SLOW)

    def see(self, session: str, surface: str) -> None:
        """Note that it sees a surface from now on. Raises `TooMany`."""
        if (session, surface) not in self.surfaces and len(self.surfaces) >= SUBSCRIPTIONS:
            raise TooMany(f"A client may see {SUBSCRIPTIONS} surfaces at once; unsubscribe from one before {surface} of session {session}.")
        self.surfaces.add((session, surface))

    def reset(self, why: str) -> None:
        """Let go of everything: the client has to subscribe again."""
        self.leave()
        self.outbox.reset(why)
        self.bell.set()

    def subscribe(self, session: str) -> tuple[Subscription, Fold | None]:
        """Register with the hub, in place of an earlier subscription; answers the turn so far. Raises `TooMany`."""
        before = self.subscriptions.get(session)
        if before is None and len(self.subscriptions) >= SUBSCRIPTIONS:
            raise TooMany(f"A client may watch {SUBSCRIPTIONS} sessions at once; unsubscribe from one before session {session}.")
        subscription = Subscription(self, session)
        self.subscriptions[session] = subscription
        fold = self._hub.subscribe(session, subscription)
        if before is not None:  # after it, so that the session is not forgotten in between
            self._hub.unsubscribe(session, before)
        return subscription, fold

    def unsubscribe(self, session: str) -> None:
        """Tolerates a session that is not watched."""
        subscription = self.subscriptions.pop(session, None)
        if subscription is not None:
            self._hub.unsubscribe(session, subscription)

    def leave(self) -> None:
        self.surfaces.clear()
        for session in list(self.subscriptions):
            self.unsubscribe(session)


class Clients:
    """The registry. Attributes: epoch: tells its numbers from those of any other."""

    def __init__(self, hub: Hub, clock: Clock) -> None:
        self.epoch = str(uuid4())
        self._hub = hub
        self._clock = clock
        self._clients: dict[tuple[str, str], Client] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def attach(self, actor: str, client_id: str, epoch: str | None, since: int, socket: object) -> tuple[Client, Return, list[bytes]]:
        """A client comes with a socket, for the first time or again; the earlier socket has lost it from here on.

        Args:
            actor: whose token it bears; nobody meets another's client.
            epoch: of the registry that it knows, None for a new client.
            since: it has everything up to this number.

        Returns:
            The client, what it is told, and what is sent to it again before anything else.
        """
        now = self._clock.monotonic()
        client = self._clients.get((actor, client_id))
        if client is None:
            self._make_room()
            client = self._clients[actor, client_id] = Client(client_id, self._hub, now)
            found, missed = Return.CURRENT, list[bytes]()
            if epoch is not None:
                client.reset(UNKNOWN)
                found = Return.RESET
        elif epoch == self.epoch:
            found, missed = client.outbox.come_back(since, now)
            if found is Return.RESET:
                client.leave()
        else:
            client.outbox.seen = now
            client.reset(UNKNOWN)
            found, missed = Return.RESET, []
        before, client.socket = client.socket, socket
        client.bell.set()
        log.debug("a client came", client=client_id, found=found.value, replaces=before is not None)
        return client, found, missed

    def detach(self, client: Client, socket: object) -> None:
        """A socket has gone; the client stays for it to come back, unless another socket has it already."""
        if client.socket is socket:
            client.socket = None

    def clean(self) -> None:
        """Let go of what is too old to be sent again, and of clients that stayed away for an hour."""
        now = self._clock.monotonic()
        for key, client in list(self._clients.items()):
            client.outbox.prune(now)
            if client.socket is None and client.outbox.idle(now):
                self._drop(key)

    def _make_room(self) -> None:
        """With too many clients those that are away longest are forgotten; those that are here are not."""
        if len(self._clients) < CLIENTS:
            return
        away = [(client.outbox.seen, key) for key, client in self._clients.items() if client.socket is None]
        if not away:
            raise TooMany(f"This server has {CLIENTS} clients, which is its limit; close some, or try again later.")
        for _, key in sorted(away)[: max(1, CLIENTS // 100)]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._clients.pop(key).leave()

    async def run(self) -> None:
        """The janitor."""
        while True:
            await self._clock.sleep(JANITOR_SECONDS)
            self.clean()


def unnumbered(frame: Frame) -> bytes:
    """A frame that belongs to one socket, as it goes over the wire."""
    return Told(frame).numbered(0)
