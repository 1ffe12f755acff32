"""The outbox of one client: what was pushed to it, numbered, until it says that it has it. A pure fold; time is an argument.

Invariants: sequence numbers start at 1, grow by 1 and are never used twice; a frame gets its number when it is taken for
sending, not before, so that queued deltas can still be merged; what is answered to a client that comes back is either exactly
what it missed, or `reset`. "Don't know" is never "up to date".

Bounds: frames that wait to be sent, and frames that were sent and not acknowledged. A client that reads too slowly is reset,
never waited for.

Omitted on purpose: sockets, JSON. The caller says how many bytes a frame takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from coder.frames import Delta, Frame, ReasoningDelta, Reset, merged

KEPT_FRAMES = 500
KEPT_SECONDS = 30.0
KEPT_BYTES = 2_097_152
KEPT_MOST_SECONDS = 300.0
QUEUED_FRAMES = 5_000
QUEUED_CHARACTERS = 8_388_608
IDLE_SECONDS = 3600.0


class Return(Enum):
    """What a client that comes back is told."""

    CURRENT = "current"
    REPLAY = "replay"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that was taken for sending."""

    seq: int
    at: float
    size: int
    content: bytes


class Outbox:
    """One client's outbox.

    Args:
        now: monotonic seconds, as everywhere below.
    """

    def __init__(self, now: float) -> None:
        self._queued: deque[Frame] = deque()
        self._characters = 0
        self._next = 1
        self._kept: deque[Sent] = deque()
        self._bytes = 0
        self.seen = now

    @property
    def last(self) -> int:
        """The number of the last frame taken for sending; 0 before the first."""
        return self._next - 1

    @property
    def waiting(self) -> bool:
        return bool(self._queued)

    def push(self, frame: Frame) -> bool:
        """Queue a frame; False when that was too much: the client is reset instead, and has to subscribe again."""
        one = merged(self._queued[-1], frame) if self._queued else None
        if one is not None:
            self._queued[-1] = one
        else:
            self._queued.append(frame)
        self._characters += _weight(frame)
        if len(self._queued) > QUEUED_FRAMES or self._characters > QUEUED_CHARACTERS:
            self.reset("This client reads too slowly; it missed some frames.")
            return False
        return True

    def reset(self, why: str) -> None:
        """Forget everything that waits or is kept; the client is told so."""
        self._queued.clear()
        self._queued.append(Reset(why))
        self._characters = 0
        self._kept.clear()
        self._bytes = 0

    def take(self) -> list[tuple[int, Frame]]:
        """Everything that waits, numbered. The caller encodes it and hands it to `keep`."""
        taken = list(enumerate(self._queued, self._next))
        self._next += len(taken)
        self._queued.clear()
        self._characters = 0
        return taken

    def keep(self, frames: Iterable[tuple[int, bytes]], now: float) -> None:
        """Keep what was taken, as it was encoded, until it is acknowledged or too old."""
        for seq, content in frames:
            self._kept.append(Sent(seq, now, len(content), content))
            self._bytes += len(content)
        self.prune(now)

    def acknowledge(self, seq: int, now: float) -> None:
        """The client has everything up to `seq`; one ahead of us is taken as the last that was sent."""
        self.seen = now
        seq = min(seq, self.last)
        while self._kept and self._kept[0].seq <= seq:
            self._bytes -= self._kept.popleft().size

    def prune(self, now: float) -> None:
        """Let go of what goes beyond the bounds: 500 frames, or what is 30 s young up to 2 MB, whichever is more; at most 5 minutes."""
        while self._kept and now - self._kept[0].at > KEPT_MOST_SECONDS:
            self._bytes -= self._kept.popleft().size
        while len(self._kept) > KEPT_FRAMES and (self._bytes > KEPT_BYTES or now - self._kept[0].at > KEPT_SECONDS):
            self._bytes -= self._kept.popleft().size

    def come_back(self, since: int, now: float) -> tuple[Return, list[Sent]]:
        """A client comes back that has everything up to `since`.

        Returns:
            CURRENT: it missed nothing that was sent; what waits comes next.
            REPLAY: the frames it missed, to be sent again with their numbers before anything else.
            RESET: what it missed is not known any more; a `reset` frame waits for it.
        """
        self.seen = now
        self.prune(now)
        if since == self.last:
            self.acknowledge(since, now)
            return Return.CURRENT, []
        if 0 <= since < self.last and self._kept and since >= self._kept[0].seq - 1:
            self.acknowledge(since, now)
            return Return.REPLAY, list(self._kept)
        self.reset("What this client missed is not kept any more.")
        return Return.RESET, []

    def idle(self, now: float) -> bool:
        """Whether nobody was heard of this client for so long that it can be forgotten."""
        return now - self.seen > IDLE_SECONDS


def _weight(frame: Frame) -> int:
    return len(frame.text) if isinstance(frame, Delta | ReasoningDelta) else 200
