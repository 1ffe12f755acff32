"""Turns of plain programs in a pseudo-terminal."""

from __future__ import annotations

import asyncio
import os
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from guarded_processes import until
from pty_turns import chat, registered, shell
from turns import Played
from watched import Watched

from coder.agents import AgentSpec
from coder.errors import AgentUnavailable, DiskFull, ProviderError
from coder.events import AgentEvent, Notice, TextDelta
from coder.task import AgentSession, ExecutionPath

STANDIN = (sys.executable, str(Path(__file__).parents[2] / "agents" / "pty_standin.py"))


async def play(folder: Path, spec: AgentSpec, prompt: str = "hello", **values: Any) -> Played:
    async with chat(folder, spec) as talk:
        return await talk.play(prompt, **values)


def python(program: str) -> AgentSpec:
    return AgentSpec(protocol="pty", command=(sys.executable, "-c", textwrap.dedent(program)))


async def test_a_program_runs_in_the_worktree_and_what_it_shows_is_the_answer(tmp_path: Path) -> None:
    script = 'printf "\\033[1mYou said\\033[0m %s\\n" "$1"; pwd > where; echo to the other stream >&2; printf "10%%\\r100%%\\nno end"'
    async with chat(tmp_path, shell(script)) as talk:
        played = await talk.play("do it; $(not this)")
        assert Path((talk.worktree / "where").read_text().strip()) == talk.worktree
    assert played.error is None
    assert played.transcript.text == "You said do it; $(not this)\nto the other stream\n100%\nno end"
    assert played.transcript.notices == ()
    assert "exit code 0" in played.log
    assert "not this" not in played.log


async def test_it_has_a_terminal_of_its_own_without_anybody_at_it(tmp_path: Path) -> None:
    script = """
        import os, sys
        print(os.isatty(1), os.isatty(2), os.isatty(0), sys.stdin.read())
        print(os.get_terminal_size(), os.environ["TERM"])
        keyboard = os.open("/dev/tty", os.O_RDWR)
        print(os.tcgetpgrp(keyboard) == os.getpgrp(), os.getsid(0) == os.getpid())
    """
    spec = AgentSpec(protocol="pty", command=(sys.executable, "-c", textwrap.dedent(script), "{prompt}"))
    played = await play(tmp_path, spec)
    assert played.transcript.text.splitlines() == [
        "True True False",
        "os.terminal_size(columns=200, lines=50) xterm-256color",
        "True True",
    ]


async def test_a_command_without_a_place_for_the_prompt_gets_it_at_its_input(tmp_path: Path) -> None:
    prompt = "--not an option\n" + "ü" * 300_000
    async with chat(tmp_path, python("import sys; p = sys.stdin.read(); print(len(p), p[:15])")) as talk:
        played = await talk.play(prompt)
        assert played.transcript.text == f"{len(prompt)} --not an option\n"
        assert list((tmp_path / "homes").rglob("*.txt")) == []


async def test_a_prompt_that_is_too_long_for_an_argument_is_a_file_that_it_names(tmp_path: Path) -> None:
    prompt = "y" * 200_000
    async with chat(
        tmp_path, shell('echo "$1"; file=${1#*the file }; file=${file%%: *}; wc -c < "$file"; ls -l "$file" | cut -c1-10')
    ) as talk:
        played = await talk.play(prompt)
        said, size, rights = played.transcript.text.splitlines()
        assert said.startswith("Your task is in the file /")
        assert (size, rights) == ("200000", "-rw-------")
        assert list((tmp_path / "homes").rglob("*.txt")) == []


async def test_placeholders_are_filled_in_arguments_and_variables(tmp_path: Path) -> None:
    spec = shell('echo "$2|$3|$4|$MODE"', env={"MODE": "{mode} in {worktree}"}, default_mode="calm")
    spec = spec.model_copy(update={"command": (*spec.command, "-m", "{model}", "{home}")})
    async with chat(tmp_path, spec, default_model="") as talk:
        with_model = await talk.play("x", model="m7")
        without = await talk.play("x", mode_id="wild", thinking_option_id="high")
        worktree = talk.worktree
    home = tmp_path / "homes/0/plain"
    assert with_model.transcript.text == f"-m|m7|{home}|calm in {worktree}\n"
    assert without.transcript.text == f"{home}|||wild in {worktree}\n"
    assert any("cannot be given a thinking" in notice for notice in without.transcript.notices)


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("echo first; echo the reason >&2; exit 3", ProviderError, ("plain failed with exit code 3", "the reason")),
        ("exit 1", ProviderError, ("exit code 1", "said nothing")),
        ("echo dying; kill -9 $$", ProviderError, ("signal SIGKILL", "dying")),
        ("kill -s USR1 $$", ProviderError, ("signal SIGUSR1",)),
        ("exec /no/such/program", AgentUnavailable, ("plain is not available", "/no/such/program")),
    ],
)
async def test_how_it_ends_is_how_the_turn_ends(tmp_path: Path, script: str, kind: type[Exception], words: tuple[str, ...]) -> None:
    played = await play(tmp_path, shell(script, continue_command=("true",)))
    assert isinstance(played.error, kind)
    for word in words:
        assert word in played.error.message
    assert played.session is None
    if "echo" in script:
        assert played.transcript.text


