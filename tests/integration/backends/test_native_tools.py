"""The native agent's tools in a real worktree, without a model."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
from pathlib import Path

import pytest
from turns import make_worktree

from coder.backends.confine import Refused
from coder.backends.guardian import Guardians
from coder.backends.native_tools import Tools
from coder.backends.turn_log import TurnLog

OUTPUT_BYTES = 4_000


@pytest.fixture
def worktree(tmp_path: Path) -> Path:
    root = make_worktree(tmp_path / "worktree")
    (root / "src").mkdir()
    (root / "src/main.py").write_text("def main():\n    return 42\n")
    (root / "README").write_text("A project.\nIts answer is 42.\n")
    (root / ".gitignore").write_text("ignored/\n")
    (root / "ignored").mkdir()
    (root / "ignored/secret").write_text("42\n")
    return root


@pytest.fixture
def tools(worktree: Path, tmp_path: Path) -> Tools:
    return _tools(worktree, worktree, tmp_path)


def _tools(worktree: Path, cwd: Path, folder: Path, seconds: float = 60) -> Tools:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    log = TurnLog(folder / "turn.log", "sk-key")
    return Tools(worktree, cwd, Guardians(), log, environment=environment, command_seconds=seconds, output_bytes=OUTPUT_BYTES)


def _git(worktree: Path, *arguments: str) -> None:
    subprocess.run(("git", *arguments), cwd=worktree, check=True, stdin=subprocess.DEVNULL)


async def test_a_directory_is_listed_without_git(tools: Tools) -> None:
    assert (await tools.list()).text.split() == [".gitignore", "README", "ignored/", "src/"]
    assert (await tools.list("src")).text == "main.py"


async def test_a_recursive_list_holds_what_git_does_not_ignore_and_is_there(tools: Tools, worktree: Path) -> None:
    _git(worktree, "add", "README")
    (worktree / "README").unlink()
    (worktree / "a*b").write_text("x")
    (worktree / os.fsdecode(b"latin-\xe9")).write_text("x")
    assert (await tools.list(recursive=True)).text.split("\n") == [".gitignore", "a*b", "latin-\ufffd", "src/main.py"]
    assert (await tools.list("src", recursive=True)).text == "src/main.py"
    with pytest.raises(OSError, match="Not a directory"):
        await tools.list("src/main.py")
    for call in (tools.list("nothing"), tools.list("nothing", recursive=True), tools.search("x", "nothing"), tools.read("nothing")):
        with pytest.raises(FileNotFoundError):
            await call


async def test_a_long_list_is_cut_and_says_so(tools: Tools, worktree: Path) -> None:
    (worktree / "many").mkdir()
    for number in range(1_003):
        (worktree / f"many/{number:04}").touch()
    for recursive in (False, True):
        text = (await tools.list("many", recursive)).text
        assert text.endswith("[… 3 more; list a directory below]")


async def test_lines_are_read_by_range(tools: Tools, worktree: Path) -> None:
    (worktree / "long").write_text("".join(f"line {n}\n" for n in range(1, 2_500)))
    assert (await tools.read("README")).text == "A project.\nIts answer is 42."
    assert (await tools.read("long", 3, 2)).text == "line 3\nline 4\n[lines 3-4 of 2499]"
    assert (await tools.read("long")).text.endswith("\n[lines 1-2000 of 2499]")
    assert "nothing from line 5000" in (await tools.read("long", 5_000)).text


async def test_reading_is_bounded_in_bytes(tools: Tools, worktree: Path) -> None:
    (worktree / "wide").write_text("x" * 5_000 + "\n" + "y\n")
    (worktree / "thick").write_text(("z" * 1_000 + "\n") * 500)
    assert "[… 3,000 characters of this line cut]\ny" in (await tools.read("wide")).text
    thick = (await tools.read("thick")).text
    assert len(thick) < 110_000
    assert thick.endswith("[lines 1-99 of 500]")
    with (worktree / "huge").open("wb") as huge:
        huge.truncate(20_000_000)
    with pytest.raises(Refused, match="too many to hold"):
        await tools.read("huge")


async def test_other_encodings_are_read_and_binaries_are_not(tools: Tools, worktree: Path) -> None:
    (worktree / "latin").write_bytes("café\r\nthé\r\n".encode("latin-1"))
    (worktree / "binary").write_bytes(b"\x7fELF\x00\x01")
    assert (await tools.read("latin")).text == "café\nthé"
    with pytest.raises(Refused, match="binary file of 6 bytes"):
        await tools.read("binary")
    with pytest.raises(Refused, match="is a directory"):
        await tools.read("src")
    assert (await tools.read("src/../README")).text.startswith("A project")


async def test_lines_are_found_in_files_git_does_not_ignore(tools: Tools, worktree: Path) -> None:
    assert (await tools.search(r"\b42\b")).text.split("\n") == ["README:2:Its answer is 42.", "src/main.py:2:    return 42"]
    assert (await tools.search("42", "src")).text == "src/main.py:2:    return 42"
    assert (await tools.search("42", "src/main.py")).text == "src/main.py:2:    return 42"
    assert (await tools.search("42", glob="*.py")).text == "src/main.py:2:    return 42"
    assert (await tools.search("42", "src", "*.txt")).text == "[no line matches 42]"
    with pytest.raises(Refused, match="git could not do that"):
        await tools.search("(unclosed")


async def test_a_search_is_bounded(tools: Tools, worktree: Path) -> None:
    (worktree / "many").write_text("needle\n" * 700)
    (worktree / "wide").write_text("pin" + "x" * 1_000)
    assert (await tools.search("needle")).text.endswith("[… 200 more lines; search more exactly]")
    assert len((await tools.search("pin")).text) < 350


async def test_paths_start_from_the_working_directory(worktree: Path, tmp_path: Path) -> None:
    tools = _tools(worktree, worktree / "src", tmp_path)
    assert (await tools.read("main.py")).text.startswith("def main")
    assert (await tools.search("42")).text == "main.py:2:    return 42"
    assert (await tools.search("42", "..")).text.startswith("../README:2")
    assert (await tools.list(recursive=True)).text == "main.py"
    assert (await tools.run("pwd")).text.strip() == str(worktree / "src")


async def test_the_repositorys_own_programs_do_not_run(tools: Tools, worktree: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for name in ("core.fsmonitor", "core.pager", "diff.external"):
        _git(worktree, "config", name, str(trap))
    await tools.list(recursive=True)
    await tools.search("42")
    assert not (tmp_path / "sprung").exists()


async def test_an_edit_keeps_mode_endings_and_encoding(tools: Tools, worktree: Path) -> None:
    script = worktree / "script.sh"
    script.write_bytes("#!/bin/sh\r\necho café\r\n".encode("latin-1"))
    script.chmod(0o755)
    assert (await tools.edit("script.sh", "echo café", "echo thé\necho fin")).text == "Replaced 1 occurrence in script.sh."
    assert script.read_bytes() == "#!/bin/sh\r\necho thé\r\necho fin\r\n".encode("latin-1")
    assert stat.S_IMODE(script.stat().st_mode) == 0o755


async def test_an_edit_that_is_not_exact_changes_nothing(tools: Tools, worktree: Path) -> None:
    before = (worktree / "README").read_bytes()
    for old in ("not there", "", "s"):
        with pytest.raises(Refused):
            await tools.edit("README", old, "new")
    assert (worktree / "README").read_bytes() == before
    (worktree / "binary").write_bytes(b"a\x00")
    with pytest.raises(Refused, match="binary"):
        await tools.edit("binary", "a", "b")


async def test_writing_makes_directories_and_replaces(tools: Tools, worktree: Path) -> None:
    assert (await tools.write("new/dir/file", "text\n")).text == "Wrote new/dir/file."
    assert (worktree / "new/dir/file").read_text() == "text\n"
    (worktree / "README").chmod(0o600)
    assert (await tools.write("README", "new\n")).text == "Replaced README."
    assert (worktree / "README").read_text() == "new\n"
    assert stat.S_IMODE((worktree / "README").stat().st_mode) == 0o600
    with pytest.raises(Refused, match="is a directory"):
        await tools.write("src", "text")
    assert [name for name in os.listdir(worktree) if name.endswith(".tmp")] == []


async def test_writing_through_a_symlink_inside_changes_its_target(tools: Tools, worktree: Path) -> None:
    (worktree / "alias").symlink_to("src/main.py")
    await tools.write("alias", "x\n")
    assert (worktree / "alias").is_symlink()
    assert (worktree / "src/main.py").read_text() == "x\n"


@pytest.mark.parametrize("path", ["../out", "/tmp/out", "link/out", "linked", ".git/hooks/pre-commit", ".git"])
async def test_no_tool_reaches_out_of_the_worktree(tools: Tools, worktree: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "out").write_text("original\n")
    (worktree / "link").symlink_to("..")
    (worktree / "linked").symlink_to("../out")
    for call in (
        tools.read(path),
        tools.write(path, "x"),
        tools.edit(path, "original", "x"),
        tools.list(path),
        tools.list(path, recursive=True),
        tools.search("original", path),
    ):
        with pytest.raises(Refused):
            await call
    assert (tmp_path / "out").read_text() == "original\n"


async def test_a_command_gives_output_and_exit_code(tools: Tools, tmp_path: Path) -> None:
    answer = await tools.run("echo out; echo err >&2; exit 7")
    assert (answer.text, answer.exit_code) == ("out\nerr\n[exit code 7]", 7)
    assert (await tools.run("true")).text == "[exit code 0]"
    assert (await tools.run("cat")).exit_code == 0
    assert "$ echo out" in (tmp_path / "turn.log").read_text()


async def test_long_output_keeps_its_head_and_tail_and_says_what_was_cut(tools: Tools, tmp_path: Path) -> None:
    text = (await tools.run("echo first; seq 1 100000; echo last")).text
    assert len(text.encode()) <= OUTPUT_BYTES
    assert text.startswith("first\n1\n2\n")
    assert text.endswith("99999\n100000\nlast\n")
    assert "of 588,906 bytes cut out here]" in text
    assert "\n50000\n" in (tmp_path / "turn.log").read_text()


async def test_a_command_over_its_time_is_ended_with_what_it_started(worktree: Path, tmp_path: Path) -> None:
    tools = _tools(worktree, worktree, tmp_path, seconds=1)
    with pytest.raises(Refused, match=r"(?s)begun.*ended after 1 s"):
        await tools.run("echo begun; (setsid sleep 1000) & echo $! > pid; sleep 1000")
    with pytest.raises(ProcessLookupError):
        os.kill(int((worktree / "pid").read_text()), 0)
    with pytest.raises(Refused, match=r"ended after 0\.2 s"):
        await tools.run("sleep 1000", seconds=0.2)


async def test_what_a_command_leaves_behind_is_ended(tools: Tools, worktree: Path) -> None:
    answer = await tools.run("sleep 1000 & echo $! > pid; echo started")
    assert (answer.text, answer.exit_code) == ("started\n", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(int((worktree / "pid").read_text()), 0)


async def test_a_cancelled_command_is_ended(tools: Tools, worktree: Path) -> None:
    os.mkfifo(worktree / "pid")
    running = asyncio.ensure_future(tools.run("echo $$ > pid; sleep 1000"))
    pid = int(await asyncio.to_thread((worktree / "pid").read_text))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_log_is_bounded_and_holds_no_key(tools: Tools, tmp_path: Path) -> None:
    await tools.run("head -c 11000000 /dev/zero; : sk-key")
    log = (tmp_path / "turn.log").read_bytes()
    assert len(log) < 10_001_000
    assert b"output beyond 10 MB is not logged" in log
    assert b"sk-key" not in log


async def test_a_command_needs_its_working_directory(worktree: Path, tmp_path: Path) -> None:
    tools = _tools(worktree, worktree / "src", tmp_path)
    await tools.run("rm -r ../src")
    with pytest.raises(Refused, match="is gone"):
        await tools.run("true")
    await tools.write("main.py", "back\n")
    assert (await tools.run("ls")).text == "main.py\n"
