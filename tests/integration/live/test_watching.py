"""Anybody watches a turn from anywhere, at any moment, and sees exactly what happened; the turn does not notice."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agents.scripted import script
from livebench import LiveHouse

from coder.live import FOLD_BYTES

LONG = script(
    ["think", "hm. "],
    ["say", "one "],
    ["tool", "a", "running", ""],
    ["gate", "middle"],
    ["tool", "a", "completed", "made"],
    ["say", "two "],
    ["say", "three"],
    ["usage", 10, 4, 2],
    ["gate", "end"],
    ["say", " four 🦆"],
)


async def test_before_at_in_the_middle_of_and_after_a_turn_it_is_the_same_transcript(house: LiveHouse) -> None:
    server = await house.server()
    await house.node(server.watching)
    first, session = await house.add(script(["say", "hello"]))
    await house.ended(first)
    before = house.tab(server.url)
    await before.open()
    await before.subscribe(session)
    assert before.views[session].transcript == await house.transcript(session)
    second, _ = await house.add(LONG, session)
    at = house.tab(server.url)
    await at.open()
    await at.subscribe(session)
    await before.until(lambda: before.views[session].turns and before.views[session].text == "one ")
    middle = house.tab(server.url)
    await middle.open()
    await middle.subscribe(session)
    assert middle.views[session].text == "one "
    house.open_gate("middle")
    for tab in (before, at, middle):
        await tab.until(lambda tab=tab: tab.views[session].turns and tab.views[session].text == "one two three")
    late = house.tab(server.url)
    await late.open()
    await late.subscribe(session)
    house.open_gate("end")
    tabs = [before, at, middle, late]
    for tab in tabs:
        await tab.until(lambda tab=tab: any(frame["task_id"] == second for frame in tab.views[session].ended))
    after = house.tab(server.url)
    await after.open()
    await after.subscribe(session)
    stored = await house.transcript(session)
    assert stored[-1][2] == "one two three four 🦆"
    for tab in [*tabs, after]:
        assert tab.views[session].transcript == stored
        assert tab.views[session].histories == 1
    kinds = [frame["type"] for frame in before.views[session].frames]
    assert kinds.index("turn_started") < kinds.index("message_started") < kinds.index("reasoning_delta") < kinds.index("message_complete")
    assert kinds.index("message_complete") + 1 == kinds.index("turn_ended")


async def test_the_sender_leaves_in_mid_turn_and_another_sees_everything(house: LiveHouse) -> None:
    server = await house.server()
    await house.node(server.watching)
    sender = house.tab(server.url)
    await sender.open()
    await sender.send({"type": "chat.send", "project": "shop", "client_message_id": "m1", "text": LONG})
    await sender.until(lambda: sender.accepted)
    accepted = sender.accepted[0]
    session, task = accepted["session_id"], accepted["task_id"]
    await sender.until(lambda: session in sender.views and sender.views[session].turns and sender.views[session].text == "one ")
    other = house.tab(server.url)
    await other.open()
    await other.subscribe(session)
    await sender.cut()
    house.open_gate("middle")
    house.open_gate("end")
    await other.until(lambda: other.views[session].ended)
    assert other.views[session].transcript == await house.transcript(session)
    assert await house.sql.fetchval("select state from tasks where id = $1", task) == "completed"


async def test_what_is_sent_twice_is_stored_once_and_shows_as_queued_until_it_runs(house: LiveHouse) -> None:
    server = await house.server()
    first, session = await house.add(script(["say", "hello"]))
    tab = house.tab(server.url)
    await tab.open()
    for _ in range(2):
        await tab.send({"type": "chat.send", "session_id": session, "client_message_id": "m1", "text": script(["say", "hi"])})
    await tab.until(lambda: len(tab.accepted) == 2 and session in tab.views)
    assert [frame["existed"] for frame in tab.accepted] == [False, True]
    (task,) = {frame["task_id"] for frame in tab.accepted}
    assert [(each["task_id"], each["client_message_id"]) for each in tab.views[session].queued.values()] == [(first, None), (task, "m1")]
    other = house.tab(server.url)
    await other.open()
    await other.subscribe(session)
    third, _ = await house.add(script(["say", "ho"]), session)
    await other.until(lambda: third in other.views[session].queued)
    assert other.views[session].queued[third]["text"] == script(["say", "ho"])
    await house.node(server.watching)
    await other.until(lambda: len(other.views[session].ended) == 3)
    await other.until(lambda: not other.views[session].queued)
    assert other.views[session].transcript == await house.transcript(session)


async def test_what_people_do_by_sql_is_seen(house: LiveHouse) -> None:
    server = await house.server()
    task, session = await house.add(script(["say", "never"]))
    tab = house.tab(server.url)
    await tab.open()
    await tab.subscribe(session)
    await house.sql.execute("update tasks set cancel_requested_at = now() where id = $1", task)
    await tab.until(lambda: not tab.views[session].queued)
    assert tab.views[session].frames[-1] == {
        "seq": 2, "type": "task_state", "session_id": session, "task_id": task, "state": "cancelled", "reason": "user", "text": None,
        "client_message_id": None,
    }  # fmt: skip


async def test_a_message_behind_a_long_turn_survives_a_reload_and_shows_as_it_was_changed(house: LiveHouse) -> None:
    near, far = await house.server(), await house.server()
    await house.node(near.watching)
    _, session = await house.add(script(["say", "long"], ["gate", "end"]))
    sender = house.tab(near.url)
    await sender.open()
    await sender.subscribe(session)
    await sender.until(lambda: sender.views[session].turns and sender.views[session].text == "long")
    await sender.send({"type": "chat.send", "session_id": session, "client_message_id": "m1", "text": script(["say", "typed"])})
    await sender.until(lambda: sender.accepted)
    task = sender.accepted[0]["task_id"]
    await sender.cut()
    reloaded, distant = house.tab(near.url), house.tab(far.url)
    for tab in (reloaded, distant):
        await tab.open()
        await tab.subscribe(session)
        assert [(each["task_id"], each["client_message_id"]) for each in tab.views[session].queued.values()] == [(task, "m1")]
    await house.sql.execute("select coder.edit_queued($1, $2, $3)", UUID(session), task, script(["say", "better"]))
    for tab in (reloaded, distant):
        await tab.until(lambda tab=tab: tab.views[session].queued[task]["text"] == script(["say", "better"]))
        told = [
            frame for frame in tab.views[session].frames if frame["type"] == "task_state" and frame["text"] == script(["say", "better"])
        ]
        assert len(told) == 1
    house.open_gate("end")
    for tab in (reloaded, distant):
        await tab.until(lambda tab=tab: len(tab.views[session].ended) == 2 and not tab.views[session].queued)
        assert tab.views[session].transcript == await house.transcript(session)


async def test_a_retry_shows_while_it_waits_and_is_no_part_of_the_history(house: LiveHouse) -> None:
    server = await house.server()
    await house.node(server.watching)
    task, session = await house.add(script(["retry", 0, 5.0], ["gate", "retried"], ["say", "there"]))
    tab = house.tab(server.url)
    await tab.open()
    await tab.subscribe(session)
    await tab.until(lambda: any(frame["type"] == "provider_retry" for frame in tab.views[session].frames))
    late = house.tab(server.url)
    await late.open()
    await late.subscribe(session)
    await late.until(lambda: late.views[session].turns)
    retry = next(frame for frame in late.views[session].frames if frame["type"] == "provider_retry")
    assert (retry["attempt"], retry["delay_ms"], retry["code"]) == (0, 5000, "529")
    await house.until("select waiting_for = 'provider' from coder.show_task($1)", task)
    house.open_gate("retried")
    await late.until(lambda: late.views[session].ended)
    await late.until(
        lambda: late.views[session].frames[-1].get("state") == "completed" and late.views[session].frames[-1]["type"] == "task_state"
    )
    after = house.tab(server.url)
    await after.open()
    await after.subscribe(session)
    assert [frame["type"] for frame in after.views[session].frames] == ["session_history"]
    assert after.views[session].transcript == await house.transcript(session)
    await house.ended(task)


async def test_what_coder_itself_remarks_on_a_turn_is_seen_from_everywhere(house: LiveHouse) -> None:
    near, far = await house.server(), await house.server()
    await house.node(near.watching)
    sql = "insert into tasks (project_id, input, agent) values ($1, $2, 'nobody') returning id, session_id"
    row = await house.sql.fetchrow(sql, house.project, script(["say", "here"], ["notice", "the agent's own"], ["gate", "go"]))
    task, session = row["id"], str(row["session_id"])
    tabs = [house.tab(server.url) for server in (near, far)]
    for tab in tabs:
        await tab.open()
        await tab.subscribe(session)
        await tab.until(lambda tab=tab: tab.views[session].turns and tab.views[session].text == "here")
    house.open_gate("go")
    await house.ended(task)
    stored = await house.sql.fetchval("select notices from tasks where id = $1", task)
    assert stored[0].startswith("Agent nobody is not available on this host")
    for tab in tabs:
        await tab.until(lambda tab=tab: tab.views[session].ended)
        assert [frame["text"] for frame in tab.views[session].frames if frame["type"] == "notice"] == stored
        assert tab.views[session].transcript == await house.transcript(session)


async def test_turns_that_end_within_a_window_are_seen_whole_from_everywhere(house: LiveHouse) -> None:
    near, far = await house.server(), await house.server()
    await house.node(near.watching)
    _, session = await house.add(script(["say", "0"]))
    tabs = [house.tab(server.url) for server in (near, far)]
    for tab in tabs:
        await tab.open()
        await tab.subscribe(session)
    tasks = [(await house.add(script(["think", "x"], ["say", str(number)]), session))[0] for number in range(20)]
    await house.ended(*tasks)
    for tab in tabs:
        await tab.until(lambda tab=tab: len(tab.views[session].messages) == 42)
        assert tab.views[session].transcript == await house.transcript(session)
    assert tabs[0].views[session].histories == 1


async def test_a_turn_larger_than_the_fold_is_shown_whole_to_who_joins_late(house: LiveHouse) -> None:
    near, far = await house.server(), await house.server()
    await house.node(near.watching)
    _, session = await house.add(script(["say", "look: "], ["big", 40, 200_000], ["say", "seen"], ["gate", "go"], ["say", "."]))
    early = house.tab(near.url)
    await early.open()
    await early.subscribe(session)
    await early.until(lambda: early.views[session].turns and early.views[session].text == "look: seen")
    late, distant = house.tab(near.url), house.tab(far.url)
    for tab in (late, distant):
        await tab.open()
        await tab.subscribe(session)
        await tab.until(lambda tab=tab: tab.views[session].turns and tab.views[session].text == "look: seen")
    channel = near.watching.hub.channel(session)
    assert channel is not None
    assert channel.fold is not None
    assert channel.fold.size <= FOLD_BYTES
    assert len(channel.fold.away) >= 20
    house.open_gate("go")
    for tab in (early, late, distant):
        await tab.until(lambda tab=tab: tab.views[session].ended)
        assert tab.views[session].transcript == await house.transcript(session)


async def test_who_joins_while_a_person_is_waited_for_sees_it_and_sees_the_answer(house: LiveHouse) -> None:
    await house.sql.execute("update projects set permission_policy = 'ask'")
    server = await house.server()
    await house.node(server.watching)
    _, session = await house.add(script(["say", "May I? "], ["ask", "make install"]))
    early = house.tab(server.url)
    await early.open()
    await early.subscribe(session)
    await early.until(lambda: [frame["state"] for frame in asked(early.views[session].frames)] == ["requested"])
    late = house.tab(server.url)
    await late.open()
    await late.subscribe(session)
    await late.until(lambda: asked(late.views[session].frames))
    (waiting,) = asked(late.views[session].frames)
    assert (waiting["state"], waiting["request"]["title"]) == ("requested", "make install")
    await house.sql.execute("select coder.allow($1, 'once', null, 'ada')", UUID(waiting["permission_id"]))
    for tab in (early, late):
        await tab.until(lambda tab=tab: tab.views[session].ended)
        assert [frame["state"] for frame in asked(tab.views[session].frames)] == ["requested", "answered"]
        assert tab.views[session].transcript == await house.transcript(session)
    assert (await house.transcript(session))[-1][2] == "May I? allowed"


def asked(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [frame for frame in frames if frame["type"] == "permission_request"]


async def test_who_sends_with_interrupt_does_not_wait_for_the_turn_that_runs(house: LiveHouse) -> None:
    server = await house.server()
    await house.node(server.watching)
    first, session = await house.add(script(["say", "long"], ["gate", "never"]))
    tab = house.tab(server.url)
    await tab.open()
    await tab.subscribe(session)
    await tab.until(lambda: tab.views[session].turns and tab.views[session].text == "long")
    message = {"type": "chat.send", "session_id": session, "client_message_id": "m1", "text": script(["say", "now"]), "interrupt": True}
    await tab.send(message)
    await tab.until(lambda: len(tab.views[session].ended) == 2)
    assert tab.views[session].transcript == await house.transcript(session)
    assert await house.sql.fetchval("select state from tasks where id = $1", first) == "cancelled"
    await tab.send(message)  # the same again interrupts nothing
    await tab.until(lambda: len(tab.accepted) == 2)
    assert tab.accepted[1]["existed"]
