"""The registry of agents: what an entry of `agents.toml` says, and the command line and environment it comes to. Pure.

The built-in entries are in `coder/agents.toml`; a file of one's own adds entries, or changes fields of built-in ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from coder.errors import InvalidInput

Protocol = Literal["opencode", "acp", "pty"]
Stream = Literal["text", "claude", "codex", "qwen", "goose", "opencode"]
PLACEHOLDER = re.compile(r"\{(\w+)\}")
TURNS_OWN = frozenset({"prompt", "model", "bare_model", "mode", "thinking", "session"})
"""Placeholders that have a value only where a command is run for one turn."""
PLACEHOLDERS = (*sorted(TURNS_OWN), "worktree", "home", "base_url", "origin", "base_path", "key", "provider", "default_model")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
TAKEN, TAKEN_ENDS = ("native", "setup"), ("-offline", ".entrance")
"""What else lies beside the agents' homes."""

HOST = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(?P<port>[0-9]{1,5})")
PORTS = {"http": 80, "https": 443}
MOST_HOSTS = 60


@dataclass(frozen=True, slots=True)
class Host:
    """Where something is reached: a name or an address (an IPv6 one without brackets), and a port."""

    name: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Host:
        """Read `name:port` or `[address]:port`.

        Raises:
            ValueError: it is neither; a sentence.
        """
        found = HOST.fullmatch(text)
        if found is None or not 1 <= int(found["port"]) <= 65535:
            raise ValueError(f"{text!r} is no host and port; write for example api.example.org:443")
        return cls(found["name"].strip("[]").lower(), int(found["port"]))

    def __str__(self) -> str:
        return f"[{self.name}]:{self.port}" if ":" in self.name else f"{self.name}:{self.port}"


def _host(text: str) -> str:
    return str(Host.parse(text))


def _word(text: str) -> str:
    if "\0" in text:
        raise ValueError("it holds the character U+0000, which no program can be given")
    return text


def _variable(name: str) -> str:
    if not VARIABLE.fullmatch(name):
        raise ValueError(f"{name!r} names no variable; a name is of letters, digits and '_'")
    return name


def _below_home(name: str) -> str:
    """Raises ValueError for what is not a file below a home directory."""
    if not _word(name).strip("/.") or name.startswith("/") or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no file below a home directory; write for example .config/agent.json")
    return name


HostText = Annotated[str, AfterValidator(_host)]
Word = Annotated[str, AfterValidator(_word)]
Variable = Annotated[str, AfterValidator(_variable)]
HomeFile = Annotated[str, AfterValidator(_below_home)]
Line = tuple[Word, ...]
"""A program and its arguments."""


class AgentSpec(BaseModel):
    """One agent: how it is run and spoken to.

    A string may hold the placeholders `{home}` (the agent's own home) and, of the configured endpoint, `{base_url}`, `{origin}`,
    `{base_path}`, `{key}`, `{provider}`, `{default_model}`. Of an agent that is run once a turn (pty) also what is of the turn:
    `{prompt}`, `{model}`, `{bare_model}` (without the provider before it), `{mode}`, `{thinking}`, `{worktree}`, and `{session}`: the
    agent's own conversation, in `command` a name that it is to give a new one. A command without `{prompt}` gets it at its standard input.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: Protocol = Field(description="How coder speaks with it")
    command: Line = Field(min_length=1, description="Program and arguments; the program is looked up in PATH")
    version_command: Line = Field((), description="What prints its version; empty = the program with --version")
    install: str = Field("", description="The command that installs it")
    env: dict[Variable, Word] = Field({}, description="Variables it gets")
    pass_env: tuple[Variable, ...] = Field((), description="Names of variables of the dispatcher that it gets, its keys for example")
    copy_files: tuple[HomeFile, ...] = Field((), description="Files below the user's home copied into the agent's own at start: its login")
    use_endpoint: bool = Field(False, description="Point it at CODER_MODEL_BASE_URL, with `endpoint_env` and `endpoint_files`")
    endpoint_env: dict[Variable, Word] = Field({}, description="Variables that point it at the configured endpoint")
    endpoint_files: dict[HomeFile, str] = Field({}, description="Files below its home, with their content, that do so")
    models: tuple[str, ...] = Field((), description="Models to offer where it cannot be asked")
    default_mode: str | None = Field(None, description="Mode of turns that name none")
    confined_mode: str | None = Field(None, description="The same where coder's sandbox works: one without a sandbox of the agent's own")
    multiplex: bool = Field(False, description="acp: one process may hold several sessions")
    files_by_coder: bool = Field(True, description="acp: offer it to read and write files of its worktree through coder")
    stream: Stream = Field("text", description="pty: what its output is")
    continue_command: Line = Field((), description="pty: command that goes on with an earlier {session}")
    needs_network: bool = Field(True, description="It reaches its model over the network, so projects without one must know where that is")
    model_hosts: tuple[HostText, ...] = Field(
        (),
        max_length=MOST_HOSTS,
        description="Where its model is, as `name:port`: what it reaches in projects without network, unless it is pointed at the endpoint",
    )
    network_hosts: tuple[HostText, ...] = Field(
        (), max_length=MOST_HOSTS, description="What else it reaches in projects without network, as `name:port`"
    )
    enabled: bool = Field(True, description="Whether it is offered")

    @model_validator(mode="after")
    def _fits(self) -> AgentSpec:
        """Raises ValueError where fields do not go together."""
        if not self.command[0].strip():
            raise ValueError("command begins with the name of a program, which is empty")
        for name in dict.fromkeys(PLACEHOLDER.findall("\n".join((*self.command, *self.continue_command)))):
            if name in TURNS_OWN and self.protocol != "pty":
                raise ValueError(f"{{{name}}} is of commands that are run for each turn (pty); this one is told by its protocol")
            meant = get_close_matches(name, PLACEHOLDERS, 1, 0.8) if name not in PLACEHOLDERS else []
            if meant:  # anything else in braces is some program's own
                raise ValueError(f"{{{name}}} is no placeholder; {{{meant[0]}}} may be meant")
        return self


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The configured model endpoint, as placeholders want it."""

    base_url: str
    key: str
    provider: str
    default_model: str

    @property
    def host(self) -> Host | None:
        """Where it is; None when the address names no host, or no port that there is."""
        try:
            parts = urlsplit(self.base_url)
            port = parts.port or PORTS.get(parts.scheme, 443)
        except ValueError:
            return None
        return Host(parts.hostname, port) if parts.hostname else None

    def values(self) -> dict[str, str]:
        parts = urlsplit(self.base_url)
        return {
            "base_url": self.base_url.rstrip("/"),
            "origin": f"{parts.scheme}://{parts.netloc}",
            "base_path": parts.path.strip("/"),
            "key": self.key or "none",
            "provider": self.provider,
            "default_model": self.default_model,
        }


