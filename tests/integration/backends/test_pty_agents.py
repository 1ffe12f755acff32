"""Turns of the real agents as one-shot commands, against the scripted model: each writes, runs, is cancelled, and remembers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from guarded_processes import until
from pty_turns import chat, registered
from turns import Chat
from watched import Watched

from coder.errors import ProviderError
from coder.ports import LiveTurn

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server", "real_agents")

AGENTS = {"goose-cli": "goose", "claude-cli": "claude", "codex-cli": "codex", "qwen-cli": "qwen", "opencode-run": "opencode"}


@pytest.fixture
async def talk(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    model_server: ModelServer,
    agent_path: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Chat]:
    name: str = request.param
    monkeypatch.setenv("PATH", f"{agent_path(AGENTS[name])}{os.pathsep}{os.environ['PATH']}")
    async with chat(tmp_path, registered(name, use_endpoint=True), name=name, endpoint=model_server.openai) as made:
        yield made


@pytest.mark.parametrize("talk", AGENTS, indirect=True)
async def test_a_whole_walk(talk: Chat, model_server: ModelServer) -> None:
    """One test for all, since most of these agents take seconds to start."""
    (facts,) = await talk.backend.probe()
    assert facts.available
    assert facts.version

    marker = f"first-{talk.id.hex}"
    steps = (
        marker,
        "think: let me see",
        "say: I write.",
        f"write {talk.worktree}/made.txt: by a \\ttool",
        "run: echo out-$((40+2)) > seen; cat seen; exit 3",
        'say: All done, "ünï".',
    )
    async with asyncio.timeout(120):
        first = await talk.play("\n".join(steps))
    assert first.error is None
    assert (talk.worktree / "made.txt").read_text() == "by a \ttool"
    assert (talk.worktree / "seen").read_text() == "out-42\n"
    assert first.transcript.text == 'I write.\n\nAll done, "ünï".'
    assert first.transcript.reasoning == "let me see"
    write, run = first.transcript.tool_calls
    assert write.status == "completed"
    assert (run.exit_code, "out-42" in run.output) == (3, True)
    assert first.transcript.usage.output_tokens == 3 * 34
    assert first.session is not None

    talk.said.clear()  # so that what it knows is what it remembers
    again = f"second-{talk.id.hex}"
    async with asyncio.timeout(120):
        second = await talk.play(f"{again}\nsay: I remember.")
    assert (second.error, second.transcript.text) == (None, "I remember.")
    assert not any("conversation" in notice for notice in second.transcript.notices)
    assert second.session == first.session
    assert second.transcript.usage.output_tokens == 34
    assert any(marker in str(request) for request in model_server.requests(again)), "else it does not remember"

    await _cancelled_in_mid_command(talk)


async def _cancelled_in_mid_command(talk: Chat) -> None:
    os.mkfifo(talk.worktree / "pids")
    command = f"(trap '' TERM; setsid sleep 1000) & echo $! $$ > {talk.worktree}/pids; tail -f /dev/null"
    async with talk.backend.run_turn(talk.turn(f"run: {command}\nsay: never")) as live:
        reading = asyncio.ensure_future(_read(live))
        async with asyncio.timeout(120):
            pids = await asyncio.to_thread((talk.worktree / "pids").read_text)
        watched = Watched([int(pid) for pid in pids.split()])
        await until(live.busy_with_tool)
        reading.cancel()
    assert watched.gone_within(2)
    assert live.agent_session is None


@pytest.mark.parametrize("talk", ["goose-cli", "codex-cli"], indirect=True)
async def test_an_endpoints_failure_is_the_turns(talk: Chat) -> None:
    """One that calls it an answer and ends with 0, and one that says so; the others' words are in the recorded output."""
    async with asyncio.timeout(120):
        played = await talk.play(f"{talk.id.hex}\nerror 400")
    assert isinstance(played.error, ProviderError)
    assert "scripted error 400" in played.error.message
    assert played.session is None


async def _read(live: LiveTurn) -> None:
    async for _ in live.events:
        pass
