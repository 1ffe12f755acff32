"""coder session: conversations with an agent, each in a worktree of its own."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from coder.cli import lookup
from coder.cli.desk import Json, Limit, TaskId, actor, desk, from_stdin
from coder.cli.screen import fields, put, put_json, table, when
from coder.errors import InvalidInput

commands = typer.Typer(help="Conversations with an agent, each in a worktree of its own.", no_args_is_help=True, rich_markup_mode=None)

STATUSES = ("active", "idle", "closed")
SessionId = Annotated[str, typer.Argument(metavar="SESSION", help="Its id, or the beginning of it.", show_default=False)]


@commands.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Comma-separated: active, idle, closed.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
    workspace: Annotated[str | None, typer.Option(help="Only of this workspace.", metavar="NAME")] = None,
    cwd: Annotated[str | None, typer.Option(help="Only those that work in this directory.", metavar="PATH")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the sessions, last active first."""
    statuses = [word.strip() for word in (status or "").split(",") if word.strip()]
    if odd := [word for word in statuses if word not in STATUSES]:
        raise InvalidInput(f"A session is {', '.join(STATUSES)}; {odd[0]!r} is none of these.")
    where = {"statuses": statuses or None, "project": project, "workspace_id": workspace, "cwd": cwd and os.path.abspath(cwd)}
    rows = desk(context).door.rows("session_list", **where, limit=limit)
    if json:
        put_json(rows)
        return
    shown = (
        (row["id"][:8], row["status"], row["project"], row["pending_tasks"], when(row["last_activity_at"]), row["title"]) for row in rows
    )
    table(("SESSION", "STATUS", "PROJECT", "WAITING", "ACTIVE", "TITLE"), shown, "there are no such sessions; a task opens one")


@commands.command()
def show(
    context: typer.Context,
    session: SessionId,
    messages: Annotated[bool, typer.Option("--messages", help="Also what was said.")] = False,
    json: Json = False,
) -> None:
    """Show a session; with --messages also what was said in it."""
    door = desk(context).door
    session_id = lookup.session(door, session)
    row = door.row("session_get", session_id=session_id)
    said = door.rows("message_list", session_id=session_id, limit=10_000) if messages else []
    if json:
        put_json(row | ({"messages": said} if messages else {}))
        return
    fields(row)
    for message in said:
        put(f"\n{message['role']}, {when(message['created_at'])}{'' if message['state'] == 'complete' else ', ' + message['state']}")
        put(message["text"])


@commands.command()
def title(
    context: typer.Context,
    session: SessionId,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="At most 200 characters.", show_default=False)],
    json: Json = False,
) -> None:
    """Name a session."""
    door = desk(context).door
    row = door.row("session_title", session_id=lookup.session(door, session), title=title)
    if json:
        put_json(row)
    else:
        put(f"Session {row['id']} is called {row['title']!r}.")


@commands.command()
def cwd(
    context: typer.Context,
    session: SessionId,
    directory: Annotated[
        str | None, typer.Argument(metavar="PATH", help="Inside the project; a relative one starts at its root.", show_default=False)
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Back to the directory of its workspace or project.")] = False,
    json: Json = False,
) -> None:
    """Show where a session's turns start, or let them start in another directory."""
    if clear and directory is not None:
        raise InvalidInput("Give a directory or --clear, not both.")
    door = desk(context).door
    session_id = lookup.session(door, session)
    if directory is not None:
        row = door.row("session_set_cwd", session_id=session_id, cwd=directory)
    else:
        row = door.row("session_clear_cwd" if clear else "session_cwd", session_id=session_id)
    if json:
        put_json(row)
    else:
        put(f"Turns start in {row['effective']}{'' if row['explicit'] else ', as its workspace or project says'}.")


@commands.command()
def send(
    context: typer.Context,
    session: SessionId,
    input: Annotated[str, typer.Argument(metavar="INPUT", help="What to do; - reads it from standard input.", show_default=False)],
    interrupt: Annotated[bool, typer.Option("--interrupt", help="Cancel the turn that runs, and go to the head.")] = False,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Who does it; without it native inference.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model; without it the configured one.")] = None,
    idempotency_key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="Idempotency key.")] = None,
    json: Json = False,
) -> None:
    """Queue a message in a session; a closed one is opened again."""
    door = desk(context).door
    asked = {"input": from_stdin(input), "interrupt": interrupt or None, "agent": agent, "model": model, "idempotency_key": idempotency_key}
    row = door.row("queue_add", session_id=lookup.session(door, session), actor=actor(), **asked)
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} is {'at the head of' if interrupt else 'queued in'} session {row['session_id']}.")


