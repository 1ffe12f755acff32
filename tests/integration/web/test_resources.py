"""Every resource of the API, as it is meant to be used; each answer is checked against the model that OpenAPI shows."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from pydantic import BaseModel
from standin import DIFF
from web_client import Api, refused

from coder.web.projects import Checkout
from coder.web.shapes import AddedTask, Change, Decision, ListedChange, Message, OneSession, Page, Project, SessionPage, Task
from coder.web.system import Agent, Health, Ready, Status, Stretch


def shaped(answer: httpx.Response, shape: type[BaseModel], status: int = 200) -> Any:
    """The body of an answer, once it was found to be exactly of a shape."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    shape.model_validate_json(answer.content, extra="forbid")
    return answer.json()


async def test_projects(api: Api) -> None:
    added = await api.post("/projects", json={"name": "second", "path": "/srv/second"})
    project = shaped(added, Project, 201)
    assert project["host_id"] == str(api.node.host)
    assert added.headers["location"] == f"/api/v1/projects/{project['id']}"
    assert shaped(await api.get("/projects/second"), Project) == project
    assert shaped(await api.get(f"/projects/{project['id']}"), Project) == project
    listed = shaped(await api.get("/projects"), Page[Project])
    assert [row["name"] for row in listed["items"]] == ["demo", "second"]
    anywhere = shaped(await api.post("/projects", json={"name": "third", "path": "/srv/third", "host_id": None}), Project, 201)
    assert anywhere["host_id"] is None


async def test_what_is_at_a_path_is_said_before_a_project_is_made(api: Api, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", str(tmp_path / "demo"), *words], check=True, capture_output=True)

    (tmp_path / "demo" / "api").mkdir(parents=True)
    for path, said in (
        ("demo", "is absolute"),
        (f"{tmp_path}/nowhere", f"{tmp_path}/nowhere is not a directory; name the root of a git repository."),
        (f"{tmp_path}/demo", "git init"),
    ):
        answer = await api.get("/checkout", params={"path": path})
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (422, "invalid_input", "path")
        assert said in answer.json()["detail"]
    git("init", "-b", "trunk")
    assert "has no commit yet" in (await api.get("/checkout", params={"path": f"{tmp_path}/demo"})).json()["detail"]
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "--allow-empty", "-m", "first")
    for path in ("demo", "demo/api"):
        found = shaped(await api.get("/checkout", params={"path": f"{tmp_path}/{path}"}), Checkout)
        assert found == {"path": f"{tmp_path}/demo", "branch": "trunk", "remote": None}
    git("remote", "add", "origin", "/elsewhere")
    assert shaped(await api.get("/checkout", params={"path": f"{tmp_path}/demo"}), Checkout)["remote"] == "origin"
    git("config", "remote.pushDefault", "mine")
    assert shaped(await api.get("/checkout", params={"path": f"{tmp_path}/demo"}), Checkout)["remote"] is None
    git("checkout", "--detach")
    assert shaped(await api.get("/checkout", params={"path": f"{tmp_path}/demo"}), Checkout)["branch"] is None
    assert api.node.count("projects") == 1


async def test_a_task_with_everything(api: Api) -> None:
    session = shaped(await api.post("/tasks", json={"project": "demo", "input": "first"}), AddedTask, 201)["session_id"]
    asked = {
        "project_id": str(api.node.project["id"]), "input": "second", "session_id": session, "agent": "opencode", "model": "m",
        "mode_id": "plan", "thinking_option_id": "high", "priority": -3, "run_at": "2031-01-01T00:00:00+02:00",
        "max_attempts": 7, "timeout": 90.5,
        "labels": ["ci", "nightly"],
    }  # fmt: skip
    answer = await api.post("/tasks", json=asked)
    task = shaped(answer, AddedTask, 201)
    assert answer.headers["location"] == f"/api/v1/tasks/{task['id']}"
    kept = {name: value for name, value in asked.items() if name not in ("timeout", "run_at")}
    assert {name: task[name] for name in kept} == kept
    assert (task["timeout_seconds"], task["run_at"], task["state"], task["waiting_for"]) == (
        90.5,
        "2030-12-31T22:00:00+00:00",
        "pending",
        "run_at",
    )
    assert shaped(await api.get(f"/tasks/{task['id']}"), Task) == {name: value for name, value in task.items() if name != "existed"}


