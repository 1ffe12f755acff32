"""A turn that waits for its model's endpoint is sent again at once when somebody says so, by HTTP, SQL and the CLI's row."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from bad_house import House, is_sentence, open_house
from bad_model import DONE, HEADERS, BadModel, text

pytestmark = pytest.mark.asyncio(loop_scope="module")
AN_HOUR = b"HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
WELL = HEADERS + text("At last.") + DONE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, template_database: str, model: BadModel
) -> AsyncIterator[House]:
    settings = {"model_base_url": model.url, "retry_seconds": 28800}
    async with open_house(tmp_path_factory.mktemp("house"), postgres_server, template_database, **settings) as made:
        yield made


async def waits(house: House, task: int, times: int = 1) -> None:
    async def look() -> bool | None:
        announced = "select count(*) from frames where task_id = $1 and payload ->> 'type' = 'provider_retry'"
        return (await house.sql.fetchval(announced, task) == times and (await house.task(task))["waiting_for"] == "provider") or None

    await house.until(look, f"task {task} waits for its endpoint")


async def test_an_hour_is_skipped_as_often_as_it_is_asked_for(house: House, model: BadModel) -> None:
    model.script("patience", AN_HOUR, AN_HOUR, WELL)
    task = await house.queue(await house.project(), "patience")
    await waits(house, task)
    assert model.asked["patience"] == 1
    answer = await house.client.post(f"/tasks/{task}/retry-now")
    assert (answer.status_code, answer.json()["state"]) == (200, "running"), answer.text
    await waits(house, task, 2)
    # A second request fails as well, and the wish of before does not count for its wait: the task asks nobody by itself.
    assert await house.sql.fetchval("select retry_requested_at from tasks where id = $1", task) is None
    assert await house.sql.fetchval("select coder.retry_now($1)", task) == "running"
    done = await house.ended(task)
    assert (done["state"], done["output_summary"]) == ("completed", "At last.")
    assert model.asked["patience"] == 3


async def test_who_waits_for_nothing_is_told_so(house: House, model: BadModel) -> None:
    model.script("quick", WELL)
    done = await house.run(await house.project(), "quick")
    answer = await house.client.post(f"/tasks/{done['id']}/retry-now")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), answer.text
    assert is_sentence(answer.json()["detail"])
    assert "completed" in answer.json()["detail"]
    with pytest.raises(asyncpg.PostgresError, match="does not wait"):
        await house.sql.execute("select coder.retry_now($1)", done["id"])
    assert (await house.client.post("/tasks/999999/retry-now")).status_code == 404
    with pytest.raises(asyncpg.PostgresError, match="written by coder alone"):
        await house.sql.execute("update tasks set retry_requested_at = now() where id = $1", done["id"])


async def test_a_wait_can_still_be_cancelled(house: House, model: BadModel) -> None:
    model.script("given up", AN_HOUR)
    task = await house.queue(await house.project(), "given up")
    await waits(house, task)
    await house.client.post(f"/tasks/{task}/cancel")
    assert (await house.ended(task))["state"] == "cancelled"
    assert model.asked["given up"] == 1
