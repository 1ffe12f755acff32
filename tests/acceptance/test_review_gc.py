"""`coder gc`: what would go, what goes, what is kept of it, and what stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from checkout import Checkout
from running import Coder, running

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Coder]:
    """One whose worktrees are its own, since gc looks at all of them."""
    yield from running(Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1"))


def gone(coder: Coder, *options: str) -> dict[str, dict[str, Any]]:
    """What went, or would go, by the name of the last directory."""
    rows = json.loads(coder.cli("gc", "--json", *options, retention_days="0"))
    return {Path(row["path"]).name: row for row in rows}


def test_what_nobody_needs_goes_and_nothing_of_it_is_lost(coder: Coder, checkout: Checkout, project: str) -> None:
    def worked(name: str) -> dict[str, Any]:
        return coder.change(coder.turn(project, f"write {name}.txt: {name}\\n"))

    waiting, closed, rests, orphan = (worked(name) for name in ("waiting", "closed", "rests", "orphan"))
    coder.reject(closed)
    coder.post(f"/sessions/{closed['session_id']}/close", 200)
    Path(closed["worktree"], "late.txt").write_text("nobody has seen this")
    coder.approve(rests)
    coder.post(f"/sessions/{waiting['session_id']}/close", 200)
    shutil.move(orphan["worktree"], lost := Path(orphan["worktree"]).with_name(str(uuid4())))
    record = checkout.path / ".git" / "worktrees" / lost.name
    shutil.move(record.with_name(orphan["session_id"]), record)
    (record / "gitdir").write_text(f"{lost}/.git\n")
    (lost / ".git").write_text(f"gitdir: {record}\n")

    expected = {
        closed["session_id"]: "its session is closed since",
        rests["session_id"]: "its session rests since",
        lost.name: "no session",
    }
    would = gone(coder, "--dry-run")
    assert {name: row["why"][: len(expected[name])] for name, row in would.items()} == expected
    assert all(Path(row["path"]).is_dir() for row in would.values())
    went = gone(coder)
    assert {name: row["why"] for name, row in went.items()} == {name: row["why"] for name, row in would.items()}
    assert not any(Path(row["path"]).exists() for row in went.values())
    assert Path(waiting["worktree"], "waiting.txt").read_text() == "waiting\n", "its change waits for a decision"

    assert checkout.git("show", f"{went[closed['session_id']]['saved']}:late.txt") == "nobody has seen this"
    assert checkout.git("show", f"{went[lost.name]['saved']}:orphan.txt") == "orphan"
    assert went[rests["session_id"]]["saved"] is None, "its snapshot has it all"
    listed = checkout.git("worktree", "list")
    assert waiting["session_id"] in listed
    assert not any(name in listed for name in went)
    assert gone(coder) == {}
    assert "There is nothing to remove." in coder.cli("gc", retention_days="0")

    # A session that rested goes on where it was, in a worktree made anew.
    after = coder.change(coder.turn(project, "write more.txt: more\\n", session=rests["session_id"]))
    assert {each["path"] for each in after["files"]} == {"more.txt"}
    assert Path(after["worktree"], "rests.txt").read_text() == "rests\n"
    coder.approve(coder.get(f"/changes/{waiting['id']}"))
    assert checkout.read("waiting.txt") == "waiting\n"