async def test_the_same_request_again_is_the_same_task(api: Api) -> None:
    asked = {"project": "demo", "input": "once", "timeout": 5}
    first = shaped(await api.post("/tasks", json=asked, headers={"Idempotency-Key": "build-1"}), AddedTask, 201)
    again = shaped(await api.post("/tasks", json={**asked, "idempotency_key": "build-1"}), AddedTask)
    assert (first["existed"], again["existed"], again["id"]) == (False, True, first["id"])
    other = await api.post("/tasks", json={**asked, "input": "twice", "idempotency_key": "build-1"})
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert str(first["id"]) in other.json()["detail"]
    assert api.node.count("tasks") == 1


async def test_the_same_request_ten_times_at_once(api: Api) -> None:
    asked = {"project": "demo", "input": "once", "idempotency_key": "k"}
    answers = await asyncio.gather(*(api.post("/tasks", json=asked) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_task_filters(api: Api) -> None:
    api.node.run("select coder.add_project('other', '/srv/other', %s)", api.node.host)
    first = api.node.add("a", labels=["ci"])
    api.node.end(api.node.claim())
    second = api.node.add("b")
    session = (await api.get(f"/tasks/{second}")).json()["session_id"]
    for query, expected in (
        ("", [second, first]),
        ("?state=completed", [first]),
        ("?state=pending", [second]),
        ("?label=ci", [first]),
        ("?agent=native", [second, first]),
        ("?agent=opencode", []),
        (f"?ids={first}, 99", [first]),
        (f"?ids={first},{second}&state=pending", [second]),
        (f"?session_id={session}", [second]),
        ("?project_id=demo", [second, first]),
        ("?project_id=other", []),
        ("?project_id=&state=&session_id=&label=&cursor=", [second, first]),
    ):
        listed = shaped(await api.get(f"/tasks{query}"), Page[Task])
        assert [row["id"] for row in listed["items"]] == expected, query
    for wrong in ("x", "1;2", "-1", "9" * 19, ",".join(["1"] * 201)):
        refused(await api.get(f"/tasks?ids={wrong}"), 422, "invalid_input", "`ids`")


async def test_who_asked_is_said_of_a_task_and_of_what_came_of_it(api: Api) -> None:
    by_http = (await api.post("/tasks", json={"project": "demo", "input": "x"})).json()
    assert by_http["asked_by"] == "tester"
    api.node.end(api.node.claim(), "failed")
    again = (await api.post(f"/tasks/{by_http['id']}/retry")).json()
    assert again["asked_by"] == "tester"
    by_sql = api.node.add("y", asked_by="ada")
    assert (await api.get(f"/tasks/{by_sql}")).json()["asked_by"] == "ada"
    role = api.node.row("select current_user::text as name")["name"]
    assert (await api.get(f"/tasks/{api.node.add('z')}")).json()["asked_by"] == role
    with pytest.raises(psycopg.Error, match="written by coder alone"):
        api.node.run("update tasks set asked_by = 'bob' where id = %s", by_sql)
    (change,) = (await api.get("/changes")).json()["items"]
    assert change["asked_by"] == "tester"
    said = (await api.post(f"/sessions/{change['session_id']}/queue", json={"input": "and more"})).json()
    assert said["asked_by"] == "tester"


async def test_a_priority_is_set_as_long_as_a_task_waits(api: Api) -> None:
    api.node.add("first")
    second = api.node.add("second")
    answer = await api.put(f"/tasks/{second}/priority", json={"priority": -3})
    assert shaped(answer, Task)["priority"] == -3
    assert shaped(await api.put(f"/tasks/{second}/priority", json={"priority": 3}), Task)["priority"] == 3
    for wrong in ({"priority": 32768}, {"priority": "3"}, {"priority": None}, {}):
        refused(await api.put(f"/tasks/{second}/priority", json=wrong), 422, "invalid_input", "`priority`")
    assert api.node.claim()["id"] == second
    refused(await api.put(f"/tasks/{second}/priority", json={"priority": 0}), 409, "conflict", "running")
    refused(await api.put("/tasks/999/priority", json={"priority": 0}), 404, "not_found")


async def test_what_went_on_is_counted_in_stretches(api: Api) -> None:
    api.node.change("with a change")
    found = shaped(await api.get("/stats?hours=2&stretches=8"), Page[Stretch])["items"]
    assert [row["completed"] for row in found] == [0] * 7 + [1]
    assert found[-1]["input_tokens"] == 10
    assert [row["began"] for row in shaped(await api.get("/stats?project_id=demo"), Page[Stretch])["items"]] == [0] * 23 + [1]
    refused(await api.get("/stats?project_id=nowhere"), 404, "not_found", "nowhere")
    for wrong in ("hours=0", "hours=721", "stretches=0", "stretches=201", "hours=x"):
        refused(await api.get(f"/stats?{wrong}"), 422, "invalid_input")


async def test_cancel_retry_resume_and_dismiss(api: Api) -> None:
    waits = api.node.add("waits")
    cancelled = shaped(await api.post(f"/tasks/{waits}/cancel"), Task)
    assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "user")
    assert (await api.post(f"/tasks/{waits}/cancel")).status_code == 409
    retried = shaped(await api.post(f"/tasks/{waits}/retry"), Task, 201)
    assert (retried["retry_of"], retried["state"], retried["input"]) == (waits, "pending", "waits")
    assert (await api.get(f"/tasks/{waits}")).json()["retried_by"] == retried["id"]

    running = shaped(await api.post(f"/tasks/{api.node.claim()['id']}/cancel"), Task)
    assert running["state"] == "running"
    assert running["cancel_requested_at"] is not None

    api.node.add("is interrupted")
    broken = api.node.claim()
    api.node.end(broken, "interrupted")
    assert (await api.get(f"/sessions/{broken['session_id']}")).json()["held_by"] == broken["id"]
    resumed = await api.post(f"/tasks/{broken['id']}/resume")
    assert shaped(resumed, Task, 201)["input"].endswith("is interrupted")
    assert resumed.headers["location"] == f"/api/v1/tasks/{resumed.json()['id']}"
    again = api.node.claim()
    assert again["id"] == resumed.json()["id"]
    api.node.end(again, "interrupted")
    dismissed = shaped(await api.post(f"/tasks/{again['id']}/dismiss"), Task)
    assert (dismissed["state"], dismissed["reason"]) == ("cancelled", "dismissed")
    assert (await api.post(f"/tasks/{again['id']}/dismiss")).json()["code"] == "conflict"


async def test_messages_before_one_come_with_the_newest_first(api: Api) -> None:
    api.node.add("turn 1")
    session = (claim := api.node.claim())["session_id"]
    for number in range(2, 6):
        api.node.end(claim, content=None)
        api.node.add(f"turn {number}", session_id=session)
        claim = api.node.claim()
    whole = (await api.get(f"/sessions/{session}/messages")).json()["items"]
    path = f"/sessions/{session}/messages?before={whole[5]['ordinal']}&limit=2"
    paged: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = shaped(await api.get(f"{path}&cursor={cursor}"), Page[Message])
        paged += answer["items"]
        cursor = answer["next_cursor"]
    assert paged == whole[4::-1]
    assert [(row["agent"], row["cost_tokens"]) for row in whole[:2]] == [(None, None), ("native", 13)]
    for before in ("0", "x", str(2**63)):
        assert (await api.get(f"/sessions/{session}/messages?before={before}")).status_code == 422


async def test_sessions_and_messages(api: Api) -> None:
    change = api.node.change("say hello")
    session = change["session_id"]
    api.node.add("in another workspace", workspace_id="lab")
    shown = shaped(await api.get(f"/sessions/{session}"), OneSession)
    assert shown["cost_tokens"] == sum(row["cost_tokens"] for row in (await api.get(f"/tasks?session_id={session}")).json()["items"])
    assert (shown["title"], shown["status"], shown["open_change_id"]) == ("say hello", "idle", str(change["id"]))
    messages = shaped(await api.get(f"/sessions/{session}/messages"), Page[Message])["items"]
    assert [(row["role"], row["text"]) for row in messages] == [("user", "say hello"), ("assistant", "All done.")]
    for task, found in ((messages[0]["task_id"], messages), (messages[0]["task_id"] + 1, [])):
        assert (await api.get(f"/sessions/{session}/messages?task={task}")).json()["items"] == found

    for query, count, ignored in (
        ("", 2, []),
        ("?status=idle", 1, []),
        ("?status=active,idle", 2, []),
        ("?status=idle,odd, ,even", 1, ["odd", "even"]),
        ("?status=odd", 2, ["odd"]),
        ("?workspace_id=lab", 1, []),
        ("?workspace_id=&status=", 2, []),
        ("?project_id=demo", 2, []),
    ):
        listed = shaped(await api.get(f"/sessions{query}"), SessionPage)
        assert (len(listed["items"]), listed["ignored"]) == (count, ignored), query

    closed = shaped(await api.post(f"/sessions/{session}/close"), OneSession)
    assert (closed["status"], closed["closed_at"] is None) == ("closed", False)
    refused = await api.post("/tasks", json={"project": "demo", "input": "more", "session_id": str(session)})
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert shaped(await api.post(f"/sessions/{session}/reopen"), OneSession)["status"] == "idle"


async def test_changes(api: Api) -> None:
    change = api.node.change()
    shown = shaped(await api.get(f"/changes/{change['id']}"), Change)
    assert (shown["fingerprint"], shown["worktree"]) == (change["fingerprint"], f"/srv/worktrees/{change['session_id']}")
    assert [row["path"] for row in shown["files"]] == ["caf\ufffd.txt"]
    (hunk,) = shown["files"][0]["hunks"]
    assert [*hunk.values()] == [1, 0, 0, 1, 1, 5, 2]
    assert shown["diff"].split("\n")[hunk["diff_line"] - 1].startswith("@@ -0,0 +1 @@")
    assert "olé" in shown["diff"]
    raw = await api.get(f"/changes/{change['id']}/diff")
    assert (raw.content, raw.headers["content-type"]) == (DIFF, "text/x-diff")

    newer = api.node.change("again", content="two")
    for query, expected in (
        ("", [newer, change]),
        ("?state=pending", [newer, change]),
        ("?state=pending,conflicted", [newer, change]),
        ("?state=approved", []),
        (f"?session_id={change['session_id']}", [change]),
        ("?project_id=demo&state=&session_id=", [newer, change]),
    ):
        listed = shaped(await api.get(f"/changes{query}"), Page[ListedChange])
        assert [row["id"] for row in listed["items"]] == [str(row["id"]) for row in expected], query


async def test_a_diff_with_a_byte_that_text_cannot_hold(api: Api) -> None:
    change = api.node.change(diff=b"+a\x00b\\000 \xc3\xa9\n")
    assert shaped(await api.get(f"/changes/{change['id']}"), Change)["diff"] == "+a\ufffdb\\000 é\n"
    assert (await api.get(f"/changes/{change['id']}/diff")).content == b"+a\x00b\\000 \xc3\xa9\n"


async def test_a_change_is_approved(api: Api) -> None:
    change = api.node.change()
    asked = {"fingerprint": change["fingerprint"], "target": "branch", "branch": "topic", "reason": "good"}
    settling = asyncio.to_thread(api.node.settle_next)
    answer, _ = await asyncio.gather(api.post(f"/changes/{change['id']}/approve", json=asked), settling)
    decision = shaped(answer, Decision)
    assert (decision["state"], decision["actor"], decision["branch"], decision["reason"]) == ("done", "tester", "topic", "good")
    assert decision["change_state"] == "approved"
    assert shaped(await api.get(f"/decisions/{decision['id']}"), Decision) == decision
    assert (await api.get(f"/changes/{change['id']}")).json()["decision_id"] == decision["id"]


@pytest.mark.parametrize("code", ["conflict", "checkout_dirty", "wrong_branch", "stale", "superseded"])
async def test_a_decision_that_fails_is_409_with_its_code_and_facts(api: Api, code: str) -> None:
    change = api.node.change()
    settling = asyncio.to_thread(
        api.node.settle_next, code, error="It did not work; do this.", facts={"files": ["a.txt"], "status": "not this one"}
    )
    answer, _ = await asyncio.gather(api.post(f"/changes/{change['id']}/approve", json={"fingerprint": change["fingerprint"]}), settling)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (answer.status_code, body["status"], body["code"], body["detail"]) == (409, 409, code, "It did not work; do this.")
    assert body["files"] == ["a.txt"]
    assert answer.headers["location"] == f"/api/v1/decisions/{body['decision_id']}"


async def test_a_decision_that_takes_long_is_202(api: Api) -> None:
    change = api.node.change()
    api.app.state.decision_seconds = 0.0
    answer = await api.post(f"/changes/{change['id']}/approve", json={"fingerprint": change["fingerprint"]})
    decision = shaped(answer, Decision, 202)
    assert (decision["state"], answer.headers["location"]) == ("queued", f"/api/v1/decisions/{decision['id']}")
    twice = await api.post(f"/changes/{change['id']}/approve", json={"fingerprint": change["fingerprint"]})
    assert (twice.status_code, twice.json()["code"]) == (409, "conflict")
    assert api.node.settle() == UUID(decision["id"])
    assert (await api.client.get(answer.headers["location"])).json()["state"] == "done"


async def test_a_change_is_rejected(api: Api) -> None:
    change = api.node.change()
    answer = await api.post(
        f"/changes/{change['id']}/reject", json={"fingerprint": change["fingerprint"], "reason": "no", "work": "discard"}
    )
    decision = shaped(answer, Decision)
    assert (decision["state"], decision["work"], decision["change_state"], decision["reason"]) == ("done", "discard", "rejected", "no")


async def test_what_was_not_shown_cannot_be_decided_on(api: Api) -> None:
    change = api.node.change()
    stale = await api.post(f"/changes/{change['id']}/approve", json={"fingerprint": "0" * 64})
    assert (stale.status_code, stale.json()["code"], stale.json()["fingerprint"]) == (409, "stale", change["fingerprint"])
    api.node.add("more", session_id=change["session_id"])
    newer = api.node.end(api.node.claim(), content="two")
    superseded = await api.post(f"/changes/{change['id']}/reject", json={"fingerprint": change["fingerprint"]})
    assert (superseded.status_code, superseded.json()["code"]) == (409, "superseded")
    assert superseded.json()["superseded_by"] == str(newer)
    assert api.node.count("decisions") == 0


async def test_the_service(api: Api) -> None:
    api.node.run(
        "insert into available_agents (host_id, agent, execution_path, available) values (%s, 'native', 'native', true)", api.node.host
    )
    assert shaped(await api.get("/agents"), Page[Agent])["items"][0]["agent"] == "native"
    api.node.add()
    status = shaped(await api.get("/status"), Status)
    assert (status["pending_tasks"], len(status["nodes"])) == (1, 1)
    for path in ("/health", "/api/v1/health"):
        shaped(await api.client.get(path, headers={"Authorization": ""}), Health)
    for path in ("/ready", "/api/v1/ready"):
        assert shaped(await api.client.get(path, headers={"Authorization": ""}), Ready)["dispatcher"] is True
    assert (await api.client.head("/ready")).status_code == 200


async def test_lists_come_in_pages_that_miss_and_repeat_nothing(api: Api) -> None:
    tasks = [api.node.add(f"task {number}") for number in range(7)]
    session = (await api.get(f"/tasks/{tasks[0]}")).json()["session_id"]
    for number in range(5):
        api.node.run("select coder.add_project(%s, '/srv/x', null)", f"p{number}")
    changes = []
    for _ in tasks:
        changes.append(str(api.node.end(api.node.claim())))
    api.node.add("in the first session", session_id=session)
    api.node.end(api.node.claim(), content="two")
    for path, count in (("/tasks", 8), ("/projects", 6), ("/sessions", 7), ("/changes", 8), (f"/sessions/{session}/messages", 4)):
        whole = [row["id"] for row in (await api.get(path)).json()["items"]]
        assert len(whole) == count
        paged: list[Any] = []
        cursor, pages = "", 0
        while cursor is not None:
            answer = (await api.get(path, params={"limit": 3, "cursor": cursor})).json()
            paged += [row["id"] for row in answer["items"]]
            cursor, pages = answer["next_cursor"], pages + 1
        assert paged == whole, path
        assert pages == -(-count // 3)
