"""Comments over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from pydantic import BaseModel
from web_client import Api

from coder.web.review_shapes import Comment
from coder.web.shapes import Page, Task

PATH = "caf\ufffd.txt"


def shaped(answer: Any, shape: type[BaseModel], status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    shape.model_validate(answer.json(), extra="forbid")
    return answer.json()


async def test_a_review_is_drafted_worded_anew_sent_and_resolved(api: Api) -> None:
    change = api.node.change()
    url = f"/changes/{change['id']}"
    first = shaped(await api.post(f"{url}/comments", json={"path": PATH, "line": 1, "body": "Why?"}), Comment, 201)
    assert (first["author"], first["state"], first["code"], first["line"]) == ("tester", "draft", "+ol\xe9", 1)
    second = shaped(await api.post(f"{url}/comments", json={"path": PATH, "body": "Is it needed?"}), Comment, 201)
    mine = f"/comments/{first['id']}"
    assert shaped(await api.client.patch(f"/api/v1{mine}", json={"body": "Why so?"}), Comment)["body"] == "Why so?"
    assert shaped(await api.client.delete(f"/api/v1/comments/{second['id']}"), Comment)["id"] == second["id"]
    assert (await api.client.delete(f"/api/v1/comments/{second['id']}")).status_code == 404
    sent = await api.post(f"{url}/send", json={"message": "Nearly."})
    task = shaped(sent, Task, 201)
    assert sent.headers["Location"] == f"/api/v1/tasks/{task['id']}"
    assert (task["session_id"], "Why so?" in task["input"], "Is it needed?" in task["input"]) == (str(change["session_id"]), True, False)
    assert (await api.post(f"{url}/send", json={})).json()["code"] == "conflict"
    assert shaped(await api.post(f"{mine}/resolve", json={}), Comment)["state"] == "resolved"
    assert shaped(await api.post(f"{mine}/resolve", json={"resolved": False}), Comment)["state"] == "open"
    assert (await api.client.patch(f"/api/v1{mine}", json={"body": "x"})).status_code == 409


async def test_comments_are_found_by_every_filter_and_drafts_by_their_author(api: Api) -> None:
    change, other = api.node.change(), api.node.change("another", content="two")
    ids = []
    for each in (change, change, other):
        ids.append((await api.post(f"/changes/{each['id']}/comments", json={"path": PATH, "body": "Why?"})).json()["id"])
    api.node.run("select coder.comment(%s, %s, 'a draft of bob''s', p_actor => 'bob')", change["id"], PATH)
    await api.post(f"/changes/{other['id']}/send", json={})
    for query, expected in (
        ("", ids[::-1]), (f"change_id={change['id']}", ids[1::-1]), (f"session_id={other['session_id']}", [ids[2]]),
        ("state=draft", ids[1::-1]), ("state=open,resolved", [ids[2]]), ("state=resolved", []), ("limit=1", [ids[2]]),
    ):  # fmt: skip
        found = shaped(await api.get(f"/comments?{query}"), Page[Comment])
        assert [each["id"] for each in found["items"]] == expected, query
    cursor = (await api.get("/comments?limit=2")).json()["next_cursor"]
    assert [each["id"] for each in (await api.get("/comments", params={"cursor": cursor})).json()["items"]] == [ids[0]]
    for query in ("state=maybe", "session_id=x", "change_id=x"):
        assert (await api.get(f"/comments?{query}")).status_code in (404, 422), query


async def test_bad_comments_leave_nothing(api: Api) -> None:
    url = f"/changes/{api.node.change()['id']}/comments"
    good = {"path": PATH, "body": "Why?"}
    for wrong, status in (
        ({"path": "nope"}, 404), ({"body": ""}, 422), ({"body": "\x00"}, 422), ({"line": 0}, 422), ({"line": 2}, 422), ({"line": "1"}, 422),
        ({"line": 2**40}, 422), ({"side": "left"}, 422), ({"line": 1, "side": "old"}, 422), ({"extra": 1}, 422), ({"end_line": 1}, 422),
    ):  # fmt: skip
        answer = await api.post(url, json=good | wrong)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), wrong
        assert answer.json()["detail"].endswith("."), answer.json()
    for path in (f"/changes/{uuid4()}/comments", f"/comments/{UUID(int=5)}/resolve"):
        assert (await api.post(path, json=good if "changes" in path else {})).status_code == 404
    assert api.node.count("comments") == 0
