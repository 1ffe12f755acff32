"""What opencode waits for, and the reply that an answer comes to. Pure.

Invariant: a request is replied to once; a question of several parts when all of them are answered, or at the first that is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from coder.events import AgentEvent, PermissionRequest, Question
from coder.permission import Answer

NO_REASON = "The user does not allow this; do without it, or say what is missing."


@dataclass(frozen=True, slots=True)
class Reply:
    """Where to post what."""

    path: str
    body: dict[str, Any]


class Waiting:
    """The open permissions and questions of one turn."""

    def __init__(self) -> None:
        self._permissions: set[str] = set()
        self._questions: dict[str, dict[str, tuple[str, ...] | None]] = {}

    def hear(self, events: Iterable[AgentEvent]) -> None:
        """Note what is asked; the parts of a question come together."""
        for event in events:
            if isinstance(event, PermissionRequest):
                self._permissions.add(event.id)
            elif isinstance(event, Question):
                self._questions.setdefault(_whole(event.id), {})[event.id] = None

    def answer(self, request: str, answer: Answer) -> Reply | None:
        """The reply an answer makes possible; None where nothing waits for it, or not for it alone."""
        if request in self._permissions:
            self._permissions.discard(request)
            # Never "always": what holds for longer is a rule of ours. Without a message opencode would end the turn.
            told = {"reply": "once"} if answer.allow else {"reply": "reject", "message": answer.message or NO_REASON}
            return Reply(f"/permission/{request}/reply", told)
        whole = _whole(request)
        parts = self._questions.get(whole, {})
        if request not in parts:
            return None
        if not answer.allow:
            del self._questions[whole]
            return Reply(f"/question/{whole}/reject", {})
        parts[request] = answer.answers
        if any(given is None for given in parts.values()):
            return None
        del self._questions[whole]
        return Reply(f"/question/{whole}/reply", {"answers": [list(given or ()) for given in parts.values()]})


def _whole(part: str) -> str:
    """The id of the question that has this part."""
    return part.partition("#")[0]
