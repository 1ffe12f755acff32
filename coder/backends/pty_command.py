"""What to run for a turn of an agent that is a command: its arguments, what stands at its standard input, whether it remembers.

How a prompt gets there: a command with `{prompt}` gets it as an argument, and at its standard input nothing; one without gets it at its
standard input. An argument may be 128 KiB long (Linux), so a longer prompt is a file that the argument names.

Invariant: the agent goes on with its own conversation only where that is known to be whole; else it is told what was said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coder.agents import PLACEHOLDER, AgentSpec, command_line, fill
from coder.config import Settings
from coder.ports import Turn

ARGUMENT_BYTES = 100_000
_VERSION = 1
_READ_IT = "Your task is in the file {file}: read all of it, then do what it says."
_PRIMED = "What was said in this conversation so far:\n\n{earlier}\n\nNow go on with this:\n\n{prompt}"


@dataclass(frozen=True, slots=True)
class Order:
    """One run of the command.

    Attributes:
        argv: program and arguments.
        stdin: the file at its standard input.
        prompt: what `file` holds while it runs, None when there is no need for one.
        env: variables that name something of the turn.
        session: the agent's id of the conversation as far as it is known before it runs.
        resumed: whether it goes on with a conversation of its own.
        notices: what watchers must know before it says anything.
    """

    argv: tuple[str, ...]
    stdin: Path
    prompt: str | None
    env: Mapping[str, str]
    session: str | None
    resumed: bool
    notices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent that an order is for.

    Attributes:
        home: its home directory.
        home_name: that directory's name, as sessions remember it.
        environment: its variables before a turn is known.
    """

    name: str
    spec: AgentSpec
    home: Path
    home_name: str
    environment: Mapping[str, str]


def wanted_model(turn: Turn, spec: AgentSpec, settings: Settings) -> str:
    """The model's name as the agent wants it; empty for its own choice."""
    model = (turn.model or "").strip() or (settings.default_model or "").strip()
    return f"{settings.model_provider}/{model}" if model and spec.stream == "opencode" and "/" not in model else model


def config_hash(agent: Agent, turn: Turn, settings: Settings) -> str:
    """What a conversation was made with; it is gone on with only with the same."""
    made = (
        *(_VERSION, agent.name, *agent.spec.continue_command),
        *(wanted_model(turn, agent.spec, settings), turn.mode_id or "", turn.thinking_option_id or ""),
    )
    return hashlib.sha256(json.dumps(made).encode()).hexdigest()[:32]


async def order(agent: Agent, turn: Turn, settings: Settings, file: Path) -> Order:
    """Work out what to run.

    Args:
        file: where a prompt may lie for as long as the command runs.
    """
    notices: list[str] = []
    session, resumed = turn.agent_session, False
    prompt = turn.prompt
    if why := _forgot(agent, turn, settings):
        if earlier := await turn.earlier():
            prompt = _PRIMED.format(earlier=earlier, prompt=prompt)
            notices.append(f"{agent.name} {why}; it was told what was said so far.")
        elif session is not None:
            notices.append(f"{agent.name} {why}; it starts afresh.")
    else:
        resumed = True
    known = session.id if session is not None and resumed else f"{turn.chat_id.hex[:12]}-{turn.task_id}-{turn.epoch}"
    command = agent.spec.continue_command if resumed else agent.spec.command
    names = {name for argument in command for name in PLACEHOLDER.findall(argument)}
    elsewhere = {name for value in (*agent.spec.env.values(), *agent.spec.endpoint_env.values()) for name in PLACEHOLDER.findall(value)}
    notices += _unheard(agent, turn, names | elsewhere)
    values = _values(agent, turn, settings, known)
    by_argument = "prompt" in names
    in_file = not by_argument or len(prompt.encode(errors="replace")) > ARGUMENT_BYTES
    values["prompt"] = _READ_IT.format(file=file) if in_file else prompt
    return Order(
        argv=tuple(command_line(command, values)),
        stdin=Path("/dev/null") if by_argument else file,
        prompt=prompt if in_file else None,
        env=_turn_environment(agent, values),
        session=known if resumed or "session" in names else None,
        resumed=resumed,
        notices=tuple(notices),
    )


def _forgot(agent: Agent, turn: Turn, settings: Settings) -> str:
    """Why the agent does not remember the conversation; empty when it does."""
    session = turn.agent_session
    if not agent.spec.continue_command:
        return "keeps no conversation between turns"
    if session is None:
        return "has no conversation to go on with, since its last turn did not come to a good end or was another agent's"
    if session.config_hash != config_hash(agent, turn, settings):
        return "had its conversation with another model or other options"
    if session.home != agent.home_name:
        return "has its conversation in another home"
    if session.status == "lost":
        return "was cut off, and what it remembers may not be whole"
    return ""


def _unheard(agent: Agent, turn: Turn, names: set[str]) -> list[str]:
    asked = {"mode": turn.mode_id, "thinking": turn.thinking_option_id, "model": turn.model}
    return [
        f"{agent.name} cannot be given a {name} by its command line; {value.strip()} was left out."
        for name, value in asked.items()
        if value and value.strip() and name not in names
    ]


def _values(agent: Agent, turn: Turn, settings: Settings, session: str) -> dict[str, str]:
    model = wanted_model(turn, agent.spec, settings)
    return {
        "model": model,
        "bare_model": model.removeprefix(f"{settings.model_provider}/"),
        "mode": (turn.mode_id or "").strip() or agent.spec.default_mode or "",
        "thinking": (turn.thinking_option_id or "").strip(),
        "worktree": str(turn.worktree),
        "home": str(agent.home),
        "session": session,
    }


def _turn_environment(agent: Agent, values: Mapping[str, str]) -> dict[str, str]:
    """The agent's own variables with what is of the turn filled in, and the terminal's kind."""
    own = {name: agent.environment[name] for name in (*agent.spec.env, *agent.spec.endpoint_env) if name in agent.environment}
    filled = {name: fill(value, values) for name, value in own.items()}
    return {"TERM": "xterm-256color", **filled}
