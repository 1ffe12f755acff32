"""coder watch and coder chat: a turn as it happens, and talking to a session."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coder.cli import lookup
from coder.cli.desk import Desk, desk
from coder.errors import InvalidInput, NotFound

Lines = Annotated[bool, typer.Option("--json", help="Print the frames of docs/wire.md as JSON, one a line.")]
MOST_DIGITS = 18


def watch(
    context: typer.Context,
    watched: Annotated[
        str,
        typer.Argument(metavar="SESSION|TASK", help="A task's id, or a session's or the beginning of it.", show_default=False),
    ],
    json: Lines = False,
) -> None:
    """Watch a task to its end, or a session until Ctrl-C: text, tools, reasoning, and what the agent asks, to be answered here.

    It disturbs nothing, and goes on by itself when the line breaks. Of a task the exit code tells the outcome: 0 completed,
    1 failed, 3 cancelled, 4 interrupted; 130 stopped by Ctrl-C, 6 the service cannot be reached.
    """
    from coder.cli.watching import Watching

    at = desk(context)
    task = _task(at, watched)
    session = task["session_id"] if task else str(lookup.session(at.door, watched))
    raise typer.Exit(Watching(at, session, task=task["id"] if task else None, as_json=json).run())


def _task(at: Desk, watched: str) -> dict[str, Any] | None:
    """The task of this number, if there is one: a session's id may begin with digits as well."""
    if not watched.isdecimal() or not watched.isascii() or len(watched) > MOST_DIGITS:
        return None
    try:
        return at.door.row("task_get", task=int(watched))
    except NotFound:
        try:
            lookup.session(at.door, watched)
        except NotFound:
            raise NotFound(
                f"There is no task {watched}, nor a session whose id begins so; `coder task list` and `coder session list` show them."
            ) from None
        return None


def chat(
    context: typer.Context,
    session: Annotated[
        str | None, typer.Argument(metavar="[SESSION]", help="Its id, or the beginning of it; without it a new one.", show_default=False)
    ] = None,
    project: Annotated[str | None, typer.Option("--project", metavar="NAME", help="Where a new session is opened.")] = None,
    workspace_id: Annotated[str | None, typer.Option("--workspace", metavar="NAME", help="Put a new session into this workspace.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", metavar="NAME", help="Who answers; without it native inference.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="The model; without it the configured one.")] = None,
    json: Lines = False,
) -> None:
    """Talk to a session: each line is a message, the turns it makes are shown, and what the agent asks is answered here.

    Ctrl-C stops the turn that runs, Ctrl-D or another Ctrl-C leaves. Without a terminal the lines of standard input are sent one
    after another; the exit code is then the first outcome that is not "completed": 1 failed, 3 cancelled, 4 interrupted.
    """
    from coder.cli.watching import Watching

    at = desk(context)
    if (session is None) == (project is None):
        raise InvalidInput("Name the SESSION to talk to, or the --project to open a new one in.")
    if session is not None and workspace_id is not None:
        raise InvalidInput("--workspace is for a new session; leave it out, this one has its workspace.")
    known = str(lookup.session(at.door, session)) if session is not None else None
    message = {"project": project, "workspace_id": workspace_id, "agent": agent, "model": model}
    raise typer.Exit(Watching(at, known, message=message, as_json=json).run())
