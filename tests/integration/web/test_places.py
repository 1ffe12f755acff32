"""Sessions by their filters, their titles and directories, and workspaces."""

from __future__ import annotations

from itertools import product
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from pydantic import BaseModel
from web_client import Api, refused

from coder.web.shapes import AddedTask, Cwd, DeletedWorkspace, OneSession, Page, Session, SessionPage, Workspace


def shaped(answer: httpx.Response, shape: type[BaseModel], status: int = 200) -> Any:
    """The body of an answer, once it was found to be exactly of a shape."""
    assert answer.status_code == status, answer.text
    shape.model_validate_json(answer.content, extra="forbid")
    return answer.json()


def session_of(api: Api, **columns: Any) -> str:
    task = api.node.add(**columns)
    return str(api.node.row("select session_id from tasks where id = %s", task)["session_id"])


@pytest.fixture
def many(api: Api) -> list[dict[str, Any]]:
    """Sessions of every status in each of two workspaces and two projects, some of which work in another directory."""
    api.node.run("select coder.add_project('other', '/srv/other', %s)", api.node.host)
    api.node.run("select coder.add_workspace('lab')")
    api.node.run("select coder.set_default_cwd('lab', '/srv/other/api')")
    api.node.run("set coder.actor = 'node'")
    for number, (project, workspace, status, cwd) in enumerate(
        product(("demo", "other"), ("default", "lab"), ("active", "idle", "closed"), (None, "api", "docs")), 1
    ):
        api.node.run(
            "insert into sessions (id, project_id, workspace_id, status, closed_at, cwd, last_activity_at) "
            "values (%s, coder.project_id(%s), %s, %s, case when %s = 'closed' then now() end, %s, to_timestamp(%s))",
            UUID(int=number * 0x1234567 << 96), project, workspace, status, status, cwd, number // 2,  # pairs are active at the same moment
        )  # fmt: skip
    api.node.run("reset coder.actor")
    shown = api.node.run("select s.* from sessions k, lateral (select * from coder.show_session(k.id)) s")
    return sorted(shown, key=lambda row: (row["last_activity_at"], row["id"]), reverse=True)


async def test_filters_are_combined_in_every_way_and_the_order_is_stable(api: Api, many: list[dict[str, Any]]) -> None:
    assert len(many) == 36
    begins = str(many[0]["id"])
    for project, workspace, status, cwd, q in product(
        (None, "demo", "other", " "),
        (None, "lab", "default", "none"),
        (None, "idle", "active,closed", " , "),
        (None, "/srv/other/api", "/srv//demo/./docs/", "/srv/demo", "/srv", ""),
        (None, begins[:2].upper(), begins[:3], begins),
    ):
        given = {"project_id": project, "workspace_id": workspace, "status": status, "cwd": cwd, "q": q}
        directory = {"/srv//demo/./docs/": "/srv/demo/docs"}.get(cwd or "", cwd)
        expected = [
            str(row["id"])
            for row in many
            if (not (project or "").strip() or row["project"] == project)
            and (workspace is None or row["workspace_id"] == workspace)
            and (not (status or "").strip(" ,") or row["status"] in (status or "").split(","))
            and (not directory or row["effective_cwd"] == directory)
            and (q is None or str(row["id"]).startswith(q.lower()))
        ]
        answer = await api.get("/sessions", params={name: value for name, value in given.items() if value is not None})
        listed = shaped(answer, SessionPage)
        assert [row["id"] for row in listed["items"]] == expected, given
        assert listed["ignored"] == []
    assert shaped(await api.get("/sessions", params={"q": "zz"}), SessionPage)["items"] == []


async def test_pages_of_a_filtered_list_miss_and_repeat_nothing(api: Api, many: list[dict[str, Any]]) -> None:
    for given in ({}, {"workspace_id": "lab", "status": "idle,closed"}, {"cwd": "/srv/other/api"}, {"cwd": "/srv/demo"}):
        whole = [row["id"] for row in (await api.get("/sessions", params=given)).json()["items"]]
        paged: list[Any] = []
        cursor = ""
        while cursor is not None:
            answer = (await api.get("/sessions", params={**given, "limit": 1, "cursor": cursor})).json()
            paged += [row["id"] for row in answer["items"]]
            cursor = answer["next_cursor"]
        assert paged == whole, given
        assert len(whole) > 5


