"""The real opencode, one warm server for all of these tests, against the scripted model."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from guarded_processes import Watched
from model_server import ModelServer
from opencode_turns import Chat, House, house

from coder.backends import guard
from coder.events import AgentEvent, Commands, Notice, PermissionRequest, Plan, Question, ReasoningDelta, RetryScheduled, ToolCall
from coder.permission import Answer
from coder.ports import LiveTurn

pytest_plugins = ("model_server", "real_agents")
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def warm(
    tmp_path_factory: pytest.TempPathFactory, agent_path: Callable[[str], Path], model_server: ModelServer
) -> AsyncIterator[House]:
    program = agent_path("opencode") / "opencode"
    async with house(tmp_path_factory.mktemp("opencode"), (str(program), "serve"), model_server.openai) as made:
        yield made


@pytest.fixture(scope="module")
def chat(warm: House) -> Chat:
    """The chat of most tests: in each new directory opencode boots for seconds."""
    return warm.chat("main")


def git(worktree: Path, *command: str) -> str:
    return subprocess.run(("git", *command), cwd=worktree, check=True, stdout=subprocess.PIPE, text=True).stdout


def working_in(worktree: Path, guardian: int) -> list[int]:
    """The processes below a guardian that sleep in a worktree."""
    found, parents = [], [guardian]
    while parents:
        for pid in guard.children(parents.pop()):
            parents.append(pid)
            try:
                if Path(os.readlink(f"/proc/{pid}/cwd")) == worktree:
                    found.append(pid)
            except OSError:
                continue
    return found


async def test_a_turn_writes_a_file_runs_a_command_and_the_next_one_remembers(chat: Chat, model_server: ModelServer) -> None:
    first = await chat.play(
        "think: let me see\nsay: I write\nwrite notes.txt: written by opencode\\n\nrun: cat notes.txt; env; exit 3\nsay: all done"
    )
    assert first.error is None
    assert (chat.worktree / "notes.txt").read_text() == "written by opencode\n"
    assert git(chat.worktree, "status", "--porcelain") == "?? notes.txt\n"
    assert first.transcript.text == "I write\n\nall done"
    assert first.transcript.reasoning == "let me see"
    write, run = first.transcript.tool_calls
    assert (write.name, write.status) == ("write", "completed")
    assert (run.name, run.status, run.exit_code) == ("bash", "completed", 3)
    assert "written by opencode" in run.output
    assert "OPENCODE_PID" in run.output
    assert "PASSWORD" not in run.output
    assert model_server.openai not in run.output
    assert first.transcript.usage.input_tokens > 0
    assert first.transcript.usage.context_tokens
    assert "init" in [command.name for command in first.of(Commands)[0].commands]
    kinds = [(request.kind, request.title) for request in first.of(PermissionRequest)]
    assert kinds == [("edit", f"{chat.worktree}/notes.txt"), ("execute", "cat notes.txt; env; exit 3")]
    assert [request.call_id for request in first.of(PermissionRequest)] == [write.id, run.id]

    second = await chat.play("say: the second answer of this walk")
    assert second.error is None
    assert second.of(Notice) == []
    assert first.session is not None
    assert second.session == first.session
    asked = model_server.requests("the second answer of this walk")[-1]
    assert "I write" in str(asked["messages"])


async def test_a_cancelled_command_leaves_nothing_and_the_session_goes_on(warm: House, chat: Chat) -> None:
    guardian = next(iter(warm.guardians._living)).pid
    started: list[int] = []

    def sleeping(live: LiveTurn, event: AgentEvent) -> bool:
        if isinstance(event, ToolCall) and "here we are" in event.output:
            started.extend(working_in(chat.worktree, guardian))
            return live.busy_with_tool()
        return False

    before = chat.session
    # One of the two is a daemon that opencode's own abort does not reach.
    await chat.play("run: (setsid sleep 60 &); echo here we are; sleep 60", until=sleeping)
    assert len(started) >= 2
    assert working_in(chat.worktree, guardian) == []
    after = await chat.play("say: still here")
    assert after.transcript.text == "still here"
    assert after.session == before


async def test_what_is_denied_is_told_with_the_reason_and_the_turn_goes_on(chat: Chat, tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    played = await chat.play(
        f"write {outside}: x\nrun: touch ran\nsay: I went on",
        answers=lambda request: Answer(
            isinstance(request, PermissionRequest) and request.kind == "execute", "stay in the worktree, please"
        ),
    )
    assert played.error is None
    refused = played.of(PermissionRequest)[0]
    assert refused.tool == "external_directory"
    assert refused.paths[0].startswith(str(tmp_path))
    write, run = played.transcript.tool_calls
    assert (write.status, run.status) == ("failed", "completed")
    assert "stay in the worktree, please" in write.output
    assert not outside.exists()
    assert (chat.worktree / "ran").exists()
    assert played.transcript.text == "I went on"


async def test_questions_plans_and_subagents(chat: Chat) -> None:
    colours = (
        '{"questions":[{"question":"Which?","header":"W","options":[{"label":"Red","description":"r"},{"label":"Blue","description":"b"}]}'
    )
    more = ',{"question":"How many?","header":"H","options":[{"label":"One","description":"1"}]}]}'
    todos = '{"todos":[{"content":"look","status":"in_progress","priority":"high"}]}'
    task = '{"description":"sub","prompt":"run: touch by-a-subagent","subagent_type":"general"}'

    def answer(request: PermissionRequest | Question) -> Answer:
        if isinstance(request, PermissionRequest):
            return Answer(True)
        return Answer(True, answers=("Blue",) if request.text == "Which?" else ("Seven",))

    played = await chat.play(f"call question: {colours}{more}\ncall todowrite: {todos}\ncall task: {task}\nsay: thanks", answers=answer)
    assert played.error is None
    assert played.transcript.text == "thanks"
    assert [question.text for question in played.of(Question)] == ["Which?", "How many?"]
    asked, planned, sub, touched = played.transcript.tool_calls
    assert '"Which?"="Blue"' in asked.output
    assert '"How many?"="Seven"' in asked.output
    assert [entry.text for entry in played.of(Plan)[0].entries] == ["look"]
    assert (planned.name, sub.name, touched.name) == ("todowrite", "task", "bash")
    assert (chat.worktree / "by-a-subagent").exists()


async def test_failures_of_the_endpoint_are_shown_and_end_with_a_sentence(chat: Chat) -> None:
    played = await chat.play("error 429 1\nsay: at last")
    assert played.error is None
    assert played.transcript.text == "at last"
    assert [(retry.attempt, retry.message) for retry in played.of(RetryScheduled)] == [(0, "scripted error 429")]
    refused = await chat.play("error 400")
    assert refused.error is not None
    assert refused.error.reason == "provider"
    assert "an error 400: scripted error 400" in refused.error.message
    unknown = await chat.play("say: x", model="other/nope")
    assert unknown.error is not None
    assert "opencode knows no such model" in unknown.error.message


async def test_reasoning_and_text_come_as_they_are_written(chat: Chat) -> None:
    played = await chat.play("slow\nthink: a b c d e f g h\nsay: one two three four five six")
    assert played.transcript.text == "one two three four five six"
    assert len(played.of(ReasoningDelta)) > 1


async def test_eight_sessions_at_once_do_not_cross(warm: House) -> None:
    chats = [warm.chat(f"side-{number}") for number in range(8)]
    prompts = [f"write mine.txt: number {n}\nrun: pwd; cat mine.txt\nthink: thought {n}\nsay: answer {n}" for n in range(8)]
    played = await asyncio.gather(*(chat.play(prompt) for chat, prompt in zip(chats, prompts, strict=True)))
    for number, (chat, one) in enumerate(zip(chats, played, strict=True)):
        assert one.error is None
        assert one.transcript.text == f"answer {number}"
        assert one.transcript.reasoning == f"thought {number}"
        assert one.transcript.tool_calls[-1].output.startswith(f"{chat.worktree}\nnumber {number}")
        assert (chat.worktree / "mine.txt").read_text() == f"number {number}"
    assert len({one.session.id for one in played if one.session}) == 8


async def test_an_effort_of_thinking_that_the_model_does_not_have_is_told(chat: Chat) -> None:
    played = await chat.play("say: hello", thinking_option_id="extreme")
    assert (played.error, played.transcript.text) == (None, "hello")
    assert [notice.text for notice in played.of(Notice) if "thinking" in notice.text] == [
        "opencode's model scripted/m1 has no thinking option extreme (it offers low, medium, high); the model's own way is used."
    ]
    known = await chat.play("say: hello", thinking_option_id="high")
    assert [notice.text for notice in known.of(Notice) if "no thinking option" in notice.text] == []


async def test_a_directory_that_is_not_there_is_a_sentence(chat: Chat) -> None:
    played = await chat.play("say: x", cwd=chat.worktree / "gone")
    assert played.error is not None
    assert "is not there" in played.error.message


async def test_a_kill_of_the_server_ends_its_turns_and_the_next_one_is_told_the_conversation(
    warm: House, chat: Chat, model_server: ModelServer
) -> None:
    before = (await chat.play("say: remember the heron")).session
    server = warm.server

    def kill(live: LiveTurn, event: AgentEvent) -> bool:
        if isinstance(event, ToolCall) and "killed soon" in event.output:
            os.kill(server, signal.SIGKILL)
        return False

    watched = Watched(list(guard.children(next(iter(warm.guardians._living)).pid)))
    broken = await chat.play("run: echo killed soon; sleep 60", until=kill)
    assert broken.error is not None
    assert broken.error.reason == "agent_unavailable"
    assert "was ended by signal 9 in the middle of the turn" in broken.error.message
    assert broken.session is None
    assert watched.gone_within(2)

    chat.session = before
    after = await chat.play("say: after the kill")
    assert after.error is None
    assert after.transcript.text == "after the kill"
    (notice,) = after.of(Notice)
    assert "does not remember this chat" in notice.text
    assert "remember the heron" in str(model_server.requests("after the kill")[-1]["messages"])


async def test_a_clean_stop_and_start_goes_back_to_the_same_session(warm: House, chat: Chat, model_server: ModelServer) -> None:
    first = await chat.play("say: the crane stays")
    assert first.session is not None
    await warm.backend.stop()
    assert not warm.guardians._living
    again = Chat(warm.again(), chat.worktree, chat.log, replace(first.session, status="stopped"))
    try:
        second = await again.play("say: after the stop")
        assert second.error is None
        assert second.of(Notice) == []
        assert second.session is not None
        assert second.session.id == first.session.id
        assert "the crane stays" in str(model_server.requests("after the stop")[-1]["messages"])

        other = await again.play("say: with another option", thinking_option_id="high")
        assert other.session is not None
        assert other.session.id != first.session.id
        assert "other ones than before" in other.of(Notice)[0].text

        facts = (await again.backend.probe())[0]
        await again.backend.probing.looked()
        facts = (await again.backend.probe())[0]
        assert facts.available
        assert facts.version is not None
        assert "scripted/m1" in facts.models
        assert {"build", "plan"} <= set(facts.modes)
        assert "high" in facts.thinking_options
        assert "init" in [command.name for command in facts.commands]
    finally:
        await again.backend.stop()
