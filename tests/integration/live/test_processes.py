"""Any process shows any turn: an API without a dispatcher, a dispatcher without an API, and one that is killed."""

from __future__ import annotations

import asyncio

from agents.scripted import script
from livebench import LiveHouse

LONG = script(
    ["think", "let me see. "],
    ["many", 40, 0.005, "word"],
    ["tool", "a", "running", ""],
    ["usage", 100, 40, 7],
    ["gate", "middle"],
    ["tool", "a", "completed", "made"],
    ["many", 40, 0.005, "more"],
    ["notice", "a notice"],
)


async def test_an_api_shows_a_turn_of_a_dispatcher_in_another_process_byte_for_byte(house: LiveHouse) -> None:
    api, other, dispatcher = await asyncio.gather(*(house.process(role) for role in ("api", "api", "dispatch")))
    assert dispatcher.url == "None"
    task, session = await house.add(LONG)
    early = house.tab(api.url)
    await early.open()
    await early.subscribe(session)
    await early.until(lambda: early.views[session].turns and "word39" in early.views[session].text)
    late = house.tab(other.url)
    await late.open()
    await late.subscribe(session)
    await late.until(lambda: late.views[session].turns and "word39" in late.views[session].text)
    house.open_gate("middle")
    for tab in (early, late):
        await tab.until(lambda tab=tab: tab.views[session].ended)
        assert tab.views[session].transcript == await house.transcript(session)
        assert tab.views[session].histories == 1, "nothing had to be given anew"
        assert tab.resets == 0
        assert any(frame["type"] == "notice" for frame in tab.views[session].frames)
    await house.ended(task)


async def test_after_kill_9_the_partial_answer_is_stored_as_interrupted_and_shown(house: LiveHouse) -> None:
    here = str(house.folder / "here")  # the session belongs to this host
    api, dispatcher = await asyncio.gather(house.process("api"), house.process("dispatch", data_dir=here))
    task, session = await house.add(LONG)
    watching = house.tab(api.url)
    await watching.open()
    await watching.subscribe(session)
    await watching.until(lambda: watching.views[session].turns and "word39" in watching.views[session].text)
    shown = watching.views[session].text
    await watching.until(lambda: any(frame["type"] == "usage" for frame in watching.views[session].frames))
    await dispatcher.kill()
    await house.process("dispatch", data_dir=here)
    await watching.until(lambda: watching.views[session].ended)
    assert watching.views[session].ended[0]["state"] == "interrupted"
    stored = await house.transcript(session)
    assert stored[-1][2] == shown
    assert stored[-1][3] == "let me see. "
    assert '"status": "failed"' in stored[-1][4], "the call that ran did not come to an end"
    row = await house.sql.fetchrow(
        "select state, input_tokens, cached_tokens, output_tokens, cost_tokens, output_summary from tasks where id = $1", task
    )
    assert tuple(row) == ("interrupted", 100, 40, 7, 107, shown[:500])
    assert await house.sql.fetchval("select state from messages where task_id = $1 and role = 'assistant'", task) == "interrupted"
    after = house.tab(api.url)
    await after.open()
    await after.subscribe(session)
    assert after.views[session].transcript == stored
    again = await house.sql.fetchval("select coder.retry($1)", task)
    house.open_gate("middle")
    await house.ended(again)
    for tab in (watching, after):
        await tab.until(lambda tab=tab: any(frame["task_id"] == again for frame in tab.views[session].ended))
        assert tab.views[session].transcript == await house.transcript(session)


async def test_a_drained_turn_that_nobody_saw_runs_again_and_its_watchers_see_that_turn(house: LiveHouse) -> None:
    here = str(house.folder / "here")
    api, dispatcher = await asyncio.gather(house.process("api"), house.process("dispatch", data_dir=here, drain_seconds="0"))
    task, session = await house.add(script(["gate", "go"], ["say", "there"]))
    tab = house.tab(api.url)
    await tab.open()
    await tab.subscribe(session)
    await tab.until(lambda: tab.views[session].turns)
    dispatcher.process.terminate()
    await dispatcher.process.wait()
    await tab.until(lambda: tab.views[session].ended)
    assert tab.views[session].ended[0]["state"] == "pending"
    await tab.until(lambda: task in tab.views[session].queued)
    await house.process("dispatch", data_dir=here)
    house.open_gate("go")
    await tab.until(lambda: len(tab.views[session].ended) == 2)
    assert tab.views[session].transcript == await house.transcript(session)
    assert not tab.views[session].queued


async def test_one_process_of_both_roles_tells_its_own_turns_at_once(house: LiveHouse) -> None:
    both, api = await asyncio.gather(house.process("all"), house.process("api"))
    task, session = await house.add(LONG)
    house.open_gate("middle")
    tabs = [house.tab(both.url), house.tab(api.url)]
    for tab in tabs:
        await tab.open()
        await tab.subscribe(session)
    await house.ended(task)
    for tab in tabs:
        await tab.until(lambda tab=tab: tab.views[session].ended or len(tab.views[session].messages) == 2)
        assert tab.views[session].transcript == await house.transcript(session)
