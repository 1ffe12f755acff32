"""Projects: the repositories that tasks are about."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.web.asking import TheDoor
from coder.web.openapi import answers
from coder.web.paging import Cursor, Limit, decode, page
from coder.web.shapes import HOST_ID, Page, Project

router = APIRouter(prefix="/projects", tags=["projects"])


class NewProject(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "demo", "path": "/srv/demo"}]})

    name: Annotated[str, Field(description="1 to 100 of A-Z, a-z, 0-9, `.`, `_` and `-`")]
    path: Annotated[str, Field(description="Absolute path of the checkout on its host")]
    host_id: Annotated[
        UUID | None, Field(description="The host it is on; left out = the one that answers this request, null = any", examples=[HOST_ID])
    ] = None


@router.post("", status_code=201, responses=answers(Project, 409, status=201, said="Added"))
async def add_project(asked: NewProject, request: Request, door: TheDoor) -> JSONResponse:
    """Add a repository. A task fails with a sentence when there is none at its path, so that it may be made later."""
    host = asked.host_id if "host_id" in asked.model_fields_set else request.app.state.host_id
    added = await door.row("project_add", name=asked.name, path=asked.path, host_id=host)
    project = await door.row("project_get", project=added["id"])
    return JSONResponse(project, 201, {"Location": f"/api/v1/projects/{project['id']}"})


@router.get("", responses=answers(Project, page=Page[Project]))
async def list_projects(door: TheDoor, limit: Limit = 50, cursor: Cursor = None) -> JSONResponse:
    """The projects, by name."""
    (after,) = decode(cursor, str)
    return JSONResponse(await page(door, "project_list", limit, lambda row: [row["name"]], after=after))


@router.get("/{project}", responses=answers(Project, 404))
async def get_project(project: Annotated[str, Path(description="Its id or name", examples=["demo"])], door: TheDoor) -> JSONResponse:
    """One project."""
    return JSONResponse(await door.row("project_get", project=project))
