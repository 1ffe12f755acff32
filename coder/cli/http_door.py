"""The door over HTTP: the statements of `door.sql` as calls of the API, so that commands are written once.

The rule: a parameter that the path names goes there, the others into the query of a GET or the body of a POST; what is
None is left out. Lists are followed from page to page up to the limit.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import httpx

from coder.cli.desk import LOOPBACK
from coder.errors import CoderError, Conflict, InvalidInput, NotFound, Unauthorized, Unavailable

CALLS: dict[str, tuple[str, str]] = {
    "project_add": ("POST", "/projects"),
    "project_list": ("GET", "/projects"),
    "project_get": ("GET", "/projects/{project}"),
    "project_set": ("PATCH", "/projects/{project}"),
    "rule_list": ("GET", "/projects/{project}/permission-rules"),
    "rule_add": ("POST", "/projects/{project}/permission-rules"),
    "rule_delete": ("DELETE", "/projects/{project}/permission-rules/{rule_id}"),
    "task_add": ("POST", "/tasks"),
    "task_get": ("GET", "/tasks/{task}"),
    "task_list": ("GET", "/tasks"),
    "task_priority": ("PUT", "/tasks/{task}/priority"),
    "task_cancel": ("POST", "/tasks/{task}/cancel"),
    "task_retry_now": ("POST", "/tasks/{task}/retry-now"),
    "task_retry": ("POST", "/tasks/{task}/retry"),
    "task_resume": ("POST", "/tasks/{task}/resume"),
    "task_dismiss": ("POST", "/tasks/{task}/dismiss"),
    "session_list": ("GET", "/sessions"),
    "session_get": ("GET", "/sessions/{session_id}"),
    "session_close": ("POST", "/sessions/{session_id}/close"),
    "session_reopen": ("POST", "/sessions/{session_id}/reopen"),
    "session_chat": ("POST", "/sessions/{session_id}/chats"),
    "session_compact": ("POST", "/sessions/{session_id}/compact"),
    "session_title": ("PUT", "/sessions/{session_id}/title"),
    "session_cwd": ("GET", "/sessions/{session_id}/cwd"),
    "session_set_cwd": ("PUT", "/sessions/{session_id}/cwd"),
    "session_clear_cwd": ("DELETE", "/sessions/{session_id}/cwd"),
    "queue_add": ("POST", "/sessions/{session_id}/queue"),
    "queue_list": ("GET", "/sessions/{session_id}/queue"),
    "queue_edit": ("PUT", "/sessions/{session_id}/queue/{task}"),
    "queue_now": ("POST", "/sessions/{session_id}/queue/{task}/now"),
    "queue_remove": ("DELETE", "/sessions/{session_id}/queue/{task}"),
    "queue_move": ("POST", "/sessions/{session_id}/queue/{task}/move"),
    "workspace_list": ("GET", "/workspaces"),
    "workspace_get": ("GET", "/workspaces/{workspace_id}"),
    "workspace_add": ("PUT", "/workspaces/{workspace_id}"),
    "workspace_title": ("PUT", "/workspaces/{workspace_id}/title"),
    "workspace_default_cwd": ("PUT", "/workspaces/{workspace_id}/default-cwd"),
    "workspace_delete": ("DELETE", "/workspaces/{workspace_id}"),
    "message_list": ("GET", "/sessions/{session_id}/messages"),
    "change_list": ("GET", "/changes"),
    "change_get": ("GET", "/changes/{change_id}"),
    "change_diff": ("GET", "/changes/{change_id}/diff"),
    "change_approve": ("POST", "/changes/{change_id}/approve"),
    "change_reject": ("POST", "/changes/{change_id}/reject"),
    "change_comment": ("POST", "/changes/{change_id}/comments"),
    "change_check": ("GET", "/changes/{change_id}/check"),
    "change_checks": ("GET", "/changes/{change_id}/checks"),
    "change_check_again": ("POST", "/changes/{change_id}/check"),
    "change_send": ("POST", "/changes/{change_id}/send"),
    "comment_list": ("GET", "/comments"),
    "comment_edit": ("PATCH", "/comments/{comment_id}"),
    "comment_delete": ("DELETE", "/comments/{comment_id}"),
    "comment_resolve": ("POST", "/comments/{comment_id}/resolve"),
    "change_decide": ("POST", "/changes/{change_id}/decide"),
    "change_approve_in_order": ("POST", "/changes/approve"),
    "change_rebase": ("POST", "/changes/{change_id}/rebase"),
    "change_undo": ("POST", "/changes/{change_id}/undo"),
    "decision_list": ("GET", "/decisions"),
    "decision_get": ("GET", "/decisions/{decision_id}"),
    "permission_list": ("GET", "/permissions"),
    "permission_get": ("GET", "/permissions/{permission_id}"),
    "permission_allow": ("POST", "/permissions/{permission_id}/allow"),
    "permission_deny": ("POST", "/permissions/{permission_id}/deny"),
    "permission_answer": ("POST", "/permissions/{permission_id}/answer"),
    "token_list": ("GET", "/tokens"),
    "token_new": ("POST", "/tokens"),
    "token_revoke": ("DELETE", "/tokens/{name}"),
    "agent_list": ("GET", "/agents"),
    "agent_probe": ("POST", "/agents/probe"),
    "status": ("GET", "/status"),
    "stats": ("GET", "/stats"),
    "ready": ("GET", "/ready"),
}
IN_QUERY = {"project": "project_id", "task": "task_id", "statuses": "status", "states": "state", "checks": "check"}
WHOLE = frozenset({"agent_list", "change_checks", "token_list", "stats"})
"""Lists that come in one page."""
SERVERS_OWN = frozenset({"actor", "host_id"})
"""What the server knows better: whose token it is, and where it runs."""
PAGE = 200
SECONDS = httpx.Timeout(10.0, read=60.0)  # an approval answers within 30 s
BY_STATUS: dict[int, type[CoderError]] = {401: Unauthorized, 404: NotFound, 409: Conflict, 413: InvalidInput, 422: InvalidInput}


class HttpDoor:
    """Implements `ports.SyncDoor` on the API of a running coder.

    Args:
        url: where it is, `http://host:port`.
        token: one it knows.

    Raises:
        InvalidInput: the address or the token cannot be one.
    """

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"CODER_URL is {url!r}, which is no address; set it to one like http://127.0.0.1:8390.")
        if not (token.isascii() and token.isprintable()):
            raise InvalidInput("CODER_TOKEN holds characters that no token has; set it to the one printed at the first start.")
        self._url = url.rstrip("/").removesuffix("/api/v1")
        self._client = httpx.Client(
            base_url=f"{self._url}/api/v1",
            headers={"Authorization": f"Bearer {token}"} if token else None,
            timeout=SECONDS,
            trust_env=parts.hostname not in LOOPBACK,
        )

    def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        method, _ = CALLS[statement]
        if method == "POST":
            return [self._call(statement, parameters).json()]
        limit = parameters.pop("limit", PAGE)
        if statement in WHOLE:
            return self._call(statement, parameters).json()["items"][:limit]  # type: ignore[no-any-return]
        found: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None and len(found) < limit:
            answer = self._call(statement, {**parameters, "limit": min(PAGE, limit - len(found)), "cursor": cursor or None}).json()
            found += answer["items"]
            cursor = answer["next_cursor"]
        return found

    def row(self, statement: str, **parameters: Any) -> dict[str, Any]:
        answer = self._call(statement, parameters)
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def blob(self, statement: str, **parameters: Any) -> bytes:
        return self._call(statement, parameters).content

    def close(self) -> None:
        self._client.close()

    def _call(self, statement: str, parameters: Mapping[str, Any]) -> httpx.Response:
        method, template = CALLS[statement]
        named = set(re.findall(r"{(\w+)}", template))
        path = template.format_map({name: quote(str(parameters[name]), safe="") for name in named})
        rest = {name: _plain(value) for name, value in parameters.items() if value is not None and name not in named | SERVERS_OWN}
        query = {IN_QUERY.get(name, name): ",".join(value) if isinstance(value, list) else value for name, value in rest.items()}
        try:
            if method == "GET":
                answer = self._client.get(path, params=query)
            else:
                answer = self._client.request(method, path, json=rest if method != "DELETE" else None)
        except httpx.HTTPError as error:
            why = str(error) or type(error).__name__
            raise Unavailable(
                f"coder at {self._url} cannot be reached ({why}); start it there with `coder up`, or correct CODER_URL."
            ) from error
        if answer.is_success:
            return answer
        raise self._error(answer)

    def _error(self, answer: httpx.Response) -> CoderError:
        """The error a problem+json stands for."""
        if not answer.headers.get("content-type", "").startswith("application/problem+json"):
            return Unavailable(f"{self._url} answers {answer.status_code}, but not as coder does; correct CODER_URL.")
        problem = answer.json()
        if answer.status_code == 401:
            return Unauthorized(f"coder at {self._url} does not know the token; set CODER_TOKEN to the one printed at its first start.")
        known = {kind.code: kind for kind in _kinds(Conflict)}
        kind = known.get(problem["code"]) or BY_STATUS.get(answer.status_code, Unavailable)
        error = kind(problem["detail"])
        error.facts = problem
        return error


def _kinds(of: type[CoderError]) -> Iterator[type[CoderError]]:
    yield of
    for kind in of.__subclasses__():
        yield from _kinds(kind)


def _plain(value: Any) -> Any:
    """A parameter as JSON has it."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value
