"""coder review: deciding on changes in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from coder.change import ChangeState
from coder.cli import lookup
from coder.cli.desk import desk
from coder.cli.screen import put
from coder.errors import InvalidInput

WAITING = (ChangeState.PENDING.value, ChangeState.CONFLICTED.value)
MOST = 1000


def review(
    context: typer.Context,
    change: Annotated[
        str | None, typer.Argument(metavar="CHANGE", help="Its id, or its session's; without it all that wait, oldest first.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="Commit what is approved on this branch instead of writing it into the checkout.")
    ] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Also commit its files in the checkout.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Also push the branch to the project's remote.")] = False,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
) -> None:
    """Decide on changes in the terminal, hunk by hunk; ? shows the keys."""
    if branch is not None and commit:
        raise InvalidInput("A branch always gets a commit; leave --commit out.")
    at = desk(context)
    if change is not None:
        wanted = [lookup.change(at.door, change)["id"]]
    else:
        wanted = [row["id"] for row in reversed(at.door.rows("change_list", states=sorted(WAITING), project=project, limit=MOST))]
    if not wanted:
        put("No change waits for a decision.")
        return
    from coder.cli.reviewing import Reviewing  # with what measures text, which no other command needs

    for sentence in Reviewing(at, branch, commit=commit, push=push).all(wanted):
        put(sentence)
