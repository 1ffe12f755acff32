"""Turns of the PTY backend for the tests: of plain programs, and of the agents of the registry."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from turns import Chat, make_worktree, settings

from coder.agents import AgentSpec, Endpoint, parse
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.pty import PtyBackend


def registered(name: str, **changes: Any) -> AgentSpec:
    """An agent of the built-in registry, with some fields changed."""
    table = tomllib.loads(files("coder").joinpath("agents.toml").read_text())
    return parse(("agents.toml", table), ("the test", {name: changes})).agents[name]


@asynccontextmanager
async def chat(folder: Path, spec: AgentSpec, *, name: str = "plain", endpoint: str | None = None, **values: Any) -> AsyncIterator[Chat]:
    """A chat with an agent in a new worktree below a folder.

    Args:
        endpoint: base URL of the model endpoint that the agent is pointed at.
        values: settings of the backend.
    """
    guardians = Guardians()
    pointed = Endpoint(endpoint, "sk-secret-of-the-endpoint", "scripted", "m1") if endpoint else None
    launcher = Launcher(name, spec, guardians, folder / "homes" / "0", pointed)
    backend = PtyBackend(launcher, settings(model_provider="scripted", **values))
    worktree = make_worktree(folder / "worktree")
    await backend.start()
    try:
        yield Chat(backend, worktree, folder, worktree)
    finally:
        await backend.stop()
        await guardians.stop_all()


def shell(script: str, **fields: Any) -> AgentSpec:
    """An agent that is a shell script; `$1` is its prompt."""
    return AgentSpec(**{"protocol": "pty", "command": ("/bin/sh", "-c", script, "agent", "{prompt}"), **fields})
