"""The processes of one ACP agent, and which session of which process a turn gets.

A session goes on where that is safe: in the process that still holds it, or loaded by another when its process was ended
cleanly. Otherwise a new one is primed with the conversation so far, and whoever watches is told.

Policy: a process is for one network policy and, where the agent cannot hold several sessions or each process is confined
to the one worktree it sees, for one worktree; otherwise for all of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from coder.backends.acp_process import AcpProcess, Held, sentence
from coder.backends.acp_turn import AUTH_REQUIRED, AcpTurn, Entered
from coder.backends.launcher import Launcher
from coder.backends.turn_log import TurnLog
from coder.backends.warm import Warm
from coder.config import Settings
from coder.errors import AgentUnavailable, ProviderError
from coder.events import Command
from coder.ports import Turn
from coder.protocols.acp_options import Choice, Options, told
from coder.task import AgentSession

CONFIG_VERSION = 1
SESSIONS_HELD = 8
"""Sessions without a turn that one process keeps open; the least recently used are closed, and loaded when wanted again."""
LOST_KNOWN = 1000
CLOSE_SECONDS = 1.0

PRIMED = """\
This conversation began before this session. What was said so far:

<conversation>
{earlier}
</conversation>

It goes on with this message:

{prompt}"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a turn wants of its session; empty = the agent's own choice."""

    model: str
    named: bool
    mode: str
    thinking: str
    place: str

    @property
    def config_hash(self) -> str:
        words = json.dumps([CONFIG_VERSION, self.model, self.mode, self.thinking, self.place])
        return hashlib.sha256(words.encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Learned:
    """What a running agent told of itself; a probe reports it.

    Attributes:
        whole: whether a turn has ended, by when it has told all it tells.
    """

    version: str | None = None
    options: Options = field(default_factory=Options)
    commands: tuple[Command, ...] = ()
    whole: bool = False


class AcpSessions:
    """All processes of one agent."""

    def __init__(self, launcher: Launcher, settings: Settings, warm: Warm) -> None:
        self._launcher = launcher
        self._settings = settings
        self._warm = warm
        self._processes: dict[tuple[bool, Path | None], AcpProcess] = {}
        self._lost: dict[str, None] = {}
        self._going: set[asyncio.Task[None]] = set()
        self.learned = Learned()

    @property
    def processes(self) -> tuple[AcpProcess, ...]:
        """Those that are not over."""
        return tuple(self._processes.values())

    async def stop(self) -> None:
        """End all processes and wait until nothing lives."""
        for process in list(self._processes.values()):
            process.retire()
        while self._going:
            await asyncio.gather(*self._going)

    async def enter(self, acp: AcpTurn) -> Entered:
        """Get a process and a session for a turn.

        Raises:
            AgentUnavailable: the agent cannot be started or wants to be logged in.
            ProviderError: it has no such model or mode, or failed in another way.
        """
        turn, name = acp.turn, self._launcher.name
        process = await self._process(turn, acp.log)
        from coder.backends.acp_client import RequestError

        try:
            return await self._session(process, turn, self._wanted(turn))
        except ConnectionError as error:
            self._warm.release(process)
            raise AgentUnavailable(agent=name, detail=await process.epitaph()) from error
        except RequestError as error:
            self._warm.release(process)
            if error.code == AUTH_REQUIRED:
                raise AgentUnavailable(agent=name, detail=f"it wants to be logged in: {sentence(error)}") from error
            raise ProviderError(f"Agent {name} could not open a session: {sentence(error)}.") from error
        except ProviderError:
            await self._close_spare(process)
            self._warm.release(process)
            raise
        except BaseException:
            self._warm.release(process)
            if not any(held.taken for held in process.sessions.values()):
                process.end("it did not open a session")  # and who knows what it does instead
            raise

    async def release(self, entered: Entered) -> None:
        """A turn has ended: the process is idle again, and keeps no more sessions open than it should."""
        process = entered.process
        held = entered.held
        self.learned = replace(self.learned, options=held.options, commands=held.commands or self.learned.commands, whole=True)
        if not process.over:
            await self._close_spare(process)
        self._warm.release(process)

    async def _process(self, turn: Turn, log: TurnLog) -> AcpProcess:
        alone = self._launcher.confined or not self._launcher.spec.multiplex
        key = (turn.network, turn.worktree if alone else None)
        while True:
            process = self._processes.get(key)
            if process is None:
                process = self._processes[key] = AcpProcess(self._launcher.of(turn.network), key[1], key[0], self._forget)
            self._warm.use(process)
            try:
                if await process.ready(log):
                    return process
            except BaseException:
                self._warm.release(process)
                raise
            self._warm.release(process)

    def _forget(self, process: AcpProcess) -> None:
        self._warm.forget(process)
        self._processes.pop((process.network, process.worktree), None)
        if not process.clean:
            self._lost.update(dict.fromkeys(process.sessions))
            while len(self._lost) > LOST_KNOWN:
                del self._lost[next(iter(self._lost))]
        task = asyncio.create_task(process.gone(), name=f"the end of a process of {self._launcher.name}")
        self._going.add(task)
        task.add_done_callback(self._going.discard)

    def _wanted(self, turn: Turn) -> Wanted:
        spec = self._launcher.spec
        named = (turn.model or "").strip()
        default = (self._settings.default_model or "").strip() if spec.use_endpoint else ""
        usual = spec.confined_mode if self._launcher.confined and spec.confined_mode else spec.default_mode
        mode = (turn.mode_id or "").strip() or usual or ""
        place = str(turn.cwd.relative_to(turn.worktree))
        return Wanted(named or default, bool(named), mode, (turn.thinking_option_id or "").strip(), place)

    async def _session(self, process: AcpProcess, turn: Turn, wanted: Wanted) -> Entered:
        held, why = await self._resumed(process, turn, wanted)
        fresh = held is None
        if held is None:
            from coder.backends.acp_client import open_session

            session_id, result = await open_session(process.connection, str(turn.cwd))
            held = process.hold(session_id, turn.worktree, told(result))
            self._learn(process, held)
        try:
            prompt, notices = turn.prompt, await self._choose(process, held, wanted)
            if fresh and (earlier := await turn.earlier()):
                prompt = PRIMED.format(earlier=earlier, prompt=turn.prompt)
                forgot = f"Agent {self._launcher.name} does not remember this chat, {why}"
                notices.insert(0, f"{forgot}; it was given the conversation so far in a new session.")
        except BaseException:
            held.taken = False
            raise
        session = AgentSession(held.id, wanted.config_hash, process.launcher.home_name)
        return Entered(process, held, prompt, tuple(notices), session)

    async def _resumed(self, process: AcpProcess, turn: Turn, wanted: Wanted) -> tuple[Held | None, str]:
        """The session that the chat had, or why it cannot go on: a clause."""
        known = turn.agent_session
        if known is None:
            return None, "since its last turn was another agent's, or ended in a way that left its session unclear"
        if known.config_hash != wanted.config_hash:
            return None, "since its model, mode, thinking option or directory is another one now"
        if known.home != process.launcher.home_name:
            return None, "since its session is kept in another home, of another node or of the project's network as it was"
        held = process.sessions.get(known.id)
        if held is not None and not held.taken:
            held.taken = True
            return held, ""
        if held is not None or known.status == "lost" or known.id in self._lost:
            return None, "since its process ended in the middle of its work"
        return await self._loaded(process, turn, known)

    async def _loaded(self, process: AcpProcess, turn: Turn, known: AgentSession) -> tuple[Held | None, str]:
        from coder.backends.acp_client import RequestError, load_session

        if not process.can("resume") and not process.can("load"):
            return None, "since its process was stopped and it cannot load a session"
        try:
            result = await load_session(process.connection, known.id, str(turn.cwd), replay=not process.can("resume"))
        except RequestError as error:
            return None, f"since it could not load its session ({sentence(error)})"
        held = process.hold(known.id, turn.worktree, told(result))
        self._learn(process, held)
        return held, ""

    def _learn(self, process: AcpProcess, held: Held) -> None:
        agent = process.said.get("agentInfo") or {}
        self.learned = replace(
            self.learned, version=agent.get("version"), options=held.options, commands=held.commands or self.learned.commands
        )

    async def _choose(self, process: AcpProcess, held: Held, wanted: Wanted) -> list[str]:
        """Set what the turn wants; answers notices about what could not be set and does not matter much."""
        name, notices = self._launcher.name, []
        model = held.options.model
        value = model.value(wanted.model) or model.value(f"{self._settings.model_provider}/{wanted.model}")
        if wanted.named and model.option is None:
            notices.append(f"Agent {name} cannot be told a model; it uses its own, not {wanted.model}.")
        elif wanted.named or value is not None:
            await self._set(process, held, "model", wanted.model, value or wanted.model)
        if wanted.mode:
            await self._set(process, held, "mode", wanted.mode, held.options.mode.value(wanted.mode))
        thinking = held.options.thinking
        if wanted.thinking and thinking.value(wanted.thinking) is None:
            offers = f"it offers {_listed(thinking)}" if thinking.values else "it offers none"
            notices.append(f"Agent {name} has no thinking option {wanted.thinking} here ({offers}); its own is used.")
        elif wanted.thinking:
            await self._set(process, held, "thinking", wanted.thinking, thinking.value(wanted.thinking))
        return notices

    async def _set(self, process: AcpProcess, held: Held, what: str, wanted: str, value: str | None) -> None:
        """Choose a value of the session, unless it is chosen already.

        Raises:
            ProviderError: there is no such value.
        """
        from coder.backends.acp_client import RequestError, set_mode, set_option

        choice: Choice = getattr(held.options, what)
        refused = ProviderError(f"Agent {self._launcher.name} has no {what} {wanted}; it offers {_listed(choice) or 'none'}.")
        if value is None:
            raise refused
        if value == choice.current:
            return
        result: dict[str, Any] = {}
        try:
            if choice.option is None:
                await set_mode(process.connection, held.id, value)
            else:
                result = await set_option(process.connection, held.id, choice.option, value)
        except RequestError as error:
            raise refused from error
        now = told(result)
        for each in ("mode", "model", "thinking"):
            if getattr(now, each).values and getattr(held.options, each).option is not None:
                held.options = replace(held.options, **{each: getattr(now, each)})
        held.options = replace(held.options, **{what: replace(getattr(held.options, what), current=value)})

    async def _close_spare(self, process: AcpProcess) -> None:
        from coder.backends.acp_client import RequestError, close_session

        while len(spare := [held for held in process.sessions.values() if not held.taken]) > SESSIONS_HELD:
            if not process.can("close"):
                if not any(held.taken for held in process.sessions.values()):
                    process.retire()  # it can let go of them in no other way
                return
            del process.sessions[spare[0].id]
            with suppress(RequestError, ConnectionError, TimeoutError):  # then it goes with the process
                async with asyncio.timeout(CLOSE_SECONDS):
                    await close_session(process.connection, spare[0].id)


def _listed(choice: Choice) -> str:
    return ", ".join(choice.ids[:12]) + (" …" if len(choice.ids) > 12 else "")
