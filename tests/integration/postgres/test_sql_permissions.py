"""Permissions, rules, agent sessions, chats and probes as SQL sees them: what people call, and what nodes write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from queuebench import Bench, Node, Row, ending, refused

ASK = "select * from coder.ask(%s, %s, %s, %s, %s::interval, %s)"
KEPT = {"id": "ses_1", "config_hash": "h", "home": "one-0", "status": "active"}


@pytest.fixture
def bench(database: str) -> Iterator[Bench]:
    with Bench(database) as bench:
        yield bench


@pytest.fixture
def node(bench: Bench) -> Node:
    bench.project()
    return bench.node()


def started(node: Node, **columns: Any) -> Row:
    node.bench.add(node.bench.value("select id from projects"), agent="goose", priority=9, **columns)
    claimed = node.claim_one()
    node.seen(claimed)
    return claimed


def ask(
    node: Node, claimed: Row, title: str = "make test", *, wait: str = "1 hour", answer: dict[str, Any] | None = None, **more: Any
) -> Row:
    """What a node does when an agent asks; None when it is fenced."""
    request = {
        "agent": "goose", "kind": "permission", "request_id": "1", "tool": "bash", "asked_for": "execute", "title": title, "paths": ["/x"],
        "choices": [], "several": False,
    } | more  # fmt: skip
    rows = node.bench.rows(ASK, claimed.id, claimed.epoch, json.dumps(request), '{"b": 1, "a": 2}', wait, answer and json.dumps(answer))
    return rows[0] if rows else None


def question(node: Node, claimed: Row, **more: Any) -> Row:
    return ask(node, claimed, "Which one?", kind="question", tool=None, asked_for=None, **more)


def state(bench: Bench, permission: UUID) -> Row:
    return bench.one("select state, actor, message, answers, told_at is not null as told from permissions where id = %s", permission)


def test_a_request_waits_and_is_answered_once(bench: Bench, node: Node) -> None:
    ear = bench.listen("permissions")
    row = ask(node, started(node))
    assert (row.state, row.actor, row.paths, json.dumps(row.input)) == ("requested", None, ["/x"], '{"b": 1, "a": 2}')
    assert bench.value("select coder.allow(%s, p_actor => 'ada')", row.id) == "allowed_once"
    assert ear.heard() == ["permissions"]
    with refused("CD409", "allowed once by ada", str(row.id)):
        bench.do("select coder.deny(%s, 'no', 'bob')", row.id)
    assert state(bench, row.id)[:2] == ("allowed_once", "ada")


def test_two_people_at_once(bench: Bench, node: Node) -> None:
    for _ in range(5):
        row = ask(node, started(node))

        def answer(call: str, id: UUID = row.id) -> str:
            with psycopg.connect(bench.dsn, autocommit=True) as connection:
                try:
                    return str(connection.execute(f"select coder.{call}(%s)", [id]).fetchone()[0])  # type: ignore[index]
                except psycopg.Error as error:
                    return str(error.sqlstate)

        with ThreadPoolExecutor(4) as people:
            answers = sorted(people.map(answer, ["allow", "deny", "allow", "deny"]))
        assert answers[:3] == ["CD409"] * 3
        assert answers[3] == state(bench, row.id).state


def test_always_makes_a_rule_of_exactly_this_or_of_the_pattern(bench: Bench, node: Node) -> None:
    claimed = started(node)
    cases = (("session", None, r"rm \*.o\\ \?"), ("project", "rm *", "rm *"), ("project", "rm *", "rm *"))
    for number, (scope, pattern, kept) in enumerate(cases):
        row = ask(node, claimed, r"rm *.o\ ?", request_id=str(number))
        assert bench.value("select coder.allow(%s, %s, %s, 'ada')", row.id, scope, pattern) == "allowed_always"
        rule = bench.one("select r.* from permission_rules r join permissions p on p.rule_id = r.id where p.id = %s", row.id)
        assert (rule.tool, rule.pattern, rule.actor) == ("bash", kept, "ada")
        assert rule.session_id == (claimed.session_id if scope == "session" else None)
    assert bench.value("select count(*) from permission_rules") == 2
    bench.do("delete from permission_rules")
    assert bench.value("select count(*) from permissions where rule_id is null and state = 'allowed_always'") == 3


def test_what_is_not_acceptable(bench: Bench, node: Node) -> None:
    claimed = started(node)
    row, asked = ask(node, claimed), question(node, claimed, request_id="2")
    for code, words, query in (
        ("CD404", ["There is no permission"], f"select coder.allow('{uuid4()}')"),
        ("CD422", ["for ever"], f"select coder.allow('{row.id}', 'for ever')"),
        ("CD422", ["pattern"], f"select coder.allow('{row.id}', 'once', 'make *')"),
        ("CD422", ["empty"], f"select coder.allow('{row.id}', 'project', '  ')"),
        ("CD422", ["no question"], f"select coder.answer('{row.id}', array['yes'])"),
        ("CD422", ["is a question"], f"select coder.allow('{asked.id}')"),
        ("CD422", ["empty one"], f"select coder.answer('{asked.id}', '{{}}')"),
        ("CD422", ["empty one"], f"select coder.answer('{asked.id}', array[' '])"),
        ("CD422", ["one answer", "2"], f"select coder.answer('{asked.id}', array['a', 'b'])"),
        ("CD422", ["written by coder alone"], f"update permissions set state = 'allowed_once' where id = '{row.id}'"),
        ("CD422", ["written by coder alone"], f"delete from permissions where id = '{row.id}'"),
        ("CD422", ["empty"], "select coder.add_rule('shop', 'bash', '')"),
        ("CD404", ["no project"], "select coder.add_rule('nope', 'bash', 'x')"),
        ("CD404", ["no session"], f"select coder.add_rule('shop', 'bash', 'x', '{uuid4()}')"),
        ("CD422", ["permission policy"], "select coder.set_project('shop', 'sometimes')"),
        ("CD422", ["network"], "select coder.set_project('shop', p_network => 'maybe')"),
        ("23514", [], "update projects set permission_policy = 'sometimes'"),
        ("23514", [], "update projects set network = 'maybe'"),
        ("CD404", ["no session"], f"select coder.open_chat('{uuid4()}')"),
        ("CD404", ["no host"], f"select coder.probe_agents('{uuid4()}')"),
    ):
        with refused(code, *words):
            bench.do(query)
    assert bench.value("select count(*) from permissions where state = 'requested'") == 2
    assert bench.value("select count(*) from permission_rules") == 0


def test_a_question_is_answered_in_words(bench: Bench, node: Node) -> None:
    several = question(node, started(node), several=True)
    bench.do("select coder.answer(%s, array['a', 'b c'], 'ada')", several.id)
    assert state(bench, several.id)[:4] == ("allowed_once", "ada", None, ["a", "b c"])
    with refused("CD409", "answered by ada"):
        bench.do("select coder.answer(%s, array['d'])", several.id)


def test_the_policy_s_answers_are_rows_too_and_a_fenced_turn_asks_nothing(bench: Bench, node: Node) -> None:
    claimed = started(node)
    row = ask(node, claimed, answer={"state": "denied", "message": "no", "actor": "policy", "rule": None})
    assert state(bench, row.id) == ("denied", "policy", "no", [], True)
    node.finish(ending(claimed))
    assert ask(node, claimed) is None
    assert bench.value("select coder.told(%s, %s)", row.id, claimed.epoch) is False


def test_the_deadline_comes_after_a_person_who_is_just_answering(bench: Bench, node: Node) -> None:
    claimed = started(node)
    row = ask(node, claimed)
    late = json.dumps({"state": "denied", "message": "late", "actor": "deadline", "rule": None})
    settle = "select * from coder.settle_permission(%s, %s, %s)"
    with bench.connect() as person:
        person.execute("select coder.allow(%s, p_actor => 'ada')", [row.id])
        assert bench.rows(settle, row.id, claimed.epoch, late) == [], "nothing waits for the person's transaction"
        person.commit()
    assert bench.one(settle, row.id, claimed.epoch, late).actor == "ada"


@pytest.mark.parametrize("end", ["completed", "failed", "cancelled", "interrupted"])
def test_an_open_request_ends_with_its_turn_unless_that_was_interrupted(bench: Bench, node: Node, end: str) -> None:
    claimed = started(node)
    row = ask(node, claimed)
    node.finish(ending(claimed, end, asked=True))
    assert state(bench, row.id).state == ("requested" if end == "interrupted" else "expired")
    if end != "interrupted":
        with refused("CD409", "expired"):
            bench.do("select coder.allow(%s)", row.id)


def test_the_sweep_ends_requests_that_nobody_waits_for(bench: Bench, node: Node) -> None:
    live, over, interrupted, dismissed = (started(node) for _ in range(4))
    rows = [ask(node, claimed, wait="-1 s") for claimed in (live, over, interrupted)] + [ask(node, dismissed)]
    node.finish(ending(over), ending(interrupted, "interrupted"), ending(dismissed, "interrupted"))
    bench.do("select coder.dismiss(%s)", dismissed.id)
    assert state(bench, rows[3].id).state == "expired"
    bench.do("select coder.sweep(false)")
    assert [state(bench, row.id).state for row in rows] == ["requested", "expired", "expired", "expired"], "its node sees to the first"
    assert "deadline" in state(bench, rows[2].id).message


@pytest.mark.parametrize("again", ["resume", "retry"])
@pytest.mark.parametrize("answered", [None, "before", "between"])
def test_what_runs_again_takes_its_question_over(bench: Bench, node: Node, again: str, answered: str | None) -> None:
    claimed = started(node)
    row = ask(node, claimed, wait="1 min")
    node.finish(ending(claimed, "interrupted", asked=True))
    if answered == "before":
        bench.do("select coder.allow(%s, p_actor => 'ada')", row.id)
    task = bench.value(f"select coder.{again}(%s)", claimed.id)
    if answered == "between":
        bench.do("select coder.allow(%s, p_actor => 'ada')", row.id)
    second = node.claim_one()
    assert second.id == task
    taken = ask(node, second, request_id="77")
    assert (taken.id, taken.task_id, taken.epoch, taken.request_id) == (row.id, task, second.epoch, "77")
    assert taken.state == ("requested" if answered is None else "allowed_once")
    if answered is None:
        assert taken.deadline > row.deadline, "the agent asks anew, so people have the whole time again"
        bench.do("select coder.allow(%s)", row.id)
    assert bench.value("select coder.told(%s, %s)", row.id, second.epoch) is True
    assert ask(node, second, request_id="78").id != row.id, "one answer is for one request"


def test_an_answer_that_was_told_is_not_taken_over(bench: Bench, node: Node) -> None:
    claimed = started(node)
    row = ask(node, claimed)
    bench.do("select coder.allow(%s)", row.id)
    bench.do("select coder.told(%s, %s)", row.id, claimed.epoch)
    node.finish(ending(claimed, "interrupted"))
    bench.do("select coder.resume(%s)", claimed.id)
    again = ask(node, node.claim_one())
    assert (again.id != row.id, again.state) == (True, "requested")


def test_asking_twice_after_a_lost_answer_is_one_row(bench: Bench, node: Node) -> None:
    claimed = started(node)
    assert ask(node, claimed).id == ask(node, claimed).id
    assert ask(node, claimed, request_id="2").id != ask(node, claimed, "other", request_id="1").id


def test_a_task_says_what_it_waits_for(bench: Bench, node: Node) -> None:
    claimed = started(node)
    shown = "select waiting_for, permission_id from coder.show_task(%s)"
    assert bench.one(shown, claimed.id) == (None, None)
    row = ask(node, claimed)
    question(node, claimed, request_id="2")
    assert bench.one(shown, claimed.id) == ("permission", row.id)
    bench.do("select coder.deny(%s)", row.id)
    assert bench.one(shown, claimed.id).waiting_for == "question"
    node.finish(ending(claimed, "interrupted"))
    assert bench.one(shown, claimed.id).waiting_for is None
    assert bench.one(shown, claimed.id).permission_id is not None


def kept(bench: Bench, claimed: Row) -> Row:
    return bench.one("select agent_session_id, status, node_id from agent_sessions where chat_id = %s", claimed.chat_id)


def test_what_an_agent_keeps_follows_its_turns(bench: Bench, node: Node) -> None:
    claimed = started(node)
    node.finish(ending(claimed, agent_used="goose", execution_path="acp", agent_session=KEPT))
    assert kept(bench, claimed) == ("ses_1", "active", node.id)
    again = started(node, session_id=claimed.session_id)
    node.finish(ending(again, agent_used="goose", execution_path="acp", agent_session={}))
    assert kept(bench, claimed) == ("ses_1", "lost", node.id)
    third = started(node, session_id=claimed.session_id)
    node.finish(ending(third, agent_used="goose", execution_path="acp", agent_session=KEPT | {"id": "ses_2"}))
    stale = ending(third, agent_used="goose", execution_path="acp", agent_session={})
    node.finish(stale)
    assert kept(bench, claimed) == ("ses_2", "active", node.id), "a fenced ending changes nothing"
    node.die()
    bench.do("select coder.reap()")
    assert kept(bench, claimed).status == "lost"


def test_another_chat_begins_afresh(bench: Bench, node: Node) -> None:
    first = started(node)
    node.finish(ending(first))
    chat = bench.value("select coder.open_chat(%s)", first.session_id)
    second = started(node, session_id=first.session_id)
    assert second.chat_id == chat != first.chat_id
    node.finish(ending(second))
    bench.do("select coder.close_session(%s)", first.session_id)
    with refused("CD409", "closed"):
        bench.do("select coder.open_chat(%s)", first.session_id)


def test_a_probe_is_asked_for(bench: Bench, node: Node) -> None:
    ear = bench.listen("agents_probe")
    bench.do("insert into hosts (id, name) values (%s, 'without a node')", uuid4())
    assert bench.value("select coder.probe_agents()") == 1
    assert bench.value("select count(probe_requested_at) from hosts") == 2
    assert bench.value("select coder.probe_agents(%s)", node.host) == 1
    assert ear.heard() == ["agents_probe"] * 2


def test_a_native_turn_leaves_nothing_of_all_this(bench: Bench, node: Node) -> None:
    bench.add(bench.value("select id from projects"))
    node.run()
    for table in ("permissions", "permission_rules", "agent_sessions"):
        assert bench.value(f"select count(*) from {table}") == 0
