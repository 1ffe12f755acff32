"""Tokens: what lets programs and browsers in. What a token is, is answered once, to who makes it."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from coder.web.asking import Actor, TheDoor
from coder.web.gate import LOCAL, digest
from coder.web.login import SECRET_BYTES
from coder.web.openapi import answers
from coder.web.shapes import EARLIER, LATER, Page, Shape

router = APIRouter(prefix="/tokens", tags=["service"])
links = APIRouter(tags=["service"])

ADMIN = "admin"
TokenName = Annotated[str, Path(description="The token's name", examples=["ci"])]


class Token(Shape):
    name: Annotated[str, Field(description="What its decisions are signed with")]
    created_at: AwareDatetime
    revoked_at: AwareDatetime | None
    browsers: Annotated[int, Field(description="Browsers that are let in by it")]

    EXAMPLE: ClassVar[dict[str, Any]] = {"name": "ci", "created_at": EARLIER, "revoked_at": None, "browsers": 0}


class MadeToken(Token):
    token: Annotated[str, Field(description="What is sent as `Authorization: Bearer`; nobody can read it again")]

    EXAMPLE: ClassVar[dict[str, Any]] = Token.EXAMPLE | {"token": "3f2a9c0d5e6b4f718a2b3c4d5e6f70813f2a9c0d5e6b4f718a2b3c4d5e6f7081"}


class NewToken(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "ci"}]})

    name: Annotated[str, Field(description="1 to 100 of A-Z, a-z, 0-9, `.`, `_` and `-`")]


class Link(Shape):
    code: Annotated[str, Field(description="The panel's address with `#login=` and this lets one browser in, once")]
    name: Annotated[str, Field(description="The token that browser will act for: the one that asked")]
    valid_until: AwareDatetime

    EXAMPLE: ClassVar[dict[str, Any]] = {"code": "mVh0TtZqZ0", "name": ADMIN, "valid_until": LATER}


@router.get("", responses=answers(Token, page=Page[Token]))
async def list_tokens(door: TheDoor) -> JSONResponse:
    """The tokens, by name, also those that were revoked; one page holds them all."""
    return JSONResponse({"items": await door.rows("token_list"), "next_cursor": None})


@router.post("", status_code=201, responses=answers(MadeToken, 409, status=201, said="Made"))
async def add_token(asked: NewToken, door: TheDoor) -> JSONResponse:
    """Make a token, with every right. One that was revoked is made anew."""
    return JSONResponse(await door.row("token_new", name=asked.name), 201)


@router.delete("/{name}", responses=answers(Token, 404, said="Revoked"))
async def revoke_token(name: TokenName, door: TheDoor) -> JSONResponse:
    """Let a token in no more, nor the browsers that act for it; within 3 s it is refused everywhere."""
    return JSONResponse(await door.row("token_revoke", name=name))


@links.post("/login/links", status_code=201, responses=answers(Link, 404, status=201, said="Made"))
async def add_login_link(door: TheDoor, actor: Actor) -> JSONResponse:
    """Make a link that lets one more browser in, within an hour: a phone, for example. It acts for the token that asks."""
    name = ADMIN if actor == LOCAL else actor
    code = secrets.token_urlsafe(SECRET_BYTES)
    found = await door.row("login_link", hash=digest(code), name=name)
    return JSONResponse({"code": code, "name": name, **found}, 201)
