"""The ACP backend with the real agents against the scripted model: they work, ask, remember, and are cancelled.

One process an agent serves all its tests. opencode is among them although it has a backend of its own: any further agent of
this protocol is an entry of the registry and nothing more. The mode in which codex asks
runs commands in a sandbox of its own that cannot see homes below the temporary directory, so it works in the mode that has
none, and asks to do without it in the other.
"""

from __future__ import annotations

import asyncio
import json
import os
import tomllib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from acp_turns import Bench, bench
from guarded_processes import Watched

from coder.agents import AgentSpec, Endpoint, parse
from coder.events import Notice, PermissionRequest
from coder.permission import Answer

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server", "real_agents")
pytestmark = pytest.mark.asyncio(loop_scope="module")

REGISTRY = Path(__file__).resolve().parents[3] / "coder" / "agents.toml"
OPENCODE = {
    "autoupdate": False,
    "share": "disabled",
    "enabled_providers": ["fake"],
    "model": "fake/m1",
    "small_model": "fake/m1",
    "permission": {"edit": "ask", "bash": "ask"},
    "provider": {
        "fake": {
            "npm": "@ai-sdk/openai-compatible",
            "name": "Fake",
            "options": {"baseURL": "{base_url}", "apiKey": "{key}"},
            "models": {"m1": {"name": "M1", "reasoning": True, "tool_call": True, "limit": {"context": 128000, "output": 8192}}},
        }
    },
}
OPENCODE_ACP = AgentSpec(
    protocol="acp",
    command=("opencode", "acp"),
    multiplex=True,
    endpoint_env={
        "OPENCODE_CONFIG_CONTENT": json.dumps(OPENCODE),
        **dict.fromkeys(
            (
                "OPENCODE_DISABLE_MODELS_FETCH",
                "OPENCODE_DISABLE_AUTOUPDATE",
                "OPENCODE_DISABLE_LSP_DOWNLOAD",
                "OPENCODE_DISABLE_DEFAULT_PLUGINS",
            ),
            "1",
        ),
    },
)


@dataclass(frozen=True)
class Ways:
    """How an agent is told to work and to ask.

    Attributes:
        asks: whether it asks in the mode it works in.
        tells: whether it tells its models, and the exit codes of commands.
        loads: whether another process of it always finds its sessions. gemini 0.61 offers to, and then mostly finds none.
    """

    program: str
    works: str | None
    careful: str | None
    asks: bool = True
    tells: bool = True
    loads: bool = True


AGENTS = {
    "goose": Ways("goose", "approve", "approve"),
    "claude": Ways("claude-agent-acp", "default", "default"),
    "codex": Ways("codex-acp", "agent-full-access", "read-only", asks=False),
    "gemini": Ways("gemini", "default", "default", tells=False, loads=False),
    "qwen": Ways("qwen", "default", "default"),
    "opencode-acp": Ways("opencode", None, None),
}


@dataclass
class Real:
    """An agent under test."""

    name: str
    ways: Ways
    bench: Bench


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=list(AGENTS))
async def agent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer, agent_path: Callable[[str], Path]
) -> AsyncIterator[Real]:
    name, ways = request.param, AGENTS[request.param]
    found = agent_path(ways.program)
    spec = OPENCODE_ACP if name == "opencode-acp" else parse((REGISTRY.name, tomllib.loads(REGISTRY.read_text()))).agents[name]
    endpoint = Endpoint(model_server.openai, "x", "fake", "m1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{found}:{os.environ['PATH']}")
        used = spec.model_copy(update={"use_endpoint": True})
        async with bench(tmp_path_factory.mktemp(name), name, used, endpoint, default_model="m1", model_provider="fake") as made:
            yield Real(name, ways, made)


async def test_it_writes_a_file_and_runs_a_command_and_remembers(agent: Real) -> None:
    chat = agent.bench.chat("works", earlier="never used")
    prompt = (
        f"think: hm\nwrite {chat.worktree}/a.txt: one\\ntwo\nrun: cat a.txt; echo made by {agent.name} > b.txt; exit 3\nsay: Done, xyzzy."
    )
    played = await chat.play(prompt, mode_id=agent.ways.works)
    assert played.error is None
    assert played.text.endswith("Done, xyzzy.")
    assert (chat.worktree / "a.txt").read_text() == "one\ntwo"
    assert (chat.worktree / "b.txt").read_text() == f"made by {agent.name}\n"
    write, run = played.transcript.tool_calls
    assert write.status == "completed"
    assert "one\ntwo" in run.output
    assert run.exit_code == (3 if agent.ways.tells else None)
    assert played.transcript.usage.input_tokens > 0
    assert {request.kind for request in played.of(PermissionRequest)} == ({"edit", "execute"} if agent.ways.asks else set())

    second = await chat.play("heard xyzzy", mode_id=agent.ways.works)
    assert second.text.endswith("I heard xyzzy.")
    assert second.session == played.session
    await agent.bench.backend.stop()
    third = await chat.play("heard xyzzy", mode_id=agent.ways.works)
    notices = third.of(Notice)
    if notices and not agent.ways.loads:
        assert "does not remember this chat, since it could not load its session" in notices[0].text
        return
    assert third.text.endswith("I heard xyzzy."), "loaded by another process, and nothing of the past told again"
    assert third.text.count("xyzzy") == 1
    assert third.session == played.session
    assert not notices


async def test_it_asks_and_does_what_it_is_told(agent: Real) -> None:
    chat = agent.bench.chat("asks")
    allowed = await chat.play("ask: touch yes\nsay: ok", mode_id=agent.ways.careful)
    (request,) = allowed.of(PermissionRequest)
    assert (request.kind, request.title) == ("execute", "touch yes")
    assert allowed.error is None
    assert (chat.worktree / "yes").exists()
    denied = await chat.play("ask: touch no\nsay: I see", mode_id=agent.ways.careful, answer=Answer(False, "not that"))
    assert denied.error is None
    assert [call.status for call in denied.transcript.tool_calls] == ["failed"]
    assert not (chat.worktree / "no").exists()


async def test_cancelled_in_the_middle_of_a_command_nothing_of_it_lives(agent: Real) -> None:
    chat = agent.bench.chat("cancelled")
    program = "import os, time; open('pid.new', 'w').write(str(os.getpid())); os.rename('pid.new', 'pid'); time.sleep(600)"
    (chat.worktree / "stay.py").write_text(program)
    turn = asyncio.create_task(chat.play("run: python3 stay.py\nsay: never", mode_id=agent.ways.works))
    while not (chat.worktree / "pid").exists():
        done, _ = await asyncio.wait([turn], timeout=0.05)
        assert not done, turn
    watched = Watched([int((chat.worktree / "pid").read_text())])
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert watched.gone_within(2)
    other = await agent.bench.chat("after").play("say: still here", mode_id=agent.ways.works)
    assert other.text.endswith("still here")


async def test_a_probe_knows_the_version_models_and_modes_of_what_ran(agent: Real) -> None:
    (facts,) = await agent.bench.backend.probe()
    assert facts.available
    assert not facts.unfinished
    assert facts.version
    assert any(model.endswith("m1") for model in facts.models) == agent.ways.tells
    assert agent.ways.works is None or agent.ways.works in facts.modes
    assert facts.modes
    assert facts.commands
