"""Waiting for tasks and decisions: they are asked for again and again, ever more slowly, up to once a second.

Waiting owns nothing: who stops it (Ctrl-C, SIGTERM) leaves what was waited for as it is, unless told otherwise.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from uuid import UUID

import typer

from coder.cli.desk import Desk
from coder.cli.exits import OF_STATE, STOPPED, Waited
from coder.cli.screen import progress
from coder.errors import CoderError, Conflict

FIRST_SECONDS = 0.05
LONGEST_SECONDS = 1.0
DECISION_SECONDS = 30.0
WAITING_FOR = {
    "run_at": "its time has not come",
    "decision": "an earlier task of its session waits for resume, retry or dismiss",
    "host": "no dispatcher runs on its session's host",
    "session": "an earlier task of its session runs",
    "dispatcher": "for a dispatcher with a free slot",
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
            return _until(desk, ended, seconds, f"Task {task_id} has not ended", "task_get", task=task_id)
        except KeyboardInterrupt:
            if not cancel:
                progress(f"task {task_id} goes on; `coder task wait {task_id}` waits for it again")
                raise typer.Exit(STOPPED) from None
        desk.close()  # the interrupt may have hit it in the middle of an answer
        progress(f"task {task_id}: cancelling")
        try:
            desk.door.row("task_cancel", task=task_id)
        except Conflict:
            progress(f"task {task_id} has already ended")
        return _until(desk, ended, seconds, f"Task {task_id} was cancelled but has not ended", "task_get", task=task_id)


def decision(desk: Desk, row: dict[str, Any]) -> dict[str, Any]:
    """The decision once it is done or failed.

    Raises:
        Waited: no node has carried it out in 30 s; it stays stored.
    """
    if row["state"] in ("done", "failed"):
        return row
    with _stoppable():
        try:
            return _until(
                desk,
                lambda now: now["state"] in ("done", "failed"),
                DECISION_SECONDS,
                f"Decision {row['id']} is stored, but no node has carried it out yet; `coder decision show {row['id']}` says what becomes of it."
                " This was",
                "decision_get",
                decision_id=UUID(row["id"]),
            )
        except KeyboardInterrupt:
            progress(f"the decision is stored and will be carried out; `coder decision show {row['id']}` says what becomes of it")
            raise typer.Exit(STOPPED) from None


def failure(row: dict[str, Any]) -> CoderError:
    """The error that a failed decision is."""
    outcome = row["outcome"] or "internal"
    error = Conflict(row["error"] or f"The decision failed ({outcome}); read the change again and decide anew.")
    error.facts = row["facts"]
    return error


def _until(
    desk: Desk, done: Callable[[dict[str, Any]], bool], seconds: float | None, unfinished: str, statement: str, **parameters: Any
) -> dict[str, Any]:
    deadline = None if seconds is None else time.monotonic() + seconds
    interval = FIRST_SECONDS
    while True:
        row = desk.patiently(statement, **parameters)
        if done(row):
            return row
        left = interval if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise Waited(f"{unfinished} after {seconds:g} s; it is {row['state']} and goes on.")
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
