"""What turns produced so far, into the database in batches, off their path: it survives the node, and every process shows it.

A window (25 ms) collects what all turns of this node said, in the fewest frames that say it; then one statement stores it and
rings one doorbell with the sessions as a hint. Invariants: the rows of a turn are numbered from 1 without a gap; a batch that
may or may not have been stored is sent again unchanged; what was told of a turn is stored before its end is, if any of it was.

Decided: the start and the end of a turn are no rows, whoever follows it reads them from its task and message. And a turn whose
end is about to be stored before its first window has passed leaves no rows at all: its whole message follows within moments,
and rows would cost as much as the turn itself. Its session is hinted at all the same.

While the database is away, what is said is kept gathered; the bounds of a turn (`transcript.py`) bound that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import orjson
import structlog

from coder.errors import Unavailable
from coder.frame_log import FrameLog, FrameRow
from coder.frames import SessionFrame, ToolCallFrame
from coder.live import Gathered
from coder.ports import Clock
from coder.runtime.wake import Wake
from coder.task import Task

WINDOW_SECONDS = 0.025
BELL_SECONDS = 0.1
"""Between two doorbells that come with no rows: that turns started or ended is known by then, and each costs a commit."""
AWAY_SECONDS = 0.5
SETTLE_SECONDS = 5.0
CLOSING_SECONDS = 1.0
JANITOR_SECONDS = 60.0
LARGE_CHARACTERS = 16_384
LARGE_SECONDS = 1.0
BATCH_ROWS = 1_000
BATCH_CHARACTERS = 4_194_304

log = structlog.get_logger(__name__)


class Track:
    """What is to be stored of one turn.

    Attributes:
        seq: number of the last row made.
        batch: rows on their way, until it is known that they are stored.
        waiting: whether anything was said that is no row yet.
        closing: since when the end is about to be stored, None before that.
        broken: the database refuses its rows; what else it says is in its message alone.
    """

    __slots__ = ("_calls", "_gathered", "_mark", "batch", "broken", "closing", "epoch", "seq", "session", "task", "waiting")

    def __init__(self, task: Task, mark: Callable[[Track], None]) -> None:
        self.task, self.epoch, self.session = task.id, task.epoch, str(task.session_id)
        self.seq = 0
        self.batch: list[FrameRow] = []
        self.waiting = False
        self.closing: float | None = None
        self.broken = False
        self._gathered = Gathered()
        self._mark = mark
        self._calls: dict[int, float] = {}

    def add(self, frame: SessionFrame) -> None:
        """Take a frame of the turn; never waits."""
        if not self.broken:
            self._gathered.apply(frame)
            self.waiting = True
            self._mark(self)

    def make(self, now: float) -> None:
        """Make rows of what was gathered, unless others are on their way or the end comes before the first."""
        if self.batch or not self.waiting or (self.seq == 0 and self.closing is not None and now - self.closing < CLOSING_SECONDS):
            return
        frames, self._gathered, self.waiting = self._gathered.frames(), Gathered(), False
        for frame in frames:
            if isinstance(frame, ToolCallFrame) and self.closing is None and self._too_soon(frame, now):
                self.add(frame)
                continue
            self.seq += 1
            self.batch.append(FrameRow(self.task, self.epoch, self.seq, orjson.dumps(frame.wire()).decode()))

    def _too_soon(self, frame: ToolCallFrame, now: float) -> bool:
        """Whether a large call that still runs was stored within this second: each of its snapshots holds all of it."""
        if frame.call["status"] != "running" or len(frame.call["output"]) < LARGE_CHARACTERS:
            return False
        if now - self._calls.get(frame.part, now - LARGE_SECONDS) < LARGE_SECONDS:
            return True
        self._calls[frame.part] = now
        return False


class Recorder:
    """Stores what the turns of this node say."""

    def __init__(self, frames: FrameLog, clock: Clock, window: float = WINDOW_SECONDS) -> None:
        self._frames = frames
        self._clock = clock
        self._window = window
        self._dirty: dict[Track, None] = {}
        self._touched: set[str] = set()
        self._rang = -BELL_SECONDS
        self._work = Wake(clock)
        self._hurry = Wake(clock)
        self._stored = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._janitor: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="recorder")
            self._janitor = asyncio.create_task(self._clean(), name="frames-janitor")

    async def stop(self) -> None:
        """End. The turns have left before, and with them what there was to store; the last doorbells are the polls' to replace."""
        if self._task is not None and self._janitor is not None:
            self._task.cancel()
            self._janitor.cancel()
            await asyncio.gather(self._task, self._janitor, return_exceptions=True)
            self._task = self._janitor = None

    def track(self, task: Task) -> Track:
        """Begin to record a turn."""
        return Track(task, self._mark)

    def _mark(self, track: Track) -> None:
        if track not in self._dirty:
            self._dirty[track] = None
            self._work.wake()

    def touch(self, session: str) -> None:
        """Hint at a session with the next doorbell."""
        self._touched.add(session)
        self._work.wake()

    async def settle(self, track: Track) -> None:
        """The end of a turn is about to be stored: wait until what it said is, if any of it was so far. At most some seconds,
        since the end matters more."""
        track.closing = self._clock.monotonic()
        if track.seq == 0 or self._task is None:
            return
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while track.waiting or track.batch:
                    self._stored.clear()
                    self._hurry.wake()
                    await self._stored.wait()
        except TimeoutError:
            log.warning("the frames of a turn could not be stored before its end", task=track.task)

    def drop(self, track: Track) -> None:
        """The turn has left this node."""
        self._dirty.pop(track, None)
        track.batch, track.waiting, track.broken = [], False, True
        self.touch(track.session)

    async def _run(self) -> None:
        while True:
            if not self._dirty and not self._touched:
                await self._work.wait(3600)
            await self._hurry.wait(self._window)
            try:
                await self._store()
            except Unavailable as away:
                log.warning("the database is away; what turns say is kept until it is back", turns=len(self._dirty), why=away.message)
                await self._clock.sleep(AWAY_SECONDS)
            except Exception:
                log.exception("the recorder met an error it does not know; it goes on")
                await self._clock.sleep(AWAY_SECONDS)

    async def _clean(self) -> None:
        while True:
            await self._clock.sleep(JANITOR_SECONDS)
            try:
                await self._frames.prune()
            except Unavailable as away:
                log.info("old frames are dropped another time", why=away.message)
            except Exception:
                log.exception("old frames could not be dropped; tried again in a minute")

    async def _store(self) -> None:
        now = self._clock.monotonic()
        for track in self._dirty:
            track.make(now)
        tracks = [track for track in self._dirty if track.batch]
        if tracks or (self._touched and now - self._rang >= BELL_SECONDS):
            touched, self._touched, self._rang = self._touched, set(), now
            touched.update(track.session for track in tracks)
            try:
                await self._append(tracks, touched)
            except BaseException:
                self._touched |= touched
                raise
        for track in list(self._dirty):
            if not track.waiting and not track.batch:
                del self._dirty[track]
        self._stored.set()

    async def _append(self, tracks: list[Track], touched: set[str]) -> None:
        try:
            batches = list(_batches(row for track in tracks for row in track.batch)) or [[]]
            for number, rows in enumerate(batches, 1):
                await self._frames.append(rows, touched if number == len(batches) else set())
        except Unavailable:
            raise
        except Exception:
            if len(tracks) != 1:
                for track in tracks:  # so that one bad row harms one turn alone
                    await self._append([track], {track.session})
                return
            log.exception("the frames of a turn are refused; only its message will be stored", task=tracks[0].task)
            tracks[0].broken, tracks[0].waiting = True, False
        for track in tracks:
            track.batch = []


def _batches(rows: Iterator[FrameRow]) -> Iterator[list[FrameRow]]:
    batch: list[FrameRow] = []
    size = 0
    for row in rows:
        if batch and (len(batch) >= BATCH_ROWS or size + len(row.payload) > BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.payload)
    if batch:
        yield batch
