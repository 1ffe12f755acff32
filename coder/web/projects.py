"""Projects: the repositories that tasks are about."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.permission import Policy
from coder.web.asking import Actor, ProjectName, TheDoor
from coder.web.openapi import answers
from coder.web.paging import Cursor, Limit, decode, page
from coder.web.shapes import HOST_ID, RULE_ID, Page, PermissionRule, Project, Shape

router = APIRouter(prefix="/projects", tags=["projects"])
looking = APIRouter(tags=["projects"])


class Checkout(Shape):
    path: Annotated[str, Field(description="The top level of the checkout; what `path` of a project is to be")]
    branch: Annotated[str | None, Field(description="The branch it is on; null = none, its HEAD is detached")]

    remote: Annotated[str | None, Field(description="Where an approval onto a branch can push it; null = there is no remote")]

    EXAMPLE: ClassVar[dict[str, Any]] = {"path": "/srv/demo", "branch": "main", "remote": "origin"}


class NewProject(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "demo", "path": "/srv/demo"}]})

    name: Annotated[str, Field(description="1 to 100 of A-Z, a-z, 0-9, `.`, `_` and `-`")]
    path: Annotated[str, Field(description="Absolute path of the checkout on its host")]
    host_id: Annotated[
        UUID | None, Field(description="The host it is on; left out = the one that answers this request, null = any", examples=[HOST_ID])
    ] = None
    permission_policy: Annotated[Policy | None, Field(description="Without it allow_in_worktree")] = None
    network: Annotated[Literal["on", "off"] | None, Field(description="Without it on")] = None


class ProjectChanges(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"permission_policy": "ask", "network": "off"}]})

    permission_policy: Annotated[Policy | None, Field(description="What its agents may do without asking a person")] = None
    network: Annotated[Literal["on", "off"] | None, Field(description="Whether its agents may reach the network")] = None
    agent_fallback: Annotated[Literal["native", "fail"] | None, Field(description="When the agent of a task is missing")] = None
    copy_globs: Annotated[list[str] | None, Field(description="Ignored files that every fresh worktree gets")] = None
    setup_command: Annotated[str | None, Field(description="Run in every fresh worktree; an empty one takes it away")] = None
    check_command: Annotated[str | None, Field(description="Run on what each turn left, in its worktree; an empty one takes it away")] = (
        None
    )
    check_seconds: Annotated[float | None, Field(gt=0, le=604800, description="How long a check may take")] = None
    auto_fix: Annotated[
        int | None, Field(strict=True, ge=0, le=20, description="How often in a row a failed check is fed back to the agent")
    ] = None


class NewRule(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"tool": "bash", "pattern": "npm *"}]})

    tool: Annotated[str, Field(description="The agent's tool; `*` = any")]
    pattern: Annotated[str, Field(description="Of what it is asked for: `*` is any text, `?` any character, `\\` takes the next as it is")]
    session_id: Annotated[UUID | None, Field(description="Only in this session")] = None


@looking.get("/checkout", responses=answers(Checkout))
async def look_at_checkout(
    request: Request, path: Annotated[str, Query(description="An absolute directory on the host that answers", examples=["/srv/demo"])]
) -> JSONResponse:
    """What is at a path, before a project is made of it: the checkout it lies in, or a sentence about why it cannot be a project's."""
    return JSONResponse(await asyncio.to_thread(request.app.state.look, path))


@router.post("", status_code=201, responses=answers(Project, 409, status=201, said="Added"))
async def add_project(asked: NewProject, request: Request, door: TheDoor) -> JSONResponse:
    """Add a repository. A task fails with a sentence when there is none at its path, so that it may be made later."""
    host = asked.host_id if "host_id" in asked.model_fields_set else request.app.state.host_id
    added = await door.row(
        "project_add", name=asked.name, path=asked.path, host_id=host, permission_policy=asked.permission_policy, network=asked.network
    )
    project = await door.row("project_get", project=added["id"])
    return JSONResponse(project, 201, {"Location": f"/api/v1/projects/{project['id']}"})


@router.get("", responses=answers(Project, page=Page[Project]))
async def list_projects(door: TheDoor, limit: Limit = 50, cursor: Cursor = None) -> JSONResponse:
    """The projects, by name."""
    (after,) = decode(cursor, str)
    return JSONResponse(await page(door, "project_list", limit, lambda row: [row["name"]], after=after))


@router.get("/{project}", responses=answers(Project, 404))
async def get_project(project: ProjectName, door: TheDoor) -> JSONResponse:
    """One project."""
    return JSONResponse(await door.row("project_get", project=project))


@router.patch("/{project}", responses=answers(Project, 404))
async def set_project(project: ProjectName, asked: ProjectChanges, door: TheDoor) -> JSONResponse:
    """Change what is given; the rest stays as it is. Turns that run go on as they began."""
    changed = await door.row("project_set", project=project, **asked.model_dump())
    return JSONResponse(await door.row("project_get", project=changed["id"]))


@router.get("/{project}/permission-rules", responses=answers(PermissionRule, 404, page=Page[PermissionRule]))
async def list_permission_rules(project: ProjectName, door: TheDoor, limit: Limit = 50, cursor: Cursor = None) -> JSONResponse:
    """What agents may do without asking in this project or one of its sessions, oldest first."""
    time, last = decode(cursor, datetime, UUID)
    await door.row("project_get", project=project)
    listed = await page(
        door, "rule_list", limit, lambda row: [row["created_at"], row["id"]], project=project, after_time=time, after_id=last
    )
    return JSONResponse(listed)


@router.post(
    "/{project}/permission-rules", status_code=201, responses=answers(PermissionRule, 404, status=201, said="Added, or there already")
)
async def add_permission_rule(project: ProjectName, asked: NewRule, door: TheDoor, actor: Actor) -> JSONResponse:
    """Let agents use a tool without asking. Requests that wait and that it fits are allowed at once."""
    return JSONResponse(await door.row("rule_add", project=project, actor=actor, **asked.model_dump()), 201)


@router.delete("/{project}/permission-rules/{rule_id}", responses=answers(PermissionRule, 404, said="Revoked"))
async def revoke_permission_rule(
    project: ProjectName, rule_id: Annotated[UUID, Path(description="The rule's id", examples=[RULE_ID])], door: TheDoor
) -> JSONResponse:
    """Have agents ask again; answers the rule that is no more. What was allowed by it stays allowed."""
    return JSONResponse(await door.row("rule_delete", project=project, rule_id=rule_id))
