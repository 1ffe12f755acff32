"""What cannot be accepted: each is refused with a sentence and a code, and nothing is stored."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from standin import TOKEN
from structlog.testing import capture_logs
from web_client import Api

from coder.errors import Unavailable
from coder.postgres.door import PostgresDoor
from coder.postgres.pool import open_pool
from coder.runtime.clock import SystemClock
from coder.web.app import build
from coder.web.paging import encode

JSON = {"Content-Type": "application/json"}


def problem(answer: httpx.Response, status: int, code: str, *words: str) -> dict[str, Any]:
    """The body of an error, once it was found to be problem+json with one sentence."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code), body
    assert body["title"]
    assert body["detail"].endswith(".") or ";" in body["detail"]
    assert "Traceback" not in answer.text
    for word in words:
        assert word in body["detail"], body["detail"]
    return body


BODIES: list[tuple[bytes, list[str]]] = [
    (b"{", ["not JSON", "line 1"]),
    (b'{"project": "demo", "input": "\xff"}', ["not UTF-8", "byte 30"]),
    (b'{"project": "demo", "input": "\xed\xa0\x80"}', ["not UTF-8"]),
    ('{"project": "demo", "input": "x"}'.encode("utf-16"), ["not UTF-8"]),
    (rb'{"project": "demo", "input": "a\u0000b"}', ["U+0000", "`input`"]),
    (rb'{"project": "demo", "input": "x", "labels": ["ok", "\u0000"]}', ["U+0000", "`labels`"]),
    (rb'{"project": "demo", "input": "\ud800"}', ["surrogate", "`input`"]),
    (rb'{"\u0000": 1}', ["U+0000", "name of a field"]),
    (b'{"project": "demo", "input": "x", "timeout": NaN}', ["NaN"]),
    (b'{"project": "demo", "input": "x", "priority": ' + b"9" * 5000 + b"}", ["not JSON that can be read"]),
    (b"[" * 100_000, ["not JSON"]),
    (b"[]", ["JSON object"]),
    (b'"x"', ["JSON object"]),
    (b"null", ["JSON object"]),
    (b"", ["JSON object"]),
    (b"{}", ["`input`", "missing"]),
    (b'{"input": "x"}', ["`project`", "missing"]),
    (b'{"project": "demo", "project_id": "other", "input": "x"}', ["`project_id`"]),
    (b'{"project": "demo"}', ["`input`", "missing"]),
    (b'{"project": "demo", "input": 5}', ["`input`", "string"]),
    (b'{"project": "demo", "input": ""}', ["empty"]),
    (b'{"project": "demo", "input": " \\n\\t"}', ["empty"]),
    (b'{"project": "demo", "input": "' + b"x" * 1_048_577 + b'"}', ["1048576", "1048577"]),
    (b'{"project": "demo", "input": "x", "prority": 1}', ["`prority`", "not a field"]),
    (b'{"project": "demo", "input": "x", "priority": 40000}', ["`priority`", "32767"]),
    (b'{"project": "demo", "input": "x", "priority": "1"}', ["`priority`"]),
    (b'{"project": "demo", "input": "x", "priority": true}', ["`priority`"]),
    (b'{"project": "demo", "input": "x", "priority": 1.5}', ["`priority`"]),
    (b'{"project": "demo", "input": "x", "max_attempts": 0}', ["`max_attempts`"]),
    (b'{"project": "demo", "input": "x", "timeout": 0}', ["`timeout`"]),
    (b'{"project": "demo", "input": "x", "timeout": 1e300}', ["`timeout`"]),
    (b'{"project": "demo", "input": "x", "timeout": "5"}', ["`timeout`"]),
    (b'{"project": "demo", "input": "x", "run_at": "soon"}', ["`run_at`"]),
    (b'{"project": "demo", "input": "x", "run_at": "2031-01-01T00:00:00"}', ["`run_at`", "timezone"]),
    (b'{"project": "demo", "input": "x", "run_at": 1900000000}', ["`run_at`", "written like"]),
    (b'{"project": "demo", "input": "x", "run_at": "0001-01-01T00:00:00+14:00"}', ["`run_at`"]),
    (b'{"project": "demo", "input": "x", "session_id": "5"}', ["`session_id`", "UUID"]),
    (b'{"project": "demo", "input": "x", "labels": "ci"}', ["`labels`", "list"]),
    (b'{"project": "demo", "input": "x", "labels": [1]}', ["`labels.0`"]),
    (b'{"project": "demo", "input": "x", "idempotency_key": ""}', ["`idempotency_key`", "255"]),
    (b'{"project": "demo", "input": "x", "idempotency_key": "' + "é".encode() * 128 + b'"}', ["256 bytes"]),
    (b'{"project": "demo", "input": "x", "workspace_id": "No Such Name"}', ["workspace", "No Such Name"]),
]


