"""What handlers ask for in their signatures: the door, who asks, ids that are sound."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query, Request, Security, params
from fastapi.dependencies.utils import get_flat_params
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from coder.errors import InvalidInput, NotFound
from coder.ports import Door
from coder.web.gate import ACTOR
from coder.web.paging import LARGEST
from coder.web.shapes import CHANGE_ID, COMMENT_ID, DECISION_ID, PERMISSION_ID, SESSION_ID

bearer = HTTPBearer(auto_error=False, description="The token printed at the first start, or CODER_ADMIN_TOKEN")


async def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


async def _actor(request: Request, token: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]) -> str:
    return str(request.scope[ACTOR])


async def only_known_parameters(request: Request) -> None:
    """Of every route: a filter that is misspelt, or given twice, must not silently list everything.

    Raises:
        InvalidInput: a query parameter that the route does not have, or one that comes more than once.
    """
    given = [name for name, _ in request.query_params.multi_items()]
    if not given:
        return
    known = [
        parameter.alias for parameter in get_flat_params(request.scope["route"].dependant) if isinstance(parameter.field_info, params.Query)
    ]
    for name in given:
        if name not in known:
            there = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidInput(f"{request.url.path} has no query parameter `{name[:64]}`; {there}. Leave it out or correct its name.")
        if given.count(name) > 1:
            raise InvalidInput(f"The query parameter `{name}` is given more than once; give it once, several words of it with commas.")


async def _task(task: Annotated[int, Path(description="The task's id", examples=[42])]) -> int:
    if not 0 < task <= LARGEST:
        raise NotFound(f"There is no task {str(task)[:40]}; GET /api/v1/tasks lists those that exist.")
    return task


TheDoor = Annotated[Door, Depends(_door)]
Actor = Annotated[str, Depends(_actor)]
"""The name of the token that asks; the gate has already made sure that there is one."""
TaskId = Annotated[int, Depends(_task)]
SessionId = Annotated[UUID, Path(description="The session's id", examples=[SESSION_ID])]
ChangeId = Annotated[UUID, Path(description="The change's id", examples=[CHANGE_ID])]
CommentId = Annotated[UUID, Path(description="The comment's id", examples=[COMMENT_ID])]
DecisionId = Annotated[UUID, Path(description="The decision's id", examples=[DECISION_ID])]
PermissionId = Annotated[UUID, Path(description="The permission's id", examples=[PERMISSION_ID])]
WorkspaceId = Annotated[str, Path(description="1 to 40 of a-z, 0-9 and `-`, not at the ends", examples=["payments"])]
ProjectName = Annotated[str, Path(description="Its id or name", examples=["demo"])]
ByProject = Annotated[str | None, Query(alias="project_id", description="Only of this project, by id or name", examples=["demo"])]
BySession = Annotated[str | None, Query(alias="session_id", description="Only of this session", examples=[SESSION_ID])]


def session_or_none(given: str | None) -> UUID | None:
    """The session a filter names; blank filters are ignored.

    Raises:
        NotFound: it cannot be the id of any.
    """
    if not given or not given.strip():
        return None
    try:
        return UUID(given.strip())
    except ValueError:
        raise NotFound(f"There is no session {given}; GET /api/v1/sessions lists those that exist.") from None