@dataclass(frozen=True, slots=True)
class Registry:
    """Agents by name."""

    agents: Mapping[str, AgentSpec] = field(default_factory=dict)


def parse(*files: tuple[str, Mapping[str, Any]]) -> Registry:
    """Read the tables of registry files, later ones over earlier ones, field by field.

    Args:
        files: a file's name for sentences, and its content as parsed TOML: a table per agent.

    Raises:
        InvalidInput: an entry is not one; says which, in which file, and what is wrong.
    """
    tables: dict[str, dict[str, Any]] = {}
    for file, content in files:
        for name, table in content.items():
            if not NAME.fullmatch(name) or name in TAKEN or name.endswith(TAKEN_ENDS):
                raise InvalidInput(
                    f"{file}: an agent is named by 1 to 40 of a-z, 0-9, '.', '_' and '-', is not native or setup, "
                    f"nor ends in {' or '.join(TAKEN_ENDS)}; {name!r} is not."
                )
            if not isinstance(table, Mapping):
                raise InvalidInput(f"{file}: {name} is not a table; write [{name}] and its fields below.")
            tables[name] = {**tables.get(name, {}), **table}
            try:
                AgentSpec(**tables[name])
            except ValidationError as error:
                # A field that is missing may be one that is misspelt.
                first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
                where = ".".join(str(part) for part in first["loc"])
                place = f"agent {name}, field {where}" if where else f"agent {name}"
                said = _no_field(where) if first["type"] == "extra_forbidden" else _said(first["msg"])
                raise InvalidInput(f"{file}: {place}: {said}; correct it.") from error
    return Registry({name: spec for name, table in tables.items() if (spec := AgentSpec(**table)).enabled})


def _no_field(name: str) -> str:
    meant = get_close_matches(name, AgentSpec.model_fields, 1, 0.8)
    return f"there is no such field{f', {meant[0]} may be meant' if meant else ''}"


def _said(message: str) -> str:
    """What pydantic says, in the words of TOML."""
    return message.removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List").rstrip(".")


def fill(text: str, values: Mapping[str, str]) -> str:
    """Put values for placeholders; braces around anything else stay as they are."""
    return PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)


def command_line(command: tuple[str, ...], values: Mapping[str, str]) -> list[str]:
    """A command with its placeholders filled in. An argument whose value is empty is left out, with the option before it."""
    filled: list[str] = []
    for argument in command:
        names = [name for name in PLACEHOLDER.findall(argument) if name in values]
        if names and not any(values[name] for name in names):
            if len(filled) > 1 and filled[-1].startswith("-"):
                filled.pop()
            continue
        filled.append(fill(argument, values))
    return filled


def environment(spec: AgentSpec, endpoint: Endpoint | None, base: Mapping[str, str], home: str) -> dict[str, str]:
    """What an agent gets besides what every program gets: its home, its own variables, and the endpoint's if it uses that.

    Args:
        base: the dispatcher's environment, for `pass_env`.
        home: absolute path of the agent's home.
    """
    values = {"home": home, **(endpoint.values() if endpoint else {})}
    found = {name: base[name] for name in spec.pass_env if name in base}
    found |= {name: fill(value, values) for name, value in spec.env.items()}
    if spec.use_endpoint and endpoint is not None:
        found |= {name: fill(value, values) for name, value in spec.endpoint_env.items()}
    xdg = {f"XDG_{kind.upper()}_HOME": f"{home}/.{place}" for kind, place in XDG.items()}
    return {**xdg, "HOME": home, **found}


def hosts(spec: AgentSpec, endpoint: Endpoint | None) -> tuple[Host, ...]:
    """What an agent reaches in projects that keep it off the network: where its model is, and what its entry names besides."""
    pointed = endpoint.host if spec.use_endpoint and endpoint is not None else None
    own = (pointed,) if pointed is not None else map(Host.parse, spec.model_hosts)
    return tuple(dict.fromkeys((*own, *map(Host.parse, spec.network_hosts))))


XDG = {"config": "config", "data": "local/share", "cache": "cache", "state": "local/state"}
