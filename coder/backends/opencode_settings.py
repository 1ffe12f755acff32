"""What an opencode server is told when it starts, and how coder's names of models, modes and options become opencode's.

Everything that changes something (edits, commands, other directories, the web) is asked for: coder decides, not opencode.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shlex
import shutil
import string
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coder.backends.launcher import Launcher
from coder.backends.native_model import Endpoint
from coder.config import Settings
from coder.ports import Turn

ASKED = ("edit", "bash", "webfetch", "websearch", "external_directory", "doom_loop")
SECRET = ("OPENCODE_SERVER_PASSWORD", "OPENCODE_CONFIG_CONTENT")
QUIET = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "SHARE")
LOGIN = ".local/share/opencode/auth.json"
HASHED = 1  # rises when what a session must have been made with changes here
DIGITS = string.digits + string.ascii_letters


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a turn wants of opencode.

    Attributes:
        model: `provider/model`, None = whatever opencode itself would take.
        mode: opencode's agent, None = its default.
        variant: how hard the model is to think, None = its default.
    """

    model: str | None
    mode: str | None
    variant: str | None
    directory: str

    @classmethod
    def of(cls, turn: Turn, settings: Settings, default_mode: str | None) -> Wishes:
        name = (turn.model or "").strip() or (settings.default_model or "").strip()
        if name and "/" not in name:
            name = f"{settings.model_provider}/{name}"
        mode = (turn.mode_id or "").strip() or default_mode
        return cls(name or None, mode, (turn.thinking_option_id or "").strip() or None, str(turn.cwd))

    @property
    def config_hash(self) -> str:
        """Of everything a session is made with: another one is another session."""
        made = json.dumps([HASHED, self.model, self.mode, self.variant, self.directory])
        return hashlib.sha256(made.encode()).hexdigest()[:16]

    def body(self) -> dict[str, Any]:
        """The fields of a prompt."""
        found: dict[str, Any] = {}
        if self.model:
            provider, _, name = self.model.partition("/")
            found["model"] = {"providerID": provider, "modelID": name}
        return found | ({"agent": self.mode} if self.mode else {}) | ({"variant": self.variant} if self.variant else {})


def message_id() -> str:
    """An id for a message as opencode makes them: they sort by time, which it relies on, and so do we.

    Within a millisecond opencode counts from 1 on; ours is the 0, so that an answer that is begun in the same one comes after it.
    """
    stamp = time.time_ns() // 1_000_000 * 0x1000 & (1 << 48) - 1
    return f"msg_{stamp:012x}" + "".join(secrets.choice(DIGITS) for _ in range(14))


def uses_endpoint(launcher: Launcher) -> bool:
    """Whether this agent is to be pointed at the configured endpoint."""
    return launcher.spec.use_endpoint and launcher.endpoint is not None


def variables(launcher: Launcher, settings: Settings, models: Iterable[str], password: str) -> dict[str, str]:
    """The variables a server starts with.

    Args:
        models: the endpoint's, without prefix.
        password: what whoever speaks with it must know.
    """
    found = {f"OPENCODE_DISABLE_{what}": "1" for what in QUIET}
    if not (launcher.home / LOGIN).is_file():
        found["OPENCODE_DISABLE_DEFAULT_PLUGINS"] = "1"  # they are for logins, and are installed from the network
    content = json.dumps(configuration(launcher, settings, models))
    return {**found, "OPENCODE_SERVER_PASSWORD": password, "OPENCODE_CONFIG_CONTENT": content}


def shell(launcher: Launcher) -> dict[str, str]:
    """Make the shell that opencode gives commands to, and the variable that names it.

    opencode hands its whole environment on; this one takes the password of the server and the endpoint's key out of it, so that
    a command that prints its environment does not print them. It is no wall: the server's memory is the same user's.
    """
    found = shutil.which("bash", path=launcher.environment().get("PATH")) or "/bin/sh"
    made = f"shell/{Path(found).name}"
    launcher.files.write(made, f'#!/bin/sh\nunset {" ".join(SECRET)}\nexec {shlex.quote(found)} "$@"\n'.encode(), mode=0o700)
    return {"SHELL": str(launcher.home / made)}


def configuration(launcher: Launcher, settings: Settings, models: Iterable[str]) -> dict[str, Any]:
    """The configuration that goes over the user's and the project's own."""
    found: dict[str, Any] = {"autoupdate": False, "share": "disabled", "permission": dict.fromkeys(ASKED, "ask")}
    endpoint = Endpoint.of(settings)
    if endpoint is None or not uses_endpoint(launcher):
        return found
    anthropic = endpoint.protocol == "anthropic"
    provider = {
        "npm": "@ai-sdk/anthropic" if anthropic else "@ai-sdk/openai-compatible",
        "name": settings.model_provider,
        "options": {"baseURL": f"{endpoint.root}/v1" if anthropic else endpoint.base_url, "apiKey": endpoint.key or "none"},
        "models": {name: {"name": name, "reasoning": True, "tool_call": True} for name in models},
    }
    found["provider"] = {settings.model_provider: provider}
    if default := (settings.default_model or "").strip():
        name = default if "/" in default else f"{settings.model_provider}/{default}"
        found |= {"model": name, "small_model": name}
    return found


def own_model(model: str | None, settings: Settings) -> str | None:
    """The endpoint's name of a model when it is one of the endpoint's, else None."""
    prefix = f"{settings.model_provider}/"
    return model.removeprefix(prefix) if model and model.startswith(prefix) else None
