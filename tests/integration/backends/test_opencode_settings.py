"""What opencode is told at its start, and how coder's names become opencode's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from coder.agents import AgentSpec, Endpoint
from coder.backends.guardian import Guardians
from coder.backends.launcher import Launcher
from coder.backends.opencode_settings import Wishes, configuration, message_id, own_model, shell, variables
from coder.config import Settings
from coder.ports import Turn


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def turn(**values: Any) -> Turn:
    made: dict[str, Any] = dict.fromkeys(("model", "mode_id", "thinking_option_id", "model_history"))
    made |= {"task_id": 1, "epoch": 1, "session_id": uuid4(), "chat_id": uuid4(), "prompt": "x"}
    return Turn(**{**made, "worktree": Path("/w"), "cwd": Path("/w"), "log": Path("/l"), **values})


def launcher(folder: Path, endpoint: str | None = "http://127.0.0.1:1/v1") -> Launcher:
    spec = AgentSpec(protocol="opencode", command=("opencode", "serve"), use_endpoint=True)
    return Launcher("opencode", spec, Guardians(), folder, Endpoint(endpoint, "", "llama-swap", "m1") if endpoint else None)


@pytest.mark.parametrize(
    ("asked", "default", "model"),
    [
        ("m2", "m1", {"providerID": "llama-swap", "modelID": "m2"}),
        ("other/m2", "m1", {"providerID": "other", "modelID": "m2"}),
        ("other/deep/m2", None, {"providerID": "other", "modelID": "deep/m2"}),
        (" ", "m1", {"providerID": "llama-swap", "modelID": "m1"}),
        (None, None, None),
    ],
)
def test_a_bare_model_gets_the_providers_prefix(asked: str | None, default: str | None, model: dict[str, str] | None) -> None:
    assert Wishes.of(turn(model=asked), settings(default_model=default), None).body().get("model") == model


def test_a_session_is_for_one_model_mode_option_and_directory() -> None:
    wishes = Wishes("a/b", "plan", "high", "/w")
    assert wishes.body() == {"model": {"providerID": "a", "modelID": "b"}, "agent": "plan", "variant": "high"}
    others = [replace(wishes, **{name: "other"}) for name in ("model", "mode", "variant", "directory")]
    assert len({each.config_hash for each in (wishes, *others)}) == 5
    assert replace(wishes).config_hash == wishes.config_hash


def test_whatever_changes_something_is_asked_for(tmp_path: Path) -> None:
    found = configuration(launcher(tmp_path), settings(model_base_url="http://127.0.0.1:1/v1", default_model="m1"), ("m1", "m2"))
    assert set(found["permission"].values()) == {"ask"}
    assert {"edit", "bash", "webfetch", "external_directory"} <= set(found["permission"])
    assert list(found["provider"]["llama-swap"]["models"]) == ["m1", "m2"]
    assert found["model"] == "llama-swap/m1"


@pytest.mark.parametrize(
    ("values", "npm", "address"),
    [
        ({"model_base_url": "http://127.0.0.1:1/v1/"}, "@ai-sdk/openai-compatible", "http://127.0.0.1:1/v1"),
        ({"model_base_url": "https://api.anthropic.com"}, "@ai-sdk/anthropic", "https://api.anthropic.com/v1"),
    ],
)
def test_an_endpoint_is_spoken_to_in_its_protocol(tmp_path: Path, values: dict[str, str], npm: str, address: str) -> None:
    provider = configuration(launcher(tmp_path), settings(**values), ())["provider"]["llama-swap"]
    assert (provider["npm"], provider["options"]["baseURL"]) == (npm, address)


def test_without_an_endpoint_opencode_uses_its_own_providers(tmp_path: Path) -> None:
    assert "provider" not in configuration(launcher(tmp_path, None), settings(), ())


def test_plugins_for_logins_are_left_where_there_is_a_login(tmp_path: Path) -> None:
    starting = launcher(tmp_path)
    assert "OPENCODE_DISABLE_DEFAULT_PLUGINS" in variables(starting, settings(), (), "p")
    login = starting.home / ".local/share/opencode/auth.json"
    login.parent.mkdir(parents=True)
    login.write_text("{}")
    assert "OPENCODE_DISABLE_DEFAULT_PLUGINS" not in variables(starting, settings(), (), "p")


def test_the_shell_is_called_what_it_is(tmp_path: Path) -> None:
    made = Path(shell(launcher(tmp_path))["SHELL"])
    assert made.name in ("bash", "sh")
    assert made.is_relative_to(tmp_path)


def test_ids_of_messages_grow() -> None:
    made = [message_id() for _ in range(500)]
    assert [each[:16] for each in made] == sorted(each[:16] for each in made)
    assert len(set(made)) == 500
    assert all(len(each) == 30 for each in made)


def test_an_answer_of_the_same_millisecond_comes_after_its_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """opencode counts the ids of a millisecond from 1 on; what does not come after the prompt is not of its turn."""
    now = 1_795_711_500_123
    monkeypatch.setattr("time.time_ns", lambda: now * 1_000_000 + 999_999)
    first = now * 0x1000 + 1 & (1 << 48) - 1
    assert all(message_id() < f"msg_{first:012x}" for _ in range(100))


@pytest.mark.parametrize(("model", "own"), [("llama-swap/m1", "m1"), ("other/m1", None), (None, None)])
def test_a_model_of_the_endpoint_is_known_by_its_prefix(model: str | None, own: str | None) -> None:
    assert own_model(model, settings()) == own
