"""What the tables say about the sessions that are watched here: turns that run elsewhere, tasks, changes.

One query for all sessions that need a look reads, from one snapshot: the next frames of the turn that is followed, turns that
have ended, the turn that runs, the states of tasks, the open change. What is new in it is told by the hub. A doorbell says
where or when to look, a poll stands behind it. Invariants: a turn's frames are told once, in order, its start before and its
end after all of them; turns of a session end in order; whenever what was told cannot be what is stored, the session's
watchers are given it anew (`resync`): "don't know" is never "up to date".

Turns of this very process are narrated at once (`narration.py`); of those only what nobody told is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import structlog

from coder.errors import Unavailable
from coder.frame_log import EndedTurn, History, SessionLog, Sight, Watch
from coder.frames import ChangePending, MessageComplete, MessageStarted, SessionFrame, TaskStateFrame, TurnEnded, TurnStarted, UsageFrame
from coder.live import Fold
from coder.ports import Clock
from coder.runtime.background import Background
from coder.runtime.hub import Channel, Hub
from coder.runtime.wake import Wake

ALL_SECONDS = 0.1
LOOK_SESSIONS = 200
OPEN = ("pending", "running")

log = structlog.get_logger(__name__)


class Followed:
    """A session that is watched here, as it was told.

    Attributes:
        channel: the hub's; another one means that everybody left meanwhile.
        task, epoch, seq: the turn that is read from the stored frames, and the last one read; zeros for none.
        floor: turns up to this one are known to their end.
        states: of the tasks that wait or run.
        versions: of their rows, as far as they were read.
    """

    __slots__ = ("change", "channel", "epoch", "floor", "seq", "session", "states", "task", "versions")

    def __init__(self, session: str, channel: Channel, history: History) -> None:
        self.session = session
        self.channel = channel
        self.task = self.epoch = self.seq = 0
        self.floor = history.floor
        self.states = dict(history.states)
        self.versions = dict(history.versions)
        self.change = history.frame.change_id

    def watch(self) -> Watch:
        if self.channel.local or self.channel.turn != self.epoch:
            self.task = self.epoch = self.seq = 0  # narrated here, or superseded
        self.floor = max(self.floor, self.channel.ended)
        return Watch(self.session, self.task, self.epoch, self.seq, self.floor, {task: self.versions.get(task, "") for task in self.states})


class Follower(Background):
    """Args: resync: gives a session's watchers everything anew."""

    def __init__(self, sessions: SessionLog, hub: Hub, clock: Clock, *, poll: float, resync: Callable[[str], None]) -> None:
        self._sessions = sessions
        self._hub = hub
        self._clock = clock
        self._poll = poll
        self._resync = resync
        self._followed: dict[str, Followed] = {}
        self._hinted: set[str] = set()
        self._all = False
        self._work = Wake(clock)

    def follow(self, session: str, history: History) -> None:
        """Somebody who is registered with the hub has read this history: what changed since is told, from now on."""
        channel = self._hub.channel(session)
        if channel is None:
            return
        followed = self._followed.get(session)
        if followed is None or followed.channel is not channel:
            self._followed[session] = Followed(session, channel, history)
        self.hint(session)

    def hint(self, payload: str) -> None:
        """Look at these sessions soon; empty or `*` = at all."""
        if payload in ("", "*"):
            self.ring()
            return
        hinted = [session for session in payload.split() if session in self._followed]
        if hinted:
            self._hinted.update(hinted)
            self._work.wake()

    def ring(self) -> None:
        """Look at all sessions soon."""
        if self._followed and not self._all:
            self._all = True
            self._work.wake()

    async def _run(self) -> None:
        last = -ALL_SECONDS
        while True:
            now = self._clock.monotonic()
            # Bells for everything come with every task that somebody queues; they are answered ten times a second.
            later = last + ALL_SECONDS - now if self._all else self._poll
            if not self._hinted and later > 0 and not await self._work.wait(later):
                self._all = True
            now = self._clock.monotonic()
            wanted, self._hinted = self._hinted, set()
            if self._all and now - last >= ALL_SECONDS:
                wanted, self._all, last = set(self._followed), False, now
            try:
                await self._look_at(wanted)
            except Unavailable as away:
                log.warning("watched sessions cannot be read; trying again with the next poll", why=away.message)
                self._all = True
                await self._clock.sleep(self._poll)
            except Exception:
                log.exception("the follower met an error it does not know; it goes on with the next poll")
                self._all = True
                await self._clock.sleep(self._poll)

    async def _look_at(self, wanted: Iterable[str]) -> None:
        watches = []
        for session in wanted:
            followed = self._followed.get(session)
            if followed is None:
                continue
            if self._hub.channel(session) is not followed.channel or not followed.channel.subscribers:
                del self._followed[session]
                continue
            watches.append(followed.watch())
        for at in range(0, len(watches), LOOK_SESSIONS):
            asked = watches[at : at + LOOK_SESSIONS]
            before = {watch.session: watch for watch in asked}
            for sight in await self._sessions.look(asked):
                followed = self._followed.get(sight.session)
                if followed is None or self._hub.channel(sight.session) is not followed.channel:
                    continue
                # What was narrated meanwhile makes this sight an old one.
                if followed.watch() != before[sight.session] or not self._tell(followed, sight):
                    self._hinted.add(sight.session)

    def _tell(self, followed: Followed, sight: Sight) -> bool:
        """Tell what is new in a sight; False when there is more to read at once."""
        hub, channel = self._hub, followed.channel
        for seq, frame in sight.frames:
            hub.publish(frame)
            followed.seq = seq
        if sight.more:
            return False
        whole = not sight.gap
        for turn in sight.ended:
            if turn.started.turn_id == channel.turn and channel.local:
                return True  # its narration is about to say so itself, and rings then
            whole = self._tell_end(followed, turn) and whole
        running = sight.running
        self._tell_requeued(followed, sight)
        fresh = running is not None and running[0].turn_id > channel.turn
        if running is not None and fresh:
            self._open(running[0], running[1])
            followed.task, followed.epoch, followed.seq = running[0].task_id, running[0].turn_id, 0
        self._tell_states(followed, sight.states)
        followed.versions = sight.versions
        if sight.change_id != followed.change:
            followed.change = sight.change_id
            hub.tell(ChangePending(followed.session, sight.change_id))
        if not whole:
            self._resync(followed.session)
        return not fresh

    def _open(self, started: TurnStarted, prompt: str) -> None:
        self._hub.start_turn(started, local=False)
        self._hub.publish(MessageStarted(started.session_id, started.turn_id, "user", prompt))
        self._hub.publish(MessageStarted(started.session_id, started.turn_id, "assistant"))

    def _tell_end(self, followed: Followed, turn: EndedTurn) -> bool:
        """Tell the end of a turn, and what of it was not told; False when what was told is not what is stored."""
        hub, channel, started = self._hub, followed.channel, turn.started
        session, number = started.session_id, started.turn_id
        if number > channel.turn:
            self._open(started, turn.prompt)
        # Without a fold a later turn of this session began before anybody heard the rest of this one.
        fold = channel.fold if number == channel.turn else None
        whole = fold is not None and self._complete(fold, turn)
        closing: list[SessionFrame] = [
            MessageComplete(session, number, started.task_id, turn.answer.state),
            TurnEnded(session, number, started.task_id, turn.state, turn.reason, turn.error),
        ]
        hub.end_turn(session, number, *closing)
        followed.floor = number
        return whole

    def _complete(self, fold: Fold, turn: EndedTurn) -> bool:
        """Whether the fold is the stored answer, at least once that is told where nothing of it was."""
        if fold.said() == turn.answer.said:
            for call in fold.unlike(turn.answer.tool_calls):  # what ran when its node died has failed since
                self._hub.publish(call)
            return True
        if fold.said() != ("", "", 0):
            return False
        started = turn.started
        for frame in turn.answer.frames(started.session_id, started.turn_id):
            self._hub.publish(frame)
        if any(turn.usage):
            self._hub.publish(UsageFrame(started.session_id, started.turn_id, *turn.usage, None))
        return True

    def _tell_requeued(self, followed: Followed, sight: Sight) -> None:
        """A turn that neither runs nor has ended: its task waits again."""
        channel = followed.channel
        if channel.fold is None or channel.local or (sight.running is not None and sight.running[0].turn_id == channel.turn):
            return
        started = channel.fold.started
        state = next((each.state for each in sight.states if each.task_id == started.task_id), "pending")
        self._hub.end_turn(followed.session, channel.turn, TurnEnded(followed.session, channel.turn, started.task_id, state))

    def _tell_states(self, followed: Followed, states: list[TaskStateFrame]) -> None:
        for frame in states:
            if followed.states.get(frame.task_id) != frame.state or frame.text is not None:
                self._hub.tell(frame)
        followed.states = {frame.task_id: frame.state for frame in states if frame.state in OPEN}
