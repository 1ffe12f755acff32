"""The service itself: whether it lives, whether it can serve, what runs, which agents there are."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, Field

from coder.config import shown
from coder.errors import CoderError
from coder.task import ExecutionPath
from coder.web.asking import ByProject, TheDoor
from coder.web.openapi import Responses, answers, failing
from coder.web.problems import of_error, problem
from coder.web.shapes import CHAT_ID, EARLIER, HOST_ID, LATER, Page, Shape


class AgentCommand(Shape):
    name: str
    description: str
    hint: str


class Agent(Shape):
    agent: str
    execution_path: ExecutionPath
    available: bool
    version: str | None
    path: Annotated[str | None, Field(description="Where its program is")]
    detail: Annotated[str, Field(description="Why it is not available, or what is odd about it")]
    install: Annotated[str | None, Field(description="The command that installs it")]
    models: list[str]
    modes: Annotated[list[str], Field(description="What `mode_id` of a task may be")]
    thinking_options: Annotated[list[str], Field(description="What `thinking_option_id` of a task may be")]
    commands: Annotated[list[AgentCommand], Field(description="Its slash commands, as far as they are known without a session")]
    host_id: UUID
    host: str
    probed_at: AwareDatetime

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "agent": "opencode", "execution_path": "opencode", "available": True, "version": "1.2.3", "path": "/usr/local/bin/opencode",
        "detail": "", "install": "npm install -g opencode-ai", "models": ["llama-swap/qwen3"], "modes": ["build", "plan"],
        "thinking_options": [], "commands": [{"name": "init", "description": "Write AGENTS.md", "hint": ""}],
        "host_id": HOST_ID, "host": "build-1", "probed_at": EARLIER,
    }  # fmt: skip


class Probe(Shape):
    hosts: Annotated[int, Field(description="Hosts that have a node, which looks now; the others look when one starts")]
    requested_at: Annotated[AwareDatetime, Field(description="What was found since then has a later `probed_at`")]

    EXAMPLE: ClassVar[dict[str, Any]] = {"hosts": 1, "requested_at": EARLIER}


class Node(Shape):
    id: UUID
    host: str
    host_id: UUID
    version: str
    started_at: AwareDatetime
    lease_until: AwareDatetime


class Status(Shape):
    sessions: Annotated[dict[str, int] | None, Field(description="Sessions by the state of their queue")]
    pending_tasks: int
    running_tasks: int
    held_sessions: int
    open_changes: int
    nodes: list[Node]
    oldest_transaction_seconds: Annotated[int | None, Field(description="An old transaction makes the whole queue slow")]
    schema_version: int

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "sessions": {"idle": 3, "running": 1}, "pending_tasks": 2, "running_tasks": 1, "held_sessions": 0, "open_changes": 1,
        "nodes": [{"id": CHAT_ID, "host": "build-1", "host_id": HOST_ID, "version": "0.1.0", "started_at": EARLIER, "lease_until": LATER}],
        "oldest_transaction_seconds": None, "schema_version": 1,
    }  # fmt: skip


class Stretch(Shape):
    at: Annotated[AwareDatetime, Field(description="When it begins")]
    began: Annotated[int, Field(description="Turns that began in it; what follows is of these")]
    running: int
    completed: int
    failed: int
    cancelled: int
    interrupted: int
    wait_median_seconds: Annotated[float | None, Field(description="How long they had waited since they could have run; null: none began")]
    wait_p95_seconds: float | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "at": EARLIER, "began": 12, "running": 1, "completed": 9, "failed": 1, "cancelled": 1, "interrupted": 0,
        "wait_median_seconds": 0.4, "wait_p95_seconds": 31.5, "input_tokens": 48000, "cached_tokens": 39000, "output_tokens": 4100,
    }  # fmt: skip


class Setting(Shape):
    name: Annotated[str, Field(description="The variable that sets it")]
    value: Annotated[str | None, Field(description="Null: not set, or a secret")]
    secret: Annotated[bool, Field(description="It is set, and its value is told to nobody")]
    is_default: bool
    description: str

    EXAMPLE: ClassVar[dict[str, Any]] = {
        "name": "CODER_MAX_TURNS", "value": "16", "secret": False, "is_default": True, "description": "Turns that run at once on this node",
    }  # fmt: skip


class Health(Shape):
    status: Literal["ok"]

    EXAMPLE: ClassVar[dict[str, Any]] = {"status": "ok"}


class Ready(Shape):
    schema_version: int
    dispatcher: Annotated[bool, Field(description="Whether any node runs tasks at this moment")]

    EXAMPLE: ClassVar[dict[str, Any]] = {"schema_version": 1, "dispatcher": True}


router = APIRouter(tags=["service"])
open_router = APIRouter(tags=["service"])

ANSWERS_HEALTH: Responses = {200: answers(Health)[200]}
ANSWERS_READY: Responses = {200: answers(Ready)[200], 503: failing(503)}


@router.get("/agents", responses=answers(Agent, page=Page[Agent]))
async def list_agents(
    door: TheDoor,
    agent: Annotated[str | None, Query(description="Only the agent of this name", examples=["opencode"])] = None,
    host_id: Annotated[UUID | None, Query(description="Only on this host", examples=[HOST_ID])] = None,
    available: Annotated[bool | None, Query(description="Only those that can be run, or that cannot", examples=[True])] = None,
) -> JSONResponse:
    """The agents of each host, as its nodes found them at their start or when asked to look again; one page holds them all."""
    found = await door.rows("agent_list", agent=agent or None, host_id=host_id, available=available)
    return JSONResponse({"items": found, "next_cursor": None})


@router.post("/agents/probe", status_code=202, responses=answers(Probe, 404, status=202, said="The nodes look for their agents now"))
async def probe_agents(
    door: TheDoor, host_id: Annotated[UUID | None, Query(description="Only on this host", examples=[HOST_ID])] = None
) -> JSONResponse:
    """Have the hosts' nodes look for their agents again, after one was installed for example."""
    return JSONResponse(await door.row("agent_probe", host_id=host_id), 202)


