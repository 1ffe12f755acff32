"""coder up, down, status, doctor and the like: the service itself, and the database below it."""

from __future__ import annotations

import os
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import typer

from coder.cli import waiting
from coder.cli.desk import Json, TaskId, desk
from coder.cli.exits import FAILED
from coder.cli.screen import put, put_json, table, visible, when
from coder.errors import InvalidInput, Unavailable

database = typer.Typer(help="The database below.", no_args_is_help=True, rich_markup_mode=None)


def up(
    context: typer.Context,
    role: Annotated[Literal["all", "api", "dispatch"], typer.Option(help="Both the API and a dispatcher, or one of them.")] = "all",
    demo: Annotated[bool, typer.Option("--demo", help="With a project and a scripted model to try it with.")] = False,
) -> None:
    """Run coder until it is stopped: the database where none is given, the API, a dispatcher."""
    raise typer.Exit(desk(context).house.up(role, demo))


def down(context: typer.Context, json: Json = False) -> None:
    """Stop the coder that runs here; turns get their time to finish."""
    _said(desk(context).house.down(), json)


def login(context: typer.Context, json: Json = False) -> None:
    """Print a link that lets a browser into the panel; it works once, within an hour."""
    at = desk(context)
    at.only_here("A link for a browser")
    link = at.house.login()
    if json:
        put_json({"link": link})
    else:
        put(link)


def migrate(context: typer.Context, json: Json = False) -> None:
    """Bring the database's schema up to date; `coder up` does it by itself."""
    _said(desk(context).house.migrate(), json)


def _said(sentence: str, json: bool) -> None:
    if json:
        put_json({"done": sentence})
    else:
        put(sentence)


def status(context: typer.Context, json: Json = False) -> None:
    """How much waits and runs, and which dispatchers there are."""
    row = desk(context).door.row("status")
    if json:
        put_json(row)
        return
    for name in ("running_tasks", "pending_tasks", "held_sessions", "open_changes"):
        put(f"{row[name]:>6}  {name.replace('_', ' ')}")
    nodes = ((node["host"], node["version"], when(node["started_at"]), node["id"]) for node in row["nodes"])
    put()
    table(("HOST", "VERSION", "SINCE", "NODE"), nodes, "no dispatcher runs, so nothing is worked on; `coder up` starts one")


def stats(
    context: typer.Context,
    hours: Annotated[int, typer.Option(min=1, max=720, help="How far back.")] = 24,
    stretches: Annotated[int, typer.Option(min=1, max=200, help="Into how many of equal length that is cut.")] = 12,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
    json: Json = False,
) -> None:
    """Turns, waiting time and tokens over time. A turn counts where it began."""
    rows = desk(context).door.rows("stats", hours=hours, stretches=stretches, project=project)
    if json:
        put_json(rows)
        return
    shown = (
        (when(row["at"]), row["began"], row["completed"], row["failed"], row["cancelled"] + row["interrupted"], row["running"],
         _seconds(row["wait_median_seconds"]), _seconds(row["wait_p95_seconds"]), row["input_tokens"], row["output_tokens"])
        for row in rows
    )  # fmt: skip
    columns = ("SINCE", "TURNS", "DONE", "FAILED", "STOPPED", "RUNNING", "WAITED", "95 %", "TOKENS IN", "OUT")
    table(columns, shown, "there is nothing to count")


def _seconds(given: float | None) -> str:
    return "" if given is None else f"{given:.1f} s"


def agents(
    context: typer.Context,
    probe: Annotated[bool, typer.Option("--probe", help="Have the hosts look again first, after something was installed.")] = False,
    json: Json = False,
) -> None:
    """The agents each host has; for one that is missing, how to install it."""
    at = desk(context)
    rows = waiting.probed(at) if probe else at.door.rows("agent_list")
    if json:
        put_json(rows)
        return
    shown = (
        (row["agent"], row["host"], row["execution_path"], "yes" if row["available"] else "no", row["version"], len(row["models"]) or "",
         row["detail"] if row["available"] or not row["install"] else f"install: {row['install']}")
        for row in rows
    )  # fmt: skip
    columns = ("AGENT", "HOST", "PROTOCOL", "AVAILABLE", "VERSION", "MODELS", "")
    table(columns, shown, "no host has said yet which agents it has; `coder up` looks for them")


