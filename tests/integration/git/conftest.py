"""A real repository per test, and the port over a data directory beside it; no git config of the machine is read."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pytest
from gitbench import Bench, Tree

from coder.git import GitWorktrees
from coder.task import Project


@pytest.fixture(autouse=True)
def no_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("GIT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))


@pytest.fixture
def repo(tmp_path: Path) -> Tree:
    """A repository on branch `main` with one commit: a.txt of ten lines, b.txt, run.sh (executable)."""
    tree = Tree(tmp_path / "project")
    tree.path.mkdir()
    tree.git("init", "-q", "-b", "main")
    tree.write("a.txt", "".join(f"line {n}\n" for n in range(1, 11)))
    tree.write("b.txt", "b\n")
    tree.write("run.sh", "#!/bin/sh\n", 0o755)
    tree.commit("first")
    return tree


@pytest.fixture
def bench(tmp_path: Path, repo: Tree) -> Bench:
    project = Project(id=uuid4(), name="demo", path=str(repo.path), agent_fallback="native")
    return Bench(GitWorktrees(tmp_path / "data"), repo, project, tmp_path / "data")
