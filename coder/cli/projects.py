"""coder project: the repositories that tasks are about."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import typer

from coder.cli.desk import Desk, Json, Limit, desk, sound
from coder.cli.screen import fields, put, put_json, table
from coder.errors import InvalidInput
from coder.permission import Policy

commands = typer.Typer(help="The repositories that tasks are about.", no_args_is_help=True, rich_markup_mode=None)

Permissions = Annotated[Policy | None, typer.Option(help="What its agents may do without asking.")]
Network = Annotated[Literal["on", "off"] | None, typer.Option(help="Whether its agents may reach the network.")]


@commands.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What tasks call it.", show_default=False)],
    path: Annotated[Path | None, typer.Argument(help="The repository.", show_default="the current directory")] = None,
    permissions: Permissions = None,
    network: Network = None,
    json: Json = False,
) -> None:
    """Add a git repository; it must have a commit."""
    at = desk(context)
    host = None if at.remote else at.house.host_id()
    policy = permissions and permissions.value
    added = at.door.row("project_add", name=name, path=_repository(at, path), host_id=host, permission_policy=policy, network=network)
    project = at.door.row("project_get", project=added["id"])
    if json:
        put_json(project)
    else:
        put(f'Project {project["name"]} is {project["path"]}; queue a task with `coder task add {project["name"]} "…"`.')


@commands.command("set")
def set_(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROJECT", help="Its name or id.", show_default=False)],
    permissions: Permissions = None,
    network: Network = None,
    fallback: Annotated[Literal["native", "fail"] | None, typer.Option(help="When the agent of a task is missing.")] = None,
    copy: Annotated[list[str] | None, typer.Option(metavar="GLOB", help="Ignored files that every fresh worktree gets; several.")] = None,
    setup: Annotated[str | None, typer.Option(metavar="COMMAND", help="Run in every fresh worktree; '' takes it away.")] = None,
    check: Annotated[str | None, typer.Option(metavar="COMMAND", help="Run on what each turn left; '' takes it away.")] = None,
    check_seconds: Annotated[float | None, typer.Option(min=0.001, max=604800, help="How long a check may take.")] = None,
    auto_fix: Annotated[int | None, typer.Option(min=0, max=20, help="How often in a row a failed check is fed back to the agent.")] = None,
    json: Json = False,
) -> None:
    """Change what is given of a project; turns that run go on as they began."""
    asked = {
        "permission_policy": permissions and permissions.value,
        "network": network,
        "agent_fallback": fallback,
        "copy_globs": copy or None,
        "setup_command": setup,
        "check_command": check,
        "check_seconds": check_seconds,
        "auto_fix": auto_fix,
    }
    if all(value is None for value in asked.values()):
        raise InvalidInput(f"Nothing is given to change of project {name}; see `coder project set --help`.")
    door = desk(context).door
    _shown(door.row("project_get", project=door.row("project_set", project=name, **asked)["id"]), json)


@commands.command()
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="PROJECT", help="Its name or id.", show_default=False)],
    json: Json = False,
) -> None:
    """Show a project."""
    _shown(desk(context).door.row("project_get", project=name), json)


def _shown(project: dict[str, Any], json: bool) -> None:
    if json:
        put_json(project)
    else:
        fields(project)


@commands.command("list")
def list_(context: typer.Context, limit: Limit = 200, json: Json = False) -> None:
    """List the projects."""
    rows = desk(context).door.rows("project_list", limit=limit)
    if json:
        put_json(rows)
    else:
        shown = ((row["name"], row["id"], row["path"]) for row in rows)
        table(("NAME", "ID", "PATH"), shown, "there are no projects; `coder project add NAME` adds the one in this directory")


def _repository(at: Desk, given: Path | None) -> str:
    """The root of the checkout that is meant; elsewhere than on this machine it cannot be looked at."""
    if at.remote and urlsplit(at.house.settings().url or "").hostname not in ("127.0.0.1", "localhost", "::1"):
        if given is None or not given.is_absolute():
            raise InvalidInput("The project is on another machine (CODER_URL); name its absolute path there.")
        return str(given)
    from coder.git.checkout import find_checkout

    root = str(find_checkout(os.path.abspath((given or Path()).expanduser()))["path"])
    return sound(root, f"The path {root!r}")
