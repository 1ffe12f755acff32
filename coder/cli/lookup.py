"""Finding what a person means: whole ids, or beginnings of ids that fit just one thing."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from coder.errors import InvalidInput, NotFound
from coder.ports import SyncDoor

LOOK = {
    "comment": "`coder comment list --all` shows them",
    "permission": "`coder permission list --all` shows them",
    "rule": "`coder rule list PROJECT` shows them",
    "session": "`coder change list` and `coder session list` show them",
}
LATEST = 2000
"""A beginning is looked for among so many of the latest (of sessions among all); whole ids always work."""


def session(door: SyncDoor, given: str) -> UUID:
    """The id of a session.

    Raises:
        NotFound: no session is meant.
        InvalidInput: several are, or it cannot be an id.
    """
    return _whole(given) or _one(given, _sessions(door, given), "session")


def permission(door: SyncDoor, given: str) -> UUID:
    """The id of a permission or question.

    Raises:
        NotFound: none is meant.
        InvalidInput: several are, or it cannot be an id.
    """
    return _whole(given) or _one(given, _beginning_with(door, "permission_list", given), "permission")


def comment(door: SyncDoor, given: str, actor: str) -> UUID:
    """The id of a comment that somebody may see.

    Raises:
        NotFound: none is meant.
        InvalidInput: several are, or it cannot be an id.
    """
    return _whole(given) or _one(given, _beginning_with(door, "comment_list", given, actor=actor), "comment")


def rule(door: SyncDoor, project: str, given: str) -> UUID:
    """The id of a rule of this project.

    Raises:
        NotFound: none is meant.
        InvalidInput: several are, or it cannot be an id.
    """
    return _whole(given) or _one(given, _beginning_with(door, "rule_list", given, project=project), "rule")


def change(door: SyncDoor, given: str) -> dict[str, Any]:
    """A change, whole: by its own id, or the open one of the session that is named.

    Raises:
        NotFound: no change is meant, or the session has none to decide on.
        InvalidInput: several are meant, or it cannot be an id.
    """
    whole = _whole(given)
    if whole is None:
        changes = _beginning_with(door, "change_list", given)
        found = _one(given, changes + _sessions(door, given), "change or session")
        return door.row("change_get", change_id=found) if found in changes else _open_change(door, found)
    try:
        return door.row("change_get", change_id=whole)
    except NotFound as error:
        try:
            return _open_change(door, whole)
        except NotFound as also:
            raise (also if also.facts.get("session") else error) from None


def _open_change(door: SyncDoor, session_id: UUID) -> dict[str, Any]:
    found = door.row("session_get", session_id=session_id)["open_change_id"]
    if found is None:
        raise NotFound(
            f"Session {session_id} has no change to decide on; `coder change list --all` shows the earlier ones.", session=str(session_id)
        )
    return door.row("change_get", change_id=UUID(found))


def _whole(given: str) -> UUID | None:
    if not re.fullmatch(r"[0-9a-fA-F-]{1,36}", given):
        raise InvalidInput(f"{given!r} is not an id, nor the beginning of one; ids are made of 0-9, a-f and -.")
    return UUID(given) if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", given) else None


def _beginning_with(door: SyncDoor, statement: str, given: str, **where: Any) -> list[UUID]:
    return [UUID(row["id"]) for row in door.rows(statement, limit=LATEST, **where) if row["id"].startswith(given.lower())]


def _sessions(door: SyncDoor, given: str) -> list[UUID]:
    return [UUID(row["id"]) for row in door.rows("session_list", q=given, limit=LATEST)]


def _one(given: str, found: list[UUID], what: str) -> UUID:
    if not found:
        raise NotFound(f"There is no {what} whose id begins with {given}; {LOOK.get(what, LOOK['session'])}.")
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} ids begin with {given} ({', '.join(map(str, found[:3]))}{', …' * (len(found) > 3)}); write more of it."
        )
    return found[0]
