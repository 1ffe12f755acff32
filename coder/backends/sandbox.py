"""Confinement with bubblewrap: what a confined program sees of this machine, and how it is started.

A confined program may write its worktree, git's record of that worktree, the repository's objects, its own home and a /tmp of
its own, none of which it can put a link in the place of. Everything else is read-only; the user's home but for tool chains, coder's
data directory but for what it may write, /run (sockets of databases and container engines) and this machine's keys are not there
at all. Its processes cannot see others.

Invariant: a policy that cannot be kept is an error, never a program that runs without it.

Where the network is off, the program has one of its own, out of which `relay.py` leads to its model and nowhere else.

What is bound into it is in `sandbox_places.py`. Omitted: the loopback network where the network is on, which is the host's, and
system call filters. Without user namespaces, or on macOS, there is no confinement, and `why` says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from coder.agents import Host
from coder.backends.guardian import Guarded, Guardians, find_program
from coder.backends.relay import Relay
from coder.backends.sandbox_places import (
    IN_RUN_ONLINE,
    Git,
    exposed,
    git_of,
    gits_of,
    led_away,
    masked_files,
    masked_folders,
    temporary,
    user_homes,
)
from coder.errors import AgentUnavailable

Mode = Literal["auto", "required", "off"]
TRIAL_SECONDS = 10.0
CURE = "install bubblewrap (Debian: apt install bubblewrap) and allow user namespaces"
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID")
"""What is left to root, without which `tar` and package managers fail; none of them opens what is read-only or masked."""


KERNEL = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi", "/proc/scsi")
"""The kernel's settings, which root may change without any capability: `core_pattern` for one runs programs outside."""


class Sandbox:
    """How programs of this node are confined.

    Args:
        mode: where it works, always, or never.
        data: coder's data directory, resolved.
        readable: further directories to show read-only where they would be masked.
        hidden: files to hide wherever they lie: settings with keys in them.
        bwrap: the program; None looks it up.

    Attributes:
        program: where bubblewrap is, empty where it is not.
        why: a sentence's part that says why programs are not confined; empty where they are.
    """

    def __init__(
        self, mode: Mode, data: Path, *, readable: Sequence[Path] = (), hidden: Sequence[Path] = (), bwrap: str | None = None
    ) -> None:
        self.mode = mode
        self._data = data
        self._readable = tuple(readable)
        self._hidden = tuple(hidden)
        self.program = bwrap or shutil.which("bwrap") or ""
        self.why = "CODER_SANDBOX is off" if mode == "off" else self._tried()

    @property
    def works(self) -> bool:
        """Whether programs are confined."""
        return not self.why

    @property
    def notice(self) -> str | None:
        """What a task must say whose agent runs unconfined although nobody asked for that."""
        if self.works or self.mode == "off":
            return None
        return f"This turn was not confined: {self.why}. Its agent could reach whatever this user can; `coder doctor` says what to do."

    def check(self, network: bool) -> None:
        """See that a turn with this network policy can be kept in.

        Raises:
            AgentUnavailable: it cannot.
        """
        if self.works:
            return
        if self.mode == "required":
            raise AgentUnavailable(f"CODER_SANDBOX is required, but agents cannot be confined here: {self.why}; {CURE}.")
        if not network:
            cure = "set CODER_SANDBOX to auto" if self.mode == "off" else CURE
            raise AgentUnavailable(f"The project keeps its agents off the network, which needs the sandbox, but {self.why}; {cure}.")

    def cell(
        self,
        guardians: Guardians,
        *,
        worktree: Path | None,
        home: Path,
        network: bool,
        shown: Sequence[Path] = (),
        hosts: Sequence[Host] = (),
    ) -> Cell:
        """Starts programs for one worktree; None = for all of this data directory.

        Args:
            shown: what they may read besides.
            hosts: what they reach where the network is off.
        """
        return Cell(self, guardians, worktree, home, network, tuple(shown), tuple(hosts))

    def command(
        self,
        program: str,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        worktree: Path | None,
        home: Path,
        network: bool,
        shown: Sequence[Path] = (),
        relay: Relay | None = None,
    ) -> list[str]:
        """The command line that runs a program confined.

        Args:
            program: its absolute path.
            argv: what it gets, its name first; that it sees its path instead.
            relay: its ways out of a network of its own, and into it.

        Raises:
            AgentUnavailable: the worktree is not where it should be.
        """
        if worktree is not None and led_away(worktree):
            raise AgentUnavailable(
                f"The worktree {worktree} is a link to elsewhere, which an agent must have made, so nothing is run there; "
                "remove the link, then retry the task."
            )
        places = [git for git in [git_of(worktree)] if git is not None] if worktree is not None else gits_of(self.worktrees)
        seen = [*shown, *(relay.shown if relay else IN_RUN_ONLINE if network else ())]
        return [
            self.program,
            *self._walls(network),
            *(relay.walls() if relay else ()),
            *self._view(program, env, worktree, home, places, seen),
            *(relay.binds() if relay else ()),
            "--chdir",
            str(cwd),
            "--",
            *(relay.before() if relay else ()),
            program,
            *argv[1:],
        ]

    @property
    def worktrees(self) -> Path:
        """Where the worktrees of this data directory are."""
        return self._data / "worktrees"

    def _walls(self, network: bool) -> Iterator[str]:
        yield from ("--die-with-parent", "--unshare-pid", "--unshare-ipc")
        if not network:
            yield "--unshare-net"
        if os.geteuid() == 0:
            yield from ("--cap-drop", "ALL", *(word for name in CAPABILITIES for word in ("--cap-add", f"CAP_{name}")))

    def _view(
        self, program: str, env: Mapping[str, str], worktree: Path | None, home: Path, gits: Sequence[Git], shown: Sequence[Path]
    ) -> Iterator[str]:
        """The file system, from the whole to the parts: a later line lies over the earlier ones."""
        homes = user_homes()
        folders = masked_folders(homes, self._data)
        yield from ("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc")
        for place in filter(os.path.exists, KERNEL):
            yield from ("--ro-bind", place, place)
        for place in ("/tmp", "/var/tmp"):
            yield from ("--bind", str(temporary(home)), place)
        for folder in folders:
            yield from ("--tmpfs", str(folder))
        for path in exposed(homes, (*folders, Path("/tmp"), Path("/var/tmp")), program, env, (*self._readable, *shown)):
            yield from ("--ro-bind-try", str(path), str(path))
        yield from ("--tmpfs", str(self._data))
        for path in (home, worktree or self.worktrees):
            yield from ("--bind", str(path), str(path))
        for git in gits:
            yield from git.binds(alone=worktree is not None)
        for path in masked_files(homes, self._hidden):
            yield from ("--ro-bind", "/dev/null", str(path))
        for folder in (*folders, self._data):  # else what is written there would fill the memory
            yield from ("--remount-ro", str(folder))

    def why_no_relay(self, port: int) -> str:
        """Why programs without network have no way to a model at that port, found out by trying; empty where they have."""
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            for place in (home, temporary(home)):
                place.mkdir(parents=True)
            relay = Relay("trial", (Host("model.invalid", port),), entered=True)
            try:
                # As for one worktree, which the home stands for, in a data directory of its own.
                trial = Sandbox("auto", Path(folder), readable=self._readable, hidden=self._hidden, bwrap=self.program)
                program = find_program("true", home, {})
                command = trial.command(program, ("true",), cwd=home, env={}, worktree=home, home=home, network=False, relay=relay)
                done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_SECONDS, pass_fds=relay.fds)
                said = done.stderr.decode("utf-8", "replace").strip().removeprefix("bwrap: ")
                return relay.tried() or ("" if done.returncode == 0 else said or f"exit code {done.returncode}")
            except (OSError, subprocess.TimeoutExpired, AgentUnavailable) as error:
                return str(error)
            finally:
                relay.abandon()

    def _tried(self) -> str:
        """Why it does not work, by trying it."""
        if sys.platform != "linux":
            return "there is no sandbox on this system (bubblewrap is for Linux)"
        if not self.program:
            return "bubblewrap is not installed"
        trial = [
            self.program,
            *self._walls(network=False),
            "--ro-bind",
            "/",
            "/",
            "--dev",
            "/dev",
            "--proc",
            "/proc",
            "--tmpfs",
            "/run",
            "true",
        ]
        try:
            done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRIAL_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"bubblewrap cannot be run ({error})"
        said = done.stderr.decode("utf-8", "replace").strip().removeprefix("bwrap: ")
        return "" if done.returncode == 0 else f"bubblewrap does not work here ({said or f'exit code {done.returncode}'})"


