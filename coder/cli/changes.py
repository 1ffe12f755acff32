"""coder change: what a turn left to decide on."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from uuid import UUID

import typer

from coder.change import OPEN_CHANGE, ChangeState
from coder.checks import CheckState
from coder.cli import lookup
from coder.cli.desk import Json, Limit, desk
from coder.cli.exits import FAILED
from coder.cli.screen import fields, put, put_conflicts, put_diff, put_json, table, visible, when
from coder.errors import InvalidInput

commands = typer.Typer(help="What turns left to decide on.", no_args_is_help=True, rich_markup_mode=None)

ChangeId = Annotated[
    str,
    typer.Argument(metavar="CHANGE", help="Its id, or the session's whose open change is meant; beginnings do.", show_default=False),
]


@commands.command("list")
def list_(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help=f"Comma-separated: {', '.join(ChangeState)}.", show_default="the open ones")] = None,
    every: Annotated[bool, typer.Option("--all", help="In every state.")] = False,
    check: Annotated[str | None, typer.Option(help=f"Of the latest check, comma-separated: {', '.join(CheckState)}.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.", metavar="ID")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List the changes that wait for a decision, newest first."""
    states: list[str] | None = [word.strip() for word in (state or "").split(",") if word.strip()]
    for word in states or ():
        if word not in list(ChangeState):
            raise InvalidInput(f"A change is {', '.join(ChangeState)}; {word!r} is none of these.")
    if not states:
        states = None if every else sorted(state.value for state in OPEN_CHANGE)
    checks = [word.strip() for word in (check or "").split(",") if word.strip()]
    for word in checks:
        if word not in list(CheckState):
            raise InvalidInput(f"A check is {', '.join(CheckState)}; {word!r} is none of these.")
    door = desk(context).door
    session_id = lookup.session(door, session) if session else None
    rows = door.rows("change_list", states=states, checks=checks or None, project=project, session_id=session_id, limit=limit)
    if json:
        put_json(rows)
        return
    shown = (
        (row["id"][:8], row["state"], row["check_state"], row["project"], row["session_id"][:8], f"+{row['additions']} -{row['deletions']}",
         when(row["created_at"]), row["title"])
        for row in rows
    )  # fmt: skip
    table(
        ("CHANGE", "STATE", "CHECK", "PROJECT", "SESSION", "LINES", "MADE", "TITLE"), shown, "no change waits; --all shows those decided on"
    )


@commands.command()
def show(
    context: typer.Context,
    change: ChangeId,
    patch: Annotated[bool, typer.Option("--patch", help="Only the diff's bytes, for `git apply`.")] = False,
    hunks: Annotated[bool, typer.Option("--hunks", help="The diff as numbered parts, each named as `approve --hunk` takes it.")] = False,
    json: Json = False,
) -> None:
    """Show a change: its worktree, its files, its diff."""
    door = desk(context).door
    row = lookup.change(door, change)
    if patch:
        sys.stdout.buffer.write(door.blob("change_diff", change_id=UUID(row["id"])))
        return
    if json:
        put_json(row)
        return
    files = [f"{each['operation']} {visible(each['path'])} {_lines(each)}" for each in row["files"]]
    fields(
        {name: value for name, value in row.items() if name not in ("diff", "conflicts")},
        files="\n".join(files),
        warnings=_listed(row["warnings"]),
    )
    if row["turn_outcome"] != "completed":
        put(f"\nLook twice: the turn that made this was {row['turn_outcome']}.")
    if row["conflicts"]:
        put()
        put_conflicts(row["conflicts"])
    put()
    if hunks:
        _put_hunks(row)
    else:
        put_diff(row["diff"].removesuffix("\n"))


def _put_hunks(change: dict[str, Any]) -> None:
    """Every part of a change under the name by which a decision names it."""
    lines = change["diff"].split("\n")
    for each in change["files"]:
        put(f"{each['path']}  {each['operation']} {_lines(each)}")
        for hunk in each["hunks"]:
            put(f"{each['path']}:{hunk['number']}")
            start = hunk["diff_line"] - 1
            put_diff("\n".join(lines[start : start + hunk["diff_lines"]]))


def _lines(each: dict[str, Any]) -> str:
    lines = "binary" if each["additions"] is None else f"+{each['additions']} -{each['deletions']}"
    return lines + (f" (from {visible(each['old_path'])})" if each["old_path"] else "")


def _listed(sentences: list[str]) -> str:
    return "\n".join(sentences)


@commands.command()
def check(
    context: typer.Context,
    change: ChangeId,
    again: Annotated[bool, typer.Option("--again", help="Queue another run instead.")] = False,
    every: Annotated[bool, typer.Option("--all", help="List all runs instead, the latest first.")] = False,
    json: Json = False,
) -> None:
    """Show how a change's latest check went, with what it printed; exits with 1 when it failed."""
    door = desk(context).door
    change_id = UUID(lookup.change(door, change)["id"])
    if every:
        _put_checks(door.rows("change_checks", change_id=change_id, limit=50), json)
        return
    row = door.row("change_check_again" if again else "change_check", change_id=change_id)
    if json:
        put_json(row)
    elif again:
        put(f"`{row['command']}` is run again on change {row['change_id']}; `coder change check {row['change_id'][:8]}` shows how it went.")
    else:
        fields({name: value for name, value in row.items() if name != "output"})
        put()
        put(row["output"].removesuffix("\n"))
    if row["state"] == CheckState.FAILED:
        raise typer.Exit(FAILED)


def _put_checks(rows: list[dict[str, Any]], json: bool) -> None:
    if json:
        put_json(rows)
        return
    shown = (
        (
            when(row["created_at"]),
            row["state"],
            "" if row["seconds"] is None else f"{row['seconds']:.1f} s",
            row["command"],
            row["detail"] or "",
        )
        for row in rows
    )
    table(("QUEUED", "STATE", "TOOK", "COMMAND", "DETAIL"), shown, "no check was run on this change")