async def test_unknown_words_of_status_are_named(api: Api) -> None:
    session_of(api)
    listed = shaped(await api.get("/sessions?status=odd,,even"), SessionPage)
    assert (len(listed["items"]), listed["ignored"]) == (1, ["odd", "even"])


async def test_a_session_is_found_by_the_path_of_its_worktree(api: Api) -> None:
    session = str(api.node.change()["session_id"])
    api.node.change("another")
    listed = shaped(await api.get("/sessions", params={"cwd": f"/srv/worktrees//{session}/"}), SessionPage)
    assert [row["id"] for row in listed["items"]] == [session]
    assert (
        shaped(
            await api.get("/sessions", params={"cwd": f"/srv/worktrees/{session}", "project_id": "demo", "status": "active"}), SessionPage
        )["items"]
        == []
    )


async def test_titles(api: Api) -> None:
    session = session_of(api, input="first  words")
    assert shaped(await api.get(f"/sessions/{session}"), OneSession)["title"] == "first words"
    assert shaped(await api.put(f"/sessions/{session}/title", json={"title": "é" * 200}), Session)["title"] == "é" * 200
    for title, word in (("", "empty"), (" \n", "empty"), ("x" * 201, "200")):
        refused(await api.put(f"/sessions/{session}/title", json={"title": title}), 422, "invalid_input", word)
    refused(await api.put(f"/sessions/{uuid4()}/title", json={"title": "x"}), 404, "not_found")
    assert (await api.get(f"/sessions/{session}")).json()["title"] == "é" * 200


async def test_the_directory_of_a_session(api: Api) -> None:
    session = session_of(api, workspace_id="lab")
    place = f"/sessions/{session}/cwd"
    assert shaped(await api.get(place), Cwd) == {"explicit": None, "effective": "/srv/demo"}
    for outside in ("/srv/elsewhere", "/srv/demos"):  # of no use to this project
        shaped(await api.put("/workspaces/lab/default-cwd", json={"cwd": outside}), Workspace)
        assert shaped(await api.get(place), Cwd) == {"explicit": None, "effective": "/srv/demo"}
    assert shaped(await api.put("/workspaces/lab/default-cwd", json={"cwd": "/srv/demo/web/"}), Workspace)["default_cwd"] == "/srv/demo/web"
    assert shaped(await api.get(place), Cwd) == {"explicit": None, "effective": "/srv/demo/web"}
    for cwd, kept in (
        ("/srv/demo/api/../docs", "/srv/demo/docs"),
        ("api", "/srv/demo/api"),
        ("/srv/demo", "/srv/demo"),
        (".", "/srv/demo"),
    ):
        assert shaped(await api.put(place, json={"cwd": cwd}), Cwd) == {"explicit": kept, "effective": kept}
    for cwd in ("/srv", "/srv/demo/..", "/srv/demonstration", "../other", "/"):
        refused(await api.put(place, json={"cwd": cwd}), 422, "invalid_input", "not inside project demo", "/srv/demo")
    refused(await api.put(place, json={"cwd": " "}), 422, "invalid_input", "empty")
    assert shaped(await api.get(f"/sessions/{session}"), OneSession)["cwd"] == "/srv/demo"
    assert shaped(await api.delete(place), Cwd) == {"explicit": None, "effective": "/srv/demo/web"}
    for answer in (await api.get(f"/sessions/{uuid4()}/cwd"), await api.delete(f"/sessions/{uuid4()}/cwd")):
        refused(answer, 404, "not_found")