@database.command("url")
def url(context: typer.Context, json: Json = False) -> None:
    """The address of the database, password and all, for psql and programs."""
    at = desk(context)
    at.only_here("The database")
    if json:
        put_json({"url": at.house.database_url()})
    else:
        print(at.house.database_url())


def psql(context: typer.Context) -> None:
    """Open psql on the database; arguments are passed on, as in `coder psql -c "select * from tasks"`."""
    at = desk(context)
    at.only_here("The database")
    command, secrets = unseen([*at.house.psql(), *context.args])
    sys.stdout.flush()
    try:
        os.execvpe(command[0], command, {**os.environ, **secrets})
    except FileNotFoundError:
        raise Unavailable(
            f"{command[0]} is not installed; install PostgreSQL's client, or use any other with the address of `coder db url`."
        ) from None


def unseen(command: list[str]) -> tuple[list[str], dict[str, str]]:
    """A command without the password of its database's address, and the variable that holds it: other users can read arguments."""
    secrets: dict[str, str] = {}
    shown = []
    for argument in command:
        parts = urlsplit(argument) if argument.startswith(("postgresql://", "postgres://")) else None
        if parts is not None and parts.password:
            secrets["PGPASSWORD"] = unquote(parts.password)
            user, place = (parts.username or ""), parts.netloc.rpartition("@")[2]
            argument = parts._replace(netloc=f"{user}@{place}").geturl()
        shown.append(argument)
    return shown, secrets


def logs(context: typer.Context, task: TaskId, json: Json = False) -> None:
    """What the agent of a task printed beside its answer."""
    at = desk(context)
    at.only_here("The log")
    path = at.house.task_log(task)
    try:
        said = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The log of task {task} cannot be read: {error.strerror} ({path}).") from None
    if json:
        put_json({"task": task, "path": str(path), "text": said.decode("utf-8", "replace")})
    elif sys.stdout.isatty():
        print(visible(said.decode("utf-8", "replace").replace("\r\n", "\n")), end="")
    else:
        sys.stdout.buffer.write(said)


def doctor(context: typer.Context, json: Json = False) -> None:
    """Look at everything coder stands on; each finding comes with its cure. Exit code 1 when one is bad."""
    at = desk(context)
    at.only_here("What doctor looks at")
    with redirect_stdout(sys.stderr):  # what is logged meanwhile
        findings = at.house.doctor()
    if json:
        put_json([asdict(finding) for finding in findings])
    else:
        shown: list[tuple[Any, ...]] = [("ok" if each.ok else "BAD", each.subject, each.found) for each in findings]
        table(("", "WHAT", "FOUND"), shown, "nothing was looked at")
        for each in findings:
            if not each.ok and each.cure:
                put(f"\n{each.subject}: {each.cure}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(FAILED)


def gc(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    json: Json = False,
) -> None:
    """Remove worktrees that nobody needs any more; nothing unsaved is lost, it is kept under a ref.

    Those of sessions that are closed, or rest with nothing to decide, for CODER_RETENTION_DAYS, and those that no session has.
    """
    at = desk(context)
    at.only_here("What gc removes")
    with redirect_stdout(sys.stderr):  # what is logged meanwhile
        gone = at.house.gc(dry_run)
    if json:
        put_json([asdict(each) for each in gone])
        return
    for each in gone:
        put(f"{each.path}: {each.why}{f'; what nothing else held is {each.saved}' if each.saved else ''}")
    if not gone:
        put("There is nothing to remove.")
