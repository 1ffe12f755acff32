"""Starts the processes of one agent: its own home, its environment, its guardian. All agents' backends start theirs here.

Invariant: two nodes never share a home: it lies below the node slot's directory, and is used again by whoever has the slot next.
Nor do agents with network and without: what the one left there, the other could carry out.
"""

from __future__ import annotations

import copy
import os
import shutil
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coder.agents import AgentSpec, Endpoint, Host, environment, fill, hosts
from coder.backends.agent_home import AgentHome
from coder.backends.environment import agent_environment
from coder.backends.guardian import BUFFER_BYTES, Guarded, Guardians
from coder.backends.sandbox import Sandbox

NOBODY_THERE = {"PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": "true"}


class Launcher:
    """How to start one agent.

    Args:
        homes: directory of this node slot's agent homes, `<data directory>/homes/<slot>`.
        endpoint: the configured model endpoint, None when there is none.
        sandbox: what confines its processes; None = nothing does.

    Attributes:
        confined: whether a process sees the one worktree it is given and no other.
        hosts: what it reaches in projects that keep it off the network.
    """

    def __init__(
        self, name: str, spec: AgentSpec, guardians: Guardians, homes: Path, endpoint: Endpoint | None, sandbox: Sandbox | None = None
    ) -> None:
        self.name = name
        self.spec = spec
        self.endpoint = endpoint
        self.home = homes / name
        self.home_name = f"{homes.name}/{name}"
        self.confined = sandbox is not None and sandbox.works
        self.hosts: tuple[Host, ...] = hosts(spec, endpoint)
        self._guardians = guardians
        self._sandbox = sandbox

    def of(self, network: bool) -> Launcher:
        """The same agent for projects with this network policy, in that policy's home."""
        if network:
            return self
        other = copy.copy(self)
        other.home, other.home_name = offline(self.home), offline(Path(self.home_name)).as_posix()
        return other

    @property
    def files(self) -> AgentHome:
        """The agent's home, to write files of ours into."""
        return AgentHome(self.home, self.name)

    def program(self) -> str | None:
        """Where the agent's program is, None when it is not installed."""
        return shutil.which(self.spec.command[0], path=self.environment().get("PATH"))

    def environment(self) -> dict[str, str]:
        """The agent's whole environment."""
        return agent_environment(os.environ, {**NOBODY_THERE, **environment(self.spec, self.endpoint, os.environ, str(self.home))})

    def prepare(self) -> None:
        """Make the agent's home, with its login from the user's where that is newer, and what points it at the configured endpoint.

        Raises:
            AgentUnavailable: the agent made links there that lead out of its home.
        """
        files, user = self.files, Path.home()
        for folder in (".config", ".local/share", ".cache", ".local/state"):
            files.make(folder)
        for name in self.spec.copy_files:
            if (user / name).is_file() and (changed := (user / name).stat().st_mtime) > files.changed(name):
                files.write(name, (user / name).read_bytes(), changed=changed)
        if self.spec.use_endpoint and self.endpoint is not None:
            values = {"home": str(self.home), **self.endpoint.values()}
            for name, content in self.spec.endpoint_files.items():
                # Older than any of the user's, which takes its place when the endpoint is not used any more.
                files.write(name, fill(content, values).encode(), changed=0.0)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        worktree: Path | None,
        network: bool,
        extra: Mapping[str, str] | None = None,
        stdin: int = DEVNULL,
        stdout: int = PIPE,
        stderr: int = PIPE,
        terminal: bool = False,
        limit: int = BUFFER_BYTES,
        entered: bool = False,
        asks: bool = True,
    ) -> Guarded:
        """Start one of the agent's programs.

        Args:
            worktree: root of the worktree it may write; None = it serves all worktrees of this host.
            network: whether it may reach the network, or only `hosts`.
            entered: it is a server, which is to be reached also where it runs in a network of its own: by its `relay`.
            asks: whether it asks its model; else it reaches nothing where it may not reach the network.
            extra: variables besides `environment()`.
            stdin, stdout, stderr, terminal, limit: as `Guardians.spawn`.

        Raises:
            AgentUnavailable: there is no such program, or it cannot be confined as it must be.
            InternalError: the system refused to start a process.
        """
        env = {**self.environment(), **(extra or {})}
        streams: dict[str, Any] = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "terminal": terminal, "limit": limit}
        if self._sandbox is not None:
            # Also where a shell starts it, and wherever the user keeps it.
            program = [Path(found)] if (found := self.program()) is not None else []
            cell = self._sandbox.cell(
                self._guardians, worktree=worktree, home=self.home, network=network, shown=program, hosts=self.hosts if asks else ()
            )
            return await cell.spawn(argv, cwd=cwd, env=cell.environment(env), entered=entered, **streams)
        return await self._guardians.spawn(argv, cwd=cwd, env=env, **streams)


def offline(home: Path) -> Path:
    """The home for projects without network, beside the one for those with it."""
    return home.with_name(f"{home.name}-offline")
