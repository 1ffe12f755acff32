"""The panel's folder for tests: with what npm installs in it, and programs for Node made of what is there."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PANEL = TOP / "coder" / "web" / "panel"


def make(what: str) -> None:
    """`install` what the panel needs, or `build` it; nothing happens when that is done already."""
    if shutil.which("npm") is None:
        pytest.fail("These tests need Node.js 20.19 or newer; put node and npm on the PATH, or let bin/test do that.")
    subprocess.run([sys.executable, str(TOP / "bin" / "panel.py"), what], check=True, stdin=subprocess.DEVNULL)


def node(*command: str) -> None:
    """Run a program of the panel's `node_modules` to its end."""
    program, *arguments = command
    path = PANEL / "node_modules" / program
    done = subprocess.run(["node", str(path), *arguments], cwd=PANEL, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"


def program(name: str, folder: Path) -> Path:
    """A program for Node made of `tests/NAME.ts` with all that it imports."""
    make("install")
    node("vite/bin/vite.js", "build", "--logLevel", "error", "--ssr", f"tests/{name}.ts", "--outDir", str(folder))
    return folder / f"{name}.js"
