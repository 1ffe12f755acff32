"""Repositories of the tests of bad input: made, committed to and looked at the way a person does it, with plain git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any


def git(where: Path, *arguments: str, accept: tuple[int, ...] = (0,)) -> str:
    """Run git as a person would; answers what it printed, without the last line end."""
    person = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(("git", *person, *arguments), cwd=where, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode in accept, (arguments, done.stderr.decode(errors="replace"))
    return os.fsdecode(done.stdout).rstrip("\n")


def commit(where: Path, message: str = "more") -> str:
    git(where, "add", "--all")
    git(where, "commit", "-q", "--allow-empty", "-m", message)
    return git(where, "rev-parse", "HEAD")


def repository(path: Path, files: dict[str, str] | None = None) -> Path:
    """A checkout on branch main with one commit."""
    path.mkdir(parents=True)
    git(path, "init", "-q", "-b", "main")
    for name, content in ({"README": "one\ntwo\nthree\n"} if files is None else files).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(content)
    commit(path, "start")
    return path


def seen(checkout: Path) -> dict[str, Any]:
    """All there is to see of a checkout: its files, where HEAD is, what is staged, its branches."""
    files = {
        str(place.relative_to(checkout)): os.readlink(place) if place.is_symlink() else place.read_bytes()
        for place in sorted(checkout.rglob("*"))
        if ".git" not in place.relative_to(checkout).parts[:1] and (place.is_symlink() or place.is_file())
    }
    told = [git(checkout, "symbolic-ref", "HEAD"), git(checkout, "ls-files", "--stage"), git(checkout, "for-each-ref", "refs/heads")]
    return {"files": files, "git": told}
