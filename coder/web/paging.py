"""Lists in pages: an opaque cursor that holds the key of the last row shown.

Keyset paging: a page starts after a row, not at a number, so that rows added meanwhile neither repeat nor hide any.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query

from coder.errors import InvalidInput
from coder.ports import Door

Limit = Annotated[int, Query(ge=1, le=200, description="Rows in one page", examples=[50])]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before", examples=["WzQyXQ"])]
LARGEST = 2**63 - 1
LARGEST_LINE = 2**31 - 1


def encode(key: Sequence[Any]) -> str:
    """The cursor for a key: base64url of its JSON."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def decode(cursor: str | None, *kinds: type) -> list[Any]:
    """The key a cursor holds, one value per kind (`str`, `int`, `datetime`, `UUID`); all None without a cursor.

    Raises:
        InvalidInput: it is not a cursor of this list.
    """
    if not cursor:
        return [None] * len(kinds)
    try:
        key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        if not isinstance(key, list) or len(key) != len(kinds):
            raise ValueError("another list's")
        return [_value(kind, given) for kind, given in zip(kinds, key, strict=True)]
    except (ValueError, RecursionError):
        raise InvalidInput(
            "`cursor` is not one that this list gave out; send `next_cursor` as it came, or leave it out to start from the beginning."
        ) from None


def _value(kind: type, given: Any) -> Any:
    if kind is int and type(given) is int and 0 <= given <= LARGEST:
        return given
    if not isinstance(given, str) or "\0" in given or kind is int:
        raise ValueError("not of this kind")
    given.encode()  # lone surrogates: UnicodeEncodeError is a ValueError
    if kind is datetime:
        moment = datetime.fromisoformat(given)
        if moment.tzinfo is None:
            raise ValueError("no offset")
        return moment
    return UUID(given) if kind is UUID else given


async def page(door: Door, statement: str, limit: int, key: Callable[[dict[str, Any]], Sequence[Any]], **parameters: Any) -> dict[str, Any]:
    """One page of a list as the API answers it: rows, and the cursor of the next where there is one.

    Args:
        statement: answers rows in order, `limit` at most.
        key: the key of a row, as `decode` gives it back.
        parameters: of the statement, the decoded cursor among them.
    """
    rows = await door.rows(statement, limit=limit + 1, **parameters)
    shown = rows[:limit]
    return {"items": shown, "next_cursor": encode(key(shown[-1])) if len(rows) > limit else None}


def words(given: str | None) -> list[str]:
    """A comma-separated parameter as its words, blanks left out."""
    return [word.strip() for word in (given or "").split(",") if word.strip()]


def given(value: str | None) -> str | None:
    """A filter as it was given, None for a blank one, which is ignored."""
    return value.strip() or None if value else None