async def test_a_workspace_is_made_once_and_named_whole(api: Api) -> None:
    made = shaped(await api.put("/workspaces/lab-2"), Workspace, 201)
    assert (made["title"], made["default_cwd"], made["session_count"]) == ("lab-2", None, 0)
    assert shaped(await api.put("/workspaces/lab-2"), Workspace) == made
    assert shaped(await api.get("/workspaces/lab-2"), Workspace) == made
    assert shaped(await api.put("/workspaces/lab-2/title", json={"title": "The lab"}), Workspace)["title"] == "The lab"
    shaped(await api.put(f"/workspaces/{'a' * 40}"), Workspace, 201)
    for name in ("abc%0A", "-a", "a-", "A", "a_b", "a" * 41, "%20", "é", "a.b", "%0Aabc"):
        refused(await api.put(f"/workspaces/{name}"), 422, "invalid_input", "1 to 40")
    assert api.node.count("workspaces") == 3


async def test_what_is_no_workspace_is_not_made(api: Api) -> None:
    for answer in (
        await api.get("/workspaces/nope"),
        await api.put("/workspaces/nope/title", json={"title": "x"}),
        await api.put("/workspaces/nope/default-cwd", json={"cwd": "/x"}),
        await api.delete("/workspaces/nope"),
    ):
        refused(answer, 404, "not_found", "nope")
    refused(await api.put("/workspaces/default/default-cwd", json={"cwd": "here"}), 422, "invalid_input", "absolute")
    refused(await api.put("/workspaces/default/title", json={"title": " "}), 422, "invalid_input", "empty")
    assert api.node.count("workspaces") == 1


async def test_workspaces_are_listed_by_their_last_activity(api: Api) -> None:
    for name in ("one", "two", "three"):
        session_of(api, workspace_id=name)
    session_of(api, workspace_id="one")
    session_of(api)
    listed = shaped(await api.get("/workspaces"), Page[Workspace])["items"]
    assert [(row["id"], row["session_count"]) for row in listed] == [("default", 1), ("one", 2), ("three", 1), ("two", 1)]
    assert listed[1]["last_activity_at"] == (await api.get("/sessions?workspace_id=one")).json()["items"][0]["last_activity_at"]
    paged = []
    cursor = ""
    while cursor is not None:
        answer = (await api.get("/workspaces", params={"limit": 1, "cursor": cursor})).json()
        paged += answer["items"]
        cursor = answer["next_cursor"]
    assert paged == listed


async def test_a_deleted_workspace_closes_its_sessions_and_gives_them_to_default(api: Api) -> None:
    waits, closed, other = (session_of(api, workspace_id=name) for name in ("lab", "lab", "shop"))
    runs = str(api.node.claim()["session_id"])
    shaped(await api.post(f"/sessions/{closed}/close"), OneSession)
    assert shaped(await api.delete("/workspaces/lab"), DeletedWorkspace) == {"id": "lab", "closed_count": 1}
    assert runs == waits
    for session in (waits, closed):
        row = shaped(await api.get(f"/sessions/{session}"), OneSession)
        assert (row["status"], row["workspace_id"]) == ("closed", "default")
    assert shaped(await api.get(f"/sessions/{other}"), OneSession)["status"] == "active"
    assert api.node.row("select cancel_requested_at is not null as asked from tasks where session_id = %s", runs)["asked"]
    refused(await api.get("/workspaces/lab"), 404, "not_found")
    refused(await api.delete("/workspaces/default"), 409, "conflict", "default")
    session_of(api, workspace_id="lab")  # named by a task, it is there again
    assert shaped(await api.get("/workspaces/lab"), Workspace)["session_count"] == 1


async def test_compaction_is_a_task_in_its_turn(api: Api) -> None:
    session = session_of(api)
    refused(await api.post(f"/sessions/{session}/compact"), 409, "conflict", "no native conversation")
    api.node.end(api.node.claim(), content=None)
    api.node.run("update chats set model_history = '[]' where session_id = %s", session)
    answer = await api.post(f"/sessions/{session}/compact")
    task = shaped(answer, AddedTask, 201)
    assert (task["session_id"], task["input"].startswith("Summarise"), answer.headers["location"]) == (
        session, True, f"/api/v1/tasks/{task['id']}"
    )  # fmt: skip
    assert shaped(await api.post(f"/sessions/{session}/compact"), AddedTask) == task | {"existed": True}
    assert api.node.claim()["compacts"] is True
    refused(await api.post(f"/sessions/{uuid4()}/compact"), 404, "not_found")
