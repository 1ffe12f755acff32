"""What opencode can do, found out without being waited for.

Its program needs seconds for a word, and a start of ours has three. So a probe answers what a file in opencode's home remembers of
this very program, and looks anew beside it where that file is not of it: the version and the models by `--version` and `models`;
modes, options and commands whenever a server has become ready. Whoever probes again gets what was found.

Invariant: a look that failed changes nothing; at most one runs.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import structlog

from coder.backends.launcher import Launcher
from coder.backends.opencode_server import Refused, Server, TooMuch, listed
from coder.backends.opencode_settings import variables
from coder.config import Settings
from coder.errors import AgentUnavailable, TurnError
from coder.events import Command
from coder.protocols.opencode_words import commands, models, obj, text

REMEMBERED = "coder-probe.json"
LOOK_SECONDS = 60.0
OUTPUT_BYTES = 4 * 1_048_576
BUILT_IN_MODES = ("build", "plan")
HIDDEN_MODES = ("compaction", "summary", "title")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What is remembered of a program.

    Attributes:
        program: where it is, its size and when it was changed: of another one nothing is known.
    """

    program: str
    version: str | None = None
    models: tuple[str, ...] = ()
    modes: tuple[str, ...] = BUILT_IN_MODES
    thinking_options: tuple[str, ...] = ()
    commands: tuple[Command, ...] = ()


class Probe:
    """Remembers, and looks anew when it has to."""

    def __init__(self, launcher: Launcher, settings: Settings) -> None:
        self._launcher = launcher
        self._settings = settings
        self._looking: asyncio.Task[None] | None = None
        self._asking: set[asyncio.Task[None]] = set()

    def known(self, program: str) -> Known:
        """What is known of a program now; looks anew beside that where its version is not."""
        known = self._read(program)
        if known.version is None and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look(program), name="opencode probe")
        return known

    async def looked(self) -> None:
        """Wait until what is being looked for has been found or not."""
        await asyncio.gather(*(task for task in (self._looking, *self._asking) if task is not None), return_exceptions=True)

    def server_started(self, server: Server) -> None:
        """Ask a server that has just become ready, beside the turn that wanted it."""
        program = self._launcher.program()
        if program is not None:
            task = asyncio.create_task(self._ask(server, program), name="opencode facts")
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def stop(self) -> None:
        tasks = [task for task in (self._looking, *self._asking) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look(self, program: str) -> None:
        try:
            await asyncio.to_thread(self._launcher.prepare)
            async with asyncio.timeout(LOOK_SECONDS):
                version = await self._output(program, "--version")
                printed = await self._output(program, "models")
        except (TurnError, OSError, TimeoutError) as error:
            log.warning("opencode could not be asked what it is", why=str(error) or type(error).__name__)
            return
        listed = tuple(line for line in printed.split() if "/" in line)
        if version:
            self._write(replace(self._read(program), version=version.split()[-1], models=listed))

    async def _output(self, *command: str) -> str:
        """What a run prints; empty when it fails."""
        extra = variables(self._launcher, self._settings, (), "unused")
        process = await self._launcher.spawn(
            command, cwd=self._launcher.home, worktree=None, network=True, extra=extra, stderr=DEVNULL, limit=OUTPUT_BYTES
        )
        try:
            assert process.stdout is not None
            said = bytearray()
            while piece := await process.stdout.read(65_536):
                if len(said) < OUTPUT_BYTES:
                    said += piece
            return said.decode("utf-8", "replace").strip() if await process.wait() == 0 else ""
        finally:
            process.end()

    async def _ask(self, server: Server, program: str) -> None:
        directory = str(self._launcher.home)
        try:
            health = obj(await server.ask("GET", "/global/health"))
            agents = listed(await server.ask("GET", "/agent", directory=directory))
            offered = commands(await server.ask("GET", "/command", directory=directory))
            providers = obj(await server.ask("GET", "/config/providers", directory=directory))
        except (Refused, TooMuch, TurnError) as error:
            log.warning("opencode's server could not be asked what it can do", why=str(error))
            return
        modes = tuple(text(a.get("name")) for a in agents if a.get("mode") != "subagent" and a.get("name") not in HIDDEN_MODES)
        offers = models(providers)
        self._write(
            replace(
                self._read(program),
                version=text(health.get("version")) or None,
                models=tuple(offers),
                modes=modes or BUILT_IN_MODES,
                thinking_options=tuple(dict.fromkeys(option for options in offers.values() for option in options)),
                commands=offered,
            )
        )

    def _read(self, program: str) -> Known:
        mark = _mark(program)
        try:
            found: dict[str, Any] = json.loads(self._launcher.files.read(REMEMBERED))
            lists = {name: tuple(found[name]) for name in ("models", "modes", "thinking_options")}
            known = Known(found["program"], found["version"], **lists, commands=tuple(Command(**each) for each in found["commands"]))
        except (OSError, ValueError, KeyError, TypeError, AgentUnavailable):
            return Known(mark)
        return known if known.program == mark else Known(mark)

    def _write(self, known: Known) -> None:
        try:
            self._launcher.files.write(REMEMBERED, json.dumps(asdict(known)).encode())
        except (OSError, AgentUnavailable) as error:
            log.warning("what was found of opencode could not be remembered", why=str(error))


def _mark(program: str) -> str:
    try:
        found = Path(program).stat()
    except OSError:
        return program
    return f"{program} {found.st_size} {found.st_mtime_ns}"