async def test_bodies(api: Api) -> None:
    for body, words in BODIES:
        problem(await api.post("/tasks", content=body, headers=JSON), 422, "invalid_input", *words)
    assert api.node.count("tasks") == 0
    assert api.node.count("sessions") == 0


async def test_a_field_is_named_as_a_fact(api: Api) -> None:
    body = problem(await api.post("/tasks", json={"priority": "x", "odd": 1}), 422, "invalid_input")
    assert {error["field"] for error in body["errors"]} == {"input", "priority", "odd"}
    assert body["field"] == body["errors"][0]["field"]


async def test_idempotency_keys_that_differ(api: Api) -> None:
    asked = {"project": "demo", "input": "x", "idempotency_key": "a"}
    problem(await api.post("/tasks", json=asked, headers={"Idempotency-Key": "b"}), 422, "invalid_input", "differ")


async def test_what_does_not_exist(api: Api) -> None:
    nobody = uuid4()
    for path in (
        "/projects/nope", f"/projects/{nobody}", "/tasks/999", "/tasks/0", "/tasks/-1", "/tasks/9223372036854775808", f"/tasks/{'9' * 40}",
        f"/sessions/{nobody}", f"/sessions/{nobody}/messages", f"/changes/{nobody}", f"/changes/{nobody}/diff", f"/decisions/{nobody}",
        "/tasks?project_id=nope", "/sessions?project_id=nope", "/changes?project_id=nope", "/tasks?session_id=nope",
        "/changes?session_id=x",
        "/nope", "/tasks/", "/tasks/1/nope",
    ):  # fmt: skip
        problem(await api.get(path), 404, "not_found", "lists")
    for path in ("/tasks/999/cancel", "/tasks/999/retry", "/tasks/999/resume", "/tasks/999/dismiss"):
        problem(await api.post(path), 404, "not_found", "999")
    for path in (f"/sessions/{nobody}/close", f"/sessions/{nobody}/reopen"):
        problem(await api.post(path), 404, "not_found", str(nobody))
    for path in (f"/changes/{nobody}/approve", f"/changes/{nobody}/reject"):
        problem(await api.post(path, json={"fingerprint": "0" * 64}), 404, "not_found", str(nobody))
    problem(await api.post("/tasks", json={"project": "nope", "input": "x"}), 404, "not_found", "nope")
    problem(await api.post("/tasks", json={"project": "demo", "input": "x", "session_id": str(nobody)}), 404, "not_found", str(nobody))
    problem(await api.client.get("/nope"), 404, "not_found", "/nope")


async def test_ids_that_are_none(api: Api) -> None:
    for path, word in (
        ("/tasks/abc", "`task`"), ("/tasks/1.5", "`task`"), ("/sessions/abc", "`session_id`"), ("/changes/abc", "`change_id`"),
        ("/changes/abc/diff", "`change_id`"), ("/decisions/abc", "`decision_id`"), ("/sessions/abc/messages", "`session_id`"),
    ):  # fmt: skip
        problem(await api.get(path), 422, "invalid_input", word, "In the address")


async def test_the_chat_of_another_session(api: Api) -> None:
    asked = {"project": "demo", "input": "x", "chat_id": str(uuid4())}
    problem(await api.post("/tasks", json=asked), 422, "invalid_input")


async def test_the_session_of_another_project(api: Api) -> None:
    await api.post("/projects", json={"name": "other", "path": "/srv/other"})
    session = (await api.post("/tasks", json={"project": "demo", "input": "x"})).json()["session_id"]
    problem(await api.post("/tasks", json={"project": "other", "input": "x", "session_id": session}), 422, "invalid_input", session)


async def test_projects_that_cannot_be(api: Api) -> None:
    for asked, status, words in (
        ({"name": "no spaces", "path": "/x"}, 422, ["no spaces"]),
        ({"name": "x", "path": "relative"}, 422, ["absolute", "relative"]),
        ({"name": "x"}, 422, ["`path`"]),
        ({"name": "demo", "path": "/x"}, 409, ["already", "demo"]),
        ({"name": "x", "path": "/x", "host_id": "5"}, 422, ["`host_id`"]),
        ({"name": "x", "path": "/x", "host_id": str(uuid4())}, 422, []),
    ):
        problem(await api.post("/projects", json=asked), status, "conflict" if status == 409 else "invalid_input", *words)
    assert api.node.count("projects") == 1


