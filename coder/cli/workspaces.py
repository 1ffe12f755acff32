"""coder workspace: named groups of sessions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coder.cli.desk import Json, Limit, desk
from coder.cli.screen import fields, put, put_json, table, when
from coder.errors import InvalidInput

commands = typer.Typer(help="Named groups of sessions.", no_args_is_help=True, rich_markup_mode=None)

WorkspaceId = Annotated[str, typer.Argument(metavar="WORKSPACE", help="1 to 40 of a-z, 0-9 and -, not at the ends.", show_default=False)]


def _shown(row: dict[str, Any], json: bool) -> None:
    if json:
        put_json(row)
    else:
        fields(row)


@commands.command("list")
def list_(context: typer.Context, limit: Limit = 50, json: Json = False) -> None:
    """List the workspaces, last active first."""
    rows = desk(context).door.rows("workspace_list", limit=limit)
    if json:
        put_json(rows)
        return
    shown = ((row["id"], row["session_count"], when(row["last_activity_at"]), row["title"]) for row in rows)
    table(("WORKSPACE", "SESSIONS", "ACTIVE", "TITLE"), shown, "there are no workspaces")


@commands.command()
def add(context: typer.Context, workspace: WorkspaceId, json: Json = False) -> None:
    """Make a workspace unless it is there; a task that names it does so as well."""
    row = desk(context).door.row("workspace_add", workspace_id=workspace)
    row.pop("made", None)
    _shown(row, json)


@commands.command()
def show(context: typer.Context, workspace: WorkspaceId, json: Json = False) -> None:
    """Show a workspace."""
    _shown(desk(context).door.row("workspace_get", workspace_id=workspace), json)


@commands.command()
def title(
    context: typer.Context,
    workspace: WorkspaceId,
    title: Annotated[str, typer.Argument(metavar="TITLE", help="At most 200 characters.", show_default=False)],
    json: Json = False,
) -> None:
    """Name a workspace."""
    _shown(desk(context).door.row("workspace_title", workspace_id=workspace, title=title), json)


@commands.command()
def cwd(
    context: typer.Context,
    workspace: WorkspaceId,
    directory: Annotated[str | None, typer.Argument(metavar="PATH", help="An absolute directory.", show_default=False)] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Back to the root of each session's project.")] = False,
    json: Json = False,
) -> None:
    """Let turns of its sessions start in a directory, in projects that it is inside of."""
    if clear == (directory is not None):
        raise InvalidInput("Give a directory or --clear.")
    _shown(desk(context).door.row("workspace_default_cwd", workspace_id=workspace, cwd=directory), json)


@commands.command()
def delete(context: typer.Context, workspace: WorkspaceId, json: Json = False) -> None:
    """Delete a workspace: its sessions are closed and moved to `default`."""
    row = desk(context).door.row("workspace_delete", workspace_id=workspace)
    if json:
        put_json(row)
    else:
        put(f"Workspace {row['id']} is deleted; {row['closed_count']} of its sessions were open and are closed, all are in default now.")
