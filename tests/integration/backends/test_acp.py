"""The ACP backend with a stand-in agent, run as a real process, that behaves badly on request."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from acp_turns import Bench, Chat, Played, bench
from guarded_processes import Watched, until

from coder.agents import AgentSpec
from coder.backends.acp_leftovers import start_of
from coder.backends.guard import children
from coder.errors import AgentUnavailable, ProviderError
from coder.events import Command, Commands, Notice, PermissionRequest, Plan, PlanEntry, ReasoningDelta, TextDelta, ToolCall, Usage
from coder.permission import Answer
from coder.transcript import TEXT_BYTES

STANDIN = Path(__file__).resolve().parents[2] / "agents" / "acp_standin.py"


def standin(folder: Path, *options: str, multiplex: bool = True, **settings: Any) -> AbstractAsyncContextManager[Bench]:
    command = (sys.executable, "-S", str(STANDIN), *options)
    spec = AgentSpec(protocol="acp", command=command, version_command=(*command[:3], "--version"), multiplex=multiplex)
    return bench(folder, "standin", spec, **settings)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Bench]:
    async with standin(tmp_path) as made:
        yield made


def pid_in(played: Played) -> int:
    match = re.search(r"pid (\d+)", played.text)
    assert match is not None, played
    return int(match[1])


async def test_text_reasoning_plan_commands_and_usage_are_told(agent: Bench) -> None:
    played = await agent.chat().play("think hm\nplan\nsay one \ncommands\nused 300\nsay two")
    assert (played.error, played.text, played.transcript.reasoning) == (None, "one two", "hm")
    assert played.of(Plan) == [Plan((PlanEntry("look", "completed"), PlanEntry("do", "in_progress")))]
    assert played.of(Commands) == [Commands((Command("init", "Begin"),)), Commands((Command("review", "Look", "what"),))]
    assert played.transcript.usage == Usage(110, 10, 5, 300, context_limit=1000)
    assert [type(event) for event in played.events] == [Commands, ReasoningDelta, Plan, TextDelta, Commands, Usage, TextDelta, Usage]


async def test_tool_calls_are_one_snapshot_each_whatever_order_they_come_in(agent: Bench) -> None:
    played = await agent.chat().play("tools\nsay ok")
    bare, orphan = played.transcript.tool_calls
    assert bare == ToolCall("bare", "execute", '{"command": "ls"}', "completed", "a b", 0)
    assert (orphan.id, orphan.status, orphan.input) == ("orphan", "failed", '{"path": "x"}')
    assert orphan.output.splitlines()[2:] == ["@@ -2,1 +2,1 @@", "-b", "+B"]


async def test_the_next_turn_goes_on_in_the_session_that_the_process_holds(agent: Bench) -> None:
    chat = agent.chat(earlier="never used")
    first = await chat.play("say hello")
    second = await chat.play("recall")
    assert second.text == "heard 1, last 'say hello'"
    assert first.session == second.session
    assert not second.of(Notice)
    assert len(agent.processes) == 1


@pytest.mark.parametrize("options", [(), ("--resume",)])
async def test_after_a_clean_end_of_the_process_another_loads_the_session(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with standin(tmp_path, *options) as agent:
        chat = agent.chat(earlier="never used")
        first = await chat.play("say hello")
        await agent.backend.stop()
        second = await chat.play("recall")
    assert second.text == "heard 1, last 'say hello'", "and nothing of what loading replays"
    assert first.session == second.session
    assert not second.of(Notice)


@pytest.mark.parametrize("options", [("--no-load",), ("--load-fails",)])
async def test_a_session_that_cannot_be_loaded_is_primed_anew_with_a_notice(tmp_path: Path, options: tuple[str, ...]) -> None:
    async with standin(tmp_path, *options) as agent:
        chat = agent.chat(earlier="user: what was said")
        first = await chat.play("say hello")
        await agent.backend.stop()
        second = await chat.play("recall")
        third = await chat.play("recall")
    assert second.text == "heard 0, last None"
    assert first.session != second.session == third.session
    assert "user: what was said" in third.text
    (notice,) = second.of(Notice)
    assert "Agent standin does not remember this chat, since" in notice.text


@pytest.mark.parametrize("change", [{"model": "large"}, {"mode_id": "bold"}, {"thinking_option_id": "high"}])
async def test_another_model_mode_or_thinking_is_another_session(agent: Bench, change: dict[str, str]) -> None:
    chat = agent.chat(earlier="so far")
    first = await chat.play("say hello")
    second = await chat.play("say hello", **change)
    again = await chat.play("recall", **change)
    assert first.session != second.session == again.session
    assert [notice.text.partition(", since")[2].partition(";")[0] for notice in second.of(Notice)] == [
        " its model, mode, thinking option or directory is another one now"
    ]
    assert not again.of(Notice)


async def test_a_lost_session_or_one_of_another_home_is_not_resumed(agent: Bench) -> None:
    chat = agent.chat(earlier="so far")
    first = (await chat.play("say hello")).session
    assert first is not None
    for other in (type(first)(first.id, first.config_hash, "2/standin"), type(first)("s-gone", first.config_hash, first.home, "lost")):
        chat.session = other
        played = await chat.play("recall")
        assert played.text == "heard 0, last None"
        assert len(played.of(Notice)) == 1


async def test_what_a_session_can_be_told_is_told_and_what_not_is_a_sentence(agent: Bench) -> None:
    chat = agent.chat()
    assert (await chat.play("say x", model="Large", mode_id="bold", thinking_option_id="high")).error is None
    options = next(iter(agent.processes[0].sessions.values())).options
    assert (options.model.current, options.mode.current, options.thinking.current) == ("large", "bold", "high")
    wrong = await chat.play("say x", model="refused")
    assert isinstance(wrong.error, ProviderError)
    assert wrong.error.message == "Agent standin has no model refused; it offers small, large."
    wrong = await chat.play("say x", mode_id="reckless")
    assert isinstance(wrong.error, ProviderError)
    assert wrong.error.message == "Agent standin has no mode reckless; it offers careful, bold."
    odd = await chat.play("say x", thinking_option_id="deep")
    assert [notice.text for notice in odd.of(Notice)] == [
        "Agent standin has no thinking option deep here (it offers low, high); its own is used."
    ]


async def test_permissions_are_allowed_once_or_rejected_with_the_reason(agent: Bench) -> None:
    chat = agent.chat()
    allowed = await chat.play("ask rm -rf build\nedit src/a.py")
    assert allowed.text == "[o-allow_once][o-allow_once]"
    run, edit = allowed.of(PermissionRequest)
    assert (run.kind, run.tool, run.title, run.paths, run.call_id) == ("execute", "bash", "rm -rf build", (), "call-rm -rf build")
    assert (edit.kind, edit.tool, edit.title, edit.paths) == ("edit", "edit", "src/a.py", (f"{chat.worktree}/src/a.py",))
    denied = await chat.play("ask rm -rf build", answer=Answer(False, "not now"))
    assert denied.text == "[o-reject_once not now]"
    assert denied.transcript.tool_calls[0].status == "failed"


async def test_an_agent_that_ends_the_turn_when_it_is_denied_something_has_not_failed(agent: Bench) -> None:
    played = await agent.chat().play("ask ls\nstop cancelled", answer=Answer(False))
    assert played.error is None
    assert [notice.text for notice in played.of(Notice)] == ["Agent standin ended the turn, since it was not allowed to: ls."]


async def test_an_answer_nobody_waits_for_is_ignored_and_leaving_cancels_what_is_asked(agent: Bench) -> None:
    async def answer_twice() -> Played:
        played = Played()
        async with agent.backend.run_turn(agent.chat().turn("ask ls")) as live:
            async for event in live.events:
                played.transcript.apply(event)
                if isinstance(event, PermissionRequest):
                    assert not live.busy_with_tool(), "a person is waited for, not a tool"
                    await live.answer("no such thing", Answer(True))
                    await live.answer(event.id, Answer(True))
                    await live.answer(event.id, Answer(False))
        return played

    assert (await answer_twice()).text == "[o-allow_once]"
    left = await agent.chat().play("ask ls", answer=None, until=lambda _, event: isinstance(event, PermissionRequest), seconds=5)
    assert left.session is not None
    assert not agent.processes[0].over


async def test_files_are_read_and_written_in_the_worktree_alone(agent: Bench) -> None:
    chat = agent.chat()
    (chat.worktree / "link").symlink_to("/etc/passwd")
    played = await chat.play("write new/a.txt some text\nread new/a.txt\nread missing\nread /etc/hostname\nread link\nwrite .git/config x")
    assert played.error is None
    assert (chat.worktree / "new/a.txt").read_text() == "some text"
    said = re.findall(r"\[([^]]*)\]", played.text)
    assert said[:2] == ["written", "some text"]
    assert said[2] == f"-32002 ENOENT: no such file or directory, open '{chat.worktree}/missing'"
    assert [word.partition(" ")[0] for word in said[3:]] == ["-32602"] * 3


async def test_a_cancelled_turn_is_over_and_its_session_goes_on(agent: Bench) -> None:
    chat = agent.chat()
    left = await chat.play("say begun\nhang", until=lambda _, event: isinstance(event, TextDelta), seconds=5)
    assert left.session is not None
    assert (await chat.play("recall")).text == "heard 1, last 'say begun\\nhang'"
    assert len(agent.processes) == 1


async def test_an_agent_that_ignores_a_cancel_is_ended(agent: Bench) -> None:
    chat = agent.chat(earlier="so far")
    await chat.play("say hello")
    process = agent.processes[0]
    assert process.pid is not None
    everything = Watched([process.pid, *children(process.pid)])
    left = await chat.play("say begun\ndeaf", until=lambda _, event: isinstance(event, TextDelta), seconds=4)
    assert left.session is None
    assert everything.gone_within(0), "before the turn was left"
    again = await chat.play("recall")
    assert again.text == "heard 0, last None"
    assert len(again.of(Notice)) == 1


@pytest.mark.parametrize("spawn", ["spawn", "spawn!"])
async def test_what_a_turn_leaves_running_is_ended_with_it(agent: Bench, spawn: str) -> None:
    """Both with a turn that ends and with one that is left; what belongs to another worktree is not touched."""
    other = agent.chat("other")
    theirs = asyncio.create_task(other.play(f"{spawn}\nhang", until=lambda _, event: False))
    await until(lambda: len(agent.processes) == 1 and bool(agent.processes[0].pid and busy(agent.processes[0].pid)))
    chat = agent.chat()
    assert not lives(pid_in(await chat.play(f"{spawn}\nsay ok")))
    left = await chat.play(f"{spawn}\nhang", until=lambda _, event: isinstance(event, TextDelta))
    assert not lives(pid_in(left))
    (living,) = busy(agent.processes[0].pid)
    theirs.cancel()
    with pytest.raises(asyncio.CancelledError):
        await theirs
    assert not lives(living)


def lives(pid: int) -> bool:
    return bool(start_of(pid))


def busy(guardian: int | None) -> list[int]:
    """Children of the agent's program."""
    assert guardian is not None
    return [pid for program in children(guardian) for pid in children(program) if lives(pid)]