async def test_decisions_that_cannot_be(api: Api) -> None:
    change = api.node.change()
    good = {"fingerprint": change["fingerprint"]}
    for verb, asked, words in (
        ("approve", {}, ["`fingerprint`"]),
        ("approve", {**good, "target": "moon"}, ["`target`", "checkout"]),
        ("approve", {**good, "target": "checkout", "branch": "x"}, ["branch"]),
        ("approve", {**good, "target": "branch", "commit": True}, ["commit"]),
        ("approve", {**good, "commit": "yes"}, ["`commit`"]),
        ("approve", {**good, "work": "keep"}, ["`work`", "not a field"]),
        ("reject", {}, ["`fingerprint`"]),
        ("reject", {**good, "work": "burn"}, ["`work`", "discard"]),
    ):
        problem(await api.post(f"/changes/{change['id']}/{verb}", json=asked), 422, "invalid_input", *words)
    assert api.node.count("decisions") == 0


async def test_lists_that_cannot_be(api: Api) -> None:
    for path, word in (
        ("/tasks?limit=0", "`limit`"), ("/tasks?limit=201", "`limit`"), ("/tasks?limit=x", "`limit`"), ("/tasks?state=odd", "`state`"),
        ("/changes?state=pending,odd", "odd"), ("/tasks?cursor=%25", "`cursor`"), ("/tasks?cursor=bm8", "`cursor`"),
        ("/tasks?cursor=é", "`cursor`"), (f"/tasks?cursor={encode(['x'])}", "`cursor`"), (f"/tasks?cursor={encode([2**63])}", "`cursor`"),
        (f"/tasks?cursor={encode([1, 2])}", "`cursor`"), (f"/sessions?cursor={encode(['yesterday', str(uuid4())])}", "`cursor`"),
        (f"/sessions?cursor={encode(['2026-01-01T00:00:00', str(uuid4())])}", "`cursor`"),
        (f"/changes?cursor={encode(['2026-01-01T00:00:00Z', 'x'])}", "`cursor`"), (f"/projects?cursor={encode([1])}", "`cursor`"),
        ("/projects?cursor=WyJhXHUwMDAwIl0", "`cursor`"), ("/projects?cursor=WyJcdWQ4MDAiXQ", "`cursor`"),
        ("/tasks?cursor=" + "W1tb" * 9999, "`cursor`"),
        ("/tasks?label=%00", "U+0000"), ("/projects/%00", "U+0000"),
    ):  # fmt: skip
        problem(await api.get(path), 422, "invalid_input", word)
    problem(await api.get(f"/changes?cursor={encode(['0001-01-01T00:00:00+14:00', str(uuid4())])}"), 422, "invalid_input")


async def test_methods(api: Api) -> None:
    for method, path, allow in (
        ("DELETE", "/api/v1/tasks", "GET, POST"), ("PUT", "/api/v1/tasks/1", "GET"), ("GET", "/api/v1/tasks/1/cancel", "POST"),
        ("POST", "/api/v1/status", "GET"), ("POST", "/health", "GET"),
    ):  # fmt: skip
        answer = await api.client.request(method, path)
        problem(answer, 405, "method_not_allowed", method, allow)
        assert answer.headers["allow"] == allow


