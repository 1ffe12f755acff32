"""coder change approve and reject, and coder decision: deciding on what a turn left, whole or in part, and what was decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

import typer

from coder.cli import lookup, waiting
from coder.cli.changes import ChangeId, commands
from coder.cli.desk import Desk, Json, Limit, actor, desk
from coder.cli.screen import fields, put, put_json, table, when
from coder.errors import Conflict, InvalidInput

decisions = typer.Typer(help="What was decided, and what became of it.", no_args_is_help=True, rich_markup_mode=None)

Fingerprint = Annotated[str | None, typer.Option(help="Decide only if this is still its fingerprint; without it the present one.")]
Reason = Annotated[str | None, typer.Option(help="Kept with the decision; of a rejection, told to the agent.")]
Part = dict[str, Any]


@commands.command()
def approve(
    context: typer.Context,
    changes: Annotated[
        list[str],
        typer.Argument(
            metavar="CHANGE...",
            help="Its id, or the session's whose open change is meant; beginnings do. Several are approved in this order, up to the first "
            "that cannot be.",
            show_default=False,
        ),
    ],
    hunk: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:N]", help="Only this hunk, or this file; the rest is left. May be given again.", show_default=False),
    ] = None,
    reject: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:N]", help="Reject this hunk, or this file, at the same time. May be given again.", show_default=False),
    ] = None,
    fingerprint: Fingerprint = None,
    branch: Annotated[str | None, typer.Option(help="Commit it on this branch instead of writing it into the checkout.")] = None,
    commit: Annotated[bool, typer.Option("--commit", help="Also commit its files in the checkout.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Also push the branch to the project's remote.")] = False,
    reason: Reason = None,
    json: Json = False,
) -> None:
    """Take changes, or parts of one, over into the project's checkout, or onto a branch."""
    if branch is not None and commit:
        raise InvalidInput("A branch always gets a commit; leave --commit out.")
    if branch is not None and not branch.strip():
        raise InvalidInput("The name of the branch is empty; name one, or leave --branch out to write into the checkout.")
    if reject and not hunk:
        raise InvalidInput("Name with --hunk what is approved, or reject with `coder change reject --hunk`.")
    if len(changes) > 1 and (hunk or fingerprint):
        raise InvalidInput("Parts and a fingerprint are those of one change; name one change alone.")
    at = desk(context)
    rows = [_shown(at, change, fingerprint) for change in changes]
    how = {"target": "checkout" if branch is None else "branch", "branch": branch, "commit": commit, "push": push}
    if parts := [*_parts(rows[0], hunk, "approve"), *_parts(rows[0], reject, "reject")]:
        stored = [_stored(at, "change_decide", rows[0], fingerprint, reason, parts=parts, **how)]
    elif len(rows) == 1:
        stored = [_stored(at, "change_approve", rows[0], fingerprint, reason, **how)]
    else:
        named = [{"change_id": row["id"], "fingerprint": row["fingerprint"]} for row in rows]
        stored = at.door.rows("change_approve_in_order", changes=named, reason=reason, actor=actor(), **how)
    for decision in stored:
        _put_approved(_carried_out(at, decision), bool(parts), json)


def _put_approved(decision: dict[str, Any], parts: bool, json: bool) -> None:
    if json:
        put_json(decision)
        return
    where = f"branch {decision['branch']}" if decision["target"] == "branch" else f"the checkout of {decision['project']}"
    put(f"{'Parts of change' if parts else 'Change'} {decision['change_id']} {'are' if parts else 'is'} approved into {where}.")
    if pushed := decision["facts"].get("pushed"):
        why = pushed["error"]
        put(f"It could not be pushed to {pushed['remote']} ({why})." if why else f"It is pushed to {pushed['remote']}.")
    _put_left(decision)


@commands.command()
def reject(
    context: typer.Context,
    change: ChangeId,
    hunk: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:N]", help="Only this hunk, or this file; the rest is left. May be given again.", show_default=False),
    ] = None,
    fingerprint: Fingerprint = None,
    reason: Reason = None,
    discard: Annotated[bool, typer.Option("--discard", help="Also put the worktree back to its base.")] = False,
    json: Json = False,
) -> None:
    """Refuse a change, or parts of it; the agent hears the reason with its next prompt."""
    if hunk and discard:
        raise InvalidInput("Parts that are rejected always leave the worktree; leave --discard out.")
    at = desk(context)
    row = _shown(at, change, fingerprint)
    if parts := _parts(row, hunk, "reject"):
        decision = _decide(at, "change_decide", row, fingerprint, reason, parts=parts, target="checkout", branch=None, commit=False)
    else:
        decision = _decide(at, "change_reject", row, fingerprint, reason, work="discard" if discard else "keep")
    if json:
        put_json(decision)
    elif parts:
        put(f"Parts of change {row['id']} are rejected; they leave the worktree.")
        _put_left(decision)
    else:
        put(f"Change {row['id']} is rejected; {'the worktree goes back to its base' if discard else 'the work stays in the worktree'}.")