async def test_a_crash_in_mid_turn_is_a_sentence_and_the_next_turn_a_new_process(agent: Bench) -> None:
    chat = agent.chat(earlier="so far")
    await chat.play("say hello")
    kept = chat.session
    crashed = await chat.play("say before\ncrash 3")
    assert crashed.text == "before"
    assert isinstance(crashed.error, ProviderError)
    assert crashed.error.message == (
        "Agent standin broke off in the middle of the turn: it ended by itself, exit code 3; "
        "the last it printed: the engine is on fire; retry the task."
    )
    assert crashed.session is None
    assert "the engine is on fire" in crashed.log
    chat.session = kept  # as it was stored before
    again = await chat.play("recall")
    assert again.text == "heard 0, last None"
    assert len(again.of(Notice)) == 1


async def test_a_crash_ends_the_other_sessions_turns_with_a_sentence(agent: Bench) -> None:
    other = asyncio.create_task(agent.chat("other").play("say waits\nhang"))
    await until(lambda: bool(agent.processes) and any(held.turn for held in agent.processes[0].sessions.values()))
    await agent.chat().play("crash 3")
    played = await other
    assert isinstance(played.error, ProviderError)
    assert "exit code 3" in played.error.message


async def test_fifty_megabytes_are_relayed_with_bounded_memory(agent: Bench) -> None:
    before = memory()
    played = Played()
    size = 0
    async with agent.backend.run_turn(agent.chat().turn("huge 50")) as live:
        async for event in live.events:
            size += len(event.text) if isinstance(event, TextDelta) else 0
            played.transcript.apply(event)
            played.transcript.take_spills()
    assert size >= 50_000_000
    assert len(played.text) == TEXT_BYTES
    assert memory() - before < 40_000_000


def memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def test_a_slow_reader_slows_the_agent_down_and_loses_nothing(agent: Bench) -> None:
    before = memory()
    async with agent.backend.run_turn(agent.chat().turn("huge 30")) as live:
        for _ in range(20_000):  # nobody reads, while the agent could write
            await asyncio.sleep(0)
        assert memory() - before < 40_000_000
        size = sum([len(event.text) async for event in live.events if isinstance(event, TextDelta)])
    assert size >= 30_000_000


async def test_a_long_message_is_taken_and_a_longer_one_is_a_sentence(agent: Bench) -> None:
    chat = agent.chat()
    assert len((await chat.play("line 15")).of(TextDelta)[0].text) == 15 * 1024 * 1024
    played = await chat.play("line 17")
    assert isinstance(played.error, ProviderError)
    assert "it sent a message longer than 16 MB" in played.error.message
    assert (await chat.play("say ok")).text == "ok"


async def test_bytes_that_are_no_text_and_lines_that_are_no_messages_do_no_harm(agent: Bench) -> None:
    played = await agent.chat().play("garbage\nbytes\nsay !")
    assert (played.error, played.text) == (None, "a\ufffd\ufffdb\ufffdc\ufffdd!")
    assert "Loading model..." in played.log


async def test_a_flood_on_standard_error_is_drained_and_its_log_bounded(agent: Bench) -> None:
    played = await agent.chat().play("stderr 30\nsay done")
    assert (played.error, played.text) == (None, "done")
    assert 10_000_000 <= len(played.log) < 10_100_000


