"""What every backend must be able to do, whatever agent stands behind it. `rigs.py` says how to add a kind of agent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rigs import RIGS, Ask, Crash, Flood, Huge, Invalid, Nothing, Recall, Rig, Run, Say, Silent, Think, Write
from turns import Chat, make_worktree
from watched import Watched

from coder.backends.limits import Limits
from coder.errors import TurnError
from coder.events import PermissionRequest, ToolCall
from coder.permission import Answer
from coder.ports import Backend, LiveTurn
from coder.transcript import TEXT_BYTES, TOOL_BYTES, Transcript

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)

MEGABYTE = 1_000_000
HUGE = 50 * MEGABYTE
STUBBORN = "(trap '' TERM; setsid sleep 1000) & echo $! $$ > pids; sleep 1000"
"""A command with a child that ignores TERM, in a session of its own; it says both ids and stays."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each case on each rig but those whose kind of agent cannot do it by its nature: there is nothing to skip."""
    if "rig" in metafunc.fixturenames:
        case = metafunc.function.__name__.removeprefix("test_")
        metafunc.parametrize("rig", [rig for rig in RIGS if case not in rig.cannot], ids=lambda rig: rig.name)


@pytest.fixture
async def backend(rig: Rig, tmp_path: Path, model_server: ModelServer) -> AsyncIterator[Backend]:
    async with rig.make(tmp_path / "agent", model_server) as made:
        yield made


@pytest.fixture
def chat(backend: Backend, tmp_path: Path) -> Chat:
    return new_chat(backend, tmp_path, "worktree")


def new_chat(backend: Backend, folder: Path, name: str) -> Chat:
    worktree = make_worktree(folder / name)
    return Chat(backend, worktree, folder / f"{name}-files", worktree)


async def test_text(rig: Rig, chat: Chat) -> None:
    played = await chat.play(rig.prompt(Say("Grüße, 世界: it is *done*.\nSecond line.")))
    assert played.error is None
    assert played.transcript.text == "Grüße, 世界: it is *done*.\nSecond line."


async def test_reasoning(rig: Rig, chat: Chat) -> None:
    played = await chat.play(rig.prompt(Think("first I think"), Say("then I speak")))
    assert played.error is None
    assert (played.transcript.reasoning, played.transcript.text) == ("first I think", "then I speak")


async def test_tools(rig: Rig, chat: Chat) -> None:
    played = await chat.play(rig.prompt(Write("made.txt", "by a tool"), Run("echo seen-$((40+2)); exit 3"), Say("so it is")))
    assert played.error is None
    assert (chat.worktree / "made.txt").read_text() == "by a tool"
    write, run = played.transcript.tool_calls
    assert write.status == "completed"
    assert "made.txt" in write.input
    assert "seen-42" in run.output
    assert run.exit_code == 3
    assert "exit 3" in run.input
    for call in (write, run):
        *before, last = (event.status for event in played.of(ToolCall) if event.id == call.id)
        assert set(before) <= {"running"}
        assert last == call.status
    assert played.transcript.text.endswith("so it is")


async def test_permissions(rig: Rig, chat: Chat) -> None:
    for allow in (True, False):
        marker = f"permitted-{allow}"
        turn = chat.turn(rig.prompt(Ask(f"touch {marker}")))
        transcript = Transcript()
        asked: list[PermissionRequest] = []
        async with chat.backend.run_turn(turn) as live:
            async for event in live.events:
                transcript.apply(event)
                if isinstance(event, PermissionRequest):
                    assert not (chat.worktree / marker).exists()
                    asked.append(event)
                    await live.answer(event.id, Answer(allow, None if allow else "not this one"))
        assert len(asked) == 1
        assert (chat.worktree / marker).exists() is allow
        assert ("not this one" in transcript.text) is not allow
        chat.session = live.agent_session


async def test_usage(rig: Rig, chat: Chat) -> None:
    played = await chat.play(rig.prompt(Run("true"), Say("counted")))
    usage = played.transcript.usage
    assert usage.input_tokens >= usage.cached_tokens
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0


async def test_cancel_in_mid_tool(rig: Rig, chat: Chat) -> None:
    os.mkfifo(chat.worktree / "pids")
    turn = chat.turn(rig.prompt(Run(STUBBORN), Say("never")))
    transcript = Transcript()
    async with chat.backend.run_turn(turn) as live:
        reading = asyncio.ensure_future(_read(live, transcript))
        pids = await asyncio.to_thread((chat.worktree / "pids").read_text)
        watched = Watched([int(pid) for pid in pids.split()])
        assert len(watched.handles) == 2
        async with asyncio.timeout(20):  # the command may be faster than the word of it
            while not live.busy_with_tool():  # noqa: ASYNC110 - the agent rings no bell of ours
                await asyncio.sleep(0.01)
        reading.cancel()
    assert watched.gone_within(2)
    assert "never" not in transcript.text
    chat.session, chat.history = live.agent_session, live.model_history
    assert (await chat.play(rig.prompt(Say("afterwards")))).transcript.text.endswith("afterwards")


async def test_crash_in_mid_turn(rig: Rig, chat: Chat) -> None:
    crashed = await chat.play(rig.prompt(Crash()))
    assert isinstance(crashed.error, TurnError)
    assert crashed.error.message.endswith(".")
    assert crashed.session is None
    following = await chat.play(rig.prompt(Say("there again")))
    assert following.error is None
    assert following.transcript.text.endswith("there again")


