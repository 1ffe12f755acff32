"""How operations describe what they answer: one shape with its example, and the problems that may come instead."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from coder.web.problems import MEDIA_TYPE
from coder.web.shapes import Page, Problem, Shape

Responses = dict[int | str, dict[str, Any]]
PROBLEMS = {
    401: (
        "unauthorized",
        "This request bears no valid token; send `Authorization: Bearer <token>` with the one printed at the first start.",
    ),
    403: (
        "foreign_origin",
        "The page http://elsewhere.test is not coder's, so it may do nothing here; open the panel at 127.0.0.1:8390 instead.",
    ),
    404: ("not_found", "There is no task 42; `select id, state from tasks` lists those that exist."),
    409: ("conflict", "Task 42 is running, so it can no longer be edited; insert a new task."),
    422: ("invalid_input", "`input` is missing; send it."),
    503: ("unavailable", "The database cannot be reached (connection refused); is it running?"),
}
TITLES = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}
EXAMPLES: dict[str, Any] = {}
"""Filled by `answers`; operations refer to them, since FastAPI drops every null from an example given in place."""
DESCRIPTION = """Tasks for coding agents, the changes they make, and the decisions on them.

Everything but `/health` and `/ready` needs `Authorization: Bearer <token>`. Lists answer `items` and `next_cursor`, which is sent back
as `cursor`; a blank filter is none, and a query parameter that there is not, or that comes twice, is refused.
Every error is `application/problem+json` whose `detail` is a sentence and whose `code` is stable."""


def answers(shape: type[Shape], *problems: int, status: int = 200, page: type[Page[Any]] | None = None, said: str = "Done") -> Responses:
    """The `responses` of an operation.

    Args:
        shape: what it answers; of a list, an item of it.
        problems: statuses it may answer beside 401 and 422.
        page: the model of the page, for a list.
        status: of the good answer.
        said: its description.
    """
    name = shape.__name__ if page is None else f"{shape.__name__}Page"
    paged = {"items": [shape.EXAMPLE], "next_cursor": None} | ({"ignored": []} if page and "ignored" in page.model_fields else {})
    EXAMPLES[name] = shape.EXAMPLE if page is None else paged
    content = {"application/json": {"examples": {"example": {"$ref": f"#/components/examples/{name}"}}}}
    responses: Responses = {status: {"model": page or shape, "description": said, "content": content}}
    return responses | {number: failing(number) for number in sorted({401, 422, *problems})}


def failing(status: int, *codes: str) -> dict[str, Any]:
    """The description of a problem; `codes` name those that are special to the operation."""
    code, detail = PROBLEMS[status]
    example = {"type": "about:blank", "title": TITLES[status], "status": status, "detail": detail, "code": code}
    return {
        "description": f"`code` is {' | '.join(codes)}" if codes else TITLES[status],
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }


def install(app: FastAPI) -> None:
    """Describe the application, with the `Problem` schema that `failing` refers to; made at the first request for it."""

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
            schema["components"]["schemas"]["Problem"] = Problem.model_json_schema()
            schema["components"]["examples"] = {name: {"value": value} for name, value in EXAMPLES.items()}
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]
