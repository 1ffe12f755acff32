"""Builds the application: the gate around one router per resource."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Security
from starlette.routing import WebSocketRoute

from coder import __version__
from coder.change import FileChange
from coder.config import Settings
from coder.ports import Door
from coder.runtime.watching import Watching
from coder.web import (
    changes,
    comments,
    live,
    login,
    openapi,
    page,
    permissions,
    problems,
    projects,
    queue,
    sessions,
    system,
    tasks,
    tokens,
    workspaces,
)
from coder.web.asking import bearer, only_known_parameters
from coder.web.gate import Gate

PREFIX = "/api/v1"
Compare = Callable[[str, Sequence[str], Sequence[str]], tuple[Sequence[FileChange], bytes]]


def build(
    door: Door,
    settings: Settings,
    host_id: UUID,
    watching: Watching | None = None,
    pages: Path | None = None,
    local: bytes = b"",
    look: Callable[[str], Mapping[str, str | None]] | None = None,
    compare: Compare | None = None,
) -> FastAPI:
    """The HTTP API.

    Args:
        door: what people ask and do.
        settings: of this process; in `app.state.settings`.
        host_id: this machine; projects that are added belong to it unless they say otherwise.
        watching: the live view; without it there is no WebSocket.
        pages: the folder of the built panel, if it is to be served.
        local: the digest of the token that holds for this process alone.
        look: finds the checkout at a path of this host.
        compare: finds the difference between two changes of a repository of this host.
    """
    app = FastAPI(
        title="coder",
        version=__version__,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.door = door
    app.state.settings = settings
    app.state.host_id = host_id
    app.state.decision_seconds = changes.SECONDS
    app.state.look = look
    app.state.compare = compare
    api = APIRouter(prefix=PREFIX, dependencies=[Security(bearer), Depends(only_known_parameters)])
    for router in (projects.router, tasks.router, sessions.router, queue.router, workspaces.router, changes.router, changes.decisions):
        api.include_router(router)
    for router in (
        comments.on_changes,
        comments.router,
        permissions.router,
        system.router,
        login.router,
        projects.looking,
        tokens.router,
        tokens.links,
    ):
        api.include_router(router)
    app.include_router(api)
    app.include_router(system.open_router, prefix=PREFIX)
    app.include_router(login.open_router, prefix=PREFIX)
    app.include_router(system.open_router, include_in_schema=False)
    if watching is not None:
        app.router.routes.append(WebSocketRoute(f"{PREFIX}/ws", live.Live(watching, door, settings)))
    app.router.routes.extend(page.routes(pages))
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Gate, door=door, local=local)
    return app
