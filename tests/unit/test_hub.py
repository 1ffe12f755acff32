"""The hub: whoever subscribes at whatever moment is told the same turn, and nobody is told anything twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from coder.frames import Delta, Frame, MessageComplete, MessageStarted, SessionFrame, TaskStateFrame, ToolCallFrame, TurnEnded, TurnStarted
from coder.live import fold
from coder.outbox import Told
from coder.runtime.hub import Hub


def started(turn: int, session: str = "s") -> TurnStarted:
    return TurnStarted(session, turn, 10 * turn, "c", "native", 1, "2026-01-01T00:00:00+00:00")


class Watcher:
    """Notes what it is told; what it was given when it came is the beginning of it."""

    def __init__(self, hub: Hub, session: str = "s") -> None:
        found = hub.subscribe(session, self)
        self.frames: list[Frame] = list(found.frames()) if found is not None else []

    def tell(self, told: Told) -> None:
        self.frames.append(told.frame)

    def turn(self, number: int) -> list[SessionFrame]:
        return [frame for frame in self.frames if isinstance(frame, SessionFrame) and getattr(frame, "turn_id", 0) == number]


texts = some.text(min_size=1, max_size=3)
deltas = some.builds(lambda part, text: Delta("s", 1, part, text), some.integers(1, 3), texts)
calls = some.builds(
    lambda part, text: ToolCallFrame("s", 1, part, {"input": "", "output": text, "status": "running"}), some.integers(4, 6), texts
)
said = some.lists(some.one_of(deltas, calls), max_size=30)


@given(said, some.lists(some.integers(-2, 30), max_size=4))
def test_whoever_subscribes_at_whatever_moment_is_told_the_same_turn(frames: list[SessionFrame], moments: list[int]) -> None:
    hub = Hub()
    first = Watcher(hub)
    watchers = [Watcher(hub) for moment in moments if moment == -2]
    hub.start_turn(started(1), local=True)
    hub.publish(MessageStarted("s", 1, "user", "do it"))
    watchers += [Watcher(hub) for moment in moments if moment == -1]
    for number, frame in enumerate(frames):
        hub.publish(frame)
        watchers += [Watcher(hub) for moment in moments if moment == number]
    whole = fold(first.turn(1)).frames()
    assert all(fold(watcher.turn(1)).frames() == whole for watcher in watchers)
    closing = TurnEnded("s", 1, 10, "completed")
    hub.end_turn("s", 1, closing)
    hub.end_turn("s", 1, closing)
    assert all(watcher.frames[-1] == closing and watcher.frames.count(closing) == 1 for watcher in [first, *watchers])
    assert Watcher(hub).frames == []


def test_subscribers_outlive_turns_and_turns_outlive_subscribers() -> None:
    hub = Hub()
    watcher = Watcher(hub)
    for turn in (1, 2):
        assert hub.start_turn(started(turn), local=True)
        assert hub.is_active("s")
        hub.end_turn("s", turn, TurnEnded("s", turn, 1, "completed"))
        assert not hub.is_active("s")
    assert [frame.type for frame in watcher.frames] == ["turn_started", "turn_ended"] * 2
    hub.start_turn(started(3), local=True)
    hub.unsubscribe("s", watcher)
    hub.unsubscribe("s", watcher)
    hub.publish(Delta("s", 3, 1, "x"))
    assert [frame.type for frame in Watcher(hub).frames] == ["turn_started", "delta"]


def test_what_nobody_watches_and_nobody_runs_here_is_forgotten() -> None:
    hub = Hub()
    watcher = Watcher(hub)
    hub.start_turn(started(1), local=False)
    hub.unsubscribe("s", watcher)
    assert len(hub) == 0
    hub.start_turn(started(2), local=True)
    assert len(hub) == 1
    hub.end_turn("s", 2)
    assert len(hub) == 0


def test_a_later_turn_supersedes_and_what_the_earlier_still_says_is_dropped() -> None:
    hub = Hub()
    watcher = Watcher(hub)
    hub.start_turn(started(5), local=True)
    assert hub.start_turn(started(7), local=False)
    assert not hub.start_turn(started(6), local=True)
    hub.publish(Delta("s", 5, 1, "late"))
    hub.end_turn("s", 5, MessageComplete("s", 5, 50, "interrupted"))
    assert [(frame.type, getattr(frame, "turn_id", 0)) for frame in watcher.frames] == [
        ("turn_started", 5),
        ("turn_started", 7),
        ("message_complete", 5),
    ]
    assert hub.is_active("s"), "the end of an earlier turn ends no later one"


def test_a_task_that_runs_again_ends_its_earlier_turn() -> None:
    """Its node lost the lease and claimed it anew before anybody looked: nothing is stored of the first attempt."""
    hub = Hub()
    watcher = Watcher(hub)
    first, second = started(1), TurnStarted("s", 2, 10, "c", "native", 2, "2026-01-01T00:00:00+00:00")
    hub.start_turn(first, local=True)
    hub.start_turn(second, local=True)
    hub.end_turn("s", 1)  # the first attempt leaves late
    hub.end_turn("s", 1, TurnEnded("s", 1, 10, "pending"))
    assert watcher.frames == [first, TurnEnded("s", 1, 10, "pending"), second]
    assert hub.is_active("s")


def test_a_turn_seen_in_the_tables_before_its_narration_began_is_told_once() -> None:
    hub = Hub()
    watcher = Watcher(hub)
    hub.start_turn(started(1), local=False)
    assert not hub.start_turn(started(1), local=True)
    channel = hub.channel("s")
    assert channel is not None
    assert channel.local
    assert len(watcher.frames) == 1


def test_frames_stay_in_their_session_and_facts_of_the_tables_reach_every_watcher() -> None:
    hub = Hub()
    here, there = Watcher(hub, "s"), Watcher(hub, "t")
    hub.start_turn(started(1, "t"), local=True)
    hub.tell(TaskStateFrame("s", 1, "pending"))
    hub.tell(TaskStateFrame("u", 1, "pending"))
    assert [frame.type for frame in here.frames] == ["task_state"]
    assert [frame.type for frame in there.frames] == ["turn_started"]


def test_a_subscriber_that_leaves_while_it_is_told_harms_nobody() -> None:
    hub = Hub()

    class Leaving(Watcher):
        def tell(self, told: Told) -> None:
            super().tell(told)
            hub.unsubscribe("s", self)

    leaving, staying = Leaving(hub), Watcher(hub)
    for task in (1, 2):
        hub.tell(TaskStateFrame("s", task, "pending"))
    assert (len(leaving.frames), len(staying.frames)) == (1, 2)
