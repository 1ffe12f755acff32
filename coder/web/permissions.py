"""Permissions: what agents ask to be allowed, and what they ask a person. The first answer counts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.errors import InvalidInput, NotFound
from coder.permission import PermissionState, Scope
from coder.web.asking import Actor, ByProject, BySession, PermissionId, TheDoor, session_or_none
from coder.web.openapi import answers
from coder.web.paging import LARGEST, Cursor, Limit, decode, page, words
from coder.web.shapes import Page, Permission

router = APIRouter(prefix="/permissions", tags=["permissions"])


class Allowance(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"scope": "session", "pattern": "npm *"}]})

    scope: Annotated[Scope, Field(description="This once, or from now on in its session or project")] = Scope.ONCE
    pattern: Annotated[
        str | None,
        Field(description="What is allowed from now on: `*` is any text, `?` any character; without it exactly what was asked for"),
    ] = None


class Denial(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message": "Use the existing script instead."}]})

    message: Annotated[str | None, Field(description="Told to the agent")] = None


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"answers": ["PostgreSQL 18"]}]})

    answers: Annotated[list[str], Field(description="Labels of the question's choices, or words of one's own")]


@router.get("", responses=answers(Permission, 404, page=Page[Permission]))
async def list_permissions(
    door: TheDoor,
    state: Annotated[str | None, Query(description=f"Comma-separated: {', '.join(PermissionState)}", examples=["requested"])] = None,
    session_id: BySession = None,
    task: Annotated[int | None, Query(alias="task_id", description="Only of this task", examples=[42])] = None,
    project: ByProject = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """What agents asked, newest first; those with the state `requested` wait for an answer."""
    states = words(state)
    for word in states:
        if word not in list(PermissionState):
            raise InvalidInput(f"`state` is made of {', '.join(PermissionState)}, not of {word!r}.", field="state")
    if task is not None and not 0 < task <= LARGEST:
        raise NotFound(f"There is no task {str(task)[:40]}; GET /api/v1/tasks lists those that exist.")
    time, last = decode(cursor, datetime, UUID)
    listed = await page(
        door,
        "permission_list",
        limit,
        lambda row: [row["requested_at"], row["id"]],
        states=states or None,
        session_id=session_or_none(session_id),
        task=task,
        project=project or None,
        before_time=time,
        before_id=last,
    )
    return JSONResponse(listed)


@router.get("/{permission_id}", responses=answers(Permission, 404))
async def get_permission(permission_id: PermissionId, door: TheDoor) -> JSONResponse:
    """One permission or question, with its answer if it has one."""
    return JSONResponse(await door.row("permission_get", permission_id=permission_id))


@router.post("/{permission_id}/allow", responses=answers(Permission, 404, 409))
async def allow_permission(permission_id: PermissionId, asked: Allowance, door: TheDoor, actor: Actor) -> JSONResponse:
    """Allow it: this once, or from now on whatever fits the pattern."""
    return JSONResponse(await door.row("permission_allow", permission_id=permission_id, actor=actor, **asked.model_dump()))


@router.post("/{permission_id}/deny", responses=answers(Permission, 404, 409))
async def deny_permission(permission_id: PermissionId, asked: Denial, door: TheDoor, actor: Actor) -> JSONResponse:
    """Refuse it, or to answer; the agent reads the message and goes on."""
    return JSONResponse(await door.row("permission_deny", permission_id=permission_id, actor=actor, **asked.model_dump()))


@router.post("/{permission_id}/answer", responses=answers(Permission, 404, 409))
async def answer_question(permission_id: PermissionId, asked: Reply, door: TheDoor, actor: Actor) -> JSONResponse:
    """Answer a question."""
    return JSONResponse(await door.row("permission_answer", permission_id=permission_id, actor=actor, **asked.model_dump()))
