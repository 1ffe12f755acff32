"""The outbox of one client: what was pushed to it, numbered, until it says that it has it. A pure fold; time is an argument.

Invariants: sequence numbers start at 1, grow by 1 and are never used twice; a frame gets its number when it is taken for
sending, not before, so that queued deltas can still be merged; what is answered to a client that comes back is either exactly
what it missed, or `reset`. "Don't know" is never "up to date".

Bounds: frames that wait to be sent, and frames that were sent and not acknowledged. A client that reads too slowly is reset,
never waited for. A frame that goes to many clients is encoded, and merged with its neighbours, once for all of them (`Told`).

Omitted on purpose: sockets, and frames without a number, which belong to a socket and not to a client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum

import orjson

from coder.frames import Delta, Frame, ReasoningDelta, Reset

KEPT_FRAMES = 500
KEPT_SECONDS = 30.0
KEPT_BYTES = 2_097_152
KEPT_MOST_SECONDS = 300.0
QUEUED_FRAMES = 5_000
QUEUED_CHARACTERS = 8_388_608
COMPACT_FRAMES = 500
IDLE_SECONDS = 3600.0
FRAME_CHARACTERS = 200
SLOW = "This client reads too slowly; it missed some frames."


class Return(Enum):
    """What a client that comes back is told."""

    CURRENT = "current"
    REPLAY = "replay"
    RESET = "reset"


class Told:
    """A frame on its way to clients.

    Attributes:
        turn: the turn it is about, 0 where it is about none.
        prose: what it can be merged with: neighbours of the same kind, session, turn and part; None = with nothing.
        weight: about how many characters it has.
    """

    __slots__ = ("_body", "_run", "frame", "prose", "turn", "weight")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.turn: int = getattr(frame, "turn_id", 0)
        self.prose: tuple[str, str, int, int] | None = None
        self.weight = FRAME_CHARACTERS
        if isinstance(frame, Delta | ReasoningDelta):
            self.prose = (frame.type, frame.session_id, frame.turn_id, frame.part)
            self.weight = len(frame.text)
        self._body: bytes | None = None
        self._run: tuple[int, Told, Told] | None = None

    @property
    def body(self) -> bytes:
        """The JSON object without its opening brace, for a number to be put before it."""
        if self._body is None:
            self._body = orjson.dumps(self.frame.wire())[1:]
        return self._body

    def numbered(self, seq: int) -> bytes:
        """The JSON object as it goes over the wire."""
        return b'{"seq":%d,%b' % (seq, self.body)

    def with_neighbours(self, run: Sequence[Told]) -> Told:
        """One frame for a run of neighbours that begins with this one. Clients that fell behind alike share it."""
        if self._run is not None and self._run[0] == len(run) and self._run[1] is run[-1]:
            return self._run[2]
        first = self.frame
        assert isinstance(first, Delta | ReasoningDelta), "only prose is merged"
        text = "".join([told.frame.text for told in run])  # type: ignore[attr-defined]
        one = Told(type(first)(first.session_id, first.turn_id, first.part, text))
        self._run = (len(run), run[-1], one)
        return one


class Sent:
    """A frame that was taken for sending."""

    __slots__ = ("at", "seq", "told")

    def __init__(self, seq: int, at: float, told: Told) -> None:
        self.seq = seq
        self.at = at
        self.told = told

    @property
    def content(self) -> bytes:
        return self.told.numbered(self.seq)


class Outbox:
    """One client's outbox.

    Args:
        now: monotonic seconds, as everywhere below.
    """

    __slots__ = ("_bytes", "_characters", "_compact_at", "_kept", "_next", "_queued", "seen")

    def __init__(self, now: float) -> None:
        self._queued: list[Told] = []
        self._characters = 0
        self._compact_at = COMPACT_FRAMES
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

    def push(self, told: Told) -> bool:
        """Queue a frame; False when that was too much: the client has to be reset."""
        queued = self._queued
        queued.append(told)
        self._characters += told.weight
        if len(queued) >= self._compact_at:
            self._queued = queued = _merged(queued)
            self._compact_at = len(queued) + COMPACT_FRAMES
        return len(queued) <= QUEUED_FRAMES and self._characters <= QUEUED_CHARACTERS

    def reset(self, why: str) -> None:
        """Forget everything that waits or is kept; the client is told so."""
        self._empty()
        self._queued.append(Told(Reset(why)))
        self._kept.clear()
        self._bytes = 0

    def _empty(self) -> None:
        self._queued = []
        self._characters = 0
        self._compact_at = COMPACT_FRAMES

    def take(self, now: float) -> list[Sent]:
        """Everything that waits, merged and numbered; it is kept until it is acknowledged or too old."""
        taken = [Sent(seq, now, told) for seq, told in enumerate(_merged(self._queued), self._next)]
        self._empty()
        self._next += len(taken)
        self._kept.extend(taken)
        for sent in taken:
            self._bytes += len(sent.told.body)
        self.prune(now)
        return taken

    def acknowledge(self, seq: int, now: float) -> None:
        """The client has everything up to `seq`; one ahead of us is taken as the last that was sent."""
        self.seen = now
        seq = min(seq, self.last)
        while self._kept and self._kept[0].seq <= seq:
            self._drop()

    def prune(self, now: float) -> None:
        """Let go of what goes beyond the bounds: 500 frames, or what is 30 s young up to 2 MB, whichever is more; at most 5 minutes."""
        while self._kept and now - self._kept[0].at > KEPT_MOST_SECONDS:
            self._drop()
        while len(self._kept) > KEPT_FRAMES and (self._bytes > KEPT_BYTES or now - self._kept[0].at > KEPT_SECONDS):
            self._drop()

    def _drop(self) -> None:
        self._bytes -= len(self._kept.popleft().told.body)

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


def _merged(queued: list[Told]) -> list[Told]:
    """What waits, neighbouring prose of one part as one frame each."""
    found: list[Told] = []
    at, end = 0, len(queued)
    while at < end:
        first, after = queued[at], at + 1
        if first.prose is not None:
            while after < end and queued[after].prose == first.prose:
                after += 1
        found.append(first if after == at + 1 else first.with_neighbours(queued[at:after]))
        at = after
    return found
