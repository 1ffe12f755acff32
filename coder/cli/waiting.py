"""Waiting for tasks and decisions: they are asked for again and again, ever more slowly, up to once a second.

Waiting owns nothing: who stops it (Ctrl-C, SIGTERM) leaves what was waited for as it is, unless told otherwise.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Any
from uuid import UUID

import typer

from coder.cli.desk import Desk
from coder.cli.exits import OF_STATE, STOPPED, Waited
from coder.cli.screen import progress
from coder.errors import CoderError, Conflict, Unavailable

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
DECISION_SECONDS = 30.0
PROBE_SECONDS = 60.0
WAITING_FOR = {
    "run_at": "its time has not come",
    "decision": "an earlier task of its session waits for resume, retry or dismiss",
    "host": "no dispatcher runs on its session's host",
    "session": "an earlier task of its session runs",
    "dispatcher": "for a dispatcher with a free slot",
    "permission": "its agent asks for permission, see `coder permission list`",
    "question": "its agent asks a question, see `coder permission list`",
    "provider": "its model's endpoint failed and is asked again, see `coder logs`",
}


def task(desk: Desk, task_id: int, *, seconds: float | None, cancel: bool = False) -> dict[str, Any]:
    """The task once it has ended; what happens meanwhile is told on standard error.

    Args:
        seconds: the longest wait, None for as long as it takes.
        cancel: cancel the task when the waiting is stopped, and wait for its end.

    Raises:
        Waited: it has not ended in that time.
    """
    told = ""

    def ended(row: dict[str, Any]) -> bool:
        nonlocal told
        waits = f" ({WAITING_FOR[row['waiting_for']]})" if row["waiting_for"] in WAITING_FOR else ""
        if (said := f"task {task_id}: {row['state']}{waits}") != told:
            told = said
            progress(said)
        return row["state"] in OF_STATE

    with _stoppable():
        try:
            row = _until(desk, ended, seconds, "task_get", task=task_id)
        except KeyboardInterrupt:
            if not cancel:
                progress(f"task {task_id} goes on; `coder task wait {task_id}` waits for it again")
                raise typer.Exit(STOPPED) from None
            desk.close()  # the interrupt may have hit it in the middle of an answer
            _cancel(desk, task_id)
            row = _until(desk, ended, seconds, "task_get", task=task_id)
    if row["state"] not in OF_STATE:
        raise Waited(f"Task {task_id} is {row['state']} after {seconds:g} s and goes on; `coder task wait {task_id}` waits for it again.")
    for notice in row["notices"]:
        progress(f"task {task_id}: {notice}")
    return row


def _cancel(desk: Desk, task_id: int) -> None:
    progress(f"task {task_id}: cancelling")
    try:
        desk.door.row("task_cancel", task=task_id)
    except Conflict:
        progress(f"task {task_id} had already ended")


def decision(desk: Desk, row: dict[str, Any]) -> dict[str, Any]:
    """The decision once it is done or failed.

    Raises:
        Waited: no node has carried it out in 30 s; it stays stored.
    """
    where = f"`coder decision show {row['id']}` says what becomes of it"
    with _stoppable():
        try:
            row = _until(desk, _settled, DECISION_SECONDS, "decision_get", decision_id=UUID(row["id"]))
        except KeyboardInterrupt:
            progress(f"the decision is stored and will be carried out; {where}")
            raise typer.Exit(STOPPED) from None
    if not _settled(row):
        raise Waited(f"The decision is stored, but no node has carried it out after {DECISION_SECONDS:g} s; {where}.")
    return row


def probed(desk: Desk) -> list[dict[str, Any]]:
    """The agents after the hosts that run looked again.

    Raises:
        Waited: they have not told everything in time; what they find is recorded all the same.
    """
    asked = desk.door.row("agent_probe")
    if not asked["hosts"]:
        raise Unavailable("No dispatcher runs that could look for agents; start one with `coder up`.")
    wanted = datetime.fromisoformat(asked["requested_at"])
    alive = {node["host_id"] for node in desk.door.row("status")["nodes"]}
    deadline, interval = time.monotonic() + PROBE_SECONDS, FIRST_SECONDS
    with _stoppable():
        while True:
            rows = desk.door.rows("agent_list")
            here = [row for row in rows if row["host_id"] in alive]
            if here and all(datetime.fromisoformat(row["probed_at"]) >= wanted for row in here):
                return rows
            if time.monotonic() > deadline:
                raise Waited(f"The hosts have not told of all agents after {PROBE_SECONDS:g} s; `coder agents` shows what they found.")
            time.sleep(interval)
            interval = min(interval * 1.5, LONGEST_SECONDS)


def _settled(row: dict[str, Any]) -> bool:
    return row["state"] in ("done", "failed")


def failure(row: dict[str, Any]) -> CoderError:
    """The error that a failed decision is."""
    outcome = row["outcome"] or "internal"
    error = Conflict(row["error"] or f"The decision failed ({outcome}); read the change again and decide anew.")
    error.facts = row["facts"]
    return error


def _until(desk: Desk, done: Callable[[dict[str, Any]], bool], seconds: float | None, statement: str, **parameters: Any) -> dict[str, Any]:
    """The row once it is done, or as it is when the time is over."""
    deadline = time.monotonic() + (float("inf") if seconds is None else seconds)
    interval = FIRST_SECONDS
    while True:
        row = desk.patiently(statement, **parameters)
        left = deadline - time.monotonic()
        if done(row) or left <= 0:
            return row
        time.sleep(min(interval, left))
        interval = min(interval * 1.5, LONGEST_SECONDS)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM, which ends a CI job, do what Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
