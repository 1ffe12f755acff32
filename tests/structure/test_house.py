"""The shape of the house: what may import what, how large a room may be, where SQL lives, which names say nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
ROOMS = sorted(path for path in (TOP / "coder").rglob("*.py") if "node_modules" not in path.parts)
PANES = sorted(path for path in (TOP / "coder/web/panel/src").rglob("*.ts*") if path.name not in ("wire.ts", "schema.d.ts"))
WIRING = {"__init__", "__main__", "main", "service", "doctor", "where"}
PURE = sorted(path for path in (TOP / "coder").glob("*.py") if path.stem not in WIRING)
WORLDS = {"asyncio", "time", "random", "os", "logging", "subprocess", "asyncpg", "httpx", "fastapi"}
EMPTY = {"manager", "helper", "helpers", "util", "utils", "common", "handler", "handlers", "data", "info"}
STATEMENT = re.compile(r"\s*(select|insert into|update|delete from|with|alter|create|drop|truncate)\s+\S+", re.I)
SHOWN = {
    "coder/demo/show.py": "insert into tasks",  # what the demo has psql say, as a person would
    "coder/postgres/embedded.py": "create database",  # before there is a database to prepare anything in
}
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_PANE = 500, 70, 400


def name(path: Path) -> str:
    return str(path.relative_to(TOP))


def test_imports_go_down_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=TOP, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize("path", PURE, ids=name)
def test_words_and_decisions_touch_no_world(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert not imported & WORLDS


@pytest.mark.parametrize("path", ROOMS, ids=name)
def test_rooms_are_small(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or node.lineno) - node.lineno < LONGEST_FUNCTION, f"{node.name} is too long"


@pytest.mark.parametrize("path", PANES, ids=name)
def test_panes_are_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST_PANE


@pytest.mark.parametrize("path", ROOMS, ids=name)
def test_names_say_something(path: Path) -> None:
    assert path.stem not in EMPTY
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert node.name.lower() not in EMPTY
            assert not node.name.endswith(("Manager", "Helper", "Handler", "Util"))


@pytest.mark.parametrize("path", ROOMS, ids=name)
def test_sql_lives_in_sql_files(path: Path) -> None:
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    found = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings and sql(node.value)
    ]
    shown = SHOWN.get(name(path))
    assert not found if shown is None else len(found) == 1 and found[0].lower().startswith(shown)


def sql(text: str) -> bool:
    return bool(STATEMENT.match(text)) and bool(re.search(r"\b(from|into|set|values|table|database|role)\b", text, re.I))
