"""What our side of an agent costs, against the same agent driven without us; every kind of agent has a function here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any
from uuid import uuid4

import httpx

from coder.agents import AgentSpec, Endpoint
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.opencode import OpencodeBackend
from coder.backends.opencode_server import Server
from coder.config import Settings
from coder.events import PermissionRequest, TextDelta
from coder.permission import Answer
from coder.ports import Turn
from coder.task import AgentSession
from tests import model_server, real_agents
from tests.bench.bed import Bed
from tests.bench.figure import Figure, Rounds, alternate
from tests.bench.turns import git, repository

STANDIN = Path(__file__).parents[1] / "agents" / "opencode_standin.py"
PROMPT = "say: ten words that the scripted model says in its answer"
TOGETHER = 8


@contextmanager
def scripted_model() -> Iterator[str]:
    """The scripted model's base URL."""
    model_server.installed()
    command = ("node", "aimock.mjs")
    with subprocess.Popen(command, cwd=model_server.AGENTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"{process.stdout.readline().strip()}/v1"
        process.stdin.close()


@asynccontextmanager
async def opencode_backend(place: Path, command: tuple[str, ...], endpoint: str | None) -> AsyncIterator[OpencodeBackend]:
    guardians = Guardians()
    settings = Settings(_env_file=None, default_model="m1", model_provider="scripted", model_base_url=endpoint)
    spec = AgentSpec(protocol="opencode", command=command, use_endpoint=True)
    launcher = Launcher("opencode", spec, guardians, place / "homes", Endpoint(endpoint, "", "scripted", "m1") if endpoint else None)
    backend = OpencodeBackend(launcher, settings)
    try:
        yield backend
    finally:
        await backend.stop()
        await guardians.stop_all()


@dataclass
class Chat:
    """Turns of one chat through a backend. Attributes: took: of the last turn, ms in all and from the prompt to its end."""

    backend: OpencodeBackend
    worktree: Path
    session: AgentSession | None = None
    took: tuple[float, float] = (0.0, 0.0)
    heard: list[tuple[float, str]] = field(default_factory=list)

    async def play(self, prompt: str) -> float:
        """Run a turn; answers the milliseconds from the prompt's sending to the turn's end."""
        turn = Turn(
            task_id=1,
            epoch=1,
            session_id=uuid4(),
            chat_id=uuid4(),
            prompt=prompt,
            worktree=self.worktree,
            cwd=self.worktree,
            model=None,
            mode_id=None,
            thinking_option_id=None,
            model_history=None,
            log=self.worktree.with_name(f"{self.worktree.name}.log"),
            agent_session=self.session,
        )
        self.heard.clear()
        started = perf_counter()
        async with self.backend.run_turn(turn) as live:
            async for event in live.events:
                if isinstance(event, TextDelta):
                    self.heard.append((monotonic(), event.text))
                if isinstance(event, PermissionRequest):
                    await live.answer(event.id, Answer(True))
            ended = perf_counter()
        self.session = live.agent_session
        sent = SENT.get(self.session.id if self.session else "", started)
        self.took = ((perf_counter() - started) * 1000, (ended - sent) * 1000)
        return self.took[1]


SENT: dict[str, float] = {}
"""When each session of opencode's was last given a prompt, by our backend or directly."""


@contextmanager
def prompts_timed() -> Iterator[None]:
    """Note the moment of every prompt that the backend sends."""
    ask = Server.ask

    async def timed(self: Server, method: str, path: str, **given: Any) -> Any:
        if path.endswith("/prompt_async"):
            SENT[path.split("/")[2]] = perf_counter()
        return await ask(self, method, path, **given)

    Server.ask = timed  # type: ignore[method-assign]
    try:
        yield
    finally:
        Server.ask = ask  # type: ignore[method-assign]


class Direct:
    """Drives a session of the same server without us: post the prompt, read the bus until it says idle."""

    def __init__(self, client: httpx.AsyncClient, directory: Path) -> None:
        self._client = client
        self._directory = str(directory)
        self._idle = asyncio.Event()
        self._session = ""

    async def open(self) -> None:
        made = await self._client.post("/session", params={"directory": self._directory}, json={"title": "direct"})
        self._session = made.json()["id"]

    def hear(self, payload: dict[str, Any]) -> None:
        if payload.get("type") == "session.idle" and payload["properties"]["sessionID"] == self._session:
            self._idle.set()

    async def play(self, prompt: str) -> float:
        self._idle.clear()
        body = {"parts": [{"type": "text", "text": prompt}], "model": {"providerID": "scripted", "modelID": "m1"}}
        started = perf_counter()
        await self._client.post(f"/session/{self._session}/prompt_async", json=body)
        await self._idle.wait()
        return (perf_counter() - started) * 1000


@asynccontextmanager
async def driven(server: Server, directories: list[Path]) -> AsyncIterator[list[Direct]]:
    """A session a directory on a server that runs, with one reader of its bus."""
    client = server._client
    assert client is not None
    directs = [Direct(client, directory) for directory in directories]

    async def read() -> None:
        async with client.stream("GET", "/global/event", timeout=None) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data:"):
                    for direct in directs:
                        direct.hear(json.loads(line[5:]).get("payload", {}))

    reading = asyncio.create_task(read())
    try:
        for direct in directs:
            await direct.open()
        yield directs
    finally:
        reading.cancel()


async def opencode(bed: Bed) -> list[Figure]:
    """A warm opencode session's second turn, eight at once, and the relay of a delta."""
    rounds = 8 if bed.quick else 20
    try:
        program = await asyncio.to_thread(real_agents.installed) / "opencode"
    except real_agents.Missing as missing:
        print(f"opencode is not measured: {missing}", file=sys.stderr)
        return [await relay(bed)]
    project = await asyncio.to_thread(repository, bed.place / "project", 20)
    worktrees = [bed.place / f"side-{number}" for number in range(TOGETHER)]
    for worktree in worktrees:
        await asyncio.to_thread(git, project, "worktree", "add", "-q", "--detach", str(worktree))
    with scripted_model() as model, prompts_timed():
        async with opencode_backend(bed.place / "real", (str(program), "serve"), model) as backend:
            chats = [Chat(backend, worktree) for worktree in worktrees]
            for chat in chats:
                await chat.play(PROMPT)  # the instance of a directory boots with its first turn
            server = backend._places[True]._server
            assert server is not None
            async with driven(server, worktrees) as directs:
                for direct in directs:
                    await direct.play(PROMPT)
                rest: list[float] = []

                async def ours() -> float:
                    took = await chats[0].play(PROMPT)
                    rest.append(chats[0].took[0] - took)
                    return took

                single = await alternate(lambda: directs[0].play(PROMPT), ours, rounds)
                many = await alternate(together(directs), together(chats), 3 if bed.quick else 7)
    return [
        figure(single, "opencode: prompt sent to idle seen, second turn, warm", "the same prompt to that server", 1.05),
        Figure("opencode: the rest of that turn", median(rest), "ms", target=60),
        figure(many, f"opencode: {TOGETHER} sessions at once", "the same prompts to that server", 1.15),
        await relay(bed),
    ]


def figure(rounds: Rounds, name: str, against: str, target: float) -> Figure:
    """A row whose ratio is that of the medians: one slow answer of the agent's on either side says nothing."""
    mine, other = median(rounds.program), median(rounds.floor)
    return Figure(name, mine, "ms", against, other, mine / other, "<=", target)


def together(driving: list[Direct] | list[Chat]) -> Callable[[], Awaitable[float]]:
    """Play in all of them at once; how long that took in all, ms."""

    async def play() -> float:
        started = perf_counter()
        await asyncio.gather(*(each.play(PROMPT) for each in driving))
        return (perf_counter() - started) * 1000

    return play


async def relay(bed: Bed) -> Figure:
    """From the moment an agent writes a delta to our event, with a stand-in that says when."""
    project = await asyncio.to_thread(repository, bed.place / "relayed", 2)
    async with opencode_backend(bed.place / "standin", (sys.executable, str(STANDIN), "serve"), None) as backend:
        chat = Chat(backend, project)
        await chat.play("clock 20")
        await chat.play(f"clock {200 if bed.quick else 1000}")
    delays = [(at - float(text)) * 1000 for at, text in chat.heard]
    return Figure("opencode: relay of a delta, p50", median(delays), "ms", target=1)
