"""Sessions: conversations with an agent, one turn at a time, in a worktree of their own."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.web.asking import ByProject, SessionId, TheDoor
from coder.web.openapi import answers
from coder.web.paging import LARGEST, Cursor, Limit, decode, given, page, words
from coder.web.shapes import AddedTask, Chat, Cwd, Message, OneSession, Page, Session, SessionPage

router = APIRouter(prefix="/sessions", tags=["sessions"])

STATUSES = frozenset({"active", "idle", "closed"})


class Title(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"title": "The parser's tests"}]})

    title: Annotated[str, Field(description="1 to 200 characters")]


class NewCwd(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"cwd": "/srv/demo/api"}]})

    cwd: Annotated[str, Field(description="A directory inside the project: absolute, or relative to the project's root")]


@router.get("", responses=answers(Session, 404, page=SessionPage))
async def list_sessions(
    door: TheDoor,
    project: ByProject = None,
    workspace_id: Annotated[str | None, Query(description="Only of this workspace", examples=["default"])] = None,
    status: Annotated[
        str | None, Query(description="Comma-separated: active, idle, closed; other words are ignored and named", examples=["active,idle"])
    ] = None,
    cwd: Annotated[
        str | None, Query(description="Only those whose effective cwd or worktree is this directory", examples=["/srv/demo/api"])
    ] = None,
    q: Annotated[str | None, Query(description="Only those whose id begins so", examples=["5c1f0a52"])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """The sessions, last active first. Filters are combined; blank ones are ignored."""
    asked = words(status)
    known = sorted(STATUSES.intersection(asked))
    time, last = decode(cursor, datetime, UUID)
    listed = await page(
        door,
        "session_list",
        limit,
        lambda row: [row["last_activity_at"], row["id"]],
        project=given(project),
        workspace_id=given(workspace_id),
        statuses=known or None,
        cwd=given(cwd),
        q=given(q),
        before_time=time,
        before_id=last,
    )
    return JSONResponse(listed | {"ignored": [word for word in asked if word not in STATUSES]})


@router.get("/{session_id}", responses=answers(OneSession, 404))
async def get_session(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """One session."""
    return JSONResponse(await door.row("session_get", session_id=session_id))


@router.get("/{session_id}/messages", responses=answers(Message, 404, page=Page[Message]))
async def list_messages(
    session_id: SessionId,
    door: TheDoor,
    before: Annotated[
        int | None, Query(ge=1, le=LARGEST, description="Only those before this `ordinal`, and the newest of them first", examples=[84])
    ] = None,
    task: Annotated[int | None, Query(ge=1, le=LARGEST, description="Only those of this task", examples=[42])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """What was said, oldest first; a message that is being written has the state `streaming`."""
    (last,) = decode(cursor, int)
    await door.row("session_get", session_id=session_id)
    statement, bound = ("message_list", {"after": last}) if before is None else ("message_list_before", {"before": last or before})
    return JSONResponse(await page(door, statement, limit, lambda row: [row["ordinal"]], session_id=session_id, task=task, **bound))


@router.put("/{session_id}/title", responses=answers(Session, 404))
async def set_title(session_id: SessionId, asked: Title, door: TheDoor) -> JSONResponse:
    """Name a session; until then it is named after its first message."""
    return JSONResponse(await door.row("session_title", session_id=session_id, title=asked.title))


@router.get("/{session_id}/cwd", responses=answers(Cwd, 404))
async def get_cwd(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """Where the session's turns start."""
    return JSONResponse(await door.row("session_cwd", session_id=session_id))


@router.put("/{session_id}/cwd", responses=answers(Cwd, 404))
async def set_cwd(session_id: SessionId, asked: NewCwd, door: TheDoor) -> JSONResponse:
    """Let the session's turns start in this directory of the project, which is the same directory of its worktree."""
    return JSONResponse(await door.row("session_set_cwd", session_id=session_id, cwd=asked.cwd))


@router.delete("/{session_id}/cwd", responses=answers(Cwd, 404))
async def clear_cwd(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """Let the session's turns start where its workspace or project says."""
    return JSONResponse(await door.row("session_clear_cwd", session_id=session_id))


@router.post("/{session_id}/chats", status_code=201, responses=answers(Chat, 404, 409, status=201, said="Opened"))
async def open_chat(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """Begin a fresh context in the same worktree: the session's next tasks go there unless they name another chat."""
    return JSONResponse(await door.row("session_chat", session_id=session_id), 201)


@router.post(
    "/{session_id}/compact",
    status_code=201,
    responses=answers(AddedTask, 404, 409, status=201, said="Queued") | answers(AddedTask, 404, 409, status=200, said="It waits already"),
)
async def compact(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """Have the session's native conversation summarised, as a task in its turn; then the session goes on in a new chat from the summary."""
    task = await door.row("session_compact", session_id=session_id)
    return JSONResponse(task, 200 if task["existed"] else 201, {"Location": f"/api/v1/tasks/{task['id']}"})


@router.post("/{session_id}/close", responses=answers(OneSession, 404))
async def close_session(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """Close a session: what waits is cancelled, what runs is stopped. Its open change stays to be decided on."""
    await door.row("session_close", session_id=session_id)
    return JSONResponse(await door.row("session_get", session_id=session_id))


@router.post("/{session_id}/reopen", responses=answers(OneSession, 404))
async def reopen_session(session_id: SessionId, door: TheDoor) -> JSONResponse:
    """Open a closed session again; an open one is left as it is."""
    await door.row("session_reopen", session_id=session_id)
    return JSONResponse(await door.row("session_get", session_id=session_id))
