"""A turn's frames fold to the same transcript, whenever somebody joins and however deltas were merged on the way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as some

from coder.events import (
    AgentEvent,
    Command,
    Commands,
    Notice,
    Plan,
    PlanEntry,
    ReasoningDelta,
    RetryScheduled,
    TextDelta,
    ToolCall,
    Usage,
)
from coder.frames import PermissionRequested, ProviderRetry, SessionFrame, ToolCallFrame, TurnStarted, from_wire
from coder.live import FOLD_BYTES, Fold, Gathered, Narrator, Said, StoredAnswer, fold

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STARTED = TurnStarted("s", 7, 3, "c", "native", 1, NOW.isoformat())

texts = some.text(max_size=5)
events = some.one_of(
    some.builds(TextDelta, texts),
    some.builds(ReasoningDelta, texts),
    some.builds(Notice, texts),
    some.builds(
        ToolCall, some.sampled_from("abc"), some.just("run"), some.just("{}"), some.sampled_from(["running", "completed", "failed"]), texts
    ),
    some.builds(Usage, some.integers(0, 9), some.just(0), some.integers(0, 9)),
    some.builds(Commands, some.tuples(some.builds(Command, texts))),
    some.builds(Plan, some.tuples(some.builds(PlanEntry, texts, some.just("pending")))),
    some.builds(RetryScheduled, some.integers(0, 3), some.just(5.0), texts),
)


def told(said: list[AgentEvent]) -> list[SessionFrame]:
    narrator = Narrator("s", 7, 3)
    frames = [narrator.tell(event, Usage(1, 0, 2), NOW) for event in said]
    return [STARTED, *(frame for frame in frames if frame is not None)]


@given(some.lists(events, max_size=30), some.data())
def test_whoever_joins_at_whatever_moment_gets_the_same_turn(said: list[AgentEvent], data: some.DataObject) -> None:
    frames = told(said)
    whole = fold(frames).frames()
    moment = data.draw(some.integers(1, len(frames)))
    assert fold([*fold(frames[:moment]).frames(), *frames[moment:]]).frames() == whole


@given(some.lists(events, max_size=30))
def test_frames_survive_the_wire(said: list[AgentEvent]) -> None:
    frames = told(said)
    assert [from_wire(frame.wire()) for frame in frames] == frames


def test_parts_keep_the_order_in_which_things_were_said() -> None:
    frames = told(
        [
            TextDelta("one "),
            TextDelta("two"),
            ReasoningDelta("hm"),
            ToolCall("a", "run", "{}", "running"),
            TextDelta("three"),
            ToolCall("a", "run", "{}", "completed", "done"),
            TextDelta(" four"),
        ]
    )
    parts = [
        (frame.type, getattr(frame, "text", None) or frame.wire().get("call", {}).get("output")) for frame in fold(frames).frames()[1:]
    ]
    assert parts == [("delta", "one two"), ("reasoning_delta", "hm"), ("tool_call", "done"), ("delta", "three four")]


def test_a_retry_is_there_while_it_waits_and_gone_with_the_next_word() -> None:
    frames = told([RetryScheduled(0, 5.0, "busy", "429")])
    retry = fold(frames).frames()[-1]
    assert retry == ProviderRetry("s", 7, 0, 5000, (NOW + timedelta(seconds=5)).isoformat(), "busy", "429")
    assert not any(isinstance(frame, ProviderRetry) for frame in fold([*frames, *told([TextDelta("x")])[1:]]).frames())


def test_a_permission_is_there_while_it_waits() -> None:
    asked = PermissionRequested("s", 7, "p", "requested", {"title": "rm"})
    assert fold([STARTED, asked]).frames() == [STARTED, asked]
    assert fold([STARTED, asked, PermissionRequested("s", 7, "p", "denied", {})]).frames() == [STARTED]


def test_what_is_gathered_in_windows_folds_to_the_same_turn() -> None:
    frames = told([RetryScheduled(0, 5.0, "busy"), TextDelta("a"), ToolCall("t", "run", "{}", "running"), TextDelta("b"), Usage(1, 0, 2)])
    whole = fold(frames).frames()
    for cut in range(1, len(frames)):
        first, second = Gathered(), Gathered()
        for frame in frames[1:cut]:
            first.apply(frame)
        for frame in frames[cut:]:
            second.apply(frame)
        assert fold([STARTED, *first.frames(), *second.frames()]).frames() == whole


def test_the_end_of_a_permission_is_gathered_too() -> None:
    gathered = Gathered()
    for state in ("requested", "denied"):
        gathered.apply(PermissionRequested("s", 7, "p", state, {}))
    assert gathered.frames() == [PermissionRequested("s", 7, "p", "denied", {})]


def test_a_fold_stays_within_its_bound_and_names_what_it_put_away() -> None:
    folded, narrator = Fold(STARTED), Narrator("s", 7, 3)

    def tell(event: AgentEvent) -> None:
        frame = narrator.tell(event, Usage(0, 0, 0), NOW)
        assert frame is not None
        folded.apply(frame)

    for _ in range(100):
        tell(ToolCall("a", "run", "{}", "running", "x" * 100_000))
    assert not folded.away, "only the latest snapshot of a call counts"
    tell(TextDelta("hello"))
    for number in range(60):
        tell(ToolCall(f"b{number}", "run", "{}", "completed", "x" * 100_000))
    assert folded.size <= FOLD_BYTES
    assert folded.away
    assert folded.said() == Said("hello", "", 61)
    shown = {frame.part for frame in folded.frames() if isinstance(frame, ToolCallFrame)}
    assert 1 in shown, "a call that runs stays"
    assert not shown & folded.away
    assert len(shown | folded.away) == 61
    gone = min(folded.away)
    folded.apply(ToolCallFrame("s", 7, gone, {"id": "b", "name": "run", "input": "{}", "status": "completed", "output": "again"}))
    assert gone not in folded.away


def test_a_long_answer_folds_in_linear_time() -> None:
    folded, narrator = Fold(STARTED), Narrator("s", 7, 3)
    for _ in range(50_000):
        frame = narrator.tell(TextDelta("twenty characters ok"), Usage(0, 0, 0), NOW)
        assert frame is not None
        folded.apply(frame)
    assert folded.said().text == "twenty characters ok" * 50_000


def test_a_stored_answer_in_frames_says_what_its_message_says() -> None:
    call = {"id": "a", "name": "run", "input": "{}", "status": "completed", "output": "ok", "exit_code": 0}
    answer = StoredAnswer("complete", "text", "hm", [call, {**call, "id": "b"}])
    assert fold([STARTED, *answer.frames("s", 7)]).said() == answer.said
