"""Tasks: what is to be done, and what became of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Query
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from coder.errors import InvalidInput
from coder.ports import Door
from coder.task import TaskState
from coder.web.asking import Actor, ByProject, BySession, TaskId, TheDoor, session_or_none
from coder.web.openapi import answers
from coder.web.paging import LARGEST, Cursor, Limit, decode, page, words
from coder.web.shapes import AddedTask, Page, Task

router = APIRouter(prefix="/tasks", tags=["tasks"])

LONGEST_TIMEOUT = 10 * 365 * 24 * 3600
KEY_BYTES = 255


def _written_out(given: Any) -> Any:
    if given is not None and not isinstance(given, str):
        raise ValueError("A time is written like 2026-03-01T09:30:00Z")
    return given


def _storable(moment: datetime) -> datetime:
    if not datetime(1970, 1, 1, tzinfo=UTC) <= moment <= datetime(9999, 1, 1, tzinfo=UTC):
        raise ValueError("A time lies between the years 1970 and 9999")
    return moment


Moment = Annotated[AwareDatetime, AfterValidator(_storable)]


Priority = Annotated[int, Field(strict=True, ge=-32768, le=32767, description="Among sessions; never reorders inside one")]


class Keyed(BaseModel):
    idempotency_key: Annotated[str | None, Field(description="Also as header `Idempotency-Key`; 1 to 255 bytes, once per project")] = None

    def key(self, header: str | None) -> str | None:
        """The idempotency key from the body or the header."""
        if self.idempotency_key is not None and header is not None and self.idempotency_key != header:
            raise InvalidInput("`idempotency_key` and the header Idempotency-Key differ; send one of them.", field="idempotency_key")
        key = self.idempotency_key if self.idempotency_key is not None else header
        if key is not None and not 1 <= len(key.encode()) <= KEY_BYTES:
            raise InvalidInput(f"`idempotency_key` has {len(key.encode())} bytes; it may have 1 to {KEY_BYTES}.", field="idempotency_key")
        return key


class NewTask(Keyed):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"project": "demo", "input": "Add a test for the parser", "labels": ["ci"]}]},
    )

    project: Annotated[str | None, Field(description="The project's name or id")] = None
    project_id: Annotated[str | None, Field(description="The same, for those who call it so")] = None
    input: Annotated[str, Field(description="What to do, at most 1 MiB")]
    session_id: Annotated[UUID | None, Field(description="The conversation to go on with; without it a new one is opened")] = None
    chat_id: UUID | None = None
    workspace_id: Annotated[str | None, Field(description="Of a new session; made when missing")] = None
    agent: Annotated[str | None, Field(description="Empty = native inference")] = None
    model: str | None = None
    mode_id: str | None = None
    thinking_option_id: str | None = None
    priority: Priority = 0
    run_at: Annotated[
        Moment | None, BeforeValidator(_written_out), Field(description="Not before this time; it needs an offset or `Z`")
    ] = None
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    timeout: Annotated[
        float | None, Field(strict=True, gt=0, le=LONGEST_TIMEOUT, allow_inf_nan=False, description="Seconds; null = none")
    ] = None
    labels: list[str] = []

    def the_project(self) -> str:
        """The project by either name."""
        given = self.project or self.project_id
        if not given:
            raise InvalidInput("`project` is missing; send the name or the id of a project.", field="project")
        if self.project and self.project_id and self.project != self.project_id:
            raise InvalidInput("`project` and `project_id` name different things; send one of them.", field="project")
        return given


class NewPriority(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"priority": 10}]})

    priority: Priority


@router.post(
    "",
    status_code=201,
    responses=answers(AddedTask, 404, 409, status=201, said="Queued")
    | answers(AddedTask, 404, 409, status=200, said="It was queued before under this idempotency key"),
)
async def add_task(
    asked: NewTask,
    door: TheDoor,
    actor: Actor,
    idempotency_key: Annotated[str | None, Header(description="See the field of this name", examples=["build-1234"])] = None,
) -> JSONResponse:
    """Queue a task. With an idempotency key the same request again answers the first one's task, another request 409."""
    task = await door.row(
        "task_add",
        actor=actor,
        project=asked.the_project(),
        idempotency_key=asked.key(idempotency_key),
        timeout=None if asked.timeout is None else timedelta(seconds=asked.timeout),
        **asked.model_dump(exclude={"project", "project_id", "idempotency_key", "timeout"}),
    )
    return JSONResponse(task, 200 if task["existed"] else 201, {"Location": f"/api/v1/tasks/{task['id']}"})


