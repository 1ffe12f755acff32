"""Messages that wait in a session: queued, put before the others, listed, changed and taken back."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
from web_client import Api, refused

from coder.web.shapes import AddedTask, OneSession, Page, QueuedTask, Task


def shaped(answer: httpx.Response, shape: Any, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    shape.model_validate_json(answer.content, extra="forbid")
    return answer.json()


async def session_with_a_turn(api: Api) -> tuple[str, dict[str, Any]]:
    api.node.add("a long turn")
    claim = api.node.claim()
    return f"/sessions/{claim['session_id']}/queue", claim


async def waiting(api: Api, queue: str) -> list[str]:
    return [row["input"] for row in shaped(await api.get(queue), Page[QueuedTask])["items"]]


async def test_a_message_waits_behind_the_others(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    answer = await api.post(queue, json={"input": "one", "model": "m", "labels": ["ci"], "idempotency_key": "k"})
    task = shaped(answer, AddedTask, 201)
    assert (task["waiting_for"], task["model"], task["labels"], task["session_id"]) == ("session", "m", ["ci"], str(claim["session_id"]))
    assert answer.headers["location"] == f"/api/v1/tasks/{task['id']}"
    again = shaped(
        await api.post(queue, json={"input": "one", "model": "m", "labels": ["ci"]}, headers={"Idempotency-Key": "k"}), AddedTask
    )
    assert (again["id"], again["existed"]) == (task["id"], True)
    shaped(await api.post(queue, json={"input": "two"}), AddedTask, 201)
    assert await waiting(api, queue) == ["one", "two"]
    assert api.node.row("select cancel_requested_at from tasks where id = %s", claim["id"])["cancel_requested_at"] is None


async def test_who_interrupts_goes_to_the_head_and_what_runs_is_cancelled(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    for text, interrupt in (("one", False), ("now", True), ("two", False), ("at once", True)):
        shaped(await api.post(queue, json={"input": text, "interrupt": interrupt}), AddedTask, 201)
    assert await waiting(api, queue) == ["at once", "now", "one", "two"]
    assert api.node.row("select cancel_requested_at from tasks where id = %s", claim["id"])["cancel_requested_at"] is not None
    api.node.end(claim, "cancelled", content=None)
    order = []
    for _ in range(4):
        claim = api.node.claim()
        order.append(claim["input"])
        api.node.end(claim, content=None)
    assert order == ["at once", "now", "one", "two"]
    first = {"input": "idle", "interrupt": True, "idempotency_key": "once"}
    task = shaped(await api.post(queue, json=first), AddedTask, 201)  # nothing runs that could be cancelled
    assert api.node.claim()["id"] == task["id"]
    shaped(await api.post(queue, json=first), AddedTask)  # the same again interrupts nothing, not even itself
    assert api.node.row("select cancel_requested_at from tasks where id = %s", task["id"])["cancel_requested_at"] is None


async def test_what_waits_can_be_changed_and_taken_back(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    ids = [shaped(await api.post(queue, json={"input": text}), AddedTask, 201)["id"] for text in ("one", "two", "three")]
    assert shaped(await api.put(f"{queue}/{ids[1]}", json={"input": "2"}), Task)["input"] == "2"
    taken = shaped(await api.delete(f"{queue}/{ids[0]}"), Task)
    assert (taken["state"], taken["reason"]) == ("cancelled", "user")
    assert await waiting(api, queue) == ["2", "three"]
    for text, word in (("", "empty"), (" \n", "empty"), ("x" * 1_048_577, "1048576")):
        refused(await api.put(f"{queue}/{ids[1]}", json={"input": text}), 422, "invalid_input", word)
    for task, state in ((claim["id"], "running"), (ids[0], "cancelled")):
        refused(await api.put(f"{queue}/{task}", json={"input": "x"}), 409, "conflict", state)
        refused(await api.delete(f"{queue}/{task}"), 409, "conflict", state)
    elsewhere = api.node.add("in another session")
    refused(await api.delete(f"{queue}/{elsewhere}"), 404, "not_found", str(elsewhere))
    refused(await api.put(f"{queue}/{elsewhere}", json={"input": "x"}), 404, "not_found")
    assert await waiting(api, queue) == ["2", "three"]


async def test_what_waits_can_be_sent_now_whatever_waits_before_it(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    ids = [shaped(await api.post(queue, json={"input": text}), AddedTask, 201)["id"] for text in ("one", "two", "three")]
    assert shaped(await api.post(f"{queue}/{ids[2]}/now"), Task)["waiting_for"] == "session"
    assert await waiting(api, queue) == ["three", "one", "two"]
    assert api.node.row("select cancel_requested_at from tasks where id = %s", claim["id"])["cancel_requested_at"] is not None
    api.node.end(claim, "cancelled", content=None)
    assert api.node.claim()["input"] == "three"
    refused(await api.post(f"{queue}/{ids[2]}/now"), 409, "conflict", "running")
    refused(await api.post(f"{queue}/{api.node.add('elsewhere')}/now"), 404, "not_found")


async def test_what_waits_can_be_moved_and_pages_keep_its_order(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    ids = [shaped(await api.post(queue, json={"input": text}), AddedTask, 201)["id"] for text in ("one", "two", "three")]
    assert shaped(await api.post(f"{queue}/{ids[2]}/move", json={"before": ids[0]}), Task)["id"] == ids[2]
    assert await waiting(api, queue) == ["three", "one", "two"]
    shaped(await api.post(f"{queue}/{ids[2]}/move", json={}), Task)
    for _ in range(99):  # positions have many digits by now
        shaped(await api.post(f"{queue}/{ids[0]}/move", json={"before": ids[2]}), Task)
        shaped(await api.post(f"{queue}/{ids[1]}/move", json={"before": ids[2]}), Task)
    first = (await api.get(queue, params={"limit": 1})).json()
    second = (await api.get(queue, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [row["input"] for row in first["items"] + second["items"]] == ["one", "two", "three"]
    refused(await api.post(f"{queue}/{ids[0]}/move", json={"before": ids[0]}), 422, "invalid_input", "itself")
    refused(await api.post(f"{queue}/{ids[0]}/move", json={"before": claim["id"]}), 409, "conflict", "running")
    for before in (0, "1", 2**63):
        refused(await api.post(f"{queue}/{ids[0]}/move", json={"before": before}), 422, "invalid_input", "`before`")


async def test_a_queue_comes_in_pages(api: Api) -> None:
    queue, _ = await session_with_a_turn(api)
    texts = [f"message {number}" for number in range(5)]
    for text in texts:
        await api.post(queue, json={"input": text})
    await api.post(queue, json={"input": "first", "interrupt": True})
    paged: list[str] = []
    cursor = ""
    while cursor is not None:
        answer = (await api.get(queue, params={"limit": 2, "cursor": cursor})).json()
        paged += [row["input"] for row in answer["items"]]
        cursor = answer["next_cursor"]
    assert paged == ["first", *texts]
    for cursor in ("WyJ4Il0", "WyJOYU4iXQ", "WzFd"):
        refused(await api.get(queue, params={"cursor": cursor}), 422, "invalid_input", "cursor")


async def test_a_closed_session_is_opened_again_by_what_is_said_in_it(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    session = f"/sessions/{claim['session_id']}"
    await api.post(queue, json={"input": "never runs"})
    closed = shaped(await api.post(f"{session}/close"), OneSession)
    assert (closed["status"], closed["pending_tasks"]) == ("closed", 0)
    assert api.node.row("select cancel_requested_at from tasks where id = %s", claim["id"])["cancel_requested_at"] is not None
    shaped(await api.post(queue, json={"input": "after all"}), AddedTask, 201)
    shown = shaped(await api.get(session), OneSession)
    assert (shown["status"], shown["closed_at"], shown["pending_tasks"]) == ("active", None, 1)


async def test_a_message_that_was_queued_before_opens_no_closed_session(api: Api) -> None:
    queue, claim = await session_with_a_turn(api)
    session, first = f"/sessions/{claim['session_id']}", {"input": "once", "idempotency_key": "k"}
    task = shaped(await api.post(queue, json=first), AddedTask, 201)
    shaped(await api.post(f"{session}/close"), OneSession)
    again = shaped(await api.post(queue, json=first), AddedTask)
    assert (again["id"], again["state"]) == (task["id"], "cancelled")
    refused(await api.post(queue, json={**first, "input": "another"}), 409, "idempotency_conflict")
    assert shaped(await api.get(session), OneSession)["status"] == "closed"


async def test_messages_that_cannot_be(api: Api) -> None:
    queue, _ = await session_with_a_turn(api)
    for body, words in (
        ({}, ["`input`"]),
        ({"input": " "}, ["empty"]),
        ({"input": "x", "interrupt": "yes"}, ["`interrupt`"]),
        ({"input": "x", "project": "demo"}, ["`project`", "not a field"]),
        ({"input": "x", "chat_id": str(uuid4())}, []),
        ({"input": "x", "idempotency_key": ""}, ["`idempotency_key`"]),
    ):
        refused(await api.post(queue, json=body), 422, "invalid_input", *words)
    nobody = f"/sessions/{uuid4()}/queue"
    for answer in (await api.post(nobody, json={"input": "x"}), await api.get(nobody), await api.delete(f"{nobody}/1")):
        refused(answer, 404, "not_found")
    assert await waiting(api, queue) == []
