"""The queue of one session: messages that wait for their turn, and can still be changed."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.errors import InvalidInput
from coder.web.asking import Actor, SessionId, TaskId, TheDoor
from coder.web.openapi import answers
from coder.web.paging import LARGEST, Cursor, Limit, decode, page
from coder.web.shapes import AddedTask, Page, QueuedTask, Task
from coder.web.tasks import Keyed

router = APIRouter(prefix="/sessions/{session_id}/queue", tags=["sessions"])


class NewMessage(Keyed):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"input": "And document it", "interrupt": False}]})

    input: Annotated[str, Field(description="What to do, at most 1 MiB")]
    interrupt: Annotated[bool, Field(strict=True, description="Cancel the turn that runs and go to the head, instead of waiting")] = False
    chat_id: UUID | None = None
    agent: Annotated[str | None, Field(description="Empty = native inference")] = None
    model: str | None = None
    mode_id: str | None = None
    thinking_option_id: str | None = None
    labels: list[str] | None = None


class NewInput(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"input": "And document it well"}]})

    input: Annotated[str, Field(description="What to do instead, at most 1 MiB")]


class NewPlace(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"before": 42}]})

    before: Annotated[int | None, Field(strict=True, gt=0, le=LARGEST, description="Of the same session; null = behind all of them")] = None


@router.post(
    "",
    status_code=201,
    responses=answers(AddedTask, 404, 409, status=201, said="Queued")
    | answers(AddedTask, 404, 409, status=200, said="It was queued before under this idempotency key"),
)
async def queue_message(
    session_id: SessionId,
    asked: NewMessage,
    door: TheDoor,
    actor: Actor,
    idempotency_key: Annotated[str | None, Header(description="See the field of this name", examples=["build-1234"])] = None,
) -> JSONResponse:
    """Say something in a session: behind what waits, or at once. A closed session is opened again."""
    key = asked.key(idempotency_key)
    message = asked.model_dump(exclude={"idempotency_key"})
    task = await door.row("queue_add", session_id=session_id, idempotency_key=key, actor=actor, **message)
    return JSONResponse(task, 200 if task["existed"] else 201, {"Location": f"/api/v1/tasks/{task['id']}"})


@router.get("", responses=answers(QueuedTask, 404, page=Page[QueuedTask]))
async def list_queue(session_id: SessionId, door: TheDoor, limit: Limit = 50, cursor: Cursor = None) -> JSONResponse:
    """What waits in a session, in the order in which it will run."""
    (after,) = decode(cursor, str)
    if after is not None and not re.fullmatch(r"-?\d{1,40}(\.\d{1,4000})?", after, re.ASCII):
        raise InvalidInput("`cursor` is not one that this list gave out; leave it out to start from the beginning.")
    position = None if after is None else Decimal(after)
    await door.row("session_get", session_id=session_id)
    return JSONResponse(await page(door, "queue_list", limit, lambda row: [row["position"]], session_id=session_id, after=position))


@router.put("/{task}", responses=answers(Task, 404, 409))
async def edit_queued(session_id: SessionId, task: TaskId, asked: NewInput, door: TheDoor) -> JSONResponse:
    """Say something else instead, as long as it waits."""
    return JSONResponse(await door.row("queue_edit", session_id=session_id, task=task, input=asked.input))


@router.post("/{task}/now", responses=answers(Task, 404, 409))
async def send_queued_now(session_id: SessionId, task: TaskId, door: TheDoor) -> JSONResponse:
    """Do not let it wait any longer: it goes to the head, and the turn that runs is cancelled."""
    return JSONResponse(await door.row("queue_now", session_id=session_id, task=task))


@router.delete("/{task}", responses=answers(Task, 404, 409, said="Cancelled"))
async def remove_queued(session_id: SessionId, task: TaskId, door: TheDoor) -> JSONResponse:
    """Take it back, as long as it waits; answers the task, which is cancelled."""
    return JSONResponse(await door.row("queue_remove", session_id=session_id, task=task))


@router.post("/{task}/move", responses=answers(Task, 404, 409))
async def move_queued(session_id: SessionId, task: TaskId, asked: NewPlace, door: TheDoor) -> JSONResponse:
    """Let it run before another that waits, or behind all of them."""
    return JSONResponse(await door.row("queue_move", session_id=session_id, task=task, before=asked.before))