@router.get("/status", responses=answers(Status, 503))
async def status(door: TheDoor) -> JSONResponse:
    """How much waits and runs, and which nodes there are."""
    return JSONResponse(await door.row("status"))


@router.get("/stats", responses=answers(Stretch, 404, page=Page[Stretch]))
async def stats(
    door: TheDoor,
    hours: Annotated[int, Query(ge=1, le=720, description="How far back", examples=[24])] = 24,
    stretches: Annotated[int, Query(ge=1, le=200, description="Into how many of equal length that is cut", examples=[24])] = 24,
    project: ByProject = None,
) -> JSONResponse:
    """Throughput, waiting time and tokens over time, oldest first, the last stretch being the present one; one page holds them all."""
    found = await door.rows("stats", hours=hours, stretches=stretches, project=project or None)
    return JSONResponse({"items": found, "next_cursor": None})


@router.get("/settings", responses=answers(Setting, page=Page[Setting]))
async def list_settings(request: Request) -> JSONResponse:
    """What the process that answers runs with, without its secrets; one page holds it all."""
    return JSONResponse({"items": shown(request.app.state.settings), "next_cursor": None})


@open_router.head("/health", include_in_schema=False)
@open_router.get("/health", responses=ANSWERS_HEALTH)
async def health() -> JSONResponse:
    """Whether this process lives; it asks nobody."""
    return JSONResponse({"status": "ok"})


@open_router.head("/ready", include_in_schema=False)
@open_router.get("/ready", responses=ANSWERS_READY)
async def ready(door: TheDoor) -> Response:
    """Whether this process can serve: the database answers and has coder's schema. `dispatcher`: a node runs tasks."""
    try:
        found = await door.row("ready")
    except CoderError as error:
        return problem(503, error.message, code="unavailable") if error.status != 503 else of_error(error)
    if found["schema_version"] is None:
        return problem(503, "The database lacks coder's schema; run `coder migrate`.", code="unavailable")
    return JSONResponse(found)
