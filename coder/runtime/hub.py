"""Who watches which session, and the turns that run, folded. Three lifetimes are kept apart: subscribers belong to a session and
outlive its turns, a fold belongs to one turn, an outbox belongs to a client (`clients.py`) and outlives its sockets.

Everything here is synchronous, so a late comer gets the fold and is registered in one step: nothing twice, nothing missing.
Invariants: what is published reaches every subscriber of the session before `publish` returns; a turn is superseded by a later
one of its session, and what is published of the earlier one after that is dropped; nobody is ever waited for.

Omitted on purpose: the database, sockets, time.
"""

from __future__ import annotations

from typing import Protocol

from coder.frames import SessionFrame, TurnEnded, TurnStarted
from coder.live import Fold
from coder.outbox import Told


class Subscriber(Protocol):
    """Gets every frame of a session from now on. It must not wait, and must bound what it keeps."""

    def tell(self, told: Told) -> None: ...


class Channel:
    """One session: those who watch it, and the turn that runs.

    Attributes:
        turn: the latest turn, running or ended; 0 = none yet.
        local: whether this process runs it.
        ended: the latest turn whose end was told.
    """

    __slots__ = ("ended", "fold", "local", "subscribers", "turn")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, None] = {}
        self.fold: Fold | None = None
        self.turn = 0
        self.local = False
        self.ended = 0


class Hub:
    """The sessions that somebody watches here or that have a turn here."""

    def __init__(self) -> None:
        self._channels: dict[str, Channel] = {}

    def start_turn(self, started: TurnStarted, *, local: bool) -> bool:
        """Begin a turn's fold and tell its start, and the end of an attempt it replaces; False when it, or a later one, was begun already.

        Args:
            local: this process runs it, so its frames come by `publish` at once; else they are read from the database.
        """
        channel = self._channels.setdefault(started.session_id, Channel())
        if started.turn_id <= channel.turn:
            channel.local = channel.local or (local and started.turn_id == channel.turn)
            return False
        before = channel.fold.started if channel.fold is not None else None
        if before is not None and before.task_id == started.task_id:
            # The same task again, so nobody else will find out that its earlier turn ended: its end is not stored.
            self._tell(channel, TurnEnded(before.session_id, before.turn_id, before.task_id, "pending"))
            channel.ended = before.turn_id
        channel.turn, channel.local, channel.fold = started.turn_id, local, Fold(started)
        self._tell(channel, started)
        return True

    def publish(self, frame: SessionFrame) -> None:
        """Fold a frame of the running turn in and tell it; one of another turn is dropped."""
        channel = self._channels.get(frame.session_id)
        if channel is None or channel.fold is None or getattr(frame, "turn_id", 0) != channel.turn:
            return
        channel.fold.apply(frame)
        if channel.subscribers:
            self._tell(channel, frame)

    def tell(self, frame: SessionFrame) -> None:
        """Tell a frame that is about no running turn: what changed in the tables, and how a turn ended."""
        channel = self._channels.get(frame.session_id)
        if channel is not None:
            self._tell(channel, frame)

    def end_turn(self, session_id: str, turn_id: int, *closing: SessionFrame) -> None:
        """Tell how a turn ended, once, and drop its fold. With nothing to tell its end is left for somebody else to find out."""
        channel = self._channels.get(session_id)
        if channel is None or turn_id <= channel.ended:
            return
        for frame in closing:
            self._tell(channel, frame)
        if closing:
            channel.ended = turn_id
        if channel.turn == turn_id:
            channel.local = False
            if closing:
                channel.fold = None
        self._forget(session_id, channel)

    def subscribe(self, session_id: str, subscriber: Subscriber) -> Fold | None:
        """Register a subscriber and answer the turn so far, in one step: whatever comes later it is told.

        The fold goes on growing; take its frames before anything is awaited.
        """
        channel = self._channels.setdefault(session_id, Channel())
        channel.subscribers[subscriber] = None
        return channel.fold

    def unsubscribe(self, session_id: str, subscriber: Subscriber) -> None:
        """Tell it nothing more; tolerates one that is not registered."""
        channel = self._channels.get(session_id)
        if channel is not None:
            channel.subscribers.pop(subscriber, None)
            self._forget(session_id, channel)

    def _forget(self, session_id: str, channel: Channel) -> None:
        """Nobody watches and nothing runs here: what runs elsewhere is read again when somebody comes."""
        if not channel.subscribers and not channel.local:
            self._channels.pop(session_id, None)

    def subscribers(self, session_id: str) -> list[Subscriber]:
        channel = self._channels.get(session_id)
        return list(channel.subscribers) if channel is not None else []

    def channel(self, session_id: str) -> Channel | None:
        return self._channels.get(session_id)

    def is_active(self, session_id: str) -> bool:
        """Whether a turn of this session is known to run."""
        channel = self._channels.get(session_id)
        return channel is not None and channel.fold is not None

    def __len__(self) -> int:
        return len(self._channels)

    def _tell(self, channel: Channel, frame: SessionFrame) -> None:
        if channel.subscribers:
            told = Told(frame)
            for subscriber in tuple(channel.subscribers):  # one that is reset by this lets go of its sessions
                subscriber.tell(told)
