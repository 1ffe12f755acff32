"""Letting a browser in: by the code of the link that the service prints, good for once, or by a token.

The browser gets two halves of a secret of its own, of which the database has the hash: a cookie that no script reads, and a key
that its pages keep and send beside it. Either alone is worth nothing.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from coder.errors import InvalidInput, NotFound, Unauthorized
from coder.web.asking import TheDoor
from coder.web.gate import KEY_HEADER, check_origin, cookie_name, digest
from coder.web.openapi import answers, failing
from coder.web.shapes import LATER, Shape

open_router = APIRouter(tags=["service"])
router = APIRouter(tags=["service"])

SECRET_BYTES = 32
COOKIE_PATH = "/api/v1"
COOKIE_SECONDS = 30 * 86400


class NewLogin(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"code": "mVh0TtZqZ0"}]})

    code: Annotated[str | None, Field(description="Of the link that `coder up` or `coder login` printed; it works once")] = None
    token: Annotated[str | None, Field(description="Instead of a code")] = None


class Login(Shape):
    key: Annotated[str, Field(description="To be sent as `X-Coder-Key` with each request beside the cookie; for a socket as `key.<key>`")]
    valid_until: AwareDatetime

    EXAMPLE: ClassVar[dict[str, Any]] = {"key": "8tT3mVh0", "valid_until": LATER}


class Logout(Shape):
    ended: Annotated[bool, Field(description="Whether there was a login to end; a token is none")]

    EXAMPLE: ClassVar[dict[str, Any]] = {"ended": True}


@open_router.post("/login", status_code=201, responses=answers(Login, status=201, said="Let in") | {403: failing(403, "foreign_origin")})
async def login(asked: NewLogin, request: Request, door: TheDoor) -> Response:
    """Let a browser in for 30 days. The answer sets a cookie that no script can read."""
    check_origin(request.headers)  # else another page could have its visitor act for somebody else
    cookie, key = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
    try:
        if asked.code:
            found = await door.row("login_by_link", code=digest(asked.code.strip()), hash=digest(cookie + key))
        elif asked.token:
            found = await door.row("login_by_token", token=digest(asked.token.strip()), hash=digest(cookie + key))
        else:
            raise InvalidInput("`code` is missing; send the one of the printed link, or a `token`.", field="code")
    except NotFound:
        said = "This link was used before, or is too old; `coder login` prints a new one." if asked.code else None
        raise Unauthorized(said or "This token is not known; `coder login` prints a link that needs none.") from None
    answer = JSONResponse({"key": key, **found}, 201)
    answer.set_cookie(
        cookie_name(request.headers),
        cookie,
        max_age=COOKIE_SECONDS,
        path=COOKIE_PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout", responses=answers(Logout, said="Forgotten"))
async def logout(request: Request, door: TheDoor) -> Response:
    """Forget this browser."""
    name = cookie_name(request.headers)
    found = await door.rows("logout", hash=digest(request.cookies.get(name, "") + request.headers.get(KEY_HEADER, "")))
    answer = JSONResponse({"ended": bool(found)})
    answer.delete_cookie(name, path=COOKIE_PATH, httponly=True, samesite="strict")
    return answer
