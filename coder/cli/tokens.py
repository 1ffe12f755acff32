"""coder token: what lets programs and browsers in over HTTP."""

from __future__ import annotations

from typing import Annotated

import typer

from coder.cli.desk import Json, desk
from coder.cli.screen import put, put_json, table, when

commands = typer.Typer(help="What lets programs and browsers in over HTTP.", no_args_is_help=True, rich_markup_mode=None)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What its decisions are signed with.", show_default=False)]


@commands.command("list")
def list_(context: typer.Context, json: Json = False) -> None:
    """List the tokens; what they are is known to nobody but who made them."""
    rows = desk(context).door.rows("token_list")
    if json:
        put_json(rows)
        return
    shown = ((row["name"], when(row["created_at"]), row["browsers"], when(row["revoked_at"]) if row["revoked_at"] else "") for row in rows)
    table(("TOKEN", "SINCE", "BROWSERS", "REVOKED"), shown, "there are no tokens; `coder token add NAME` makes one")


@commands.command()
def add(context: typer.Context, name: Name, json: Json = False) -> None:
    """Make a token and print it, this once. One that was revoked is made anew."""
    row = desk(context).door.row("token_new", name=name)
    if json:
        put_json(row)
    else:
        put(row["token"])


@commands.command()
def revoke(context: typer.Context, name: Name, json: Json = False) -> None:
    """Let a token in no more, nor the browsers that act for it."""
    row = desk(context).door.row("token_revoke", name=name)
    if json:
        put_json(row)
    else:
        put(f"Token {row['name']} is revoked; a service that runs refuses it within 3 s. `coder token add {row['name']}` makes it anew.")
