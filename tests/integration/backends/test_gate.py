"""The gate before every backend: turns that cannot be confined as they must be do not run, and unconfined ones say so."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest

from coder.backends.gate import Gated
from coder.backends.sandbox import Mode, Sandbox
from coder.errors import AgentUnavailable
from coder.events import AgentEvent, Notice, TextDelta
from coder.ports import Backend, LiveTurn, Turn


class Talks:
    """A turn that says two things."""

    model_history, agent_session = "{}", None

    def __init__(self, *said: AgentEvent) -> None:
        self.events = self._saying(said)

    async def _saying(self, said: tuple[AgentEvent, ...]) -> AsyncIterator[AgentEvent]:
        for event in said:
            yield event


class Talkative:
    """A backend of such turns."""

    def __init__(self, *said: AgentEvent) -> None:
        self.said = said
        self.ran = 0

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        self.ran += 1
        yield cast(LiveTurn, Talks(*self.said))


def turn(folder: Path, *, network: bool = True) -> Turn:
    ids = {"session_id": uuid4(), "chat_id": uuid4()}
    unset = {"model": None, "mode_id": None, "thinking_option_id": None, "model_history": None}
    return Turn(task_id=1, epoch=1, prompt="p", worktree=folder, cwd=folder, log=folder / "log", network=network, **ids, **unset)  # type: ignore[arg-type]


def sandbox(mode: Mode, folder: Path) -> Sandbox:
    """One that does not work."""
    return Sandbox(mode, folder, bwrap="/bin/false")


async def test_an_unconfined_turn_says_so_once_and_after_the_agent_spoke(tmp_path: Path) -> None:
    backend = Talkative(TextDelta("a"), TextDelta("b"))
    async with Gated(cast(Backend, backend), sandbox("auto", tmp_path)).run_turn(turn(tmp_path)) as live:
        said = [event async for event in live.events]
        assert live.model_history == "{}"
    assert [type(event) for event in said] == [TextDelta, Notice, TextDelta]
    assert isinstance(said[1], Notice)
    assert said[1].text == (
        "This turn was not confined: bubblewrap does not work here (exit code 1). "
        "Its agent could reach whatever this user can; `coder doctor` says what to do."
    )


async def test_who_switched_the_sandbox_off_is_not_told(tmp_path: Path) -> None:
    async with Gated(cast(Backend, Talkative(TextDelta("a"))), sandbox("off", tmp_path)).run_turn(turn(tmp_path)) as live:
        assert [event async for event in live.events] == [TextDelta("a")]


@pytest.mark.parametrize(
    ("mode", "network", "words"),
    [("required", True, "CODER_SANDBOX is required"), ("auto", False, "off the network"), ("off", False, "CODER_SANDBOX is off")],
)
async def test_a_turn_that_cannot_be_confined_as_it_must_does_not_begin(mode: Mode, network: bool, words: str, tmp_path: Path) -> None:
    backend = Talkative(TextDelta("a"))
    with pytest.raises(AgentUnavailable, match=words):
        async with Gated(cast(Backend, backend), sandbox(mode, tmp_path)).run_turn(turn(tmp_path, network=network)):
            raise AssertionError("it began")
    assert backend.ran == 0


@pytest.mark.skipif(not Sandbox("auto", Path("/nowhere")).works, reason="agents cannot be confined on this machine")
async def test_without_network_only_those_run_who_need_none(tmp_path: Path) -> None:
    works = Sandbox("required", tmp_path)
    with pytest.raises(
        AgentUnavailable, match=r"goose reaches its model over the network, which .* not known; name its host and port in model_hosts"
    ):
        async with Gated(cast(Backend, Talkative()), works, "goose").run_turn(turn(tmp_path, network=False)):
            raise AssertionError("it began")
    async with Gated(cast(Backend, Talkative(TextDelta("a"))), works).run_turn(turn(tmp_path, network=False)) as live:
        assert [event async for event in live.events] == [TextDelta("a")]
