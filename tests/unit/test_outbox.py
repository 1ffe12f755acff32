"""A client's outbox: whatever it loses, it ends with exactly what was pushed, or knows that it must ask again."""

from __future__ import annotations

import json

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coder import outbox
from coder.frames import Delta, Frame, Reset, TaskStateFrame, ToolCallFrame, from_wire
from coder.outbox import Outbox, Return, Told


def state(task: int, size: int = 0) -> Told:
    return Told(TaskStateFrame("s", task, "running", "x" * size))


def delta(part: int, text: str) -> Told:
    return Told(Delta("s", 1, part, text))


def read(contents: list[bytes]) -> list[tuple[int, Frame]]:
    frames = [json.loads(content) for content in contents]
    return [(frame["seq"], from_wire(frame)) for frame in frames]


def sent(box: Outbox, now: float = 0.0) -> list[tuple[int, Frame]]:
    return read(box.take(now))


def test_deltas_of_one_part_are_merged_before_they_get_a_number() -> None:
    box = Outbox(0)
    for told in (delta(1, "a"), delta(1, "b"), delta(1, "c"), delta(2, "d"), state(1)):
        assert box.push(told)
    assert sent(box) == [(1, Delta("s", 1, 1, "abc")), (2, Delta("s", 1, 2, "d")), (3, state(1).frame)]
    box.push(delta(2, "e"))
    assert sent(box) == [(4, Delta("s", 1, 2, "e"))], "what was sent is not changed any more"


def test_clients_that_fell_behind_alike_share_what_was_merged_and_others_do_not() -> None:
    one, other, third = Outbox(0), Outbox(0), Outbox(0)
    told = [delta(1, text) for text in "abcd"]
    for each in told:
        one.push(each)
        other.push(each)
    for each in told[:3]:
        third.push(each)
    (first,), (second,), (shorter,) = one.take(0), other.take(0), third.take(0)
    assert one._kept[0][2][0] is other._kept[0][2][0]
    assert first == second
    assert json.loads(first) == {"seq": 1, "type": "delta", "session_id": "s", "turn_id": 1, "part": 1, "text": "abcd"}
    assert json.loads(shorter)["text"] == "abc"


def test_who_missed_nothing_is_current_and_who_missed_something_gets_just_that() -> None:
    box = Outbox(0)
    for task in range(5):
        box.push(state(task))
    sent(box)
    assert box.come_back(5, 1) == (Return.CURRENT, [])
    box.push(state(9))
    sent(box, 2)
    found, missed = box.come_back(5, 3)
    assert (found, [seq for seq, _ in read(missed)]) == (Return.REPLAY, [6])


def test_what_cannot_be_known_is_a_reset() -> None:
    for since in (-1, 7, 10**12):
        box = Outbox(0)
        box.push(state(1))
        sent(box)
        assert box.come_back(since, 1) == (Return.RESET, [])
        ((seq, frame),) = sent(box)
        assert isinstance(frame, Reset)
        assert seq == 2


def test_an_acknowledgement_is_cumulative_and_one_from_the_future_is_clamped() -> None:
    box = Outbox(0)
    for task in range(4):
        box.push(state(task))
    sent(box)
    box.acknowledge(2, 1)
    assert [seq for seq, _ in read(box.come_back(2, 1)[1])] == [3, 4]
    box.acknowledge(10**9, 1)
    assert box.come_back(4, 2) == (Return.CURRENT, [])
    box.push(state(5))
    assert sent(box)[0][0] == 5


def test_the_ring_keeps_500_frames_or_30_seconds_up_to_2_mb_and_never_5_minutes() -> None:
    box = Outbox(0)
    for task in range(800):
        box.push(state(task))
        sent(box, task / 100)
    assert len(box.come_back(0, 8)[1]) == 800, "all of it is young and small"
    box.prune(60)
    assert box.come_back(299, 60)[0] is Return.RESET, "old by now, so that only 500 are left"
    big = Outbox(0)
    for task in range(800):
        big.push(state(task, 10_000))
        sent(big, 0)
    assert big.come_back(299, 0)[0] is Return.RESET
    few = Outbox(0)
    few.push(state(1))
    sent(few, 0)
    assert few.come_back(0, 300)[0] is Return.REPLAY
    assert few.come_back(0, 301)[0] is Return.RESET


def test_who_reads_too_slowly_is_too_much_and_a_reset_frees_all_of_it() -> None:
    box = Outbox(0)
    fine = [box.push(state(task)) for task in range(outbox.QUEUED_FRAMES + outbox.CHECKED_FRAMES)]
    assert all(fine[: outbox.QUEUED_FRAMES])
    assert not all(fine)
    box.reset(outbox.SLOW)
    assert [type(frame) for _, frame in sent(box)] == [Reset]
    wide, many = Outbox(0), outbox.CHECKED_FRAMES
    assert not all(wide.push(delta(1, "x" * 300_000)) for _ in range(many)), "merged deltas count as well"
    calls = Outbox(0)
    output = {"input": "{}", "output": "x" * 300_000}
    assert not all(calls.push(Told(ToolCallFrame("s", 1, part, output))) for part in range(many))
    opened = Outbox(0)
    opened.open([Told(ToolCallFrame("s", 1, part, output)) for part in range(100)])
    assert all(opened.push(state(task)) for task in range(100)), "what a subscription begins with counts for no bound"
    long = Outbox(0)
    assert all(long.push(delta(1, "x")) for _ in range(20 * outbox.QUEUED_FRAMES)), "merged deltas are one frame"
    assert len(sent(long)) == 1


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
        self.client: list[Frame] = []
        self.cursor = 0
        self.wire: list[tuple[int, Frame]] = []
        self.task = 0

    @rule(seconds=some.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.box.prune(self.now)

    @rule()
    def push(self) -> None:
        self.task += 1
        self.box.push(state(self.task))

    @rule()
    def send(self) -> None:
        self.wire += sent(self.box, self.now)

    @rule(count=some.integers(1, 5))
    def receive(self, count: int) -> None:
        for seq, frame in self.wire[:count]:
            assert seq == self.cursor + 1
            self.cursor = seq
            if isinstance(frame, Reset):
                self.client = []
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
        else:
            self.wire = read(missed)

    @invariant()
    def nothing_is_missing_or_twice(self) -> None:
        numbers = [frame.task_id for frame in self.client if isinstance(frame, TaskStateFrame)]
        assert numbers == sorted(set(numbers))
        if numbers:
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


Line.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestLine = Line.TestCase
