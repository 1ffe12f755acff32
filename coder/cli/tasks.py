"""coder task and coder run: what is to be done, and what became of it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

import typer

from coder.cli import lookup, waiting
from coder.cli.desk import Desk, Json, Limit, TaskId, actor, desk, from_stdin
from coder.cli.exits import OF_STATE
from coder.cli.screen import fields, progress, put, put_json, table
from coder.errors import InvalidInput
from coder.task import TaskState

commands = typer.Typer(help="What is to be done, and what became of it.", no_args_is_help=True, rich_markup_mode=None)

ENDS = "Exit code: 0 completed, 1 failed, 3 cancelled, 4 interrupted, 5 waited long enough, 6 service not reachable."


LONGEST_SECONDS = 10 * 365 * 24 * 3600


def seconds(given: str) -> float:
    """An option that is a number of seconds."""
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 < number <= LONGEST_SECONDS:
        raise typer.BadParameter(f"{given!r} is not a number of seconds between 0 and {LONGEST_SECONDS}.")
    return number


Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Its name or id.", show_default=False)]
Input = Annotated[str, typer.Argument(metavar="INPUT", help="What to do; - reads it from standard input.", show_default=False)]
SessionOption = Annotated[
    str | None,
    typer.Option("--session", metavar="ID", help="Go on with this session (its id or the beginning of it) instead of opening one."),
]
Chat = Annotated[UUID | None, typer.Option("--chat", metavar="ID", help="Of the session, the chat to go on with.")]
Workspace = Annotated[str | None, typer.Option("--workspace", metavar="NAME", help="Put a new session into this workspace.")]
Agent = Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Who does it; without it native inference.")]
Model = Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model; without it the configured one.")]
Mode = Annotated[str | None, typer.Option("--mode", metavar="ID", help="The agent's mode.")]
Thinking = Annotated[str | None, typer.Option("--thinking", metavar="ID", help="The agent's thinking option.")]
Priority = Annotated[int | None, typer.Option("--priority", min=-32768, max=32767, help="Among sessions, higher first.")]
RunAt = Annotated[
    str | None, typer.Option("--run-at", metavar="TIME", help="Not before this time, like 2026-03-01T09:30 (local) or with an offset.")
]
Key = Annotated[str | None, typer.Option("--key", metavar="KEY", help="Idempotency key: the same command again answers the same task.")]
Attempts = Annotated[
    int | None, typer.Option("--max-attempts", min=1, max=100, help="How often it may be started when dispatchers die under it.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        parser=seconds,
        metavar="SECONDS",
        help="End the turn after so many seconds, waits for a person not counted.",
    ),
]
Label = Annotated[list[str] | None, typer.Option("--label", metavar="LABEL", help="A label; may be given several times.")]
Wait = Annotated[float | None, typer.Option("--wait", parser=seconds, metavar="SECONDS", help="Wait at most so many seconds.")]


def _queue(at: Desk, asked: dict[str, Any]) -> dict[str, Any]:
    """Queue what the options of a command describe; answers the task."""
    parameters = {name: value for name, value in asked.items() if value is not None}
    parameters["input"] = from_stdin(asked["input"])
    if asked["run_at"] is not None:
        parameters["run_at"] = _moment(asked["run_at"])
    if asked["timeout"] is not None:
        parameters["timeout"] = timedelta(seconds=asked["timeout"])
    if asked["session_id"] is not None:
        parameters["session_id"] = lookup.session(at.door, asked["session_id"])
    return at.door.row("task_add", actor=actor(), **parameters)


def _moment(given: str) -> datetime:
    try:
        moment = datetime.fromisoformat(given)
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        raise InvalidInput(f"{given!r} is not a time; write one like 2026-03-01T09:30.") from None


@commands.command()
def add(
    context: typer.Context,
    project: Project,
    input: Input,
    session_id: SessionOption = None,
    chat_id: Chat = None,
    workspace_id: Workspace = None,
    agent: Agent = None,
    model: Model = None,
    mode_id: Mode = None,
    thinking_option_id: Thinking = None,
    priority: Priority = None,
    run_at: RunAt = None,
    idempotency_key: Key = None,
    max_attempts: Attempts = None,
    timeout: Timeout = None,
    labels: Label = None,
    json: Json = False,
) -> None:
    """Queue a task."""
    asked = {name: value for name, value in locals().items() if name not in ("context", "json")}
    row = _queue(desk(context), asked)
    if json:
        put_json(row)
    elif row["existed"]:
        put(f"Task {row['id']} was queued before under this key; it is {row['state']}.")
    else:
        put(f"Task {row['id']} is queued in session {row['session_id']}; `coder task wait {row['id']}` waits for its end.")


def run(
    context: typer.Context,
    project: Project,
    input: Input,
    session_id: SessionOption = None,
    chat_id: Chat = None,
    workspace_id: Workspace = None,
    agent: Agent = None,
    model: Model = None,
    mode_id: Mode = None,
    thinking_option_id: Thinking = None,
    priority: Priority = None,
    run_at: RunAt = None,
    idempotency_key: Key = None,
    max_attempts: Attempts = None,
    timeout: Timeout = None,
    labels: Label = None,
    wait: Wait = None,
    cancel_on_interrupt: Annotated[bool, typer.Option("--cancel-on-interrupt", help="Ctrl-C and SIGTERM cancel the task.")] = False,
    json: Annotated[bool, typer.Option("--json", hidden=True)] = True,
) -> None:
    asked = {name: value for name, value in locals().items() if name not in ("context", "json", "wait", "cancel_on_interrupt")}
    at = desk(context)
    task_id = _queue(at, asked)["id"]
    row = waiting.task(at, task_id, seconds=wait, cancel=cancel_on_interrupt)
    put_json(row)
    raise typer.Exit(OF_STATE[row["state"]])


run.__doc__ = f"Queue a task and wait for its end: the result as JSON on standard output, what happens on standard error. {ENDS}"


@commands.command("list")
def list_(
    context: typer.Context,
    state: Annotated[TaskState | None, typer.Option(help="Only in this state.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.", metavar="ID")] = None,
    label: Annotated[str | None, typer.Option(help="Only with this label.", metavar="LABEL")] = None,
    agent: Annotated[str | None, typer.Option(help="Only of this agent.", metavar="NAME")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the tasks, newest first."""
    door = desk(context).door
    session_id = lookup.session(door, session) if session else None
    where = {"state": state and state.value, "project": project, "session_id": session_id, "label": label, "agent": agent}
    rows = door.rows("task_list", **where, limit=limit)
    if json:
        put_json(rows)
        return
    shown = ((row["id"], row["state"], row["project"], row["session_id"][:8], row["agent"] or "native", row["input"]) for row in rows)
    table(
        ("TASK", "STATE", "PROJECT", "SESSION", "AGENT", "INPUT"), shown, 'there are no such tasks; `coder task add PROJECT "…"` queues one'
    )


