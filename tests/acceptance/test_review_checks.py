"""A project's check command on what turns left: checks that pass, fail, hang, flood, give way, and outlive their service."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from running import Coder, running

if TYPE_CHECKING:
    from model_server import ModelServer

pytest_plugins = ("model_server",)


@pytest.fixture(scope="module")
def coder(tmp_path_factory: pytest.TempPathFactory, model_server: ModelServer) -> Iterator[Coder]:
    """Unconfined, so that processes of a check can be looked for; it may be killed."""
    made = Coder(tmp_path_factory.mktemp("coder"), model_base_url=model_server.openai, default_model="m1", sandbox="off")
    yield from running(made)


def checked(coder: Coder, project: str, command: str, *options: str) -> None:
    coder.cli("project", "set", project, "--check", command, *options)


def ended(coder: Coder, change: dict[str, Any], state: str) -> dict[str, Any]:
    """The latest check of a change once it has ended, which must be in that state."""

    def over() -> dict[str, Any] | None:
        row: dict[str, Any] = coder.get(f"/changes/{change['id']}/check")
        return row if row["ended_at"] else None

    found = coder.until(over)
    assert found["state"] == state, found
    return found


def test_a_check_that_passes(coder: Coder, project: str) -> None:
    checked(coder, project, "grep -c two a.txt && printf '\\033[32mfine\\033[0m\\n' >&2")
    change = coder.change(task := coder.turn(project, "write a.txt: one\\ntwo\\n"))
    check = ended(coder, change, "passed")
    assert (check["output"], check["exit_code"], check["detail"]) == ("1\nfine\n", 0, "ended with exit code 0")
    assert 0 < check["seconds"] < 30
    assert coder.get(f"/changes/{change['id']}")["check_state"] == "passed"
    log = coder.data / "logs" / str(task["id"]) / "check.log"
    assert log.read_bytes() == b"$ grep -c two a.txt && printf '\\033[32mfine\\033[0m\\n' >&2\n1\n\x1b[32mfine\x1b[0m\n"
    assert "ended with exit code 0" in coder.cli("change", "check", change["id"])


def test_a_check_that_fails_is_listed_and_run_again(coder: Coder, project: str) -> None:
    checked(coder, project, "echo no; test -f good || exit 3")
    change = coder.change(coder.turn(project, "write a.txt: one\\n"))
    check = ended(coder, change, "failed")
    assert (check["exit_code"], check["output"], check["fix_task"]) == (3, "no\n", None)
    assert [row["id"] for row in coder.get(f"/changes?project_id={project}&check=failed,skipped")["items"]] == [change["id"]]
    assert coder.get(f"/changes?project_id={project}&check=passed")["items"] == []
    coder.cli("change", "check", change["id"], code=1)
    Path(change["worktree"], "good").touch()
    coder.cli("change", "check", change["id"], "--again")
    ended(coder, change, "passed")
    assert [run["state"] for run in coder.get(f"/changes/{change['id']}/checks")["items"]] == ["passed", "failed"]
    runs = [line.split()[2] for line in coder.cli("change", "check", change["id"], "--all").splitlines()[1:]]
    assert runs == ["passed", "failed"]
    coder.approve(coder.get(f"/changes/{change['id']}"))
    assert "may hold other work" in coder.post(f"/changes/{change['id']}/check", 409)["detail"]


def test_a_check_that_hangs_is_ended_with_all_its_processes(coder: Coder, project: str) -> None:
    checked(
        coder, project, "sleep 600 & echo $! > pids; (setsid sleep 600 & echo $! >> pids); echo $$ >> pids; wait", "--check-seconds", "1"
    )
    change = coder.change(coder.turn(project, "write a.txt: one\\n"))
    check = ended(coder, change, "failed")
    assert (check["exit_code"], check["detail"]) == (None, "did not end within 1 s")
    pids = Path(change["worktree"], "pids").read_text().split()
    assert len(pids) == 3
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]


def test_a_check_that_floods_keeps_its_beginning_and_its_end(coder: Coder, project: str) -> None:
    checked(coder, project, "echo begin; head -c 60000000 /dev/zero | tr '\\000' x; echo; echo end; exit 1")
    change = coder.change(task := coder.turn(project, "write a.txt: one\\n"))
    check = ended(coder, change, "failed")
    assert check["output"].startswith("begin\nxxx")
    assert check["output"].endswith("x\nend\n")
    assert len(check["output"]) <= 65536
    assert "cut out here" in check["output"]
    assert (coder.data / "logs" / str(task["id"]) / "check.log").stat().st_size < 10_100_000


def test_a_failure_is_fed_back_to_the_agent_until_it_passes(coder: Coder, project: str) -> None:
    checked(coder, project, "test -f fixed || { touch fixed; echo 'a.txt is wrong'; exit 1; }", "--auto-fix", "3")
    first = coder.turn(project, "write a.txt: one\\n")
    fix = coder.until(lambda: coder.get(f"/changes/{first['change_id']}/check")["fix_task"])
    done = coder.ended(fix)
    assert done["input"].startswith("The project's check failed on your change: `test -f fixed")
    assert "ended with exit code 1. Correct the work" in done["input"]
    assert done["input"].endswith("\n\n    a.txt is wrong")
    assert done["session_id"] == first["session_id"]
    last = ended(coder, coder.change(done), "passed")
    assert (last["fixes"], last["fix_task"]) == (1, None)


def test_a_failure_is_fed_back_so_often_and_no_more(coder: Coder, project: str) -> None:
    checked(coder, project, "exit 1", "--auto-fix", "2")
    first = coder.turn(project, "write a.txt: one\\n")
    tasks = [first]
    for fixes in range(2):
        check = ended(coder, coder.change(tasks[-1]), "failed")
        assert check["fixes"] == fixes
        tasks.append(coder.ended(check["fix_task"]))
    assert (
        ended(coder, coder.change(tasks[-1]), "failed")["fixes"],
        len(coder.get(f"/tasks?session_id={first['session_id']}")["items"]),
    ) == (2, 3)
    person = coder.turn(project, "write b.txt: x", session=first["session_id"])
    assert ended(coder, coder.change(person), "failed")["fixes"] == 0, "somebody new has spoken"


def test_a_check_gives_way_to_the_next_turn(coder: Coder, project: str) -> None:
    checked(coder, project, "touch began; sleep 600")
    change = coder.change(coder.turn(project, "write a.txt: one\\n"))
    coder.until(lambda: Path(change["worktree"], "began").exists() or None)
    coder.turn(project, "write a.txt: two\\n", session=change["session_id"])
    check = ended(coder, change, "skipped")
    assert "gave way to the session's next turn" in check["detail"]


def test_a_check_is_run_again_after_a_kill(coder: Coder, project: str) -> None:
    checked(coder, project, "test -f go || { touch began; sleep 600; }")
    change = coder.change(coder.turn(project, "write a.txt: one\\n"))
    coder.until(lambda: Path(change["worktree"], "began").exists() or None)
    coder.kill()
    Path(change["worktree"], "go").touch()
    coder.start()
    ended(coder, change, "passed")


def test_a_check_is_put_back_by_a_service_that_stops(coder: Coder, project: str) -> None:
    checked(coder, project, "test -f go || { touch began; sleep 600; }")
    change = coder.change(coder.turn(project, "write a.txt: one\\n"))
    coder.until(lambda: Path(change["worktree"], "began").exists() or None)
    coder.stop()
    Path(change["worktree"], "go").touch()
    coder.start()
    ended(coder, change, "passed")
