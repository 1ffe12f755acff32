"""A backend whose turns do what the last line of their prompt says, as JSON: a list of steps.

["say", text] · ["think", text] · ["tool", id, status, output] · ["usage", input, cached, output] · ["notice", text] ·
["retry", attempt, delay] · ["many", count, seconds between, text] · ["big", calls, characters each] ·
["ask", command] (for permission, and says what it was told) · ["gate", name] (until the file exists) · ["fail", why]
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.null import NullLive

from coder.errors import ProviderError
from coder.events import AgentEvent, Notice, PermissionRequest, ReasoningDelta, RetryScheduled, TextDelta, ToolCall, Usage
from coder.permission import Answer
from coder.ports import AgentFacts, LiveTurn, Turn
from coder.task import ExecutionPath

LOOK_SECONDS = 0.005


@dataclass
class ScriptedLive(NullLive):
    """Hands answers to the script."""

    told: asyncio.Queue[Answer] = field(default_factory=asyncio.Queue)

    async def answer(self, request_id: str, answer: Answer) -> None:
        self.told.put_nowait(answer)


@dataclass
class ScriptedBackend:
    """Attributes: gates: where the files are that turns wait for."""

    gates: Path
    execution_path: ExecutionPath = ExecutionPath.NATIVE

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def probe(self) -> tuple[AgentFacts, ...]:
        return (AgentFacts("native", self.execution_path, True),)

    @asynccontextmanager
    async def run_turn(self, turn: Turn) -> AsyncIterator[LiveTurn]:
        told: asyncio.Queue[Answer] = asyncio.Queue()
        yield ScriptedLive(self._play(json.loads(turn.prompt.splitlines()[-1]), told), told=told)

    async def _play(self, steps: list[list[Any]], told: asyncio.Queue[Answer]) -> AsyncIterator[AgentEvent]:
        for verb, *rest in steps:
            match verb:
                case "say":
                    yield TextDelta(*rest)
                case "think":
                    yield ReasoningDelta(*rest)
                case "tool":
                    yield ToolCall(rest[0], "run", '{"command": "make"}', rest[1], rest[2])
                case "usage":
                    yield Usage(*rest)
                case "notice":
                    yield Notice(*rest)
                case "retry":
                    yield RetryScheduled(rest[0], rest[1], "The model is overloaded.", "529")
                case "big":
                    for number in range(rest[0]):
                        yield ToolCall(f"big{number}", "run", "{}", "completed", "x" * rest[1])
                case "many":
                    for number in range(rest[0]):
                        yield TextDelta(f"{rest[2]}{number} ")
                        await asyncio.sleep(rest[1])
                case "ask":
                    yield PermissionRequest("1", "bash", "execute", rest[0])
                    yield TextDelta("allowed" if (await told.get()).allow else "denied")
                case "gate":
                    while not (self.gates / rest[0]).exists():  # noqa: ASYNC110 - the test is in another process
                        await asyncio.sleep(LOOK_SECONDS)
                case "fail":
                    raise ProviderError(*rest)


def script(*steps: list[Any]) -> str:
    return json.dumps(steps)