async def test_an_agent_that_takes_too_much(rig: Rig, tmp_path: Path, model_server: ModelServer) -> None:
    async with rig.make(tmp_path / "agent", model_server, Limits(processes=20)) as backend:
        chat = new_chat(backend, tmp_path, "worktree")
        ended = await chat.play(rig.prompt(Run("for i in $(seq 100); do sleep 1000 & done; wait")))
        assert isinstance(ended.error, TurnError)
        assert "more than the 20 that an agent may have" in ended.error.message
        assert "CODER_AGENT_PROCESSES" in ended.error.message
        assert ended.error.message.endswith(".")


async def test_resume(rig: Rig, chat: Chat, model_server: ModelServer) -> None:
    marker = f"the-first-prompt-{chat.id.hex}"
    first = await chat.play(rig.prompt(Say(marker)))
    assert first.error is None
    chat.said.clear()  # so that what it knows is what it remembers
    second = await chat.play(rig.prompt(Recall()))
    assert second.error is None
    assert second.transcript.notices == ()
    assert rig.remembers(second, marker, model_server)
    if first.session is not None:
        assert second.session == first.session


async def test_two_sessions_in_parallel(rig: Rig, backend: Backend, tmp_path: Path) -> None:
    chats = [new_chat(backend, tmp_path, f"worktree-{number}") for number in range(2)]
    for number, chat in enumerate(chats):
        os.mkfifo(chat.worktree / "other")
        (chat.worktree / "number").write_text(str(number))
    # Each tells the other that it runs, and waits to hear the same: one after the other they would wait for ever.
    commands = [
        f"cat number > {chats[1 - number].worktree}/other & cat other > heard; wait; git rev-parse --show-toplevel" for number in range(2)
    ]
    async with asyncio.timeout(60):
        both = await asyncio.gather(
            *(chat.play(rig.prompt(Run(command), Say("done"))) for chat, command in zip(chats, commands, strict=True))
        )
    for number, (chat, played) in enumerate(zip(chats, both, strict=True)):
        assert played.error is None
        assert (chat.worktree / "heard").read_text() == str(1 - number)
        (call,) = played.transcript.tool_calls
        assert str(chat.worktree) in call.output
        assert played.transcript.text.endswith("done")


async def test_huge_output(rig: Rig, chat: Chat) -> None:
    before = _forget_peak()
    transcript = Transcript()
    spilled = 0
    async with chat.backend.run_turn(chat.turn(rig.prompt(Huge(HUGE), Say("after it")))) as live, aclosing(_events(live)) as events:
        async for event in events:
            transcript.apply(event)
            spilled += sum(len(spill.text) for spill in transcript.take_spills())
    assert _memory("VmHWM") - before < 150 * MEGABYTE
    assert len(transcript.text) <= TEXT_BYTES
    assert all(len(call.output.encode()) <= TOOL_BYTES for call in transcript.tool_calls)
    told = spilled + sum(len(call.output) for call in transcript.tool_calls)
    assert told >= HUGE or any("cut" in call.output for call in transcript.tool_calls)


async def test_invalid_utf_8(rig: Rig, chat: Chat) -> None:
    played = await chat.play(rig.prompt(Invalid(), Say("ok")))
    assert played.error is None
    shown = played.transcript.text + "".join(call.output for call in played.transcript.tool_calls)
    assert "fine �" in shown
    assert "� fine" in shown
    shown.encode()


async def test_never_answers(rig: Rig, chat: Chat) -> None:
    """The watchdog sees that nothing runs and nothing is new, and leaves the turn; so does a person who cancels it."""
    prompt = rig.prompt(Silent())
    async with chat.backend.run_turn(chat.turn(prompt)) as live:
        reading = asyncio.ensure_future(_read(live, Transcript()))
        while await live.reconcile() or not await _silent(reading):
            assert not reading.done()
        assert not live.busy_with_tool()
        reading.cancel()
        left = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - left < 2
    chat.session, chat.history = live.agent_session, live.model_history
    assert (await chat.play(rig.prompt(Say("awake")))).transcript.text.endswith("awake")


async def test_answers_nothing(rig: Rig, chat: Chat) -> None:
    async with asyncio.timeout(60):
        played = await chat.play(rig.prompt(Nothing()))
    assert played.transcript.text == ""
    assert played.error is None or played.error.message.endswith(".")


async def test_floods_standard_error(rig: Rig, chat: Chat) -> None:
    async with asyncio.timeout(60):
        played = await chat.play(rig.prompt(Flood(20 * MEGABYTE), Say("heard")))
    assert played.error is None
    assert played.transcript.text.endswith("heard")
    assert 0 < len(played.log.encode()) < 11 * MEGABYTE
    assert sum(len(notice) for notice in played.transcript.notices) < 10_000


async def _events(live: LiveTurn) -> AsyncIterator[object]:
    async for event in live.events:
        yield event


async def _read(live: LiveTurn, transcript: Transcript) -> None:
    async for event in live.events:
        transcript.apply(event)


async def _silent(reading: asyncio.Future[None]) -> bool:
    """A second in which nothing came to an end."""
    done, _ = await asyncio.wait([reading], timeout=1)
    return not done


def _forget_peak() -> int:
    """Have VmHWM count from here on; answers what is used now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(kind: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))
