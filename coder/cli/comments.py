"""coder change comment, coder change send and coder comment: what reviewers say about lines and files of changes."""

from __future__ import annotations

import re
import sys
from typing import Annotated, Any
from uuid import UUID

import typer

from coder.cli import lookup
from coder.cli.changes import ChangeId
from coder.cli.changes import commands as on_changes
from coder.cli.desk import Json, Limit, actor, desk, sound
from coder.cli.screen import put, put_json, table
from coder.comments import CommentState
from coder.errors import InvalidInput

commands = typer.Typer(help="What reviewers say about lines and files of changes.", no_args_is_help=True, rich_markup_mode=None)

CommentId = Annotated[str, typer.Argument(metavar="COMMENT", help="Its id, or the beginning of it.", show_default=False)]
Text = Annotated[str, typer.Argument(metavar="TEXT", help="What you say; - reads standard input.", show_default=False)]
LAST_LINE = 2**31 - 1


@on_changes.command()
def comment(
    context: typer.Context,
    change: ChangeId,
    place: Annotated[
        str,
        typer.Argument(metavar="FILE[:LINE[-LAST]]", help="A file of the change, or lines that its diff shows.", show_default=False),
    ],
    text: Text,
    old: Annotated[bool, typer.Option("--old", help="Lines are numbered as before the change.")] = False,
    json: Json = False,
) -> None:
    """Comment on a change; the comment is a draft until `coder change send`."""
    door = desk(context).door
    row = lookup.change(door, change)
    path, line, last = where(place, {each["path"] for each in row["files"]})
    said = door.row(
        "change_comment",
        change_id=UUID(row["id"]),
        path=path,
        line=line,
        end_line=last,
        side="old" if old else "new",
        body=_text(text),
        actor=actor(),
    )
    if json:
        put_json(said)
    else:
        put(f"Noted on {at(said)}; `coder change send {row['id'][:8]}` sends it with your other drafts.")


def where(place: str, files: set[str]) -> tuple[str, int | None, int | None]:
    """The file and the lines that somebody names; a file whose name itself ends in a number is meant first.

    Raises:
        InvalidInput: a line that no file has.
    """
    found = re.fullmatch(r"(.+):(\d+)(?:-(\d+))?", place, re.DOTALL)
    if place in files or found is None:
        return place, None, None
    line, last = int(found[2]), int(found[3] or found[2])
    if not 0 < line <= last <= LAST_LINE:
        raise InvalidInput(f"{place} names no lines: they count from 1, and the last comes after the first.")
    return found[1], line, last


def at(row: dict[str, Any]) -> str:
    """Where a comment stands, as it was named."""
    if row["line"] is None:
        return str(row["path"])
    lines = str(row["line"]) if row["line"] == row["end_line"] else f"{row['line']}-{row['end_line']}"
    return f"{row['path']}:{lines}" + (" (old)" if row["side"] == "old" else "")


@on_changes.command()
def send(
    context: typer.Context,
    change: ChangeId,
    message: Annotated[str | None, typer.Option(help="Put before the comments.", metavar="TEXT")] = None,
    json: Json = False,
) -> None:
    """Send your draft comments to the agent that made a change, as one task in its session."""
    door = desk(context).door
    row = lookup.change(door, change)
    task = door.row("change_send", change_id=UUID(row["id"]), message=message, actor=actor())
    if json:
        put_json(task)
    else:
        put(f"Sent as task {task['id']}; `coder task wait {task['id']}` waits for its end.")


@commands.command("list")
def list_(
    context: typer.Context,
    change: Annotated[str | None, typer.Option(help="Only those on this change.", metavar="ID")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.", metavar="ID")] = None,
    state: Annotated[str | None, typer.Option(help=f"Comma-separated: {', '.join(CommentState)}.", show_default="draft,open")] = None,
    every: Annotated[bool, typer.Option("--all", help="In every state.")] = False,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List comments that are not resolved, newest first; of drafts only your own."""
    states: list[str] | None = [word.strip() for word in (state or "").split(",") if word.strip()]
    for word in states or ():
        if word not in list(CommentState):
            raise InvalidInput(f"A comment is {', '.join(CommentState)}; {word!r} is none of these.")
    if not states:
        states = None if every else [CommentState.DRAFT.value, CommentState.OPEN.value]
    door = desk(context).door
    rows = door.rows(
        "comment_list",
        states=states,
        change_id=UUID(lookup.change(door, change)["id"]) if change else None,
        session_id=lookup.session(door, session) if session else None,
        actor=actor(),
        limit=limit,
    )
    if json:
        put_json(rows)
        return
    shown = (
        (row["id"][:8], "outdated" if row["outdated"] else row["state"], row["change_id"][:8], row["author"], at(row), row["body"])
        for row in rows
    )
    table(("COMMENT", "STATE", "CHANGE", "BY", "ON", "TEXT"), shown, "no comment is open; --all shows the resolved ones")


@commands.command()
def edit(context: typer.Context, comment: CommentId, text: Text, json: Json = False) -> None:
    """Word a draft anew."""
    row = _act(context, "comment_edit", comment, body=_text(text))
    if json:
        put_json(row)
    else:
        put(f"The draft on {at(row)} reads anew.")


@commands.command()
def delete(context: typer.Context, comment: CommentId, json: Json = False) -> None:
    """Take a draft back."""
    row = _act(context, "comment_delete", comment)
    if json:
        put_json(row)
    else:
        put(f"The draft on {at(row)} is gone.")


@commands.command()
def resolve(
    context: typer.Context,
    comment: CommentId,
    undo: Annotated[bool, typer.Option("--undo", help="It is open again.")] = False,
    json: Json = False,
) -> None:
    """Say that what a comment wants is done."""
    row = _act(context, "comment_resolve", comment, resolved=not undo)
    if json:
        put_json(row)
    else:
        put(f"The comment on {at(row)} is {row['state']}.")


def _act(context: typer.Context, statement: str, comment: str, **how: Any) -> dict[str, Any]:
    door = desk(context).door
    return door.row(statement, comment_id=lookup.comment(door, comment, actor()), actor=actor(), **how)


def _text(given: str) -> str:
    return sound(sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if given == "-" else given, "The text")