@commands.command()
def queue(context: typer.Context, session: SessionId, limit: Limit = 50, json: Json = False) -> None:
    """List what waits in a session, in the order in which it will run."""
    door = desk(context).door
    rows = door.rows("queue_list", session_id=lookup.session(door, session), limit=limit)
    if json:
        put_json(rows)
        return
    shown = ((row["id"], row["waiting_for"], row["agent"] or "native", row["input"]) for row in rows)
    table(
        ("TASK", "WAITS FOR", "AGENT", "INPUT"), shown, 'nothing waits in this session; `coder session send SESSION "…"` queues something'
    )


@commands.command()
def edit(
    context: typer.Context,
    session: SessionId,
    task: TaskId,
    input: Annotated[str, typer.Argument(metavar="INPUT", help="What to do instead; - reads it from standard input.", show_default=False)],
    json: Json = False,
) -> None:
    """Change a message that still waits in a session."""
    door = desk(context).door
    row = door.row("queue_edit", session_id=lookup.session(door, session), task=task, input=from_stdin(input))
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} says something else now.")


@commands.command()
def now(context: typer.Context, session: SessionId, task: TaskId, json: Json = False) -> None:
    """Do not let a message wait any longer: it goes to the head, and the turn that runs is cancelled."""
    door = desk(context).door
    row = door.row("queue_now", session_id=lookup.session(door, session), task=task)
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} is at the head of session {row['session_id']}.")


@commands.command()
def remove(context: typer.Context, session: SessionId, task: TaskId, json: Json = False) -> None:
    """Take back a message that still waits in a session."""
    door = desk(context).door
    row = door.row("queue_remove", session_id=lookup.session(door, session), task=task)
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} is {row['state']}.")


@commands.command()
def move(
    context: typer.Context,
    session: SessionId,
    task: TaskId,
    before: Annotated[int | None, typer.Option(metavar="TASK", min=1, help="The one to run it before; without it, behind all.")] = None,
    json: Json = False,
) -> None:
    """Let a message that waits in a session run before another, or behind all of them."""
    door = desk(context).door
    row = door.row("queue_move", session_id=lookup.session(door, session), task=task, before=before)
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} runs {f'before task {before}' if before else 'behind what waits in its session'}.")


@commands.command()
def compact(context: typer.Context, session: SessionId, json: Json = False) -> None:
    """Have a session's native conversation summarised; it goes on in a new chat from the summary."""
    door = desk(context).door
    row = door.row("session_compact", session_id=lookup.session(door, session))
    if json:
        put_json(row)
    else:
        put(f"Task {row['id']} will summarise session {row['session_id']}; what is said after it goes on from the summary.")


@commands.command()
def chat(context: typer.Context, session: SessionId, json: Json = False) -> None:
    """Begin a fresh context in a session: its next tasks go there, in the same worktree."""
    door = desk(context).door
    session_id = lookup.session(door, session)
    row = door.row("session_chat", session_id=session_id)
    if json:
        put_json(row)
    else:
        put(f"Session {session_id} goes on in chat {row['id']}, which knows nothing of what was said before.")


@commands.command()
def close(context: typer.Context, session: SessionId, json: Json = False) -> None:
    """Close a session: what waits in it is cancelled, what runs is stopped."""
    _act(context, "session_close", session, json)


@commands.command()
def reopen(context: typer.Context, session: SessionId, json: Json = False) -> None:
    """Open a closed session again."""
    _act(context, "session_reopen", session, json)


def _act(context: typer.Context, statement: str, session: str, json: bool) -> None:
    door = desk(context).door
    session_id = lookup.session(door, session)
    door.row(statement, session_id=session_id)
    row = door.row("session_get", session_id=session_id)
    if json:
        put_json(row)
    else:
        put(f"Session {session_id} is {row['status']}.")
