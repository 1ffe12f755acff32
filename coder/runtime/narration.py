"""How the turns of this node are told: to the hub at once, to the recorder in batches.

The executor calls it; it never waits but for `closing`, and never fails a turn. Frames about stored facts follow their commit:
`opened` after the claim, `said` after the turn was marked as seen, `ended` after finish.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coder.events import AgentEvent, Usage
from coder.frames import MessageComplete, MessageStarted, SessionFrame, TurnEnded, TurnStarted
from coder.live import Narrator
from coder.ports import Clock
from coder.runtime.hub import Hub
from coder.runtime.recorder import Recorder
from coder.task import Ending, Outcome, Task, Verdict

DEFAULT_AGENT = "native"


class Narration:
    """One turn as it is told. `publish` takes frames of others about this turn (permissions)."""

    def __init__(self, task: Task, recorder: Recorder, hub: Hub | None, clock: Clock, left: Callable[[str], None]) -> None:
        self._task = task
        self._session = str(task.session_id)
        self._hub = hub
        self._clock = clock
        self._left = left
        self._narrator = Narrator(self._session, task.epoch, task.id)
        self._track = recorder.track(task)
        self._recorder = recorder

    def opened(self) -> None:
        """The task was claimed: the turn starts, its user message is whole."""
        task = self._task
        if self._hub is not None:
            agent, now = task.agent or DEFAULT_AGENT, self._clock.now().isoformat()
            started = TurnStarted(self._session, task.epoch, task.id, str(task.chat_id), agent, task.attempt, now)
            if self._hub.start_turn(started, local=True):
                self._hub.publish(MessageStarted(self._session, task.epoch, "user", task.input))
                self._hub.publish(MessageStarted(self._session, task.epoch, "assistant"))
        self._recorder.touch(self._session)

    def said(self, events: Iterable[AgentEvent], usage: Usage) -> None:
        """Tell events as the transcript let them through; `usage`: the turn's sums after them."""
        for event in events:
            frame = self._narrator.tell(event, usage, self._clock.now())
            if frame is not None:
                self.publish(frame)

    def publish(self, frame: SessionFrame) -> None:
        """Tell a frame of this turn."""
        if self._hub is not None:
            self._hub.publish(frame)
        self._track.add(frame)

    async def closing(self) -> None:
        """The end is about to be stored: what was told until now is stored before it, so that nobody sees the end without it."""
        await self._recorder.settle(self._track)

    def ended(self, ending: Ending, verdict: Verdict) -> None:
        """Finish committed, or was refused as another's."""
        task = self._task
        if self._hub is not None and verdict is Verdict.ENDED:
            again = ending.outcome is Outcome.REQUEUED
            state = {"completed": "complete", "pending": "interrupted"}.get(ending.state, str(ending.state))
            self._hub.end_turn(
                self._session,
                task.epoch,
                MessageComplete(self._session, task.epoch, task.id, state),
                TurnEnded(
                    self._session,
                    task.epoch,
                    task.id,
                    ending.state,
                    None if again or ending.reason is None else str(ending.reason),
                    ending.error,
                ),
            )

    def left(self) -> None:
        """This node is done with the turn, whatever became of it; tolerates being called after `ended`."""
        if self._hub is not None:
            self._hub.end_turn(self._session, self._task.epoch)
        self._recorder.drop(self._track)
        self._left(self._session)


class Narrations:
    """Makes the narration of each turn of this node.

    Args:
        hub: of this process, None where it has no API.
        left: told the session of every turn that has left, to look at its tables.
    """

    def __init__(self, recorder: Recorder, hub: Hub | None, clock: Clock, left: Callable[[str], None]) -> None:
        self._recorder = recorder
        self._hub = hub
        self._clock = clock
        self._left = left

    def narrate(self, task: Task) -> Narration:
        return Narration(task, self._recorder, self._hub, self._clock, self._left)
