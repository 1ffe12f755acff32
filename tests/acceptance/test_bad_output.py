"""Agents that say too much or what cannot be stored, that never end, that leave things behind, or that are not there."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bad_house import House, alive, open_house
from bad_model import DONE, HEADERS, Answer, BadModel, call, event, text

from coder.transcript import TEXT_BYTES, TOOL_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")
COMMAND_SECONDS = 2.0
OUTPUT = 5_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, template_database: str, model: BadModel
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    settings = {"model_base_url": model.url, "command_seconds": COMMAND_SECONDS}
    async with open_house(folder, postgres_server, template_database, **settings) as made:
        yield made


def runs(model: BadModel, line: str, command: str, said: str = "Done.") -> None:
    """Let a prompt that begins with a line run a command, then say something."""
    model.script(line, HEADERS + call("run", json.dumps({"command": command})) + DONE, HEADERS + text(said) + DONE)


async def only_call(house: House, task: dict[str, Any]) -> dict[str, Any]:
    (found,) = (await house.answer(task))["tool_calls"]
    return dict(found)


async def test_text_that_the_database_refuses(house: House, model: BadModel) -> None:
    """U+0000 and halves of surrogate pairs, in every place an agent can put them."""
    odd = "a\0b\ud800c\udfffd"
    clean = "a\ufffdb\ufffdc\ufffdd"
    arguments = json.dumps({"path": f"x{odd}", "content": odd})
    spoken = event({"role": "assistant", "reasoning_content": odd}) + event({"content": odd}) + event({"content": "\ud83d"})
    model.script(
        "odd text",
        HEADERS + spoken + event({"content": "\ude00"}) + call("write", arguments, f"id{odd}") + DONE,
        HEADERS + call("run", json.dumps({"command": "printf 'n\\000l \\377'"}), "c2") + DONE,
        HEADERS + call(f"no{odd}", "{}", "c3") + DONE,
        HEADERS + text(f"end {odd}") + DONE,
    )
    project = await house.project()
    done = await house.completed(project, "odd text")
    answer = await house.answer(done)
    assert answer["text"] == f"{clean}\U0001f600end {clean}"
    assert answer["reasoning"] == clean
    wrote, ran, unknown = answer["tool_calls"]
    assert wrote["id"] == f"id{clean}"
    assert json.loads(wrote["input"]) == {"path": f"x{clean}", "content": clean}
    assert ran["output"] == "n\ufffdl \ufffd"
    assert (unknown["name"], unknown["status"]) == (f"no{clean}", "failed")
    assert done["output_summary"] == answer["text"]
    change = await house.open_change(done, f"x{clean}")
    assert f"+{clean}" in change["diff"]
    assert (await house.completed(project, "once more", done["session_id"]))["output_summary"] == "Done."
    await house.at_rest()


async def test_five_megabytes_of_tool_output(house: House, model: BadModel) -> None:
    command = f"echo start; head -c {OUTPUT} /dev/zero | tr '\\0' x; echo; echo end; exit 3"
    runs(model, "much output", command)
    done = await house.completed(await house.project(), "much output")
    ran = await only_call(house, done)
    assert (ran["status"], ran["exit_code"]) == ("completed", 3)
    assert ran["output"].startswith("start\nxxx")
    assert ran["output"].endswith("xxx\nend\n[exit code 3]")
    whole = len("start\n") + OUTPUT + len("\nend\n")
    assert f" of {whole:,} bytes cut out here" in ran["output"]
    assert len(ran["output"].encode()) <= TOOL_BYTES
    log = (house.data / "logs" / str(done["id"]) / "agent.log").read_text()
    assert log.count("x") > OUTPUT
    assert "[exit code 3]" in log
    await house.at_rest()


async def test_a_megabyte_that_an_agent_writes_by_one_call(house: House, model: BadModel) -> None:
    content = "line\n" * 200_000
    model.script(
        "much input", HEADERS + call("write", json.dumps({"path": "big.txt", "content": content})) + DONE, HEADERS + text("ok") + DONE
    )
    project = await house.project()
    done = await house.completed(project, "much input")
    wrote = await only_call(house, done)
    assert wrote["status"] == "completed"
    assert len(wrote["input"].encode()) <= TOOL_BYTES
    assert "cut here" in wrote["input"]
    spilled = (house.data / "logs" / str(done["id"]) / "tool-1-input.txt").read_text()
    assert json.loads(spilled)["content"] == content
    change = await house.open_change(done, "big.txt")
    assert change["additions"] == 200_000
    await house.approved(change)
    assert (house.checkout(project) / "big.txt").read_text() == content
    await house.at_rest()


@pytest.mark.parametrize(("part", "field"), [("text", "content"), ("reasoning", "reasoning_content")])
async def test_more_than_a_megabyte_of_words(house: House, model: BadModel, part: str, field: str) -> None:
    pieces = [f"{number:07d} " * 8000 for number in range(25)]
    sent = [HEADERS, *(event({"role": "assistant", field: piece}) for piece in pieces), text("!"), DONE]
    model.script(f"long {part}", Answer(sent))
    done = await house.completed(await house.project(), f"long {part}")
    said = await house.answer(done)
    whole = "".join(pieces) + ("!" if part == "text" else "")
    assert len(whole) > TEXT_BYTES
    assert said[part] == whole[:TEXT_BYTES]
    (notice,) = done["notices"]
    assert all(words in notice for words in (f"{TEXT_BYTES:,} bytes", f"{part}.txt")), notice
    assert (house.data / "logs" / str(done["id"]) / f"{part}.txt").read_text() == whole
    assert len(done["output_summary"]) <= 500
    await house.at_rest()


async def test_a_command_that_never_ends(house: House, model: BadModel) -> None:
    runs(model, "endless command", "echo begun; echo $$ > pid; trap '' TERM; while :; do sleep 1000; done")
    project = await house.project()
    done = await house.completed(project, "endless command")
    ran = await only_call(house, done)
    assert (ran["status"], ran["exit_code"]) == ("failed", None)
    assert ran["output"].startswith("begun\n")
    assert f"ended after {COMMAND_SECONDS:g} s, the time limit" in ran["output"]
    assert not alive(int((await house.worktree(done["session_id"]) / "pid").read_text()))
    await house.open_change(done, "pid")
    await house.at_rest()


async def test_what_a_command_leaves_behind_is_gone(house: House, model: BadModel) -> None:
    hidden = "(trap '' TERM HUP; setsid sh -c 'trap \"\" TERM; echo $$ >> pids; sleep 1000' &)"
    runs(model, "left behind", f"mkfifo ready; sleep 1000 & echo $! >> pids; {hidden}; nohup sleep 1000 >/dev/null 2>&1 & echo $! >> pids; "
         "until [ $(wc -l < pids) -eq 3 ]; do :; done; rm ready; echo left")  # fmt: skip
    project = await house.project()
    done = await house.completed(project, "left behind")
    assert (await only_call(house, done))["output"] == "left\n"
    pids = [int(pid) for pid in (await house.worktree(done["session_id"]) / "pids").read_text().split()]
    assert len(pids) == 3
    assert [pid for pid in pids if alive(pid)] == []
    await house.at_rest()


async def test_a_task_that_takes_longer_than_its_timeout(house: House, model: BadModel) -> None:
    runs(model, "slow command", "echo $$ > pid; exec sleep 1000")
    model.script("silent", Answer([HEADERS + event({"role": "assistant", "content": "One"})], hold=True))
    project = await house.project()
    words = ["timeout of 1.5 s", "raise it"]
    soon = timedelta(seconds=1.5)
    failed = await house.failed("timeout", words, project, "slow command", timeout=soon)
    assert (await only_call(house, failed))["status"] == "failed"
    assert not alive(int((await house.worktree(failed["session_id"]) / "pid").read_text()))
    await house.open_change(failed, "pid")
    failed = await house.failed("timeout", words, project, "silent", failed["session_id"], timeout=soon)
    assert (await house.answer(failed))["text"] == "One"
    assert (await house.completed(project, "a good one", failed["session_id"], timeout=soon * 20))["output_summary"] == "Done."
    await house.at_rest()


async def test_an_agent_that_falls_silent(tmp_path: Path, postgres_server: str, template_database: str, model: BadModel) -> None:
    model.script("falls silent", Answer([HEADERS + event({"role": "assistant", "content": "One"})], hold=True))
    settings = {"model_base_url": model.url, "inactivity_seconds": 2}
    async with open_house(tmp_path, postgres_server, template_database, **settings) as house:
        project = await house.project()
        failed = await house.failed("timeout", ["silent", "CODER_INACTIVITY_SECONDS", "2 s"], project, "falls silent")
        assert (await house.answer(failed))["text"] == "One"
        await house.completed(project, "a good one", failed["session_id"])
        await house.at_rest()


async def test_an_agent_that_is_not_there(house: House) -> None:
    lenient, strict = await house.project(), await house.project(agent_fallback="fail")
    done = await house.completed(lenient, "hello", agent="no-such-agent")
    assert (done["agent"], done["agent_used"], done["execution_path"]) == ("no-such-agent", "native", "native")
    (notice,) = done["notices"]
    assert all(words in notice for words in ("no-such-agent", "not available", "native"))
    failed = await house.failed(
        "agent_unavailable", ["no-such-agent", "not available", "agent_fallback"], strict, "hello", agent="no-such-agent"
    )
    assert (failed["agent"], failed["agent_used"], failed["execution_path"]) == ("no-such-agent", None, None)
    assert await house.sql.fetchval("select count(*) from session_worktrees where session_id = $1", failed["session_id"]) == 0
    for agent in ("native", "", "  ", None):
        done = await house.completed(strict, "hello", failed["session_id"], agent=agent)
        assert (done["agent"], done["agent_used"], done["notices"]) == (agent.strip() or None if agent else None, "native", [])
    await house.at_rest()


async def test_the_environment_of_commands_holds_no_secret(house: House, model: BadModel) -> None:
    os.environ["CODER_TEST_SECRET"] = "hunter2"
    try:
        runs(model, "environment", "env")
        done = await house.completed(await house.project(), "environment")
    finally:
        del os.environ["CODER_TEST_SECRET"]
    output = (await only_call(house, done))["output"]
    assert "PATH=" in output
    assert "hunter2" not in output
    assert "postgresql://" not in output
    await house.at_rest()
