"""Model endpoints that are down, refuse, or talk nonsense: the task fails as `provider`, the session goes on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from bad_git import seen
from bad_house import House, open_house
from bad_model import CHUNKED, DONE, HEADERS, Answer, BadModel, call, event, status, text

pytestmark = pytest.mark.asyncio(loop_scope="module")
KEY = "sk-nobody-may-read-this"
REQUESTS = 6


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: str, template_database: str, model: BadModel
) -> AsyncIterator[House]:
    folder = tmp_path_factory.mktemp("house")
    settings = {"model_base_url": model.url, "model_api_key": KEY, "max_requests": REQUESTS, "retry_seconds": 0}
    async with open_house(folder, postgres_server, template_database, **settings) as made:
        yield made


async def goes_on(house: House, project: str, session: str) -> None:
    """The session takes the next task as if nothing had been, and what was written down is whole."""
    done = await house.completed(project, "a good one", session)
    assert done["output_summary"] == "Done."
    await house.at_rest()


SAID = event({"role": "assistant", "content": "One two "})
ANSWERS: dict[str, tuple[bytes | Answer, list[str]]] = {
    "401": (status(401, f"Incorrect API key provided: {KEY}"), ["refuses the key", "401", "CODER_MODEL_API_KEY"]),
    "429": (status(429, "Slow down"), ["limits the rate", "429: Slow down", "later"]),
    "quota": (status(429, "You exceeded your current quota"), ["429", "quota"]),
    "500": (status(500, "Oh no\nTwo lines"), ["failed", "500: Oh no Two lines", "retry the task"]),
    "503": (status(503, "Loading"), ["not available", "503: Loading", "retry the task later"]),
    "529": (status(529, "Overloaded"), ["529: Overloaded", "retry the task"]),
    "no http": (b"\x15\x03\x01\x00\x02\x02 this is not HTTP\r\n\r\n", ["broke off", "retry the task"]),
    "nothing": (b"", ["broke off", "without sending a response", "retry the task"]),
    "no JSON": (HEADERS + b"data: {broken\n\n", ["cannot be read"]),
    "another shape": (HEADERS + b'data: {"choices": "what"}\n\n', ["cannot be read"]),
    "no UTF-8": (HEADERS + b"data: \xff\xfe\n\n", []),
    "an error in mid-stream": (HEADERS + SAID + b'data: {"error": {"message": "out of memory", "code": 500}}\n\n', ["out of memory"]),
    "HTML": (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>hello</html>", []),
    "empty": (HEADERS + event({"role": "assistant", "content": ""}) + event({}, "stop") + DONE, ["no answer that can be used"]),
    "cut in a chunk": (CHUNKED + b"%x\r\n%s\r\n" % (len(SAID), SAID) + b"ff\r\ndata: {", ["broke off", "retry the task"]),
    "cut in a tool call": (
        CHUNKED + b"%x\r\n%s\r\n" % (len(part := call("write", '{"path": "cut.txt", "cont').split(b"\n\n")[0] + b"\n\n"), part),
        ["broke off", "retry the task"],
    ),
    "filtered": (HEADERS + event({}, "content_filter") + DONE, ["content filter"]),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_an_answer_that_is_none(house: House, model: BadModel, case: str) -> None:
    answer, words = ANSWERS[case]
    model.script(case, HEADERS + call("write", '{"path": "before.txt", "content": "b"}') + DONE, answer)
    project = await house.project()
    before = seen(house.checkout(project))
    row = await house.run(project, case)
    said = await house.answer(row)
    assert (row["state"], row["reason"]) == ("failed", "provider"), row
    assert all(word in row["error"] for word in (model.url, *words)), row["error"]
    assert KEY not in row["error"]
    assert said["state"] == "failed"
    assert "before.txt" in said["tool_calls"][0]["input"]
    assert said["tool_calls"][0]["status"] == "completed"
    # What the turn did before is a change that says how the turn ended.
    change = await house.open_change(row, "before.txt")
    assert change["turn_outcome"] == "failed"
    assert seen(house.checkout(project)) == before
    assert model.asked[case] <= 3  # an empty answer gets a second chance; nothing else is asked again behind our back
    await goes_on(house, project, row["session_id"])


async def test_a_model_that_the_endpoint_does_not_know(house: House, model: BadModel) -> None:
    project = await house.project()
    words = [model.url, "knows no model gpt-nope", "404", "`coder agents`"]
    failed = await house.failed("provider", words, project, "hello", model="gpt-nope")
    await goes_on(house, project, failed["session_id"])


async def test_a_stream_that_is_cut_keeps_what_was_said(house: House, model: BadModel) -> None:
    whole = CHUNKED + b"%x\r\n%s\r\n" % (len(SAID), SAID)
    model.script("cut", whole, HEADERS + text("again") + DONE)
    project = await house.project()
    failed = await house.failed("provider", [model.url, "broke off", "retry the task"], project, "cut")
    assert (await house.answer(failed))["text"] == "One two "
    assert failed["output_summary"] == "One two "
    again = (await house.client.post(f"/tasks/{failed['id']}/retry")).json()
    assert (await house.ended(again["id"]))["output_summary"] == "again"
    await goes_on(house, project, failed["session_id"])


async def test_an_answer_that_the_endpoint_cut_at_its_limit_says_so(house: House, model: BadModel) -> None:
    model.script("too long", HEADERS + SAID + event({}, "length") + DONE)
    project = await house.project()
    done = await house.completed(project, "too long")
    assert done["output_summary"] == "One two "
    (notice,) = done["notices"]
    assert all(words in notice for words in ("m1", "output limit", "ask for less")), notice
    await goes_on(house, project, done["session_id"])


async def test_a_tool_call_with_broken_json_is_told_to_the_model(house: House, model: BadModel) -> None:
    broken = [
        call("write", arguments, f"c{n}") for n, arguments in enumerate(['{"path": "a.t', "[1]", "nonsense", '{"path": 5, "content": {}}'])
    ]
    model.script("broken call", *(HEADERS + each + DONE for each in broken), HEADERS + text("gave up") + DONE)
    project = await house.project()
    done = await house.completed(project, "broken call")
    calls = (await house.answer(done))["tool_calls"]
    assert [each["status"] for each in calls] == ["failed"] * 4, calls
    assert '{\\"path\\": \\"a.t' in calls[0]["input"]
    assert done["output_summary"] == "gave up"
    assert await house.change(done["session_id"]) is None
    await goes_on(house, project, done["session_id"])


@pytest.mark.parametrize("arguments", ['{"command": "true"}', "{broken", '{"nonsense": 1}'])
async def test_a_model_that_comes_to_no_end(house: House, model: BadModel, arguments: str) -> None:
    case = f"endless {arguments}"
    calls = [HEADERS + call("run", arguments, f"c{number}") + DONE for number in range(REQUESTS + 1)]
    model.script(case, HEADERS + call("write", '{"path": "a.txt", "content": "a"}', "w") + DONE, *calls)
    project = await house.project()
    failed = await house.failed("tool_loop", [f"{REQUESTS} requests", "CODER_MAX_REQUESTS"], project, case)
    assert model.asked[case] == REQUESTS
    assert len((await house.answer(failed))["tool_calls"]) == REQUESTS
    await house.open_change(failed, "a.txt")
    await goes_on(house, project, failed["session_id"])


async def test_calls_without_end_in_one_answer_all_with_the_same_id(house: House, model: BadModel) -> None:
    many = b"".join(
        event(
            {
                "tool_calls": [
                    {"index": n, "id": "same", "type": "function", "function": {"name": "run", "arguments": '{"command": "true"}'}}
                ]
            }
        )
        for n in range(20)
    )
    model.script("same ids", HEADERS + many + event({}, "tool_calls") + DONE, HEADERS + text("Done.") + DONE)
    project = await house.project()
    row = await house.run(project, "same ids")
    assert row["state"] in ("completed", "failed")
    calls = (await house.answer(row))["tool_calls"]
    assert len({each["id"] for each in calls}) == len(calls)
    assert all(each["status"] != "running" for each in calls)
    await goes_on(house, project, row["session_id"])


async def test_a_cancel_while_the_endpoint_is_silent(house: House, model: BadModel) -> None:
    model.script("silent", Answer([HEADERS + SAID], hold=True))
    project = await house.project()
    task = await house.queue(project, "silent")

    async def heard() -> bool:
        return (await house.task(task))["first_event_at"] is not None

    await house.until(heard, "the first words")
    assert await house.sql.fetchval("select coder.cancel($1)", task) == "running"
    row = await house.ended(task)
    assert (row["state"], row["reason"], row["error"]) == ("cancelled", "user", None)
    assert (await house.answer(row))["text"] == "One two "
    await goes_on(house, project, row["session_id"])


async def test_an_endpoint_that_is_down_and_comes_up(tmp_path: Path, postgres_server: str, template_database: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    settings = {"model_base_url": f"http://someone:hidden@127.0.0.1:{port}/v1", "retry_seconds": 0}
    async with open_house(tmp_path, postgres_server, template_database, **settings) as house:
        project = await house.project()
        words = [f"http://127.0.0.1:{port}/v1", "cannot be reached", "start it, or correct CODER_MODEL_BASE_URL"]
        failed = await house.failed("provider", words, project, "hello")
        assert "hidden" not in failed["error"]
        agent = next(each for each in (await house.client.get("/agents")).json()["items"] if each["agent"] == "native")
        assert (agent["agent"], agent["available"]) == ("native", True)
        assert "cannot be reached" in agent["detail"]
        model = BadModel()
        server = await asyncio.start_server(model.serve, "127.0.0.1", port)
        again = (await house.client.post(f"/tasks/{failed['id']}/retry")).json()
        assert (await house.ended(again["id"]))["output_summary"] == "Done."
        await goes_on(house, project, failed["session_id"])
        server.close()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_base_url": None}, ["no model endpoint", "CODER_MODEL_BASE_URL", "CODER_DEFAULT_MODEL"]),
        ({"model_base_url": "http://127.0.0.1:9/v1", "default_model": " "}, ["names no model", "CODER_DEFAULT_MODEL"]),
    ],
    ids=["no endpoint", "no model"],
)
async def test_without_a_model(
    tmp_path: Path, postgres_server: str, template_database: str, settings: dict[str, str], words: list[str]
) -> None:
    async with open_house(tmp_path, postgres_server, template_database, **settings) as house:
        project = await house.project()
        failed = await house.failed("provider", words, project, "hello")
        await house.failed("provider", words, project, "hello again", failed["session_id"], model="  ")
        await house.at_rest()
