"""The registry as it is read from files, and the page that explains it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coder.agents import AgentSpec, hosts, parse
from coder.backends.guardian import Guardians
from coder.backends.registry import BUILT_IN, build_backends, endpoint_of, make_sandbox, read_registry
from coder.backends.sandbox_places import temporary
from coder.config import Settings
from coder.errors import InvalidInput
from coder.runtime.clock import SystemClock

PAGE = (Path(__file__).parents[3] / "docs" / "agents.md").read_text()


def settings(folder: Path, **values: Any) -> Settings:
    return Settings(_env_file=None, data_dir=folder, **values)


def test_the_built_in_agents_are_there(tmp_path: Path) -> None:
    agents = read_registry(settings(tmp_path)).agents
    assert {"opencode", "claude", "codex", "gemini", "qwen", "goose"} <= set(agents)
    assert {spec.protocol for spec in agents.values()} == {"opencode", "acp", "pty"}
    assert all(spec.install for spec in agents.values())


def test_a_file_in_the_data_directory_adds_agents_and_changes_fields(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text(
        '[mine]\nprotocol = "pty"\ncommand = ["mine", "{prompt}"]\n[goose]\nmultiplex = false\n[qwen]\nenabled = false\n'
    )
    agents = read_registry(settings(tmp_path)).agents
    assert agents["mine"].command == ("mine", "{prompt}")
    assert (agents["goose"].multiplex, agents["goose"].protocol) == (False, "acp")
    assert "qwen" not in agents


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text("\ufeff[goose]\nmultiplex = false\n", "utf-8")
    assert not read_registry(settings(tmp_path)).agents["goose"].multiplex


def test_a_named_file_is_used_instead(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text("broken = ")
    (tmp_path / "own.toml").write_text('[mine]\nprotocol = "acp"\ncommand = ["mine"]\n')
    assert "mine" in read_registry(settings(tmp_path, agents_file=tmp_path / "own.toml")).agents


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[mine\n", ["is not TOML", "line 1"]),
        (b"\xff", ["is not TOML", "utf-8"]),
        ("[mine]\nprotocol = 'telnet'\ncommand = ['mine']\n", ["agent mine, field protocol", "'opencode', 'acp' or 'pty'"]),
        ("[mine]\nprotocol = 'acp'\n", ["agent mine, field command"]),
        ("[mine]\nprotocol = 'acp'\ncommand = ['mine']\nspeed = 3\n", ["agent mine, field speed: there is no such field; correct it."]),
        (
            "[mine]\nprotocol = 'acp'\ncomand = ['mine']\n",
            ["agent mine, field comand: there is no such field, command may be meant; correct it."],
        ),
        ("[native]\nprotocol = 'acp'\ncommand = ['mine']\n", ["is not native"]),
        ("[goose-offline]\nprotocol = 'acp'\ncommand = ['mine']\n", ["nor ends in -offline", "'goose-offline' is not"]),
        ("['opencode.entrance']\nprotocol = 'acp'\ncommand = ['mine']\n", ["or .entrance", "'opencode.entrance' is not"]),
        ("[setup]\nprotocol = 'acp'\ncommand = ['mine']\n", ["'setup' is not"]),
        ("[goose]\nmultiplex = 'perhaps'\n", ["agent goose, field multiplex"]),
        ("[goose]\ncommand = 'goose acp'\n", ["agent goose, field command: Input should be a valid list; correct it."]),
        ("[goose]\nnetwork_hosts = ['pypi.org']\n", ["field network_hosts.0: 'pypi.org' is no host and port; write for example"]),
        ("[goose]\nmodel_hosts = ['https://a.example:443']\n", ["field model_hosts.0: 'https://a.example:443' is no host and port"]),
        ("[goose]\nmodel_hosts = ['a.example:70000']\n", ["field model_hosts.0"]),
        (
            "[mine]\nprotocol = 'pty'\ncommand = ['']\n",
            ["agent mine: command begins with the name of a program, which is empty; correct it."],
        ),
        ("[mine]\nprotocol = 'pty'\ncommand = ['a', \"b\\u0000\"]\n", ["agent mine, field command.1: it holds the character U+0000"]),
        ("[goose]\nenv = {'A=B' = 'c'}\n", ["agent goose, field env.A=B", "'A=B' names no variable"]),
        ('[goose]\nenv = {A = "\\u0000"}\n', ["field env.A: it holds the character U+0000"]),
        ("[goose]\ncopy_files = ['/etc/passwd']\n", ["field copy_files.0: '/etc/passwd' is no file below a home directory"]),
        ("[goose]\nendpoint_files = {'.config/../../x' = ''}\n", ["endpoint_files", "'.config/../../x' is no file below a home directory"]),
        ("[goose]\ncommand = ['goose', 'acp', '{model}']\n", ["agent goose: {model} is of commands that are run for each turn (pty)"]),
        ("[mine]\nprotocol = 'pty'\ncommand = ['mine', '{promt}']\n", ["agent mine: {promt} is no placeholder; {prompt} may be meant"]),
    ],
    ids=[
        *(
            "no table",
            "no text",
            "protocol",
            "no command",
            "unknown field",
            "misspelt field",
            "native",
            "offline",
            "entrance",
            "setup",
            "built-in",
        ),
        *("no list", "no port", "an address", "no such port"),
        *("empty program", "NUL", "no variable", "NUL in a variable", "file elsewhere", "file above", "a turn's placeholder", "misspelt"),
    ],
)
def test_a_wrong_file_is_a_sentence(content: str | bytes, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInput) as raised:
        read_registry(settings(tmp_path))
    assert all(word in raised.value.message for word in [str(tmp_path / "agents.toml"), *words]), raised.value.message


def test_braces_of_other_programs_stay_as_they_are() -> None:
    table = {"protocol": "pty", "command": ["awk", "{print}", "${HOME}", "{prompt}", "{key}"]}
    assert parse(("own.toml", {"mine": table})).agents["mine"].command[1:3] == ("{print}", "${HOME}")


def test_a_named_file_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="does not exist; write it, or correct CODER_AGENTS_FILE"):
        read_registry(settings(tmp_path, agents_file=tmp_path / "none.toml"))


async def test_what_agents_left_in_tmp_goes_with_the_node_that_is_gone(tmp_path: Path) -> None:
    home = tmp_path / "homes/0/goose"
    home.mkdir(parents=True)
    temporary(home).mkdir(parents=True)
    (temporary(home) / "left").touch()
    chosen = settings(tmp_path, sandbox="off")
    build_backends(chosen, Guardians(), tmp_path / "homes" / "0", make_sandbox(chosen), SystemClock())
    assert [path.name for path in home.parent.iterdir()] == ["goose"]


def test_the_endpoint_is_the_configured_one(tmp_path: Path) -> None:
    assert endpoint_of(settings(tmp_path)) is None
    endpoint = endpoint_of(settings(tmp_path, model_base_url="http://127.0.0.1:1234/v1", default_model="m1"))
    assert endpoint is not None
    assert (endpoint.base_url, endpoint.default_model, endpoint.provider) == ("http://127.0.0.1:1234/v1", "m1", "llama-swap")


@pytest.mark.parametrize(
    ("table", "base_url", "reached"),
    [
        ({}, None, ["api.openai.com:443", "api.anthropic.com:443", "openrouter.ai:443"]),
        ({"use_endpoint": True}, None, ["api.openai.com:443", "api.anthropic.com:443", "openrouter.ai:443"]),
        ({"use_endpoint": True}, "http://127.0.0.1:1234/v1", ["127.0.0.1:1234"]),
        ({"use_endpoint": True, "network_hosts": ["B.org:443", "[::1]:80"]}, "https://u@A.org/v1", ["a.org:443", "b.org:443", "[::1]:80"]),
        ({"model_hosts": ["[2001:DB8::1]:8080"]}, "http://127.0.0.1:1234/v1", ["[2001:db8::1]:8080"]),
    ],
)  # fmt: skip
def test_what_is_reached_without_network_is_where_the_model_is(
    table: dict[str, Any], base_url: str | None, reached: list[str], tmp_path: Path
) -> None:
    spec = parse(("agents.toml", tomllib.loads(BUILT_IN.read_text())), ("own.toml", {"goose": table})).agents["goose"]
    assert [str(host) for host in hosts(spec, endpoint_of(settings(tmp_path, model_base_url=base_url)))] == reached


def test_every_built_in_agent_says_where_its_model_is() -> None:
    agents = parse(("agents.toml", tomllib.loads(BUILT_IN.read_text()))).agents
    assert all(spec.model_hosts and not spec.network_hosts for spec in agents.values())


def test_the_page_explains_every_field_in_the_models_words() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \|$", PAGE, re.M))
    assert list(rows) == list(AgentSpec.model_fields)
    for name, field in AgentSpec.model_fields.items():
        assert rows[name].startswith(field.description or ""), name


def test_the_page_names_every_built_in_agent() -> None:
    for name in tomllib.loads(BUILT_IN.read_text()):
        assert f"`{name}`" in PAGE


def test_the_pages_example_is_an_agent() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    assert len(example.splitlines()) == 5
    (name,) = tomllib.loads(example)
    assert parse(("docs/agents.md", tomllib.loads(example))).agents[name].protocol == "pty"


async def test_there_is_a_backend_for_each(tmp_path: Path) -> None:
    chosen = settings(tmp_path, sandbox="off")
    backends = build_backends(chosen, Guardians(), tmp_path / "homes" / "0", make_sandbox(chosen), SystemClock())
    assert set(backends) == {"native", *read_registry(chosen).agents}
