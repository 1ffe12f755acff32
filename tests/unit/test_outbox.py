"""A client's outbox: whatever it loses, it ends with exactly what was pushed, or knows that it must ask again."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coder import outbox
from coder.frames import Delta, Frame, Reset, TaskStateFrame
from coder.outbox import Outbox, Return


def state(task: int) -> Frame:
    return TaskStateFrame("s", task, "running")


def sent(box: Outbox, now: float = 0.0, size: int = 10) -> list[tuple[int, Frame]]:
    taken = box.take()
    box.keep([(seq, b"x" * size) for seq, _ in taken], now)
    return taken


def test_deltas_of_one_part_are_merged_before_they_get_a_number() -> None:
    box = Outbox(0)
    for text in ("a", "b", "c"):
        box.push(Delta("s", 1, 1, text))
    box.push(Delta("s", 1, 2, "d"))
    box.push(state(1))
    assert sent(box) == [(1, Delta("s", 1, 1, "abc")), (2, Delta("s", 1, 2, "d")), (3, state(1))]
    box.push(Delta("s", 1, 2, "e"))
    assert sent(box) == [(4, Delta("s", 1, 2, "e"))], "what was sent is not changed any more"


def test_who_missed_nothing_is_current_and_who_missed_something_gets_just_that() -> None:
    box = Outbox(0)
    for task in range(5):
        box.push(state(task))
    sent(box)
    assert box.come_back(5, 1) == (Return.CURRENT, [])
    box.push(state(9))
    sent(box, 2)
    found, missed = box.come_back(5, 3)
    assert (found, [each.seq for each in missed]) == (Return.REPLAY, [6])


def test_what_cannot_be_known_is_a_reset() -> None:
    for since in (-1, 7, 10**12):
        box = Outbox(0)
        box.push(state(1))
        sent(box)
        assert box.come_back(since, 1) == (Return.RESET, [])
        ((seq, frame),) = box.take()
        assert isinstance(frame, Reset)
        assert seq == 2


def test_an_acknowledgement_is_cumulative_and_one_from_the_future_is_clamped() -> None:
    box = Outbox(0)
    for task in range(4):
        box.push(state(task))
    sent(box)
    box.acknowledge(2, 1)
    assert [each.seq for each in box.come_back(2, 1)[1]] == [3, 4]
    box.acknowledge(10**9, 1)
    assert box.come_back(4, 2) == (Return.CURRENT, [])
    box.push(state(5))
    assert sent(box)[0][0] == 5


def test_the_ring_keeps_500_frames_or_30_seconds_up_to_2_mb_and_never_5_minutes() -> None:
    box = Outbox(0)
    for task in range(800):
        box.push(state(task))
        sent(box, task / 100, 100)
    assert len(box.come_back(0, 8)[1]) == 800, "all of it is young and small"
    box.prune(60)
    assert box.come_back(299, 60)[0] is Return.RESET, "old by now, so that only 500 are left"
    big = Outbox(0)
    for task in range(800):
        big.push(state(task))
        sent(big, 0, 10_000)
    assert big.come_back(299, 0)[0] is Return.RESET
    few = Outbox(0)
    few.push(state(1))
    sent(few, 0)
    assert few.come_back(0, 300)[0] is Return.REPLAY
    assert few.come_back(0, 301)[0] is Return.RESET


def test_who_reads_too_slowly_is_reset_and_costs_no_more_memory() -> None:
    box = Outbox(0)
    fine = [box.push(state(task)) for task in range(outbox.QUEUED_FRAMES + 1)]
    assert fine == [True] * outbox.QUEUED_FRAMES + [False]
    assert [type(frame) for _, frame in sent(box)] == [Reset]
    wide = Outbox(0)
    assert not all(wide.push(Delta("s", 1, 1, "x" * 1_000_000)) for _ in range(10)), "merged deltas count as well"


def test_a_client_nobody_hears_of_is_forgotten_after_an_hour() -> None:
    box = Outbox(0)
    assert not box.idle(3600)
    box.acknowledge(0, 100)
    assert not box.idle(3700)
    assert box.idle(3700.1)


class Line(RuleBasedStateMachine):
    """A client on a line that loses things: it must end with every frame once, in order, or hear `reset`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.box = Outbox(0)
        self.pushed: list[Frame] = []
        self.client: list[Frame] = []
        self.cursor = 0
        self.wire: list[tuple[int, Frame]] = []
        self.frames: dict[int, Frame] = {}
        self.reset_from = 0
        self.task = 0

    @rule(seconds=some.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.box.prune(self.now)

    @rule()
    def push(self) -> None:
        self.task += 1
        self.pushed.append(state(self.task))
        self.box.push(self.pushed[-1])

    @rule()
    def send(self) -> None:
        taken = sent(self.box, self.now)
        self.frames |= dict(taken)
        self.wire += taken

    @rule(count=some.integers(1, 5))
    def receive(self, count: int) -> None:
        for seq, frame in self.wire[:count]:
            assert seq == self.cursor + 1
            self.cursor = seq
            if isinstance(frame, Reset):
                self.client = []
                self.reset_from = self.task
            else:
                self.client.append(frame)
        self.wire = self.wire[count:]

    @rule()
    def acknowledge(self) -> None:
        self.box.acknowledge(self.cursor, self.now)

    @rule()
    def lose_the_line(self) -> None:
        self.wire = []
        found, missed = self.box.come_back(self.cursor, self.now)
        if found is Return.RESET:
            self.cursor = self.box.last  # the client drops its cursor with everything it knew
            self.client = []
            self.reset_from = self.task
        else:
            self.wire = [(each.seq, self.frames[each.seq]) for each in missed]

    @invariant()
    def nothing_is_missing_or_twice(self) -> None:
        numbers = [frame.task_id for frame in self.client if isinstance(frame, TaskStateFrame)]
        assert numbers == sorted(set(numbers))
        if numbers:
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


Line.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLine = Line.TestCase
