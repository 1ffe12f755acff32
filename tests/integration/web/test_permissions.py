"""Permissions, rules, project settings, chats and probes over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from pydantic import BaseModel
from web_client import Api

from coder.web.shapes import Chat, Page, Permission, PermissionRule, Project, Task
from coder.web.system import Agent, Probe


def shaped(answer: httpx.Response, shape: type[BaseModel], status: int = 200) -> Any:
    """The body, which must be of this shape and of no other."""
    assert answer.status_code == status, answer.text
    shape.model_validate(answer.json(), extra="forbid")
    return answer.json()


def ask(api: Api, title: str = "npm test", **more: Any) -> dict[str, Any]:
    """An agent asks in a turn that is started for it; answers the row."""
    api.node.add()
    claim = api.node.claim()
    request = {
        "agent": "goose", "kind": "permission", "request_id": "1", "tool": "bash", "asked_for": "execute", "title": title, "paths": ["/x"],
        "choices": [], "several": False,
    } | more  # fmt: skip
    query = "select id, task_id, session_id from coder.ask(%s, %s, %s, '{\"command\": \"npm test\"}', '1 hour', null)"
    return api.node.row(query, claim["id"], claim["epoch"], json.dumps(request))


def question(api: Api, **more: Any) -> dict[str, Any]:
    choices = [{"label": "red", "description": ""}]
    return ask(api, "Which?", kind="question", tool=None, asked_for=None, choices=choices, **more)


async def test_what_waits_is_found_by_every_filter(api: Api) -> None:
    row, other = ask(api), question(api)
    whole = shaped(await api.get("/permissions"), Page[Permission])["items"]
    assert [each["id"] for each in whole] == [str(other["id"]), str(row["id"])]
    assert shaped(await api.get(f"/permissions/{row['id']}"), Permission) == whole[1]
    assert (whole[1]["input"], whole[0]["choices"]) == ({"command": "npm test"}, [{"label": "red", "description": ""}])
    await api.post(f"/permissions/{other['id']}/deny", json={})
    for query, expected in (
        ("state=requested", [row]), ("state=denied,expired", [other]), (f"session_id={row['session_id']}", [row]),
        (f"task_id={other['task_id']}", [other]), ("project_id=demo", [other, row]), ("limit=1", [other]), ("task_id=99", []),
    ):  # fmt: skip
        found = (await api.get(f"/permissions?{query}")).json()["items"]
        assert [each["id"] for each in found] == [str(each["id"]) for each in expected], query
    cursor = (await api.get("/permissions?limit=1")).json()["next_cursor"]
    assert [each["id"] for each in (await api.get("/permissions", params={"cursor": cursor})).json()["items"]] == [str(row["id"])]
    for query in ("state=maybe", "session_id=x", "project_id=nope", "task_id=0"):
        assert (await api.get(f"/permissions?{query}")).status_code in (404, 422), query


async def test_a_task_says_that_a_person_is_waited_for(api: Api) -> None:
    row = ask(api)
    task = shaped(await api.get(f"/tasks/{row['task_id']}"), Task)
    assert (task["state"], task["waiting_for"], task["permission_id"]) == ("running", "permission", str(row["id"]))


async def test_the_first_of_two_answers_counts(api: Api) -> None:
    row = ask(api)
    answers = await asyncio.gather(
        *(api.post(f"/permissions/{row['id']}/{call}", json={}) for call in ("allow", "deny", "allow", "deny", "allow"))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    for answer in answers:
        if answer.status_code == 409:
            assert answer.json()["code"] == "conflict"
            assert "by tester at" in answer.json()["detail"]
    assert shaped(await api.get(f"/permissions/{row['id']}"), Permission)["actor"] == "tester"


async def test_always_is_a_rule_that_can_be_listed_added_and_revoked(api: Api) -> None:
    row = ask(api)
    allowed = shaped(await api.post(f"/permissions/{row['id']}/allow", json={"scope": "session", "pattern": "npm *"}), Permission)
    assert (allowed["state"], allowed["actor"]) == ("allowed_always", "tester")
    added = shaped(await api.post("/projects/demo/permission-rules", json={"tool": "edit", "pattern": "/srv/*"}), PermissionRule, 201)
    again = shaped(await api.post("/projects/demo/permission-rules", json={"tool": "edit", "pattern": "/srv/*"}), PermissionRule, 201)
    assert added == again
    rules = shaped(await api.get("/projects/demo/permission-rules"), Page[PermissionRule])["items"]
    assert [(rule["tool"], rule["pattern"], rule["session_id"], rule["actor"]) for rule in rules] == [
        ("bash", "npm *", str(row["session_id"]), "tester"), ("edit", "/srv/*", None, "tester")]  # fmt: skip
    assert rules[0]["id"] == allowed["rule_id"]
    for rule in rules:
        gone = await api.client.delete(f"/api/v1/projects/demo/permission-rules/{rule['id']}")
        assert shaped(gone, PermissionRule) == rule
        assert (await api.client.delete(f"/api/v1/projects/demo/permission-rules/{rule['id']}")).status_code == 404
    assert (await api.get("/projects/demo/permission-rules")).json()["items"] == []
    assert shaped(await api.get(f"/permissions/{row['id']}"), Permission)["rule_id"] is None


async def test_a_rule_is_revoked_in_its_own_project_alone(api: Api) -> None:
    api.node.run("select coder.add_project('other', '/srv/other', null)")
    rule = (await api.post("/projects/demo/permission-rules", json={"tool": "edit", "pattern": "x"})).json()
    assert (await api.client.delete(f"/api/v1/projects/other/permission-rules/{rule['id']}")).status_code == 404
    assert api.node.count("permission_rules") == 1


async def test_a_question_is_answered(api: Api) -> None:
    row = question(api)
    answered = shaped(await api.post(f"/permissions/{row['id']}/answer", json={"answers": ["green"]}), Permission)
    assert (answered["state"], answered["answers"]) == ("allowed_once", ["green"])


@pytest.mark.parametrize(
    ("call", "body", "status"),
    [
        ("allow", {"scope": "for ever"}, 422), ("allow", {"pattern": "x"}, 422), ("allow", {"scope": "project", "pattern": " "}, 422),
        ("allow", {"scope": None}, 422), ("allow", {"more": 1}, 422), ("answer", {"answers": ["x"]}, 422), ("deny", {"message": 1}, 422),
        ("answer", {}, 422), ("answer", {"answers": "x"}, 422),
    ],
)  # fmt: skip
async def test_answers_that_are_none(api: Api, call: str, body: dict[str, Any], status: int) -> None:
    row = ask(api)
    answer = await api.post(f"/permissions/{row['id']}/{call}", json=body)
    assert answer.status_code == status
    assert answer.json()["detail"].endswith(".")
    assert (await api.get(f"/permissions/{row['id']}")).json()["state"] == "requested"
    assert api.node.count("permission_rules") == 0


async def test_answers_to_nothing(api: Api) -> None:
    asked = question(api)
    for call, body in (("allow", {}), ("answer", {"answers": []}), ("answer", {"answers": ["a", "b"]}), ("answer", {"answers": [" "]})):
        assert (await api.post(f"/permissions/{asked['id']}/{call}", json=body)).status_code == 422
    for path in ("", "/allow", "/deny"):
        answer = await (api.get if not path else api.post)(f"/permissions/{uuid4()}{path}", **({"json": {}} if path else {}))
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_settings_of_a_project(api: Api) -> None:
    asked = {"name": "strict", "path": "/srv/strict", "permission_policy": "ask", "network": "off"}
    strict = shaped(await api.post("/projects", json=asked), Project, 201)
    assert (strict["permission_policy"], strict["network"]) == ("ask", "off")
    changed = shaped(await api.client.patch("/api/v1/projects/demo", json={"permission_policy": "deny", "copy_globs": [".env"]}), Project)
    assert (changed["permission_policy"], changed["network"], changed["copy_globs"]) == ("deny", "on", [".env"])
    setup = shaped(await api.client.patch("/api/v1/projects/demo", json={"setup_command": "npm ci"}), Project)
    assert (setup["setup_command"], setup["permission_policy"]) == ("npm ci", "deny")
    assert shaped(await api.client.patch("/api/v1/projects/demo", json={"setup_command": ""}), Project)["setup_command"] is None
    for body in ({"permission_policy": "x"}, {"network": True}, {"path": "/srv/x"}):
        assert (await api.client.patch("/api/v1/projects/demo", json=body)).status_code == 422
    assert (await api.client.patch("/api/v1/projects/nope", json={})).status_code == 404


async def test_a_fresh_chat(api: Api) -> None:
    task = api.node.add()
    session = (await api.get(f"/tasks/{task}")).json()["session_id"]
    chat = shaped(await api.post(f"/sessions/{session}/chats"), Chat, 201)
    assert str(api.node.claim()["chat_id"]) == chat["id"]
    assert (await api.post(f"/sessions/{uuid4()}/chats")).status_code == 404
    api.node.run("select coder.close_session(%s)", session)
    assert (await api.post(f"/sessions/{session}/chats")).status_code == 409


async def test_agents_by_filter_and_a_probe(api: Api) -> None:
    insert = (
        "insert into available_agents (host_id, agent, execution_path, available, install, commands) values (%s, %s, 'acp', %s, %s, %s)"
    )
    commands = json.dumps([{"name": "init", "description": "", "hint": ""}])
    for agent, available in (("goose", True), ("qwen", False)):
        api.node.run(insert, api.node.host, agent, available, f"install {agent}", commands)
    for query, expected in (
        ("", ["goose", "qwen"]), ("?agent=qwen", ["qwen"]), ("?available=true", ["goose"]), ("?available=false", ["qwen"]),
        (f"?host_id={api.node.host}", ["goose", "qwen"]), (f"?host_id={uuid4()}", []),
    ):  # fmt: skip
        assert [each["agent"] for each in shaped(await api.get(f"/agents{query}"), Page[Agent])["items"]] == expected, query
    assert shaped(await api.post("/agents/probe"), Probe, 202)["hosts"] == 1
    assert (await api.post("/agents/probe", params={"host_id": str(uuid4())})).status_code == 404
    assert api.node.row("select probe_requested_at from hosts")["probe_requested_at"] is not None