@dataclass(frozen=True, slots=True)
class Cell:
    """Starts programs for one worktree, confined where the sandbox works."""

    sandbox: Sandbox
    guardians: Guardians
    worktree: Path | None
    home: Path
    network: bool
    shown: tuple[Path, ...] = ()
    hosts: tuple[Host, ...] = ()

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        """What of an environment has to change for a confined program, since the user's home is masked."""
        if not self.sandbox.works:
            return dict(env)
        user = Path.home()
        tools = {name: str(user / place) for name, place in TOOLS.items() if name not in env and (user / place).is_dir()}
        kept = {name: value for name, value in env.items() if not name.startswith("XDG_") or Path(value).is_relative_to(self.home)}
        if not self.network:  # nobody answers at a proxy's address
            kept = {name: value for name, value in kept.items() if not name.upper().endswith("_PROXY")}
        return {**tools, **kept, "HOME": str(self.home), "TMPDIR": "/tmp"}

    async def spawn(self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], entered: bool = False, **streams: Any) -> Guarded:
        """Start a program as `Guardians.spawn` does.

        Args:
            entered: it is a server, which is to be reached also where it runs in a network of its own: by its `relay`.

        Raises:
            AgentUnavailable: there is no such program, or it cannot be confined as it must be.
            InternalError: the system refused to start a process.
        """
        streams.setdefault("name", os.path.basename(argv[0]))
        self.sandbox.check(self.network or self.worktree is None)  # what serves no turn, such as --version, has nothing to keep in
        if not self.sandbox.works:
            return await self.guardians.spawn(argv, cwd=cwd, env=env, **streams)
        program = find_program(argv[0], cwd, env)
        for place in (self.home, temporary(self.home)):
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.worktree is None:
            self.sandbox.worktrees.mkdir(parents=True, exist_ok=True, mode=0o700)
        relay = Relay(streams["name"], self.hosts, entered=entered) if not self.network and (self.hosts or entered) else None
        try:
            argv = self.sandbox.command(
                program, argv, cwd=cwd, env=env, worktree=self.worktree, home=self.home, network=self.network, shown=self.shown, relay=relay
            )
            guarded = await self.guardians.spawn(argv, cwd=cwd, env=env, handed=relay.fds if relay else (), **streams)
        except BaseException:
            if relay is not None:
                relay.abandon()
            raise
        if relay is not None:
            guarded.relay = relay
            try:
                await relay.open(guarded)
            except BaseException:
                guarded.end()
                raise
        return guarded


Starter: TypeAlias = Guardians | Cell
"""Whatever starts programs as `Guardians.spawn` does."""

TOOLS = {"RUSTUP_HOME": ".rustup", "PYENV_ROOT": ".pyenv", "VOLTA_HOME": ".volta", "NVM_DIR": ".nvm"}
"""Tool chains that look for themselves in HOME."""
