"""What is written twice says the same: settings and .env.example, enums and CHECKs, tables and docs."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import get_args

from coder import operations
from coder.change import OPEN_CHANGE, ChangeState
from coder.checks import CheckState
from coder.config import Settings
from coder.frames import from_wire
from coder.outbox import Told
from coder.permission import PermissionState, Policy
from coder.postgres.listener import CHANNELS
from coder.task import ENDED, TRANSITIONS, ExecutionPath, Outcome, Reason, TaskState
from tests.structure import wire, wire_types
from tests.structure.lifecycle import AGENT_SESSION, CHANGE, CHECK, DECISION, PERMISSION, QUEUE, draw

TOP = Path(__file__).parents[2]
SCHEMA = (TOP / "schema.sql").read_text()


def check(table: str, column: str) -> set[str]:
    """The values that a CHECK (column in (…)) of a table lists, or the domain of that column."""
    domain = re.search(rf"create domain coder\.\w+ as text constraint {table}_{column}_check\s+check \(value in \((.*?)\)\);", SCHEMA, re.S)
    if domain:
        return set(re.findall(r"'(\w+)'", domain[1]))
    body = re.search(rf"create table {table} \((.*?)\n\)", SCHEMA, re.S)
    assert body, table
    listed = re.search(rf"\n    {column} .*?check \({column} in \((.*?)\)", body[1], re.S)
    assert listed, f"{table}.{column}"
    return set(re.findall(r"'(\w+)'", listed[1]))


def test_states_are_the_same_in_code_and_database() -> None:
    assert check("tasks", "state") == set(TaskState)
    assert check("tasks", "reason") == set(Reason)
    assert check("tasks", "execution_path") == set(ExecutionPath)
    assert check("pending_changes", "state") == set(ChangeState)
    assert check("tasks", "answer_state") == {"streaming", *get_args(wire_types.MessageState)}
    assert check("decisions", "state") == {end for _, end, _ in DECISION}
    assert check("checks", "state") == {end for _, end, _ in CHECK} == set(CheckState)
    assert check("session_queue", "state") == {end for _, end, _ in QUEUE}
    assert {end for _, end, _ in CHANGE} == set(ChangeState)
    assert check("permissions", "state") == {end for _, end, _ in PERMISSION} == set(PermissionState)
    assert check("projects", "permission_policy") == set(Policy)
    assert check("agent_sessions", "status") == {end for _, end, _ in AGENT_SESSION}


def test_the_one_open_change_is_the_same_in_code_and_database() -> None:
    index = re.search(r"create unique index pending_changes_one_open .*? where state in \((.*?)\);", SCHEMA)
    assert index
    assert set(re.findall(r"'(\w+)'", index[1])) == OPEN_CHANGE


def test_every_transition_starts_and_ends_in_a_state() -> None:
    assert {outcome for _, outcome in TRANSITIONS} == set(Outcome)
    assert all(state not in (TaskState.COMPLETED, TaskState.CANCELLED) for state, _ in TRANSITIONS), "these two are final"
    reached = {TaskState.PENDING, *TRANSITIONS.values()}
    assert reached == set(TaskState)
    assert TaskState.PENDING not in ENDED
    assert TaskState.RUNNING not in ENDED


def test_the_lifecycles_are_drawn_from_the_tables() -> None:
    assert (TOP / "docs/lifecycle.md").read_text() == draw(), "run python -m tests.structure.lifecycle > docs/lifecycle.md"


def test_the_wire_is_described_from_the_code_with_an_example_of_each_frame() -> None:
    assert wire.complete(), "tests/structure/wire.py has one example of every frame and operation, in their order"
    assert (TOP / "docs/wire.md").read_text() == wire.draw(), "run python -m tests.structure.wire > docs/wire.md"


def test_the_panels_types_of_the_wire_are_those_of_the_code() -> None:
    written = (TOP / "coder/web/panel/src/live/wire.ts").read_text()
    assert written == wire_types.draw(), "run python -m tests.structure.wire_types > coder/web/panel/src/live/wire.ts"
    for shape, example in ((wire_types.StoredMessage, wire.MESSAGE), (wire_types.QueuedMessage, wire.QUEUED)):
        assert list(shape.__annotations__) == list(example)


def test_every_example_of_the_wire_is_what_the_code_reads() -> None:
    for frame in wire.FRAMES:
        assert from_wire(json.loads(Told(frame).numbered(1))) == frame
    for operation in wire.OPERATIONS:
        assert operations.read(operation.model_dump(mode="json")) == operation


def test_the_example_names_every_setting_with_its_default() -> None:
    lines = (TOP / ".env.example").read_text().splitlines()
    shown: dict[str, tuple[str, str]] = {}
    for before, line in pairwise(lines):
        if match := re.fullmatch(r"CODER_(\w+)=(.*)", line):
            assert before.startswith("# "), f"{line} is not explained"
            shown[match[1].lower()] = (match[2], before.removeprefix("# "))
    assert list(shown) == list(Settings.model_fields)
    for field, described in Settings.model_fields.items():
        value, sentence = shown[field]
        default = described.default
        assert value == ("" if default is None else f"{default:g}" if isinstance(default, float) else str(default)), field
        assert sentence.split(" ")[:3] == (described.description or "").split(" ")[:3], field


def test_the_sql_contract_names_what_people_may_use() -> None:
    page = (TOP / "docs/sql.md").read_text()
    functions = ("enqueue", "cancel", "retry", "resume", "dismiss", "approve", "reject", "close_session", "reopen_session", "open_chat",
                 "check", "comment", "edit_comment", "delete_comment", "send", "resolve",
                 "allow", "deny", "answer", "add_rule", "probe_agents", "add_token", "revoke_token",
                 "set_title", "set_cwd", "add_workspace", "delete_workspace",
                 "find_sessions", "queue_message", "edit_queued", "remove_queued", "send_queued_now", "move_queued", "set_priority",
                 "stats", "compact", "set_warming",
                 "set_warming_interval")  # fmt: skip
    for function in functions:
        assert f"create function coder.{function}(" in SCHEMA
        assert f"coder.{function}(" in page
    for code in set(re.findall(r"'(CD\d{3})'", SCHEMA)):
        assert code in page
    for channel in CHANNELS:
        assert channel in page