async def test_an_agent_that_never_answers_can_be_left(tmp_path: Path) -> None:
    async with standin(tmp_path, "--mute") as agent:

        async def mute() -> None:
            async with agent.backend.run_turn(agent.chat().turn("say x")) as live:
                async for event in live.events:
                    raise AssertionError(event)

        asked = asyncio.create_task(mute())
        await until(lambda: bool(agent.processes) and agent.processes[0].pid is not None)
        watched = Watched([agent.processes[0].pid or 0])
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert watched.gone_within(2)
        assert not agent.processes


async def test_an_answer_without_anything_in_it_is_a_failure(agent: Bench) -> None:
    played = await agent.chat().play("nothing")
    assert isinstance(played.error, ProviderError)
    assert "without a word" in played.error.message


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("error -32603 Rate limited", "Agent standin ended the turn with an error: Rate limited: the details."),
        ("say x\nstop refusal", "The model of agent standin refused to go on; ask for something else, or say more of why."),
        ("say x\nstop cancelled", "Agent standin called the turn off by itself; retry the task."),
        ("say x\nstop whatever", "Agent standin ended the turn in a way that the protocol does not know"),
    ],
)
async def test_a_bad_end_is_a_sentence_and_the_session_goes_on(agent: Bench, prompt: str, sentence: str) -> None:
    chat = agent.chat()
    played = await chat.play(prompt)
    assert isinstance(played.error, ProviderError)
    assert played.error.message.startswith(sentence)
    assert (await chat.play("say ok")).text == "ok"
    assert len(agent.processes) == 1


async def test_an_answer_cut_at_a_limit_is_a_notice(agent: Bench) -> None:
    played = await agent.chat().play("say x\nstop max_tokens")
    assert played.error is None
    assert [notice.text for notice in played.of(Notice)] == ["Agent standin stopped at its output limit; say `go on` to let it continue."]


async def test_an_agent_that_wants_a_login_or_cannot_be_run_is_unavailable(tmp_path: Path) -> None:
    async with standin(tmp_path, "--login") as agent:
        played = await agent.chat().play("say x")
        assert isinstance(played.error, AgentUnavailable)
        assert "it wants to be logged in: Authentication required: run standin login" in played.error.message
    for command, found in (
        (("no-such-agent",), "no program of that name"),
        (("sh", "-c", "echo no >&2; exit 4"), "exit code 4; the last it printed: no"),
        (("yes",), "it printed 8 MB without a message of the protocol, by signal 15; the last it printed: y"),
        (("yes", ""), "it printed 8 MB without a message of the protocol"),
    ):
        async with bench(tmp_path, "broken", AgentSpec(protocol="acp", command=command)) as agent:
            played = await agent.chat("broken").play("say x")
            assert isinstance(played.error, AgentUnavailable)
            assert found in played.error.message


async def test_sessions_of_several_worktrees_share_a_process_and_do_not_cross(agent: Bench) -> None:
    chats = [agent.chat(f"tree-{number}") for number in range(4)]
    played = await asyncio.gather(*(chat.play(f"write mine.txt {chat.worktree.name}\nsay {chat.worktree.name}") for chat in chats))
    assert [each.error for each in played] == [None] * 4
    assert [each.text for each in played] == [f"[written]{chat.worktree.name}" for chat in chats]
    assert [(chat.worktree / "mine.txt").read_text() for chat in chats] == [chat.worktree.name for chat in chats]
    assert len(agent.processes) == 1


@pytest.mark.parametrize(("multiplex", "confined"), [(False, False), (True, True)])
async def test_an_agent_that_holds_one_worktree_has_a_process_for_each(tmp_path: Path, multiplex: bool, confined: bool) -> None:
    async with standin(tmp_path, multiplex=multiplex) as agent:
        agent.launcher.confined = confined
        one, two = agent.chat("one"), agent.chat("two")
        for chat in (one, two, one):
            await chat.play("say x")
        assert [process.worktree for process in agent.processes] == [one.worktree, two.worktree]