def _ids(given: str | None) -> list[int] | None:
    """The tasks a filter names; None for a blank one, which is ignored."""
    named = words(given)
    if len(named) > 200 or not all(re.fullmatch(r"\d{1,19}", word, re.ASCII) and int(word) <= LARGEST for word in named):
        raise InvalidInput("`ids` is up to 200 ids of tasks with commas between them, like 41,42.", field="ids")
    return [int(word) for word in named] or None


@router.get("", responses=answers(Task, 404, page=Page[Task]))
async def list_tasks(
    door: TheDoor,
    state: Annotated[str | None, Query(description="Only in this state", examples=["running"])] = None,
    session_id: BySession = None,
    project: ByProject = None,
    label: Annotated[str | None, Query(description="Only with this label", examples=["ci"])] = None,
    agent: Annotated[str | None, Query(description="Only of this agent: who did it, else who was asked", examples=["native"])] = None,
    ids: Annotated[str | None, Query(description="Only these, comma-separated, at most 200", examples=["41,42"])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """The tasks, newest first."""
    if state and state not in list(TaskState):
        raise InvalidInput(f"`state` is one of {', '.join(TaskState)}, not {state!r}.", field="state")
    (before,) = decode(cursor, int)
    listed = await page(
        door,
        "task_list",
        limit,
        lambda row: [row["id"]],
        state=state or None,
        session_id=session_or_none(session_id),
        project=project or None,
        label=label or None,
        agent=agent or None,
        ids=_ids(ids),
        before=before,
    )
    return JSONResponse(listed)


@router.get("/{task}", responses=answers(Task, 404))
async def get_task(task: TaskId, door: TheDoor) -> JSONResponse:
    """One task. `waiting_for` says why one that is pending does not run yet."""
    return JSONResponse(await door.row("task_get", task=task))


async def _after(door: Door, statement: str, task: int) -> JSONResponse:
    """The task an action is about, or made, as it is after it."""
    done = await door.row(statement, task=task)
    shown = await door.row("task_get", task=done["id"])
    return JSONResponse(shown, 200 if done["id"] == task else 201, {"Location": f"/api/v1/tasks/{done['id']}"})


@router.put("/{task}/priority", responses=answers(Task, 404, 409))
async def set_priority(task: TaskId, asked: NewPriority, door: TheDoor) -> JSONResponse:
    """Let a task that waits, and with it its session, run sooner or later than those of other sessions."""
    return JSONResponse(await door.row("task_priority", task=task, priority=asked.priority))


@router.post("/{task}/cancel", responses=answers(Task, 404, 409))
async def cancel_task(task: TaskId, door: TheDoor) -> JSONResponse:
    """End a task: one that waits is cancelled at once, one that runs is stopped as soon as its node hears of it."""
    return await _after(door, "task_cancel", task)


@router.post("/{task}/retry-now", responses=answers(Task, 404, 409))
async def retry_task_now(task: TaskId, door: TheDoor) -> JSONResponse:
    """Send the request of a task that waits for its endpoint again now; 409 for one that does not wait, or whose agent retries itself."""
    return await _after(door, "task_retry_now", task)


@router.post("/{task}/retry", status_code=201, responses=answers(Task, 404, 409, status=201, said="A new task, at the head of the session"))
async def retry_task(task: TaskId, door: TheDoor) -> JSONResponse:
    """Run an interrupted, failed or cancelled task again, as a new one."""
    return await _after(door, "task_retry", task)


@router.post(
    "/{task}/resume", status_code=201, responses=answers(Task, 404, 409, status=201, said="A new task, at the head of the session")
)
async def resume_task(task: TaskId, door: TheDoor) -> JSONResponse:
    """Let the agent go on with an interrupted task, as a new one whose prompt says so."""
    return await _after(door, "task_resume", task)


@router.post("/{task}/dismiss", responses=answers(Task, 404, 409))
async def dismiss_task(task: TaskId, door: TheDoor) -> JSONResponse:
    """Let the session go on without the interrupted or failed task that holds it."""
    return await _after(door, "task_dismiss", task)
