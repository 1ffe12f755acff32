"""Comments: what reviewers say about files and lines of changes, collected as drafts and sent as one task."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from coder.comments import CommentState
from coder.errors import InvalidInput, NotFound
from coder.web.asking import Actor, BySession, ChangeId, CommentId, TheDoor, session_or_none
from coder.web.openapi import answers
from coder.web.paging import LARGEST_LINE, Cursor, Limit, decode, page, words
from coder.web.review_shapes import Comment
from coder.web.shapes import CHANGE_ID, Page, Task

on_changes = APIRouter(prefix="/changes", tags=["changes"])
router = APIRouter(prefix="/comments", tags=["changes"])

Line = Annotated[int, Field(strict=True, ge=1, le=LARGEST_LINE)]


class NewComment(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"path": "tests/test_parser.py", "line": 2, "body": "Test a blank line as well."}]},
    )

    path: Annotated[str, Field(description="A file of the change, as its `files` name it")]
    body: str
    line: Annotated[Line | None, Field(description="A line that the diff shows; without it the comment is about the file")] = None
    end_line: Annotated[Line | None, Field(description="The last line, when there are several")] = None
    side: Annotated[Literal["old", "new"], Field(description="Whether lines are numbered as before or as after the change")] = "new"


class Wording(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"body": "Test a blank line, too."}]})

    body: str


class Resolution(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"resolved": True}]})

    resolved: Annotated[bool, Field(strict=True, description="false: it is open again")] = True


class Sending(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"message": "Nearly there."}]})

    message: Annotated[str | None, Field(description="Put before the comments")] = None


@on_changes.post("/{change_id}/comments", status_code=201, responses=answers(Comment, 404, status=201, said="Kept as a draft"))
async def comment_on_change(change_id: ChangeId, asked: NewComment, door: TheDoor, actor: Actor) -> JSONResponse:
    """Comment on a file of a change, or on lines of it that its diff shows."""
    return JSONResponse(await door.row("change_comment", change_id=change_id, actor=actor, **asked.model_dump()), 201)


@on_changes.post("/{change_id}/send", status_code=201, responses=answers(Task, 404, 409, status=201, said="Queued in the change's session"))
async def send_comments(change_id: ChangeId, asked: Sending, door: TheDoor, actor: Actor) -> JSONResponse:
    """Send all your draft comments of a change's session to its agent, as one task."""
    task = await door.row("change_send", change_id=change_id, actor=actor, message=asked.message)
    return JSONResponse(task, 201, {"Location": f"/api/v1/tasks/{task['id']}"})


@router.get("", responses=answers(Comment, 404, page=Page[Comment]))
async def list_comments(
    door: TheDoor,
    actor: Actor,
    change_id: Annotated[str | None, Query(description="Only those that stand on this change", examples=[CHANGE_ID])] = None,
    session_id: BySession = None,
    state: Annotated[str | None, Query(description=f"Comma-separated: {', '.join(CommentState)}", examples=["draft,open"])] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """Comments, newest first; of drafts only your own."""
    states = words(state)
    for word in states:
        if word not in list(CommentState):
            raise InvalidInput(f"`state` is made of {', '.join(CommentState)}, not of {word!r}.", field="state")
    time, last = decode(cursor, datetime, UUID)
    listed = await page(
        door,
        "comment_list",
        limit,
        lambda row: [row["created_at"], row["id"]],
        actor=actor,
        states=states or None,
        change_id=_change_or_none(change_id),
        session_id=session_or_none(session_id),
        before_time=time,
        before_id=last,
    )
    return JSONResponse(listed)


@router.patch("/{comment_id}", responses=answers(Comment, 404, 409))
async def edit_comment(comment_id: CommentId, asked: Wording, door: TheDoor, actor: Actor) -> JSONResponse:
    """Word a draft anew."""
    return JSONResponse(await door.row("comment_edit", comment_id=comment_id, body=asked.body, actor=actor))


@router.delete("/{comment_id}", responses=answers(Comment, 404, 409, said="Deleted; as it was"))
async def delete_comment(comment_id: CommentId, door: TheDoor, actor: Actor) -> JSONResponse:
    """Take a draft back."""
    return JSONResponse(await door.row("comment_delete", comment_id=comment_id, actor=actor))


@router.post("/{comment_id}/resolve", responses=answers(Comment, 404, 409))
async def resolve_comment(comment_id: CommentId, asked: Resolution, door: TheDoor, actor: Actor) -> JSONResponse:
    """Say that what a comment wants is done, or that it is not."""
    return JSONResponse(await door.row("comment_resolve", comment_id=comment_id, resolved=asked.resolved, actor=actor))


def _change_or_none(given: str | None) -> UUID | None:
    """The change a filter names; blank filters are ignored.

    Raises:
        NotFound: it cannot be the id of any.
    """
    if not given or not given.strip():
        return None
    try:
        return UUID(given.strip())
    except ValueError:
        raise NotFound(f"There is no change {given}; GET /api/v1/changes lists those that exist.") from None
