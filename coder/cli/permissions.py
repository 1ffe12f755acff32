"""coder permission and coder rule: what agents ask, and what they need not ask any more."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import typer

from coder.cli import lookup
from coder.cli.desk import Json, Limit, actor, desk
from coder.cli.screen import fields, put, put_json, table, when
from coder.errors import InvalidInput
from coder.permission import PermissionState, Scope

commands = typer.Typer(help="What agents ask to be allowed, and what they ask you.", no_args_is_help=True, rich_markup_mode=None)
rules = typer.Typer(help="What agents may do without asking.", no_args_is_help=True, rich_markup_mode=None)

PermissionId = Annotated[str, typer.Argument(metavar="PERMISSION", help="Its id, or the beginning of it.", show_default=False)]
Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Its name or id.", show_default=False)]


@commands.command("list")
def list_(
    context: typer.Context,
    state: Annotated[str | None, typer.Option(help=f"Comma-separated: {', '.join(PermissionState)}.", show_default="requested")] = None,
    every: Annotated[bool, typer.Option("--all", help="In every state.")] = False,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.", metavar="ID")] = None,
    task: Annotated[int | None, typer.Option(help="Only of this task.", metavar="ID", min=1, max=2**63 - 1)] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List what waits for an answer, newest first."""
    states: list[str] | None = [word.strip() for word in (state or "").split(",") if word.strip()]
    for word in states or ():
        if word not in list(PermissionState):
            raise InvalidInput(f"A permission is {', '.join(PermissionState)}; {word!r} is none of these.")
    if not states:
        states = None if every else [PermissionState.REQUESTED.value]
    door = desk(context).door
    session_id = lookup.session(door, session) if session else None
    rows = door.rows("permission_list", states=states, project=project, session_id=session_id, task=task, limit=limit)
    if json:
        put_json(rows)
        return
    shown = (
        (row["id"][:8], row["state"], row["task_id"], row["agent"], row["tool"] or "question", when(row["deadline"]), row["title"])
        for row in rows
    )
    table(("PERMISSION", "STATE", "TASK", "AGENT", "TOOL", "DEADLINE", "ASKED FOR"), shown, "nothing waits; --all shows what was answered")


@commands.command()
def show(context: typer.Context, permission: PermissionId, json: Json = False) -> None:
    """Show what an agent asks: the exact command, path or address, and its arguments."""
    door = desk(context).door
    row = door.row("permission_get", permission_id=lookup.permission(door, permission))
    if json:
        put_json(row)
        return
    choices = [f"{each['label']}{': ' + each['description'] if each['description'] else ''}" for each in row["choices"]]
    fields(row, choices="\n".join(choices))


@commands.command()
def allow(
    context: typer.Context,
    permission: PermissionId,
    scope: Annotated[Scope, typer.Option(help="This once, or from now on in its session or its project.")] = Scope.ONCE,
    pattern: Annotated[
        str | None, typer.Option(help="What is allowed from now on, with * and ?; without it exactly this.", metavar="PATTERN")
    ] = None,
    json: Json = False,
) -> None:
    """Allow what an agent asks for."""
    row = _act(context, "permission_allow", permission, json, scope=scope.value, pattern=pattern)
    if row:
        where = {Scope.ONCE: "this once", Scope.SESSION: "from now on in its session", Scope.PROJECT: f"from now on in {row['project']}"}
        put(f"{row['title']} is allowed {where[scope]}{f', and whatever fits {pattern}' if pattern else ''}.")


@commands.command()
def deny(
    context: typer.Context,
    permission: PermissionId,
    message: Annotated[str | None, typer.Option(help="Told to the agent.", metavar="TEXT")] = None,
    json: Json = False,
) -> None:
    """Refuse what an agent asks for, or to answer its question."""
    row = _act(context, "permission_deny", permission, json, message=message)
    if row:
        put(f"{row['title']} is denied; the agent goes on without it.")


@commands.command()
def answer(
    context: typer.Context,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="Its id, or the beginning of it.", show_default=False)],
    answers: Annotated[list[str], typer.Argument(metavar="ANSWER...", help="A choice of the question, or your words.", show_default=False)],
    json: Json = False,
) -> None:
    """Answer an agent's question."""
    row = _act(context, "permission_answer", question, json, answers=answers)
    if row:
        put(f"Answered: {', '.join(row['answers'])}.")


def _act(context: typer.Context, statement: str, permission: str, json: bool, **how: Any) -> dict[str, Any] | None:
    """Answer a request; its row, unless it was printed as JSON."""
    door = desk(context).door
    row = door.row(statement, permission_id=lookup.permission(door, permission), actor=actor(), **how)
    if json:
        put_json(row)
        return None
    return row


@rules.command("list")
def list_rules(context: typer.Context, project: Project, limit: Limit = 200, json: Json = False) -> None:
    """List what agents may do without asking, oldest first."""
    rows = desk(context).door.rows("rule_list", project=project, limit=limit)
    if json:
        put_json(rows)
        return
    shown = ((row["id"][:8], (row["session_id"] or "all")[:8], row["tool"], row["actor"], row["pattern"]) for row in rows)
    table(("RULE", "SESSION", "TOOL", "BY", "PATTERN"), shown, "there are no rules; `coder permission allow --scope project` makes one")


@rules.command("add")
def add_rule(
    context: typer.Context,
    project: Project,
    tool: Annotated[str, typer.Argument(metavar="TOOL", help="The agent's tool; * = any.", show_default=False)],
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Of what it asks for, with * and ?.", show_default=False)],
    session: Annotated[str | None, typer.Option(help="Only in this session.", metavar="ID")] = None,
    json: Json = False,
) -> None:
    """Let agents use a tool without asking."""
    door = desk(context).door
    session_id: UUID | None = lookup.session(door, session) if session else None
    row = door.row("rule_add", project=project, tool=tool, pattern=pattern, session_id=session_id, actor=actor())
    if json:
        put_json(row)
    else:
        put(f"Agents may use {tool} for {pattern} without asking; `coder rule revoke {project} {row['id'][:8]}` takes that back.")


@rules.command()
def revoke(
    context: typer.Context,
    project: Project,
    rule: Annotated[str, typer.Argument(metavar="RULE", help="Its id, or the beginning of it.", show_default=False)],
    json: Json = False,
) -> None:
    """Have agents ask again."""
    door = desk(context).door
    row = door.row("rule_delete", rule_id=lookup.rule(door, project, rule), project=project)
    if json:
        put_json(row)
    else:
        put(f"Agents ask again before they use {row['tool']} for {row['pattern']}.")
