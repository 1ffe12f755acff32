"""The real agents of the tests: pinned by `tests/agents/real/package-lock.json`, installed once per lock and user.

They are 1.6 GB, so the tree lies in the user's cache directory, under the hash of the lock, where every clone finds it; a
run that has a test in it that wants them begins to install them while the others run. No install script runs: the
programs are those of the platform packages, linked into one folder with the Node.js they want.

`claude` and `codex` are the very programs that claude-agent-acp and codex-acp drive, so that they are there once. The
lock holds what is published for Linux on x64; what a machine cannot install is skipped with the reason, but where CI is
set that fails. The overrides in `package.json` replace parts of qwen for other platforms, which are not published.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

LOCKED = Path(__file__).resolve().parent / "agents" / "real"
KEPT_DAYS = 30
NODE_MAJOR = 22
INSTALL = ("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")

SYSTEM = {"Linux": "linux", "Darwin": "darwin"}.get(platform.system(), platform.system())
MACHINE = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}.get(platform.machine(), platform.machine())
HERE = f"{SYSTEM}-{MACHINE}"

PROGRAMS = {
    "node": (f"node-{HERE}/bin/node",),
    "opencode": (f"opencode-{HERE}-baseline/bin/opencode",),
    "goose": (f"@aaif/goose-binary-{HERE}/bin/goose",),
    "claude": (f"@anthropic-ai/claude-agent-sdk-{HERE}/claude",),
    "claude-agent-acp": ("@agentclientprotocol/claude-agent-acp/dist/index.js", f"@anthropic-ai/claude-agent-sdk-{HERE}/claude"),
    "codex": ("@openai/codex/bin/codex.js", f"@openai/codex-{HERE}/package.json"),
    "codex-acp": ("@agentclientprotocol/codex-acp/dist/index.js", f"@openai/codex-{HERE}/package.json"),
    "gemini": ("@google/gemini-cli/bundle/gemini.js",),
    "qwen": ("@qwen-code/qwen-code/cli-entry.js",),
}
"""Programs by name: what is run, below node_modules, and what else must be there for it."""

NATIVE = frozenset({"opencode", "goose", "claude"})
"""Those that run without Node.js."""


@dataclass(frozen=True)
class Missing(Exception):
    """Why agents cannot be had on this machine: a sentence."""

    why: str

    def __str__(self) -> str:
        return self.why


def tree() -> Path:
    """Where the packages of this lock are, or will be."""
    digest = hashlib.sha256((LOCKED / "package-lock.json").read_bytes() + HERE.encode()).hexdigest()[:16]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coder-tests" / digest


def installed() -> Path:
    """The folder for the PATH with all programs that there are; installs them when they are not there.

    Raises:
        Missing: they cannot be installed.
    """
    place = tree()
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f"{place.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # other runs and workers want the same
        if not place.exists():
            _forget_old(place)
            _install(place)
        os.utime(place)
    return place / "bin"


def _install(place: Path) -> None:
    if shutil.which("npm") is None:
        raise Missing("The real agents come from npm, and there is no npm on the PATH; install Node.js.")
    unfinished = place.with_name(f"{place.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED / name, unfinished)
    done = subprocess.run(INSTALL, cwd=unfinished, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        shutil.rmtree(unfinished)
        raise Missing(f"npm could not install the real agents: {done.stdout.strip()[-2000:]}")
    _link(unfinished)
    unfinished.rename(place)


def _link(place: Path) -> None:
    """Put the programs that are there whole into one folder."""
    folder = place / "bin"
    folder.mkdir()
    for name, needed in PROGRAMS.items():
        if all((place / "node_modules" / path).exists() for path in needed):
            program = place / "node_modules" / needed[0]
            program.chmod(program.stat().st_mode | 0o111)
            (folder / name).symlink_to(os.path.relpath(program, folder))
    if not (folder / "node").exists() and (own := shutil.which("node")) and _major(own) >= NODE_MAJOR:
        (folder / "node").symlink_to(own)


def _major(node: str) -> int:
    shown = subprocess.run([node, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return int(shown.removeprefix("v").partition(".")[0])


def _forget_old(place: Path) -> None:
    """Delete the trees of other locks that no run has used for a month."""
    for other in place.parent.iterdir():
        if other.is_dir() and time.time() - other.stat().st_mtime > KEPT_DAYS * 86400:
            shutil.rmtree(other)


@pytest.fixture(scope="session")
def agent_path() -> Callable[[str], Path]:
    """Ask it for an agent by its program's name: answers the folder to put first on the PATH, with Node.js in it."""

    def ask(name: str) -> Path:
        try:
            folder = installed()
            if not (folder / name).exists():
                raise Missing(f"{name} is not published for {HERE} in the pinned version.")
            if name not in NATIVE and not (folder / "node").exists():
                raise Missing(f"{name} needs Node.js {NODE_MAJOR}, which is neither published for {HERE} nor on the PATH.")
        except Missing as missing:
            if os.environ.get("CI"):
                pytest.fail(missing.why)
            pytest.skip(missing.why)
        return folder

    return ask


class Ahead:
    """Installs the agents beside the tests that do not need them, as soon as it is known that some do."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @pytest.hookimpl
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        wanted = any("agent_path" in getattr(item, "fixturenames", ()) for item in session.items)
        if wanted and not tree().exists() and not session.config.option.collectonly:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    @pytest.hookimpl
    def pytest_unconfigure(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait()


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        config.pluginmanager.register(Ahead())


def main() -> int:
    """Install them now: `python tests/real_agents.py`."""
    try:
        print(installed())
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