async def test_a_missing_program_is_said_so(tmp_path: Path) -> None:
    spec = AgentSpec(protocol="pty", command=("no-such-agent", "{prompt}"), install="cargo install it")
    async with chat(tmp_path, spec) as talk:
        played = await talk.play("x")
        assert isinstance(played.error, AgentUnavailable)
        assert "no-such-agent" in played.error.message
        (facts,) = await talk.backend.probe()
    assert (facts.available, facts.install, facts.execution_path) == (False, "cargo install it", ExecutionPath.PTY)


async def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    played = await play(tmp_path, shell("echo hello"), log=tmp_path / "full")
    assert isinstance(played.error, DiskFull)
    assert str(tmp_path) in played.error.message


async def test_a_probe_tells_the_version(tmp_path: Path) -> None:
    async with chat(tmp_path, shell("", version_command=("sh", "-c", "echo; echo careful >&2; echo thing 1.2.3"), models=("m2",))) as talk:
        (facts,) = await talk.backend.probe()
    assert (facts.available, facts.version, facts.models, facts.path) == (True, "1.2.3", ("m1", "m2"), "/bin/sh")
    (tmp_path / "other").mkdir()
    async with chat(tmp_path / "other", shell("", version_command=("sh", "-c", "echo broken; exit 4"))) as talk:
        (facts,) = await talk.backend.probe()
    assert (facts.available, facts.version) == (True, None)
    assert "ended with 4: broken" in facts.detail


async def test_watchers_see_it_as_it_comes(tmp_path: Path) -> None:
    """The first line comes out while the program waits to be told that it did."""
    script = "echo early; echo more; printf working; cat go; echo; echo late"
    async with chat(tmp_path, shell(script)) as talk:
        os.mkfifo(talk.worktree / "go")
        seen: list[str] = []
        async with talk.backend.run_turn(talk.turn("x")) as live, asyncio.timeout(30):
            async for event in live.events:
                assert isinstance(event, TextDelta)
                seen += [event.text] if event.text else []
                if event.text and "".join(seen) == "early\nmore\n":
                    await asyncio.to_thread((talk.worktree / "go").write_text, "!")
    assert "".join(seen) == "early\nmore\nworking!\nlate\n"


async def test_a_child_is_a_tool_where_the_output_does_not_tell(tmp_path: Path) -> None:
    async with chat(tmp_path, shell("echo $$; read line < go; sleep 1000; true")) as talk:
        os.mkfifo(talk.worktree / "go")
        async with talk.backend.run_turn(talk.turn("x")) as live, asyncio.timeout(30):
            reading = asyncio.ensure_future(_read(live.events))
            go = await asyncio.to_thread((talk.worktree / "go").open, "w")
            assert not live.busy_with_tool()
            go.write("on\n")
            go.close()
            await until(live.busy_with_tool)
            reading.cancel()
        assert not live.busy_with_tool()


@pytest.mark.parametrize(("seconds", "signs"), [(3600.0, 3), (0.001, 1)])
async def test_something_that_only_turns_on_the_screen_is_a_sign_of_life_for_a_while(tmp_path: Path, seconds: float, signs: int) -> None:
    """The first event is told before the program starts, so that a turn that did something was always seen."""
    spinner = 'import sys\nwhile True: sys.stdout.write("\\r|" "\\r/")'
    async with chat(tmp_path, python(spinner), tool_seconds=seconds, inactivity_seconds=0.3) as talk:
        events: list[AgentEvent] = []
        async with talk.backend.run_turn(talk.turn("x")) as live:
            reading = asyncio.ensure_future(_read(live.events, events))
            async with asyncio.timeout(30):
                while len(events) < signs:
                    await asyncio.wait([reading], timeout=0.1)
            if signs == 1:
                await asyncio.wait([reading], timeout=2)
            assert not reading.done()
            assert not await live.reconcile()
            reading.cancel()
    assert set(events) == {TextDelta("")}
    assert len(events) >= signs
    assert len(events) == 1 or signs > 1


