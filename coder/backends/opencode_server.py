"""One `opencode serve`: its start until it answers, what is asked of it over HTTP, and its end.

Invariant: whoever is attached to the bus hears of the server's end; after `stop` nothing of it lives.
"""

from __future__ import annotations

import asyncio
import codecs
import re
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from coder.backends.guardian import Guarded
from coder.backends.launcher import Launcher
from coder.backends.opencode_bus import Bus, Gone
from coder.backends.opencode_settings import shell, variables
from coder.config import Settings
from coder.errors import AgentUnavailable, TurnError
from coder.events import Command

START_SECONDS = 90.0  # 3 s warm, 10 s cold and alone; a busy machine at its first start takes longer
HEALTH_SECONDS = 1.0  # a question that comes too early is never answered
HEALTH_AGAIN = 0.05
ANSWER_SECONDS = 60.0
ANSWER_BYTES = 16 * 1_048_576
LISTENING = re.compile(rb"listening on (https?://\S+)")
PIPE_BYTES = 65_536
LAST_WORDS_SECONDS = 1.0


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, said: str) -> None:
        self.status = status
        super().__init__(f"{status}: {said}")


class TooMuch(Exception):
    """The server's answer is longer than we read."""


class Server:
    """A server that runs.

    Attributes:
        models: the endpoint's models it was started with, without prefix.
        commands: the slash commands by directory; opencode itself reads them once, at its start in a directory.
        turns: how many turns use it at this moment.
    """

    def __init__(self, name: str, process: Guarded, models: tuple[str, ...]) -> None:
        self.process = process
        self.models = models
        self.commands: dict[str, tuple[Command, ...]] = {}
        self.turns = 0
        self.printed: set[Callable[[bytes], None]] = set()
        self._name = name
        self._last: deque[str] = deque(maxlen=3)
        self._stopping = False
        self._given_up = ""
        self._client: httpx.AsyncClient | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._bus: Bus | None = None

    @property
    def bus(self) -> Bus:
        """Its events."""
        assert self._bus is not None, "a server that has started has one"
        return self._bus

    @property
    def alive(self) -> bool:
        return self.process.returncode is None and not self._stopping

    @classmethod
    async def start(cls, launcher: Launcher, settings: Settings, models: tuple[str, ...], network: bool) -> Server:
        """Start one and wait until it answers and its events are read.

        Raises:
            AgentUnavailable: it is not installed, ended, or did not become ready in time.
        """
        await asyncio.to_thread(launcher.prepare)
        password = secrets.token_urlsafe(24)
        extra = {**variables(launcher, settings, models, password), **await asyncio.to_thread(shell, launcher)}
        process = await launcher.spawn(
            (*launcher.spec.command, "--port", "0", "--hostname", "127.0.0.1"),
            cwd=launcher.home,
            worktree=None,
            network=network,
            extra=extra,
            entered=True,
        )
        server = cls(launcher.name, process, models)
        try:
            async with asyncio.timeout(START_SECONDS):
                await server._become_ready(password, launcher.home)
        except TimeoutError as error:
            raise AgentUnavailable(
                agent=launcher.name, detail=f"its server did not answer within {START_SECONDS:.0f} s{server.last_words}"
            ) from error
        finally:
            if server._bus is None or not server._bus.connected.is_set():
                process.end()
                await server._close()
        return server

    async def _become_ready(self, password: str, home: Path) -> None:
        stderr = asyncio.create_task(self._drain(self.process.stderr), name="opencode stderr")
        self._tasks.append(stderr)
        assert self.process.stdout is not None
        said = b""
        while (found := LISTENING.search(said)) is None:
            piece = await self.process.stdout.read(PIPE_BYTES)
            if not piece:
                code = await self.process.wait()
                await asyncio.wait({stderr}, timeout=LAST_WORDS_SECONDS)
                raise AgentUnavailable(agent=self._name, detail=f"its server {_ended(code)} at its start{self.last_words}")
            said = (said + piece)[-PIPE_BYTES:]
        self._tasks.append(asyncio.create_task(self._drain(self.process.stdout), name="opencode stdout"))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        address, way = found[1].decode(), None
        if self.process.relay is not None:
            way = await self.process.relay.enter(urlsplit(address).port or 80, home)
        # No proxy on the way: transports of one's own take none from the environment.
        transport = httpx.AsyncHTTPTransport(limits=limits, uds=way, trust_env=False)
        self._client = httpx.AsyncClient(
            base_url=address, auth=("opencode", password), timeout=ANSWER_SECONDS, trust_env=False, transport=transport
        )
        self._tasks.append(asyncio.create_task(self._watch(stderr), name="opencode end"))
        while not await self._healthy():  # noqa: ASYNC110 - it is another process that becomes ready
            await asyncio.sleep(HEALTH_AGAIN)
        self._bus = Bus(self._client)
        self._tasks.append(asyncio.create_task(self._bus.read(), name="opencode events"))
        await self._bus.connected.wait()

    async def _healthy(self) -> bool:
        assert self._client is not None
        if self.process.returncode is not None:
            raise AgentUnavailable(agent=self._name, detail=f"its server {_ended(self.process.returncode)} at its start{self.last_words}")
        try:
            answer = await self._client.get("/global/health", timeout=HEALTH_SECONDS)
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    async def ask(
        self, method: str, path: str, *, body: Any = None, directory: str | None = None, seconds: float = ANSWER_SECONDS, **query: str
    ) -> Any:
        """Ask the server something; answers the parsed JSON, None when there is none.

        Raises:
            Refused: it answered with an error.
            TooMuch: its answer is too long.
            AgentUnavailable: it has ended, or does not answer.
        """
        assert self._client is not None, "it has been started"
        params = {**query, **({"directory": directory} if directory is not None else {})}
        try:
            async with self._client.stream(method, path, json=body, params=params, timeout=seconds) as answer:
                pieces, size = [], 0
                async for piece in answer.aiter_bytes():
                    pieces.append(piece)
                    if (size := size + len(piece)) > ANSWER_BYTES:
                        raise TooMuch
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:
            if not self.alive:
                raise self.obituary() from error
            why = str(error) or type(error).__name__
            raise AgentUnavailable(f"The opencode server does not answer {method} {path} ({why}); retry the task.") from error
        content = b"".join(pieces)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, content[:500].decode("utf-8", "replace"))
        try:
            return orjson.loads(content) if content else None
        except ValueError as error:
            raise Refused(answer.status_code, "an answer that is no JSON") from error

    def obituary(self) -> TurnError:
        """Why a turn cannot go on: the server's end, as an error."""
        code, limit = self.process.returncode, self.process.ended_because
        if limit is not None:
            return AgentUnavailable(f"{limit} What was done stays, and the next turn starts a new server.")
        how = self._given_up or ("was stopped" if self._stopping else "is being ended" if code is None else _ended(code))
        return AgentUnavailable(
            f"The opencode server {how} in the middle of the turn{self.last_words}; "
            "what was done stays, and the next turn starts a new server."
        )

    @property
    def last_words(self) -> str:
        """The last lines it printed as an error, in brackets, empty when there are none."""
        return f" (it said: {' / '.join(self._last)})" if self._last else ""

    async def stop(self) -> None:
        """End it and wait until nothing of it lives."""
        self._stopping = True
        await self.process.stop()
        await self._close()

    async def give_up(self, why: str) -> None:
        """End it at once since it does not obey; whoever else uses it hears why ("was ended, since …")."""
        self._stopping, self._given_up = True, why
        await self.process.stop(0.0)

    async def _watch(self, stderr: asyncio.Task[None]) -> None:
        """Tell the turns of the end, when what it said before has been read."""
        await self.process.wait()
        await asyncio.wait({stderr}, timeout=LAST_WORDS_SECONDS)
        if self._bus is not None:
            await self._bus.over(LAST_WORDS_SECONDS)
            self._bus.tell_all(Gone())

    async def _drain(self, stream: asyncio.StreamReader | None) -> None:
        """Read what it prints, so that it never waits for us; the turns that run now get it, as nobody knows whose it is."""
        assert stream is not None
        decode, rest = codecs.getincrementaldecoder("utf-8")("replace").decode, ""
        while piece := await stream.read(PIPE_BYTES):
            said = decode(piece)
            for listener in tuple(self.printed):
                listener(said.encode())
            *lines, rest = (rest + said)[-PIPE_BYTES:].split("\n")
            self._last.extend(text for line in lines if (text := line.strip()[:300]))
        if text := rest.strip()[:300]:
            self._last.append(text)

    async def _close(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def listed(answer: Any) -> list[Mapping[str, Any]]:
    """The objects of an answer that should be an array of objects."""
    return [entry for entry in answer if isinstance(entry, dict)] if isinstance(answer, list) else []
