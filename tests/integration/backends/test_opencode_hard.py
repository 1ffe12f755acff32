"""What opencode's server may do to us, with a stand-in that does it: gaps, doubles, silence, floods, endless retries, a bad start."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from guarded_processes import Watched, until
from opencode_turns import House, house

from coder.backends import guard, opencode_turn
from coder.events import AgentEvent, Notice, PermissionRequest, RetryScheduled, TextDelta, ToolCall
from coder.permission import Answer
from coder.ports import LiveTurn
from coder.transcript import TEXT_BYTES

STANDIN = Path(__file__).resolve().parents[2] / "agents" / "opencode_standin.py"


def standing_in(folder: Path, **values: Any) -> AbstractAsyncContextManager[House]:
    return house(folder, (sys.executable, str(STANDIN), "serve"), None, **values)


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[House]:
    async with standing_in(tmp_path, retry_seconds=100.0) as found:
        yield found


def guardian(made: House) -> int:
    (found,) = [guarded.pid for guarded in made.guardians._living]
    return found


def hears(text: str) -> Any:
    """Leave the turn when this was said."""
    return lambda live, event: isinstance(event, TextDelta) and text in event.text


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("say one two three", "one two three"),
        ("double one two three", "one two three"),
        ("say before\ncut\nsay after the cut", "before\n\nafter the cut"),
        ("say before\nlose what nobody heard\nsay after", "before\n\nwhat nobody heard\n\nafter"),
        ("say one\ncut\nsay two\ncut\nlose three\ncut\nrun ls\nsay four", "one\n\ntwo\n\nthree\n\nfour"),
        ("say well\ngarbage\nsay still well", "well\n\nstill well"),
        ("say it ends unheard\nstale", "it ends unheard"),
        ("nothing", ""),
        ("invalid\nsay well", "fine \ufffd\ufffd fine\n\nwell"),
    ],
)
async def test_the_same_is_said_whatever_happens_to_the_stream(made: House, script: str, said: str) -> None:
    played = await made.chat("a").play(script)
    assert played.error is None
    assert played.transcript.text == said
    assert played.session is not None
    assert played.transcript.usage.cached_tokens == 90


async def test_a_permission_that_was_asked_for_while_nobody_heard_is_found(made: House) -> None:
    played = await made.chat("a").play("cut\nask rm -r x", answers=lambda _: Answer(False, "not that"))
    assert [request.title for request in played.of(PermissionRequest)] == ["rm -r x"]
    assert played.transcript.text == "denied: not that"


async def test_a_huge_answer_is_bounded_and_a_huge_event_is_left_out_with_a_notice(made: House) -> None:
    chat = made.chat("a")
    played = await chat.play("huge 52428800\nsay and more")
    assert played.error is None
    assert len(played.transcript.text) == TEXT_BYTES
    assert sum(len(spill.text) for spill in played.transcript.take_spills()) >= 52_428_800
    played = await chat.play("say first\nline 20000000\nsay last")
    assert played.error is None
    assert played.transcript.text == "first\n\nlast"
    assert "16 MB" in played.of(Notice)[0].text


async def test_what_it_prints_goes_to_the_turns_log_bounded(made: House) -> None:
    played = await made.chat("a").play("mutter\nflood 30000000\nsay done")
    assert played.transcript.text == "done"
    assert "fine \ufffd\ufffd fine" in played.log
    assert 1_000_000 < len(played.log) < 11_000_000


async def test_endless_retries_are_shown_and_end(made: House) -> None:
    played = await made.chat("a").play("say x\nretry 60\nretry 60\nsilent")
    assert played.error is not None
    assert played.error.reason == "provider"
    assert "kept failing" in played.error.message
    assert "too busy" in played.error.message
    assert [round(retry.delay) for retry in played.of(RetryScheduled)] == [60]
    assert (await made.chat("b").play("say y")).transcript.text == "y"


async def test_a_session_that_is_idle_without_an_end_is_a_sentence(made: House) -> None:
    played = await made.chat("a").play("say x\nidle")
    assert played.error is not None
    assert "did not end its answer" in played.error.message


@pytest.mark.parametrize("script", ["say x\nmuch 17000000\nask sleep 2\nsay after", "say x\nmuch 17000000\nstale"])
async def test_a_turn_whose_messages_are_too_long_to_be_read_again_ends_as_the_status_says(
    made: House, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(opencode_turn, "IDLE_SECONDS", 0.5)
    played = await made.chat("a").play(script)
    assert played.error is None
    assert played.session is not None
    assert played.transcript.text == ("x\n\nafter" if "after" in script else "x")
    (notice,) = played.of(Notice)
    assert "longer than 16 MB" in notice.text


async def test_a_turn_that_never_answers_can_be_asked_and_left(made: House) -> None:
    chat = made.chat("a")
    async with made.backend.run_turn(chat.turn("say x\nsilent")) as live:
        async for event in live.events:
            if isinstance(event, TextDelta):
                break
        waiting = asyncio.ensure_future(anext(live.events, None))
        assert await live.reconcile() is False
        waiting.cancel()
    assert live.agent_session is not None


async def test_a_turn_that_does_not_hear_the_abort_costs_the_server(made: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencode_turn, "ABORT_SECONDS", 1.5)
    other = asyncio.ensure_future(made.chat("b").play("say waiting\nsilent"))
    chat = made.chat("a")
    first = await chat.play("say x")
    watched = Watched([guardian(made), *guard.children(guardian(made))])
    left = await chat.play("say deaf now\ndeaf", until=hears("deaf"))
    assert watched.gone_within(0.0)
    assert left.session is None
    beside = await other
    assert beside.error is not None
    assert "since another turn could not be stopped otherwise" in beside.error.message
    chat.session = first.session
    again = await chat.play("say z")
    assert again.transcript.text == "z"
    assert "its server ended unexpectedly" in again.of(Notice)[0].text


async def test_what_is_left_of_a_cancelled_command_is_ended_by_its_directory(made: House) -> None:
    chat, other = made.chat("a"), made.chat("b")
    beside = asyncio.ensure_future(other.play("run sleep 2; echo slept"))
    started: list[int] = []

    def running(live: LiveTurn, event: AgentEvent) -> bool:
        if isinstance(event, ToolCall) and "daemon" in event.output:
            started.append(int(event.output.split()[1]))
            return live.busy_with_tool()
        return False

    left = await chat.play("run: setsid sleep 60 & echo daemon $!; sleep 60", until=running)
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)
    assert left.session is not None
    assert [call.output for call in (await beside).transcript.tool_calls] == ["slept\n"]


async def test_a_crash_is_a_sentence_with_its_last_words(made: House) -> None:
    chat = made.chat("a")
    played = await chat.play("say x\ncrash 3")
    assert played.error is not None
    assert played.error.reason == "agent_unavailable"
    assert "ended with exit code 3 in the middle of the turn (it said: the stand-in falls over)" in played.error.message
    assert played.transcript.text == "x"
    assert (await chat.play("say y")).transcript.text == "y"


async def test_turns_that_come_at_once_start_one_server(made: House) -> None:
    played = await asyncio.gather(*(made.chat(f"c{number}").play(f"say {number}") for number in range(5)))
    assert [one.transcript.text for one in played] == ["0", "1", "2", "3", "4"]
    assert len(made.guardians._living) == 1


async def test_turns_without_network_have_a_server_and_a_home_of_their_own(made: House) -> None:
    chat = made.chat("a")
    first = await chat.play("say x")
    second = await chat.play("say y", network=False)
    assert len(made.guardians._living) == 2
    assert first.session is not None
    assert second.session is not None
    assert (first.session.home, second.session.home) == ("0/opencode", "0/opencode-offline")
    assert "another home" in second.of(Notice)[0].text


async def test_an_idle_server_is_stopped_and_its_sessions_are_gone_back_to(tmp_path: Path) -> None:
    async with standing_in(tmp_path, agent_idle_seconds=0.2) as made:
        chat = made.chat("a")
        first = await chat.play("say x")
        watched = Watched([guardian(made)])
        await asyncio.gather(*(guarded.wait() for guarded in tuple(made.guardians._living)))
        assert watched.gone_within(0)
        # The stand-in forgets its sessions; what matters is that we asked for it.
        second = await chat.play("say y")
        assert "it no longer has the session" in second.of(Notice)[0].text
        assert first.session != second.session


async def test_a_turn_that_runs_keeps_the_server(tmp_path: Path) -> None:
    async with standing_in(tmp_path, agent_idle_seconds=0.05) as made:

        async def slow(request: AgentEvent) -> None:
            await asyncio.to_thread(lambda: Watched([guardian(made)]).gone_within(0.3))

        chat = made.chat("a")
        async with made.backend.run_turn(chat.turn("ask ls")) as live:
            async for event in live.events:
                if isinstance(event, PermissionRequest):
                    await slow(event)
                    await live.answer(event.id, Answer(True))
        assert live.agent_session is not None


@pytest.mark.parametrize(
    ("command", "environment", "sentence"),
    [
        (
            (sys.executable, str(STANDIN), "serve"),
            {"STANDIN_START": "exit"},
            "ended with exit code 1 at its start (it said: the stand-in does not want",
        ),
        (("no-such-opencode", "serve"), {}, "there is no program of that name"),
    ],
)
async def test_a_server_that_does_not_start_is_a_sentence(
    tmp_path: Path, command: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    async with house(tmp_path, command, None, environment=environment) as made:
        played = await made.chat("a").play("say x")
        assert played.error is not None
        assert played.error.reason == "agent_unavailable"
        assert sentence in played.error.message
        facts = (await made.backend.probe())[0]
        assert facts.available is (command[0] == sys.executable)
        assert facts.install == "npm install -g opencode-ai"
        await made.backend.probing.looked()


async def test_leaving_before_the_prompt_was_given_leaves_nothing(made: House) -> None:
    chat = made.chat("a")

    async def play() -> None:
        async with made.backend.run_turn(chat.turn("say x")) as live:
            async for _ in live.events:
                return

    task = asyncio.ensure_future(play())
    await until(lambda: bool(made.guardians._living))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.gather(*(guarded.wait() for guarded in tuple(made.guardians._living)))
    assert (await chat.play("say y")).transcript.text == "y"


async def test_a_mode_that_there_is_not_is_said_at_once(made: House) -> None:
    """The real server takes the prompt and then says nothing, until the turn is given up as silent."""
    chat = made.chat("a")
    played = await chat.play("say x", mode_id="weird")
    assert played.error is not None
    assert played.error.message == "opencode has no mode weird; it offers build, plan: name one of these, or none."
    assert (await chat.play("say y", mode_id="plan")).transcript.text == "y"
