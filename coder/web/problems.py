"""Errors as problem+json (RFC 9457): one sentence, a stable code, the facts.

The invariant: whatever goes wrong, the answer is this shape, and it never shows a traceback. The titles are the
phrases of the status, so `type` is left at `about:blank` (RFC 9457, 4.2.1).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from coder.errors import CoderError

MEDIA_TYPE = "application/problem+json"
RESERVED = frozenset({"type", "title", "status", "detail", "code"})
CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    500: "internal",
}
PLACES = {"query": "The query parameter ", "path": "In the address, ", "header": "The header "}


def problem(
    status: int, detail: str, *, code: str | None = None, headers: Mapping[str, str] | None = None, facts: Mapping[str, Any] | None = None
) -> Response:
    """An error as a response.

    Args:
        status: the HTTP status.
        detail: the sentence.
        code: what programs compare; by the status when not given.
        headers: further response headers.
        facts: further members; one that bears a reserved name is left out.
    """
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code or CODES.get(status, "error"),
    }
    body |= {name: value for name, value in (facts or {}).items() if name not in RESERVED}
    return Response(json.dumps(body, default=str), status, headers, MEDIA_TYPE)


def of_error(error: CoderError) -> Response:
    """The response for an error of ours."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return problem(error.status, error.message, code=error.code, headers=headers, facts=error.facts)


def sentence(error: Mapping[str, Any]) -> tuple[str, str]:
    """A field and a sentence about it, from one error of pydantic."""
    place, *path = [str(step) for step in error["loc"]]
    name = ".".join(path)
    if place == "body" and not path:
        return "", "The request lacks the JSON object it needs; send one." if error["type"] == "missing" else (
            "The body must be a JSON object with the fields of this request; send one."
        )
    field = f"{PLACES.get(place, '')}`{name}`"
    if error["type"] == "missing":
        return name, f"{field} is missing; send it."
    if error["type"] == "extra_forbidden":
        return name, f"{field} is not a field of this request; leave it out or correct its name."
    wrong = str(error["msg"]).removeprefix("Value error, ").rstrip(".")
    return name, f"{field} is not acceptable: {wrong[:1].lower()}{wrong[1:]}."


def of_validation(errors: Sequence[Mapping[str, Any]]) -> Response:
    """The response for a request that does not fit its model: the first fault as the sentence, all of them as facts."""
    found = [sentence(error) for error in errors]
    listed = [{"field": field, "detail": said} for field, said in found]
    return problem(422, found[0][1], code="invalid_input", facts={"field": found[0][0], "errors": listed})


def allowed(app: FastAPI, path: str) -> str:
    """The methods that exist for a path, as RFC 9110 15.5.6 wants them in `Allow`."""
    methods = {
        method.upper()
        for template, operations in app.openapi()["paths"].items()
        if compile_path(template)[0].match(path)
        for method in operations
    }
    return ", ".join(sorted(methods))


def install(app: FastAPI) -> None:
    """Let every error of the routes leave as problem+json; what nobody foresaw is the gate's."""

    @app.exception_handler(CoderError)
    async def coder_error(request: Request, error: CoderError) -> Response:
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    async def validation_error(request: Request, error: RequestValidationError) -> Response:
        return of_validation(error.errors())

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        method, path = request.method, request.url.path
        if error.status_code == 405:
            allow = allowed(app, path) or (error.headers or {}).get("Allow", "")
            return problem(405, f"{method} is not possible on {path}; use {allow}.", headers={"Allow": allow})
        if error.status_code == 404:
            return problem(404, f"There is nothing at {path}; /api/v1/openapi.json lists what there is.")
        return problem(error.status_code, str(error.detail), headers=error.headers)