async def test_leaving_ends_it_with_its_descendants(tmp_path: Path) -> None:
    script = "(trap '' TERM; setsid sleep 1000) & echo $! $$ > pids; trap '' TERM HUP; while :; do sleep 1000; done"
    async with chat(tmp_path, shell(script)) as talk:
        os.mkfifo(talk.worktree / "pids")
        async with talk.backend.run_turn(talk.turn("x")) as live:
            reading = asyncio.ensure_future(_read(live.events))
            pids = await asyncio.to_thread((talk.worktree / "pids").read_text)
            watched = Watched([int(pid) for pid in pids.split()])
            reading.cancel()
        assert watched.gone_within(2)
        assert live.agent_session is None


async def test_what_it_left_in_the_background_ends_with_it(tmp_path: Path) -> None:
    async with chat(tmp_path, shell("setsid sleep 1000 & echo $! > pids; read line < go; echo done")) as talk:
        os.mkfifo(talk.worktree / "pids")
        os.mkfifo(talk.worktree / "go")
        reading = asyncio.ensure_future(talk.play("x"))
        watched = Watched([int(await asyncio.to_thread((talk.worktree / "pids").read_text))])
        await asyncio.to_thread((talk.worktree / "go").write_text, "on\n")
        async with asyncio.timeout(10):
            played = await reading
    assert watched.gone_within(2)
    assert played.transcript.text == "done\n"


async def test_a_question_at_the_terminal_is_silence(tmp_path: Path) -> None:
    script = 'printf "Sure? [y/N] "; read answer < /dev/tty; echo "got $answer"'
    async with chat(tmp_path, shell(script)) as talk, talk.backend.run_turn(talk.turn("x")) as live:
        reading = asyncio.ensure_future(_read(live.events))
        done, _ = await asyncio.wait([reading], timeout=2)
        assert not done
        assert not await live.reconcile()
        assert not live.busy_with_tool()
        reading.cancel()


async def test_fifty_megabytes_of_text_in_bounded_memory(tmp_path: Path) -> None:
    async with chat(
        tmp_path, shell("yes 'a line that comes again and again, seventy characters of it, nothing new' | head -c 50000000")
    ) as talk:
        size = largest = 0
        async with talk.backend.run_turn(talk.turn("x")) as live:
            async for event in live.events:
                assert isinstance(event, TextDelta)
                size += len(event.text)
                largest = max(largest, len(event.text))
    assert size == 50_000_000
    assert largest < 100_000


async def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    async with chat(tmp_path, shell("echo hello")) as talk:
        await talk.play("x")
        before = set(os.listdir("/proc/self/fd"))
        await talk.play("x")
        await talk.play("x", until=lambda *_: True)
        assert set(os.listdir("/proc/self/fd")) == before


async def test_one_that_keeps_no_conversation_is_told_what_was_said(tmp_path: Path) -> None:
    async with chat(tmp_path, shell('echo "$1"')) as talk:
        first = await talk.play("say it")
        second = await talk.play("again")
    assert first.of(Notice) == []
    assert second.transcript.text.startswith('What was said in this conversation so far:\n\nuser: "say it"')
    assert second.transcript.text.endswith("Now go on with this:\n\nagain\n")
    (notice,) = second.transcript.notices
    assert "plain keeps no conversation between turns" in notice


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"model": "m2"}, "another model"),
        ({"agent_session": None}, "did not come to a good end"),
        ({"home": "1/plain"}, "another home"),
        ({"status": "lost"}, "was cut off"),
    ],
)
async def test_a_conversation_that_cannot_be_gone_on_with_is_replaced_and_said_so(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    spec = AgentSpec(
        protocol="pty",
        stream="claude",
        command=(*STANDIN,),
        continue_command=(*STANDIN, "--resume", "{session}"),
        env={"MODEL": "{model}"},
    )
    async with chat(tmp_path, spec) as talk:
        first = await talk.play("say: one")
        assert isinstance(first.session, AgentSession)
        resumed = await talk.play("recall")
        assert resumed.session == first.session
        assert resumed.transcript.notices == ()
        assert "say: one" in resumed.transcript.text
        if "home" in change or "status" in change:
            change = {"agent_session": AgentSession(**{**_fields(first.session), **change})}
        replaced = await talk.play("recall", **change)
    assert replaced.error is None
    (notice,) = replaced.transcript.notices
    assert why in notice
    assert "say: one" in replaced.transcript.text, "told, since it did not remember"
    assert replaced.session is not None
    assert replaced.session.id != first.session.id


async def test_built_in_commands_name_nothing_that_is_not_filled_in() -> None:
    for name in ("opencode-run", "claude-cli", "codex-cli", "qwen-cli", "goose-cli"):
        spec = registered(name)
        assert spec.protocol == "pty"
        assert "{session}" in spec.continue_command


def _fields(session: AgentSession) -> dict[str, Any]:
    return {"id": session.id, "config_hash": session.config_hash, "home": session.home, "status": session.status}


async def _read(events: AsyncIterator[AgentEvent], into: list[AgentEvent] | None = None) -> None:
    async for event in events:
        if into is not None:
            into.append(event)