async def test_bodies_of_another_kind(api: Api) -> None:
    for kind in ({"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {}):
        answer = await api.post("/tasks", content=b'{"project": "demo", "input": "x"}', headers=kind)
        problem(answer, 415, "unsupported_media_type", "application/json")
    suffixed = {"Content-Type": "application/vnd.coder+json; charset=utf-8"}
    assert (await api.post("/tasks", content=b'{"project": "demo", "input": "x"}', headers=suffixed)).status_code == 201


async def test_bodies_that_are_too_large(api: Api) -> None:
    body = json.dumps({"project": "demo", "input": "x", "model": "m" * 4_194_304}).encode()
    problem(await api.post("/tasks", content=body, headers=JSON), 413, "too_large", "4194304")

    async def unannounced() -> Any:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    problem(await api.post("/tasks", content=unannounced(), headers=JSON), 413, "too_large", "4194304")
    assert api.node.count("tasks") == 0


async def test_tokens(api: Api) -> None:
    details = set()
    for header in (None, "", "Bearer", "Bearer ", "Basic eDp5", "Bearer wrong", f"bearer {TOKEN}x", "Bearer \xff", TOKEN):
        for path in ("/tasks", "/nope", "/tasks/abc"):
            headers = {} if header is None else {"Authorization": header.encode("latin-1")}
            request = httpx.Request("GET", f"http://coder.test/api/v1{path}", headers=headers)
            answer = await api.client.send(request)
            details.add(problem(answer, 401, "unauthorized", "Bearer")["detail"])
            assert answer.headers["www-authenticate"] == "Bearer"
    assert len(details) == 1
    unread = await api.client.post("/api/v1/tasks", content=b"\xff{", headers={"Authorization": "Bearer wrong"})
    problem(unread, 401, "unauthorized")
    assert (await api.client.get("/api/v1/tasks", headers={"Authorization": f"bEARER   {TOKEN} "})).status_code == 200


async def test_a_revoked_token_stops_working(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coder.web.gate.REMEMBER_SECONDS", 0.0)
    assert (await api.get("/tasks")).status_code == 200
    api.node.run("update api_tokens set revoked_at = now()")
    problem(await api.get("/tasks"), 401, "unauthorized")


async def test_a_token_is_looked_up_once_in_a_while(api: Api) -> None:
    assert (await api.get("/tasks")).status_code == 200
    api.node.run("update api_tokens set revoked_at = now()")
    assert (await api.get("/tasks")).status_code == 200


async def test_nothing_of_another_origin_is_let_in(api: Api) -> None:
    answer = await api.client.options("/api/v1/tasks", headers={"Origin": "http://evil.test", "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 405
    answer = await api.get("/tasks", headers={"Origin": "http://evil.test"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_headers_of_every_answer(api: Api) -> None:
    for path in ("/", "/health", "/api/v1/tasks", "/api/v1/nope", "/api/v1/openapi.json"):
        headers = (await api.client.get(path)).headers
        assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert headers["content-security-policy"].startswith("default-src 'none'")


async def test_a_fault_of_ours_is_a_500_without_its_insides(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(statement: str, **parameters: Any) -> Any:
        raise RuntimeError("a secret inside")

    await api.get("/status")
    monkeypatch.setattr(api.app.state.door, "row", broken)
    with capture_logs() as logged:
        answer = await api.get("/status")
    problem(answer, 500, "internal")
    assert "secret" not in answer.text
    assert [(entry["log_level"], entry["exc_info"], entry["path"]) for entry in logged] == [("error", True, "/api/v1/status")]


async def test_a_decision_outlives_a_database_that_goes_away_meanwhile(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(decision: Any, seconds: float) -> Any:
        raise Unavailable("The database cannot be reached (gone); is it running?")

    change = api.node.change()
    monkeypatch.setattr(api.app.state.door, "settled", gone)
    answer = await api.post(f"/changes/{change['id']}/approve", json={"fingerprint": change["fingerprint"]})
    assert answer.status_code == 202
    assert (await api.client.get(answer.headers["location"])).json()["state"] == "queued"


async def test_without_a_schema_it_is_not_ready(api: Api) -> None:
    api.node.run("drop table schema_version")
    answer = await api.client.get("/ready")
    problem(answer, 503, "unavailable", "coder migrate")


async def test_without_a_database_it_lives_but_is_not_ready(api: Api) -> None:
    pool = await open_pool("postgresql://nobody@127.0.0.1:1/nothing", size=1)
    app = build(PostgresDoor(pool, SystemClock()), api.app.state.settings, api.node.host)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://coder.test", headers=api.client.headers) as client:
        for path in ("/ready", "/api/v1/ready", "/api/v1/tasks"):
            problem(await client.get(path), 503, "unavailable", "database")
        assert (await client.get("/health")).status_code == 200
    await pool.close()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (
            "/sessions?project=demo",
            ["/sessions has no query parameter `project`", "project_id, workspace_id, status, cwd, q, limit, cursor"],
        ),
        ("/sessions?status=idle&statuss=", ["`statuss`"]),
        ("/sessions?status=idle&status=active", ["`status` is given more than once", "commas"]),
        ("/tasks?limit=5&limit=5", ["`limit` is given more than once"]),
        ("/workspaces?" + "x" * 5_000 + "=1", ["`" + "x" * 64 + "`"]),
        ("/status?verbose=1", ["`verbose`", "it has none"]),
        (f"/sessions/{uuid4()}/queue?after=5", ["`after`", "limit, cursor"]),
    ],
    ids=["misspelt", "blank", "twice", "twice-the-same", "long", "none", "nothing-there"],
)
async def test_a_query_parameter_that_there_is_not_or_that_comes_twice_is_refused(api: Api, path: str, words: list[str]) -> None:
    problem(await api.get(path), 422, "invalid_input", *words)
