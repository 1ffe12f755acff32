"""`coder watch` and `coder chat` as people use them: on a terminal, and in a script."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from typing import Any

import pytest
from agents.scripted import script
from livebench import LiveHouse, free_port
from tab import TOKEN

TOLD = script(
    ["think", "let me see. "],
    ["many", 40, 0.005, "word"],
    ["tool", "a", "running", ""],
    ["gate", "middle"],
    ["tool", "a", "completed", "made"],
    ["many", 40, 0.005, "more"],
    ["gate", "end"],
    ["say", "the end"],
)
TEXT = "".join(f"{word}{number} " for word in ("word", "more") for number in range(40)) + "the end"


def plain(shown: str) -> str:
    """What a terminal shows without coder's own lines, tools and typed lines: what the agent said."""
    own = ("──", "▸", "✓", "✗", ">", "  ", "let me see")
    return "".join(line for line in shown.splitlines() if line and not line.startswith(own))


async def command(house: LiveHouse, *arguments: str, stdin: str = "", **settings: str) -> tuple[int, str, str]:
    """Run a command without a terminal; answers its exit code and what it printed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CODER_")}
    given = {f"CODER_{name.upper()}": value for name, value in {"database_url": house.dsn, **settings}.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coder", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        cwd=house.folder, env=environment | given,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_two_terminals_see_a_turn_whole_while_the_api_is_killed_and_started_again(house: LiveHouse) -> None:
    here, port = str(house.folder / "here"), str(free_port())
    api, _ = await asyncio.gather(house.process("api", data_dir=here, port=port), house.process("dispatch"))
    task, session = await house.add(TOLD)
    beside = await house.terminal("watch", str(task), data_dir=here)
    elsewhere = await house.terminal("watch", session, url=api.url, token=TOKEN, database_url="postgresql://127.0.0.1:1/none")
    for terminal in (beside, elsewhere):
        await terminal.until("word39 ")
    await api.kill()
    for terminal in (beside, elsewhere):
        await terminal.until("── the line broke; trying again\n")
    house.open_gate("middle")
    await house.until("select count(*) > 0 from frames where payload::text like '%more39%'")
    await house.process("api", data_dir=here, port=port)
    for terminal in (beside, elsewhere):
        await terminal.until("── the line holds again\n")
        await terminal.until("more39 ")
    house.open_gate("end")
    assert await beside.ended() == 0
    await elsewhere.until(f"── task {task} completed")
    elsewhere.type("\x03")
    assert await elsewhere.ended() == 130
    for terminal in (beside, elsewhere):
        assert plain(terminal.shown.split("nothing was stopped")[0].replace("^C", "")) == TEXT
        assert terminal.shown.count("let me see. ") == 1 + terminal.shown.count('"let me see. "')
        assert terminal.shown.count("▸ run make\n") == terminal.shown.count("✓ run make\n  made\n") == 1


async def test_a_watch_ends_as_its_task_does_also_when_the_dispatcher_died(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    api, dispatcher = await asyncio.gather(house.process("api"), house.process("dispatch", data_dir=here))
    task, _ = await house.add(TOLD)
    terminal = await house.terminal("watch", str(task), url=api.url, token=TOKEN)
    await terminal.until("word39 ")
    await dispatcher.kill()
    await house.process("dispatch", data_dir=here)
    assert await terminal.ended() == 4
    assert f"── task {task} was interrupted; `coder task resume {task}`, `retry` or `dismiss` decides" in terminal.shown
    failing, _ = await house.add(script(["say", "so far"], ["fail", "The model has no more credit."]))
    code, out, _ = await command(house, "watch", str(failing), url=api.url, token=TOKEN)
    assert code == 1
    assert "so far\n" in out
    assert "The model has no more credit." in out
    for _ in range(2):  # while it runs or after it, it is told the same
        waiting, _ = await house.add(script(["gate", "never"]))
        await house.sql.execute("select coder.cancel($1)", waiting)
        assert (await command(house, "watch", str(waiting), url=api.url, token=TOKEN))[0] == 3
    assert (await command(house, "watch", str(failing), url=api.url, token=TOKEN))[:2] == (1, out)
    talking, session = await house.add(script(["many", 100_000, 0.01, "word"]))
    behind, _ = await house.add("x", session)
    await house.until("select state = 'running' from tasks where id = $1", talking)  # else it waits for a dispatcher, as that one does
    terminal = await house.terminal("watch", str(behind), url=api.url, token=TOKEN)
    await terminal.until(f"── task {behind} is pending: an earlier task of its session runs\n")
    await house.sql.execute("select coder.cancel($1)", behind)
    assert await terminal.ended() == 3
    assert terminal.shown.endswith(f"── task {behind} cancelled\n"), "of the other task nothing was shown"
    await house.sql.execute("select coder.cancel($1)", talking)


async def test_what_an_agent_asks_is_answered_from_the_keyboard(house: LiveHouse) -> None:
    await house.sql.execute("update projects set permission_policy = 'ask'")
    here = str(house.folder / "here")
    await house.process("all", data_dir=here)
    steps = [["ask", "make install"], ["say", " and "], ["gate", "go"], ["ask", "make \x1b[2Jclean"]]
    task, session = await house.add(script(*steps))
    terminal = await house.terminal("watch", str(task), data_dir=here)
    await terminal.until("or n and why not\n> ")
    assert "── the agent asks whether it may use bash\n   make install\n" in terminal.shown
    terminal.type("what?\n")
    await terminal.until(lambda shown: shown.count("or n and why not\n> ") == 2)
    terminal.type("y\n")
    await terminal.until("── allowed this once\n")
    await terminal.until("allowed and")
    terminal.type("y\n")  # typed before anything is asked, it answers nothing
    house.open_gate("go")
    await terminal.until(lambda shown: shown.count("or n and why not\n> ") == 3)
    assert "   make \\x1b[2Jclean\n" in terminal.shown
    terminal.type("n leave it\n")
    assert await terminal.ended() == 0
    assert "── denied; the agent goes on without it\n" in terminal.shown
    rows = await house.sql.fetch("select state, message from permissions where task_id = $1 order by requested_at", task)
    assert [tuple(row) for row in rows] == [("allowed_once", None), ("denied", "leave it")]
    again, _ = await house.add(script(["ask", "make test"]), session)
    first, second = await house.terminal("watch", session, data_dir=here), await house.terminal("watch", str(again), data_dir=here)
    for each in (first, second):
        await each.until("   make test\n")
    first.type("s\n")
    assert await second.ended() == 0
    assert "── that is answered\n" in second.shown, "whoever did not answer it sees that somebody did"
    assert await house.sql.fetchval("select count(*) from permission_rules where session_id is not null") == 1
    await first.until(f"── task {again} completed")


async def test_a_task_that_waits_for_its_endpoint_is_counted_down(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    await house.process("all", data_dir=here)
    task, _ = await house.add(script(["say", "first "], ["retry", 0, 7.0], ["gate", "go"], ["say", "then"]))
    terminal = await house.terminal("watch", str(task), data_dir=here)
    await terminal.until("── the model's endpoint: The model is overloaded. (529); it is asked again in 7 s\n")
    await terminal.until(f"\r\x1b[K   7 s; `coder task retry-now {task}` asks it at once")
    await terminal.until("\r\x1b[K   6 s; ")
    house.open_gate("go")
    assert await terminal.ended() == 0
    assert "\r\x1b[Kthen\n" in terminal.shown


async def test_a_session_is_talked_to(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    await house.process("all", data_dir=here)
    terminal = await house.terminal("chat", "--project", "shop", data_dir=here)
    await terminal.until("> ")
    terminal.type(script(["say", "Hello, you."]) + "\n")
    await terminal.until(lambda shown: "Hello, you.\n── task 1 completed\n> " in shown)
    terminal.type(script(["say", "On it. "], ["gate", "never"]) + "\n")
    await terminal.until("── task 2, native\nOn it. ")
    terminal.type("\x03")
    await terminal.until("── task 2 is being cancelled; Ctrl-C again leaves\n")
    await terminal.until(lambda shown: shown.endswith("── task 2 cancelled\n> "))
    terminal.type(" \n" + "x" * 3 + "\n")  # what is no script fails
    await terminal.until(lambda shown: "── task 3 failed" in shown and shown.endswith("> "))
    await house.sql.execute("update sessions set on_failure = 'hold'")
    terminal.type("y\n")
    await terminal.until(lambda shown: "── task 4 failed" in shown and shown.endswith("> "))
    terminal.type("z\n")
    await terminal.until("── task 5 is pending: an earlier task of its session waits for resume, retry or dismiss\n")
    terminal.type("\x04")
    assert await terminal.ended() == 0
    sessions = await house.sql.fetch("select distinct session_id from tasks")
    assert len(sessions) == 1
    terminal = await house.terminal("chat", str(sessions[0][0])[:8], data_dir=here)
    await terminal.until(lambda shown: "── earlier messages: `coder session show" in shown and shown.endswith("> "))
    assert terminal.shown.endswith("> xxx\n── task 3 failed\n> y\n── task 4 failed\n── task 5 waits: z\n> ")


async def test_a_script_talks_and_gets_the_first_outcome_that_is_not_completed(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    await house.process("all", data_dir=here)
    good, bad = script(["say", "good"]), script(["fail", "No."])
    code, out, err = await command(house, "chat", "--project", "shop", data_dir=here, stdin=f"{good}\n\n{good}")
    assert (code, err) == (0, "")
    assert out.count("good\n── task") == 2
    session = str(await house.sql.fetchval("select session_id from tasks limit 1"))
    code, out, _ = await command(house, "chat", session, data_dir=here, stdin=f"{bad}\n{good}\n")
    assert code == 1
    assert out.endswith("good\n── task 4 completed\n")
    code, out, err = await command(house, "chat", session, data_dir=here, stdin="\0\n")
    assert code == 1
    assert "U+0000" in err
    assert (await command(house, "chat", session, data_dir=here))[0] == 0
    shell = ("sh", "-c", f"exec {sys.executable} -m coder chat {session} <&-")
    closed = await asyncio.create_subprocess_exec(
        *shell, cwd=house.folder, env={**os.environ, "CODER_DATABASE_URL": house.dsn, "CODER_DATA_DIR": here}
    )
    assert await closed.wait() == 0


async def test_frames_as_json_lines(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    await house.process("all", data_dir=here)
    task, session = await house.add(script(["say", "ü"], ["notice", "a notice"]))
    await house.ended(task)
    code, out, err = await command(house, "watch", str(task), "--json", data_dir=here)
    (history,) = [json.loads(line) for line in out.splitlines()]
    assert (code, err, history["type"], history["session_id"]) == (0, "", "session_history", session)
    code, out, err = await command(house, "chat", session, "--json", data_dir=here, stdin=script(["say", "x"]))
    frames = [json.loads(line) for line in out.splitlines()]
    kinds = [frame["type"] for frame in frames]
    assert (code, err) == (0, "")
    assert {"session_history", "accepted", "turn_started", "delta", "message_complete", "turn_ended"} <= set(kinds)
    assert kinds[-1] == "turn_ended"


@pytest.mark.parametrize("given", [("watch", "1"), ("chat", "--project", "shop")], ids=["watch", "chat"])
async def test_without_a_service_one_sentence_says_what_to_set(house: LiveHouse, given: tuple[str, ...]) -> None:
    await house.add("x")
    code, out, err = await command(house, *given, data_dir=str(house.folder), stdin="hello\n")
    assert (code, out) == (6, "")
    assert err == (
        "coder: No coder with an API runs on this data directory; start one with `coder up`, "
        "or set CODER_URL and CODER_TOKEN to those of one that runs elsewhere.\n"
    )


async def test_what_cannot_be_watched(house: LiveHouse) -> None:
    api = await house.process("api")
    there: Any = {"url": api.url, "token": TOKEN}
    for arguments, code, words in (
        (("watch", "12"), 2, "There is no task 12, nor a session whose id begins so"),
        (("watch", "x"), 2, "'x' is not an id"),
        (("watch", "abcd"), 2, "There is no session whose id begins with abcd"),
        (("chat",), 2, "Name the SESSION to talk to, or the --project"),
        (("chat", "abcd", "--project", "shop"), 2, "Name the SESSION to talk to, or the --project"),
    ):
        found = await command(house, *arguments, **there)
        assert (found[0], found[1]) == (code, ""), found
        assert words in found[2]
        assert found[2].count("\n") == 1
    _, session = await house.add("x")
    assert (await command(house, "watch", session, url=api.url, token="wrong"))[0] == 6
    code, _, err = await command(house, "chat", "--project", "nowhere", **there, stdin="hello\n")
    assert code == 1
    assert "nowhere" in err


async def test_a_watch_that_is_stopped_stops_nothing(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    await house.process("all", data_dir=here)
    task, _ = await house.add(script(["say", "begun"], ["gate", "go"]))
    for number in (signal.SIGINT, signal.SIGTERM):
        terminal = await house.terminal("watch", str(task), data_dir=here)
        await terminal.until("begun")
        assert terminal.process is not None
        terminal.process.send_signal(number)
        assert await terminal.ended() == 130
        assert f"nothing was stopped; `coder watch {task}` watches it again\n" in terminal.shown
    house.open_gate("go")
    await house.ended(task)
    assert await house.sql.fetchval("select state from tasks where id = $1", task) == "completed"


async def test_a_watch_whose_token_is_revoked_ends_with_a_sentence(house: LiveHouse) -> None:
    api = await house.process("api", ping_seconds="0.3")
    await house.sql.execute("insert into api_tokens (name, hash) values ('guest', $1)", hashlib.sha256(b"guest-token").digest())
    task, _ = await house.add("x")
    terminal = await house.terminal("watch", str(task), url=api.url, token="guest-token")
    await terminal.until(f"── task {task} is pending: for a dispatcher with a free slot\n")
    await house.sql.execute("update api_tokens set revoked_at = now() where name = 'guest'")
    assert await terminal.ended() == 6
    assert terminal.shown.endswith("coder: The token or login of this socket holds no longer; connect again with another.\n")