@commands.command()
def show(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """Show a task."""
    row = desk(context).door.row("task_get", task=task)
    if json:
        put_json(row)
    else:
        fields(row)


@commands.command(context_settings={"ignore_unknown_options": True})  # a number may begin with a minus
def priority(
    context: typer.Context,
    task: TaskId,
    priority: Annotated[int, typer.Argument(metavar="NUMBER", min=-32768, max=32767, help="Among sessions, higher first.")],
    json: Json = False,
) -> None:
    """Let a task that waits run sooner or later than those of other sessions."""
    row = desk(context).door.row("task_priority", task=task, priority=priority)
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} has priority {row['priority']}.")


def _act(context: typer.Context, statement: str, task: int, json: bool) -> None:
    """An action on a task, and the task it is about or made."""
    door = desk(context).door
    row = door.row("task_get", task=door.row(statement, task=task)["id"])
    if json:
        put_json(row)
    elif row["id"] == task:
        asked = row["state"] == TaskState.RUNNING and row["cancel_requested_at"]
        put(f"Task {task} is {row['state']}{', and is being stopped' if asked else ''}.")
    else:
        put(f"Task {row['id']} is queued at the head of session {row['session_id']}.")


@commands.command()
def cancel(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """Cancel a task that waits or runs."""
    _act(context, "task_cancel", task, json)


@commands.command("retry-now")
def retry_now(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """Send the request of a task that waits for its model's endpoint again now."""
    _act(context, "task_retry_now", task, json)


@commands.command()
def retry(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """Run an interrupted, failed or cancelled task again, as a new one."""
    _act(context, "task_retry", task, json)


@commands.command()
def resume(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """Let the agent go on with an interrupted task, as a new one."""
    _act(context, "task_resume", task, json)


@commands.command()
def dismiss(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """Let the session go on without its interrupted or failed task."""
    _act(context, "task_dismiss", task, json)


def wait_(context: typer.Context, task: TaskId, wait: Wait = None, json: Json = False) -> None:
    row = waiting.task(desk(context), task, seconds=wait)
    if json:
        put_json(row)
    elif row["error"]:
        progress(f"task {task}: {row['error']}")
    elif row["output_summary"]:
        put(row["output_summary"])
    raise typer.Exit(OF_STATE[row["state"]])


wait_.__doc__ = f"Wait for the end of a task. {ENDS}"
commands.command("wait")(wait_)
