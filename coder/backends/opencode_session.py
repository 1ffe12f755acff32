"""Which of opencode's sessions a turn goes on in: the one of the turn before, or a new one that is told the conversation so far."""

from __future__ import annotations

from dataclasses import dataclass

from coder.backends.opencode_place import Place
from coder.backends.opencode_server import Refused, Server
from coder.backends.opencode_settings import Wishes
from coder.errors import AgentUnavailable
from coder.ports import Turn
from coder.task import AgentSession

TITLE_CHARACTERS = 80
EARLIER = "This is the conversation so far, of which you do not know yet; the user's next message follows it.\n\n{earlier}"


@dataclass(frozen=True, slots=True)
class Opening:
    """Attributes: session: opencode's id; earlier: what it has to be told first; notices: what watchers have to be told."""

    session: str
    earlier: str = ""
    notices: tuple[str, ...] = ()


async def open_session(server: Server, place: Place, wishes: Wishes, turn: Turn) -> Opening:
    """Go back to the turn's session where that is safe, else make one.

    Raises:
        AgentUnavailable: opencode makes none.
    """
    stored = turn.agent_session
    why = await _refusal(server, place, wishes, stored)
    if stored is not None and why is None:
        return Opening(stored.id)
    first = turn.prompt.strip().splitlines()[0][:TITLE_CHARACTERS] if turn.prompt.strip() else "coder"
    try:
        made = await server.ask("POST", "/session", body={"title": first}, directory=wishes.directory)
        session = made["id"]
    except (Refused, KeyError, TypeError) as error:
        raise AgentUnavailable(f"opencode did not make a session ({error}); see the turn's log, then retry.") from error
    earlier = await turn.earlier()
    if not earlier:
        return Opening(session, notices=(f"opencode starts with a new session: {why}.",) if stored is not None else ())
    return Opening(
        session, EARLIER.format(earlier=earlier), (f"opencode does not remember this chat ({why}); it was told the conversation so far.",)
    )


async def _refusal(server: Server, place: Place, wishes: Wishes, stored: AgentSession | None) -> str | None:
    """Why the stored session is not gone back to; None when it is."""
    if stored is None:
        return "it has no session of it"
    if stored.config_hash != wishes.config_hash:
        return "model, mode, options or directory are other ones than before"
    if place.crashed_with(stored):
        return "its server ended unexpectedly"
    if not place.remembers(stored):
        return "its server ended unexpectedly" if stored.status == "lost" else "its session was left in another home"
    if place.holds(stored):
        return None
    try:
        await server.ask("GET", f"/session/{stored.id}")
    except Refused:
        return "it no longer has the session"
    return None
