"""The registry as it is on this machine, and a backend for each agent in it.

A broken file of the user's is an error and nothing starts: with half a registry, tasks would go to agents nobody chose.
"""

from __future__ import annotations

import os
import shutil
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coder.agents import AgentSpec, Endpoint, Protocol, Registry, parse
from coder.backends.acp import AcpBackend
from coder.backends.environment import agent_environment
from coder.backends.gate import Gated
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.native import AGENT, NativeBackend
from coder.backends.opencode import OpencodeBackend
from coder.backends.pty import PtyBackend
from coder.backends.sandbox import Sandbox
from coder.backends.sandbox_places import TEMPORARY
from coder.backends.warm import Warm
from coder.config import Settings
from coder.errors import InvalidInput
from coder.ports import Backend, Clock

BUILT_IN = Path(__file__).parents[1] / "agents.toml"


def read_registry(settings: Settings) -> Registry:
    """The agents coder knows and those of the user's file.

    Raises:
        InvalidInput: a file cannot be read, is no TOML, or an entry in it is wrong; says which and what.
    """
    files = [(BUILT_IN.name, _toml(BUILT_IN))]
    own = _own_file(settings)
    if own is not None:
        files.append((str(own), _toml(own)))
    return parse(*files)


def _own_file(settings: Settings) -> Path | None:
    if settings.agents_file is not None:
        return settings.agents_file.expanduser()
    usual = settings.data_dir.expanduser().resolve() / "agents.toml"
    return usual if usual.exists() else None


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except FileNotFoundError as error:
        raise InvalidInput(f"The registry of agents {path} does not exist; write it, or correct CODER_AGENTS_FILE.") from error
    except OSError as error:
        raise InvalidInput(
            f"The registry of agents {path} cannot be read ({error.strerror}); correct that, or CODER_AGENTS_FILE."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"The registry of agents {path} is not TOML: {error}; correct it.") from error


def find_agent(spec: AgentSpec) -> str | None:
    """Where the program of an agent is on the PATH that agents get, None when it is not installed."""
    return shutil.which(spec.command[0], path=agent_environment(os.environ).get("PATH"))


def endpoint_of(settings: Settings) -> Endpoint | None:
    """The configured model endpoint as agents are pointed at it."""
    if settings.model_base_url is None:
        return None
    key = settings.model_api_key.get_secret_value() if settings.model_api_key else ""
    return Endpoint(settings.model_base_url, key, settings.model_provider, settings.default_model or "")


def make_sandbox(settings: Settings) -> Sandbox:
    """The sandbox of this node, tried out. It hides the files that hold our settings."""
    hidden = [Path.cwd() / ".env", *([own] if (own := _own_file(settings)) else [])]
    readable = [Path(place).expanduser() for place in settings.sandbox_readable.split(os.pathsep) if place]
    return Sandbox(settings.sandbox, settings.data_dir.expanduser().resolve(), readable=readable, hidden=hidden)


def build_backends(settings: Settings, guardians: Guardians, homes: Path, sandbox: Sandbox, clock: Clock) -> dict[str, Backend]:
    """A backend for native inference and one for each agent of the registry, by the agent's name.

    Args:
        homes: directory of this node slot's homes. What earlier agents left in their /tmp goes.

    Raises:
        InvalidInput: as `read_registry`.
    """
    shutil.rmtree(homes / TEMPORARY, ignore_errors=True)
    endpoint = endpoint_of(settings)
    makers = _makers(settings)
    backends: dict[str, Backend] = {AGENT: Gated(NativeBackend(settings, guardians, clock, sandbox, homes / AGENT), sandbox)}
    for name, spec in read_registry(settings).agents.items():
        launcher = Launcher(name, spec, guardians, homes, endpoint, sandbox)
        backends[name] = Gated(makers[spec.protocol](launcher), sandbox, name if spec.needs_network and not launcher.hosts else None)
    return backends


def _makers(settings: Settings) -> Mapping[Protocol, Callable[[Launcher], Backend]]:
    """What makes a backend, by protocol. All ACP agents of a node share the bounds on what is kept warm."""
    warm = Warm(most=settings.warm_agents, memory=settings.warm_memory_bytes, idle=settings.agent_idle_seconds)
    return {
        "opencode": lambda launcher: OpencodeBackend(launcher, settings),
        "acp": lambda launcher: AcpBackend(launcher, settings, warm),
        "pty": lambda launcher: PtyBackend(launcher, settings),
    }
