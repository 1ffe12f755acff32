"""A service's real agents, and their processes: what they were started with, and how they hang together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from blocking import descendants
from running import Coder

from coder.backends import guard

PROGRAMS = {
    "opencode": "opencode",
    "goose": "goose",
    "claude": "claude-agent-acp",
    "codex": "codex-acp",
    "gemini": "gemini",
    "qwen": "qwen",
}
"""Agents and their programs."""

MODES = {"goose": "auto", "claude": "bypassPermissions", "codex": "agent-full-access", "gemini": "yolo", "qwen": "yolo"}
"""In which they ask nobody, where that is not how they begin."""


def command_line(pid: int) -> list[str]:
    """What a process was started with; nothing of one that is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    return []


def tree(pid: int, depth: int = 0) -> Iterator[str]:
    yield f"{'  ' * depth}{pid} {' '.join(command_line(pid))[:100]}"
    for child in guard.children(pid):
        yield from tree(child, depth + 1)


def guardians(coder: Coder) -> list[int]:
    return [pid for pid in descendants(coder.process.pid) if guard.__file__ in command_line(pid)]


def everybody(coder: Coder) -> list[int]:
    """The guardians and all below them."""
    return [pid for guardian in guardians(coder) for pid in (guardian, *descendants(guardian))]


def told(coder: Coder, when: str) -> None:
    """Print the trees; `-rP` shows them."""
    print(f"--- {when}")
    for guardian in guardians(coder):
        print("\n".join(tree(guardian)))
