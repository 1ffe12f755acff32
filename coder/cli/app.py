"""The command `coder`: puts the groups of commands together."""

from __future__ import annotations

from typing import Annotated

import typer

from coder import __version__
from coder.cli import changes, comments, deciding, exits, permissions, projects, review, service, sessions, tasks, tokens, watch, workspaces
from coder.cli.desk import Desk, desk
from coder.cli.house import House

PASSED_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _version(wanted: bool) -> None:
    if wanted:
        print(f"coder {__version__}")
        raise typer.Exit


def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Queue tasks for coding agents, and decide on the changes they make.

    Commands talk to the database, or over HTTP to the coder at CODER_URL with the token in CODER_TOKEN. Every command knows
    --json. Exit codes: 0 done, 1 failed, 2 misused or unknown, 3 cancelled, 4 interrupted, 5 waited long enough, 6 not reachable.
    """
    context.call_on_close(desk(context).close)


def build(house: House) -> typer.Typer:
    """The command line.

    Args:
        house: the wiring; commands ask it for what they need when they need it.

    Returns:
        A callable that reads `sys.argv` and ends the process with an exit code of `exits`.
    """
    app = typer.Typer(
        name="coder",
        cls=exits.Commands,
        callback=root,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,  # plain help: it needs no rich, which is half of its time
        pretty_exceptions_enable=False,
        context_settings={"obj": Desk(house), "help_option_names": ["-h", "--help"]},
    )
    for command in (
        service.up,
        service.down,
        service.login,
        service.status,
        service.stats,
        service.migrate,
        service.doctor,
        service.gc,
        service.logs,
        service.agents,
    ):
        app.command()(command)
    app.command(context_settings=PASSED_ON)(service.psql)
    app.add_typer(service.database, name="db")
    app.add_typer(projects.commands, name="project")
    app.command()(tasks.run)
    app.command()(review.review)
    app.command()(watch.watch)
    app.command()(watch.chat)
    app.add_typer(tasks.commands, name="task")
    app.add_typer(sessions.commands, name="session")
    app.add_typer(workspaces.commands, name="workspace")
    app.add_typer(permissions.commands, name="permission")
    app.add_typer(tokens.commands, name="token")
    app.add_typer(permissions.rules, name="rule")
    app.add_typer(changes.commands, name="change")
    app.add_typer(comments.commands, name="comment")
    app.add_typer(deciding.decisions, name="decision")
    return app
