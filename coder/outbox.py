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

from coder.frames import Delta, Frame, MessageStarted, ReasoningDelta, Reset, ToolCallFrame

KEPT_FRAMES = 500
KEPT_SECONDS = 30.0
KEPT_BYTES = 2_097_152
KEPT_MOST_SECONDS = 300.0
KEPT_MOST_BYTES = 33_554_432
QUEUED_FRAMES = 5_000
QUEUED_CHARACTERS = 8_388_608
CHECKED_FRAMES = 32
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
        self.prose: tuple[int, int, str, str] | None = None
        self.weight = FRAME_CHARACTERS
        if isinstance(frame, Delta | ReasoningDelta):
            self.prose = (frame.part, frame.turn_id, frame.type, frame.session_id)
            self.weight = len(frame.text)
        elif isinstance(frame, ToolCallFrame):
            self.weight += len(frame.call["input"]) + len(frame.call["output"])
        elif isinstance(frame, MessageStarted):
            self.weight += len(frame.text)
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
        return b'{"seq":%d,%b' % (seq, self._body or self.body)

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


Sent = tuple[int, float, list[Told], int]
"""Frames that were taken for sending together: the number of the first, when, what, and how many bytes. They are let go of
together, so that a frame costs nothing more on its way out."""


class Outbox:
    """One client's outbox.

    Args:
        now: monotonic seconds, as everywhere below.
    """

    __slots__ = ("_bytes", "_check_at", "_frames", "_free", "_kept", "_next", "_queued", "seen")

    def __init__(self, now: float) -> None:
        self._queued: list[Told] = []
        self._check_at = CHECKED_FRAMES
        self._free = 0
        self._next = 1
        self._kept: deque[Sent] = deque()
        self._frames = 0
        self._bytes = 0
        self.seen = now

    @property
    def last(self) -> int:
        """The number of the last frame taken for sending; 0 before the first."""
        return self._next - 1

    @property
    def waiting(self) -> int:
        """How many frames wait."""
        return len(self._queued)

    @property
    def opening(self) -> bool:
        """Whether what a subscription begins with waits."""
        return self._free > 0

    def push(self, told: Told) -> bool:
        """Queue a frame; False when that was too much: the client has to be reset."""
        queued = self._queued
        queued.append(told)
        return len(queued) < self._check_at or self._fits()

    def open(self, frames: Sequence[Told]) -> None:
        """Queue what a subscription begins with. It counts for no bound: who was reset for them needs just this."""
        self._queued += frames
        self._free = len(self._queued)
        self._check_at = self._free + CHECKED_FRAMES

    def _fits(self) -> bool:
        """Merge what waits and see whether it is too much; done every few frames, since most clients never let so many wait."""
        free = _merged(self._queued[: self._free])
        rest = _merged(self._queued[self._free :])
        self._queued, self._free = free + rest, len(free)
        self._check_at = len(self._queued) + CHECKED_FRAMES
        return len(rest) <= QUEUED_FRAMES and sum([told.weight for told in rest]) <= QUEUED_CHARACTERS

    def reset(self, why: str) -> None:
        """Forget everything that waits or is kept; the client is told so."""
        self._empty()
        self._queued.append(Told(Reset(why)))
        self._kept.clear()
        self._frames = self._bytes = 0

    def _empty(self) -> None:
        self._queued = []
        self._check_at = CHECKED_FRAMES
        self._free = 0

    def take(self, now: float) -> list[bytes]:
        """Everything that waits, merged, numbered and encoded; it is kept until it is acknowledged or too old."""
        merged = _merged(self._queued)
        self._empty()
        first, self._next = self._next, self._next + len(merged)
        contents = [b'{"seq":%d,%b' % (seq, told._body or told.body) for seq, told in enumerate(merged, first)]
        if merged:
            size = sum(map(len, contents))
            self._kept.append((first, now, merged, size))
            self._frames += len(merged)
            self._bytes += size
            self.prune(now)
        return contents

    def acknowledge(self, seq: int, now: float) -> None:
        """The client has everything up to `seq`; one ahead of us is taken as the last that was sent."""
        self.seen = now
        seq = min(seq, self.last)
        while self._kept and self._kept[0][0] + len(self._kept[0][2]) - 1 <= seq:
            self._drop()

    def prune(self, now: float) -> None:
        """Let go of what goes beyond the bounds: 500 frames, or what is 30 s young up to 2 MB, whichever is more; at most
        5 minutes and 32 MB."""
        kept = self._kept
        while kept and (now - kept[0][1] > KEPT_MOST_SECONDS or self._bytes > KEPT_MOST_BYTES):
            self._drop()
        while kept and self._frames - len(kept[0][2]) >= KEPT_FRAMES and (self._bytes > KEPT_BYTES or now - kept[0][1] > KEPT_SECONDS):
            self._drop()

    def _drop(self) -> None:
        _, _, frames, size = self._kept.popleft()
        self._frames -= len(frames)
        self._bytes -= size

    def come_back(self, since: int, now: float) -> tuple[Return, list[bytes]]:
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
        if 0 <= since < self.last and self._kept and since >= self._kept[0][0] - 1:
            self.acknowledge(since, now)
            kept = [pair for first, _, frames, _ in self._kept for pair in enumerate(frames, first)]
            return Return.REPLAY, [told.numbered(seq) for seq, told in kept if seq > since]
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
        prose = first.prose
        if prose is not None and after < end and queued[after].prose == prose:
            while after < end and queued[after].prose == prose:
                after += 1
            first = first.with_neighbours(queued[at:after])
        found.append(first)
        at = after
    return found