async def test_network_policies_do_not_share_a_process(agent: Bench) -> None:
    for network in (True, False):
        await agent.chat().play("say x", network=network)
    assert [process.network for process in agent.processes] == [True, False]


async def test_a_chat_whose_network_policy_changed_is_told_what_was_said(agent: Bench) -> None:
    chat = agent.chat()
    chat.earlier = "User: say x"
    await chat.play("say x")
    assert chat.session is not None
    homes = [chat.session.home]
    for network in (False, False, True):
        played = await chat.play("recall", network=network)
        assert played.session is not None
        homes.append(played.session.home)
        notices = [notice.text for notice in played.of(Notice)]
        assert all("does not remember this chat, since its session is kept in another home" in text for text in notices)
        assert len(notices) == (homes[-1] != homes[-2])
    assert homes == ["1/standin", "1/standin-offline", "1/standin-offline", "1/standin"]


async def test_an_idle_process_is_ended_and_its_session_loaded_later(tmp_path: Path) -> None:
    async with standin(tmp_path, agent_idle_seconds=0.05) as agent:
        chat = agent.chat()
        await chat.play("say hello")
        await until(lambda: not agent.processes)
        assert (await chat.play("recall")).text == "heard 1, last 'say hello'"


async def test_the_least_recently_used_process_makes_room(tmp_path: Path) -> None:
    async with standin(tmp_path, multiplex=False, warm_agents=2) as agent:
        one, two, three = (agent.chat(name) for name in ("one", "two", "three"))
        for chat in (one, two, one, three):
            await chat.play("say x")
        assert [process.worktree for process in agent.processes] == [one.worktree, three.worktree]
        assert (await two.play("recall")).text == "heard 1, last 'say x'"


async def test_idle_processes_over_the_memory_budget_are_ended(tmp_path: Path) -> None:
    async with standin(tmp_path, warm_memory_bytes=1) as agent:
        await agent.chat().play("say hello")
        await until(lambda: not agent.processes)


async def test_a_process_keeps_a_bounded_number_of_sessions_open(agent: Bench) -> None:
    chats = [agent.chat(f"tree-{number}") for number in range(10)]
    for chat in chats:
        await chat.play("say hello")
    assert len(agent.processes[0].sessions) == 8
    assert (await chats[0].play("recall")).text == "heard 1, last 'say hello'", "loaded again"


async def test_sessions_that_begin_and_end_at_once_are_not_closed_under_their_turns(agent: Bench) -> None:
    chats = [agent.chat(f"tree-{number}") for number in range(24)]
    for prompt, said in (("say hello", "hello"), ("recall", "heard 1, last 'say hello'")):
        played = await asyncio.gather(*(chat.play(prompt) for chat in chats))
        assert [(each.error, each.text) for each in played] == [(None, said)] * len(chats)
    assert len(agent.processes[0].sessions) == 8


async def test_stopping_leaves_no_process_and_may_be_called_at_any_time(tmp_path: Path) -> None:
    async with standin(tmp_path, multiplex=False) as agent:
        await agent.backend.stop()
        for name in ("one", "two"):
            await agent.chat(name).play("say x")
        watched = Watched([process.pid or 0 for process in agent.processes])
        await agent.backend.stop()
        assert watched.gone_within(0)
        await agent.backend.stop()


async def test_a_probe_tells_what_is_known_and_starts_no_agent(tmp_path: Path) -> None:
    async with standin(tmp_path) as agent:
        (facts,) = await agent.backend.probe()
        assert (facts.available, facts.version, facts.models, facts.path) == (True, "3.1.4", (), sys.executable)
        assert not agent.processes
        await agent.chat().play("say x")
        (facts,) = await agent.backend.probe()
        assert (facts.models, facts.modes, facts.thinking_options) == (("small", "large"), ("careful", "bold"), ("low", "high"))
        assert facts.commands == (Command("init", "Begin"),)
    spec = AgentSpec(protocol="acp", command=("no-such-agent",), install="get it")
    async with bench(tmp_path, "missing", spec) as missing:
        (facts,) = await missing.backend.probe()
        assert (facts.available, facts.detail, facts.install) == (False, "there is no program no-such-agent", "get it")


async def test_a_chat_of_a_hundred_turns_leaves_nothing_behind(agent: Bench) -> None:
    chat: Chat = agent.chat()
    await chat.play("say x")
    descriptors, tasks = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
    for _ in range(100):
        await chat.play("say x")
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert len(asyncio.all_tasks()) <= tasks
