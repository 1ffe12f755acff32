"""Which agent runs a task, what it is told, and where it starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coder.errors import AgentUnavailable
from coder.routing import LEFT_OUT, Route, Said, choose, conversation, directory, prompt, resolution
from coder.task import Part, Project, Remark, Task

ID = UUID(int=1)
PROJECT = Project(ID, "shop", "/srv/shop", "native")
TASK = Task(1, 2, 1, 3, ID, ID, PROJECT, "fix it", None, None, None, None, timedelta(minutes=1), None, (), None)


@pytest.mark.parametrize(("agent", "available", "route"), [
    (None, set(), "native"),
    ("", set(), "native"),
    ("native", set(), "native"),
    ("native", {"opencode"}, "native"),
    ("opencode", {"native", "opencode"}, "opencode"),
])  # fmt: skip
def test_the_agent_that_is_asked_for_runs_the_task(agent: str | None, available: set[str], route: str) -> None:
    assert choose(replace(TASK, agent=agent), available) == Route(route)


def test_an_agent_that_is_missing_falls_back_with_a_notice() -> None:
    route = choose(replace(TASK, agent="opencode"), {"native"})
    assert route.agent == "native"
    assert route.notice == "Agent opencode is not available on this host, so the native agent does this task."


def test_a_project_may_want_no_fallback() -> None:
    task = replace(TASK, agent="opencode", project=replace(PROJECT, agent_fallback="fail"))
    with pytest.raises(AgentUnavailable, match="Agent opencode is not available on this host") as caught:
        choose(task, {"native"})
    assert caught.value.reason == "agent_unavailable"
    assert choose(replace(task, agent="native"), set()) == Route("native")


def test_a_prompt_is_the_input_and_nothing_else() -> None:
    assert prompt(TASK) == "fix it"


def test_a_prompt_begins_with_what_reviewers_refused() -> None:
    remarks = (Remark(uuid4(), 7, "Too red.", "keep"), Remark(uuid4(), 8, None, "discard"))
    assert prompt(replace(TASK, remarks=remarks)).splitlines() == [
        "A reviewer rejected the change of task 7 with this reason: Too red. That work is still in the worktree.",
        "A reviewer rejected the change of task 8 without giving a reason. That work was taken out of the worktree again.",
        "",
        "fix it",
    ]


def test_a_prompt_says_in_one_sentence_what_was_taken_and_what_was_refused() -> None:
    parts = (Part("a.py", "approve", 3, 4), Part("b.py", "approve"), Part("a.py", "reject", 20, 1), Part("c.py", "reject", 9, 0))
    mixed = Remark(ID, 7, "Too red.", None, parts)
    rejected = "a.py line 20, c.py after line 9"
    assert prompt(replace(TASK, remarks=(mixed,))).splitlines()[0] == (
        f"Of the change of task 7 a reviewer approved a.py lines 3-6, b.py and rejected {rejected}, with this reason: Too red; "
        "what was rejected was taken out of the worktree again."
    )
    # What was done after the task was claimed counts as well.
    assert (
        prompt(replace(TASK, remarks=(mixed,)), {ID: ("a.py",)})
        .splitlines()[0]
        .endswith("taken out of the worktree again, but not in a.py, which says something else by now.")
    )
    assert prompt(replace(TASK, remarks=(replace(mixed, parts=parts[2:], reason=None),))).splitlines()[0] == (
        f"Of the change of task 7 a reviewer rejected {rejected}, without giving a reason; "
        "what was rejected was taken out of the worktree again."
    )
    assert prompt(replace(TASK, remarks=(replace(mixed, parts=parts[:2]),))).splitlines()[0] == (
        "Of the change of task 7 a reviewer approved a.py lines 3-6, b.py; the rest still waits for a decision."
    )
    many = tuple(Part(f"{n}.py", "approve") for n in range(12))
    assert "8.py, 9.py and 2 more; the rest" in prompt(replace(TASK, remarks=(replace(mixed, parts=many),)))


def test_a_prompt_says_that_the_worktree_was_brought_up_to_date() -> None:
    remark = Remark(ID, 7, None, None, target="branch main")
    told = "The worktree was brought up to date with branch main, so files may have changed since you read them"
    assert prompt(replace(TASK, remarks=(remark,))).splitlines()[0] == f"{told}."
    clashing = prompt(replace(TASK, remarks=(remark,)), {ID: ("a.py", "b.py")}).splitlines()[0]
    assert clashing == f"{told}; where both sides changed the same lines, a.py, b.py has conflict markers."
    assert resolution(["a.py"]).startswith("Resolve the conflicts in a.py. ")
    assert "9.py and 2 more." in resolution([f"{n}.py" for n in range(12)])


@pytest.mark.parametrize(("cwd", "expected"), [
    (None, "/w"),
    ("/srv/shop", "/w"),
    ("/srv/shop/", "/w"),
    ("/srv/shop/api/v1", "/w/api/v1"),
    ("/srv/shop2", "/w"),
    ("/srv", "/w"),
    ("/srv/shop/../bank", "/w"),
    ("/srv/shop/a/../../..", "/w"),
    ("/etc", "/w"),
])  # fmt: skip
def test_a_turn_starts_in_the_session_s_directory_of_the_worktree(cwd: str | None, expected: str) -> None:
    assert directory(replace(TASK, cwd=cwd), "/w") == expected


def test_a_conversation_is_told_oldest_first_and_says_how_turns_ended() -> None:
    said = [
        Said("user", "hello"),
        Said("assistant", " hi "),
        Said("user", "go"),
        Said("assistant", "half", "interrupted"),
        Said("user", " "),
    ]
    assert conversation(said) == "User:\nhello\n\nAssistant:\nhi\n\nUser:\ngo\n\nAssistant:\nhalf\n[this turn was interrupted]"
    assert conversation([]) == ""


@given(st.lists(st.text("aé😀\n", max_size=60), max_size=12), st.integers(20, 400))
def test_a_conversation_is_bounded_and_drops_the_oldest_first(texts: list[str], most: int) -> None:
    said = [Said("user", text) for text in texts]
    whole, told = conversation(said, 10**6), conversation(said, most)
    assert len(told.encode()) <= most + len(LEFT_OUT.encode()) + 2
    if told != whole:
        assert told.startswith(LEFT_OUT)
        assert whole.endswith(told.removeprefix(LEFT_OUT).lstrip("\n"))
