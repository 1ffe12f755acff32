"""Workspaces: named groups of sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.web.asking import TheDoor, WorkspaceId
from coder.web.openapi import answers
from coder.web.paging import Cursor, Limit, decode, page
from coder.web.sessions import Title
from coder.web.shapes import DeletedWorkspace, Page, Workspace

router = APIRouter(prefix="/workspaces", tags=["workspaces"])


class DefaultCwd(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"cwd": "/srv/demo/api"}]})

    cwd: Annotated[str | None, Field(description="An absolute directory; without it, the root of each session's project")] = None


@router.get("", responses=answers(Workspace, page=Page[Workspace]))
async def list_workspaces(door: TheDoor, limit: Limit = 50, cursor: Cursor = None) -> JSONResponse:
    """The workspaces, last active first; `default` is always among them."""
    time, last = decode(cursor, datetime, str)
    listed = await page(door, "workspace_list", limit, lambda row: [row["last_activity_at"], row["id"]], before_time=time, before_id=last)
    return JSONResponse(listed)


@router.put(
    "/{workspace_id}", responses=answers(Workspace, status=201, said="Made") | answers(Workspace, status=200, said="It was there already")
)
async def add_workspace(workspace_id: WorkspaceId, door: TheDoor) -> JSONResponse:
    """Make a workspace unless it is there."""
    workspace = await door.row("workspace_add", workspace_id=workspace_id)
    return JSONResponse(workspace, 201 if workspace.pop("made") else 200)


@router.get("/{workspace_id}", responses=answers(Workspace, 404))
async def get_workspace(workspace_id: WorkspaceId, door: TheDoor) -> JSONResponse:
    """One workspace."""
    return JSONResponse(await door.row("workspace_get", workspace_id=workspace_id))


@router.put("/{workspace_id}/title", responses=answers(Workspace, 404))
async def set_workspace_title(workspace_id: WorkspaceId, asked: Title, door: TheDoor) -> JSONResponse:
    """Name a workspace."""
    return JSONResponse(await door.row("workspace_title", workspace_id=workspace_id, title=asked.title))


@router.put("/{workspace_id}/default-cwd", responses=answers(Workspace, 404))
async def set_default_cwd(workspace_id: WorkspaceId, asked: DefaultCwd, door: TheDoor) -> JSONResponse:
    """Where turns start of sessions that have no cwd of their own, in projects that the directory is inside of."""
    return JSONResponse(await door.row("workspace_default_cwd", workspace_id=workspace_id, cwd=asked.cwd))


@router.delete("/{workspace_id}", responses=answers(DeletedWorkspace, 404, 409))
async def delete_workspace(workspace_id: WorkspaceId, door: TheDoor) -> JSONResponse:
    """Delete a workspace: its sessions are closed and moved to `default`, which itself cannot be deleted."""
    return JSONResponse(await door.row("workspace_delete", workspace_id=workspace_id))
