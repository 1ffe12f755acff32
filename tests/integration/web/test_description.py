"""OpenAPI and the page at `/`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from web_client import Api

from coder.web.app import PREFIX
from coder.web.login import Login, Logout
from coder.web.openapi import EXAMPLES
from coder.web.projects import Checkout
from coder.web.review_shapes import Check, Comment
from coder.web.shapes import (
    AddedTask,
    Change,
    Chat,
    Comparison,
    Cwd,
    Decision,
    DeletedWorkspace,
    ListedChange,
    Message,
    OneSession,
    Page,
    Permission,
    PermissionRule,
    Project,
    QueuedTask,
    Session,
    SessionPage,
    Task,
    Workspace,
)
from coder.web.system import Agent, Health, Probe, Ready, Setting, Status, Stretch
from coder.web.tokens import Link, MadeToken, Token

SINGLE = (Project, Checkout, Task, AddedTask, Session, OneSession, Cwd, Chat, Workspace, DeletedWorkspace, Change, Comparison, Check,
          Comment, Decision,
          Permission, PermissionRule, Status, Health, Ready, Probe, Login, Logout, Token, MadeToken, Link)  # fmt: skip
MODELS = {
    "ProjectPage": Page[Project], "TaskPage": Page[Task], "SessionPage": SessionPage, "MessagePage": Page[Message],
    "ListedChangePage": Page[ListedChange], "CommentPage": Page[Comment], "AgentPage": Page[Agent],
    "DecisionPage": Page[Decision], "CheckPage": Page[Check],
    "QueuedTaskPage": Page[QueuedTask],
    "TokenPage": Page[Token], "SettingPage": Page[Setting], "StretchPage": Page[Stretch],
    "WorkspacePage": Page[Workspace], "PermissionPage": Page[Permission], "PermissionRulePage": Page[PermissionRule],
} | {model.__name__: model for model in SINGLE}  # fmt: skip
PROMISED = {
    "POST /sessions/{session_id}/compact",
    "POST /sessions/{session_id}/queue", "GET /sessions/{session_id}/queue", "PUT /sessions/{session_id}/queue/{task}",
    "DELETE /sessions/{session_id}/queue/{task}", "POST /sessions/{session_id}/queue/{task}/now",
    "POST /sessions/{session_id}/queue/{task}/move", "PUT /tasks/{task}/priority",
    "GET /stats",
    "POST /projects", "GET /projects", "GET /projects/{project}", "POST /tasks", "GET /tasks", "GET /tasks/{task}",
    "POST /tasks/{task}/cancel", "POST /tasks/{task}/retry-now", "POST /tasks/{task}/retry", "POST /tasks/{task}/resume",
    "POST /tasks/{task}/dismiss", "GET /sessions", "GET /sessions/{session_id}", "GET /sessions/{session_id}/messages",
    "POST /sessions/{session_id}/close", "POST /sessions/{session_id}/reopen", "GET /changes", "GET /changes/{change_id}",
    "GET /changes/{change_id}/diff",
    "GET /changes/{change_id}/compare", "POST /changes/{change_id}/approve", "POST /changes/{change_id}/reject",
    "POST /changes/{change_id}/decide", "POST /changes/{change_id}/undo",
    "POST /changes/{change_id}/rebase", "POST /changes/approve", "GET /decisions", "PATCH /projects/{project}",
    "GET /projects/{project}/permission-rules", "POST /projects/{project}/permission-rules",
    "DELETE /projects/{project}/permission-rules/{rule_id}", "POST /sessions/{session_id}/chats", "GET /permissions",
    "GET /permissions/{permission_id}", "POST /permissions/{permission_id}/allow", "POST /permissions/{permission_id}/deny",
    "POST /permissions/{permission_id}/answer", "POST /agents/probe", "GET /decisions/{decision_id}", "GET /agents", "GET /status",
    "GET /health", "GET /ready", "PUT /sessions/{session_id}/title", "GET /sessions/{session_id}/cwd", "PUT /sessions/{session_id}/cwd",
    "DELETE /sessions/{session_id}/cwd", "GET /workspaces", "PUT /workspaces/{workspace_id}", "GET /workspaces/{workspace_id}",
    "PUT /workspaces/{workspace_id}/title", "PUT /workspaces/{workspace_id}/default-cwd", "DELETE /workspaces/{workspace_id}",
    "POST /changes/{change_id}/comments", "POST /changes/{change_id}/send", "GET /comments",
    "GET /checkout", "GET /settings", "GET /tokens", "POST /tokens", "DELETE /tokens/{name}", "POST /login/links",
    "GET /changes/{change_id}/check", "POST /changes/{change_id}/check", "GET /changes/{change_id}/checks",
    "PATCH /comments/{comment_id}", "DELETE /comments/{comment_id}", "POST /comments/{comment_id}/resolve",
    "POST /login", "POST /logout",
}  # fmt: skip


def operations(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path.removeprefix(PREFIX)}", operation


async def test_every_operation_is_described_with_examples(api: Api) -> None:
    schema = (await api.client.get("/api/v1/openapi.json", headers={"Authorization": ""})).json()
    found = dict(operations(schema))
    assert set(found) == PROMISED
    for name, operation in found.items():
        assert operation["description"], name
        good = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
        assert good, name
        for answer in good:
            (content,) = answer["content"].values()
            assert content.get("example") or content["examples"], name
        for parameter in operation.get("parameters", []):
            assert "examples" in parameter["schema"] or "default" in parameter["schema"], (name, parameter)
        if body := operation.get("requestBody"):
            reference = body["content"]["application/json"]["schema"]["$ref"]
            assert schema["components"]["schemas"][reference.rsplit("/", 1)[1]]["examples"], name
        is_open = name in ("GET /health", "GET /ready", "POST /login")
        assert bool(operation.get("security")) is not is_open, name


async def test_every_reference_leads_somewhere(api: Api) -> None:
    text = (await api.client.get("/api/v1/openapi.json")).text
    schema = (await api.client.get("/api/v1/openapi.json")).json()
    for reference in set(re.findall(r'"\$ref":"#/([^"]+)"', text)):
        found = schema
        for step in reference.split("/"):
            found = found[step]


async def test_every_example_is_of_its_shape(api: Api) -> None:
    schema = (await api.client.get("/api/v1/openapi.json")).json()
    assert set(schema["components"]["examples"]) == set(EXAMPLES) == set(MODELS)
    for name, example in schema["components"]["examples"].items():
        MODELS[name].model_validate(example["value"], extra="forbid")


async def test_the_examples_of_requests_are_accepted(api: Api) -> None:
    schemas = (await api.client.get("/api/v1/openapi.json")).json()["components"]["schemas"]
    (project,) = schemas["NewProject"]["examples"]
    assert (await api.post("/projects", json={**project, "name": "as-in-the-example"})).status_code == 201
    (task,) = schemas["NewTask"]["examples"]
    assert (await api.post("/tasks", json=task)).status_code == 201


async def test_the_page_asks_nothing_of_anybody(api: Api) -> None:
    answer = await api.client.get("/", headers={"Authorization": ""})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    for command in ("coder project add", "coder task add", "insert into tasks", "coder change approve"):
        assert command in answer.text
    assert not re.findall(r"(?:https?:)?//|<script|<img|<link|url\(", answer.text)