@commands.command()
def rebase(
    context: typer.Context,
    change: ChangeId,
    fingerprint: Fingerprint = None,
    branch: Annotated[str | None, typer.Option(help="Put the work on this branch instead of the checkout.")] = None,
    resolve: Annotated[bool, typer.Option("--resolve", help="Have the agent resolve what clashes, as a task.")] = False,
    reason: Annotated[str | None, typer.Option(help="Kept with the decision.")] = None,
    json: Json = False,
) -> None:
    """Put the work of a change on its target as it is by now; the worktree is brought up to date at the turn boundary."""
    at = desk(context)
    row = _shown(at, change, fingerprint)
    target = "checkout" if branch is None else "branch"
    decision = _decide(at, "change_rebase", row, fingerprint, reason, target=target, branch=branch, resolve=resolve)
    if json:
        put_json(decision)
        return
    put(f"The work of change {row['id']} is put on {'the checkout of ' + row['project'] if branch is None else 'branch ' + branch}.")
    if decision["facts"]["files"]:
        put(f"The agent is asked to resolve the conflicts in {', '.join(decision['facts']['files'])}.")
    _put_left(decision)


@commands.command()
def undo(context: typer.Context, change: ChangeId, reason: Reason = None, json: Json = False) -> None:
    """Take an approved change out of its target again; its work waits for a decision again."""
    at = desk(context)
    row = lookup.change(at.door, change)
    decision = _carried_out(at, at.door.row("change_undo", change_id=UUID(row["id"]), actor=actor(), reason=reason))
    if json:
        put_json(decision)
        return
    where = f"branch {decision['branch']}" if decision["target"] == "branch" else f"the checkout of {row['project']}"
    put(f"Change {row['id']} is taken out of {where}.")
    _put_left(decision)


def decide(at: Desk, change: Mapping[str, Any], parts: list[Part] | None, reason: str | None, **how: Any) -> dict[str, Any]:
    """Approve a change that was just read (`parts` is None), or decide on parts of it, and wait until that is carried out.

    Args:
        how: `target`, `branch`, `commit` and `push`.

    Raises:
        Conflict: what it failed with.
    """
    statement, named = ("change_approve", {}) if parts is None else ("change_decide", {"parts": parts})
    return _decide(at, statement, change, None, reason, **named, **how)


def _put_left(decision: dict[str, Any]) -> None:
    if decision["left_change_id"]:
        put(f"What is left waits as change {decision['left_change_id']}.")


def _parts(change: dict[str, Any], given: list[str] | None, verdict: str) -> list[Part]:
    """What `FILE` and `FILE:N` name; a file that is itself called like that wins."""
    files = {file["path"] for file in change["files"]}
    parts: list[Part] = []
    for name in given or ():
        path, _, number = name.rpartition(":")
        hunk = path and number.isascii() and number.isdecimal() and name not in files
        parts.append({"path": path, "hunk": int(number), "verdict": verdict} if hunk else {"path": name, "verdict": verdict})
    return parts


def _shown(at: Desk, change: str, fingerprint: str | None) -> dict[str, Any]:
    """The change that was looked at: a session's open change may be another by now, so that needs the fingerprint as well."""
    row = lookup.change(at.door, change)
    if fingerprint is None and not row["id"].startswith(change.lower()):
        raise InvalidInput(
            f"{change} is a session, whose change may be another than the one you read; name change {row['id']}, or give its --fingerprint."
        )
    return row


def _decide(at: Desk, statement: str, change: Mapping[str, Any], fingerprint: str | None, reason: str | None, **how: Any) -> dict[str, Any]:
    """Store a decision on what was just read, wait until it is carried out, and raise what it failed with."""
    return _carried_out(at, _stored(at, statement, change, fingerprint, reason, **how))


def _stored(at: Desk, statement: str, change: Mapping[str, Any], fingerprint: str | None, reason: str | None, **how: Any) -> dict[str, Any]:
    """Store a decision on what was just read."""
    return at.door.row(
        statement,
        change_id=UUID(change["id"]),
        fingerprint=fingerprint or change["fingerprint"],
        reason=reason,
        actor=actor(),
        **how,
    )


def _carried_out(at: Desk, decision: dict[str, Any]) -> dict[str, Any]:
    """A decision once it is carried out; raises what it failed with."""
    decision = waiting.decision(at, decision)
    if decision["state"] == "failed":
        said = decision["error"] or f"The decision failed ({decision['outcome']}); read the change again and decide anew."
        raise Conflict(said, **decision["facts"])
    return decision


@decisions.command("list")
def list_decisions(
    context: typer.Context,
    project: Annotated[str | None, typer.Option(help="Only of this project.", metavar="NAME")] = None,
    session: Annotated[str | None, typer.Option(help="Only of this session.", metavar="ID")] = None,
    change: Annotated[str | None, typer.Option(help="Only on this change.", metavar="ID")] = None,
    limit: Limit = 50,
    json: Json = False,
) -> None:
    """List who decided what and when, newest first."""
    door = desk(context).door
    session_id = lookup.session(door, session) if session else None
    change_id = UUID(lookup.change(door, change)["id"]) if change else None
    rows = door.rows("decision_list", project=project, session_id=session_id, change_id=change_id, limit=limit)
    if json:
        put_json(rows)
        return
    shown = (
        (row["id"][:8], row["kind"], row["outcome"] or row["state"], row["change_id"][:8], row["actor"], when(row["created_at"]),
         row["error"] or row["reason"] or "")
        for row in rows
    )  # fmt: skip
    table(("DECISION", "KIND", "OUTCOME", "CHANGE", "ACTOR", "MADE", "WHY"), shown, "nothing was decided yet")


@decisions.command("show")
def show_decision(
    context: typer.Context, decision: Annotated[UUID, typer.Argument(metavar="DECISION", show_default=False)], json: Json = False
) -> None:
    """Show a decision."""
    row = desk(context).door.row("decision_get", decision_id=decision)
    if json:
        put_json(row)
    else:
        fields(row)
