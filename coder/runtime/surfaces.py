"""The surfaces that clients of this process see: small states beside the transcript of a session. There is one, `cache-warming`.

What is shown is read from the database, whoever changed it: a bell says when to look, a poll stands behind it. Invariants: a client
that subscribes gets the state as it is, then every later one that differs from the one before; nobody is waited for.
"""

from __future__ import annotations

import structlog

from coder.errors import InvalidInput, NotFound, Unavailable
from coder.frames import Surface, SurfaceUpdate
from coder.outbox import Told
from coder.ports import Clock
from coder.runtime.clients import Client
from coder.runtime.wake import Wake
from coder.warming import SURFACE, Warming, WarmingLog, shown

LOOK_SESSIONS = 1_000

log = structlog.get_logger(__name__)


class Seen:
    """One session's surface: who sees it, and the state they were told last."""

    __slots__ = ("clients", "state")

    def __init__(self, state: Warming) -> None:
        self.clients: dict[Client, None] = {}
        self.state = state


def known(surface: str) -> str:
    """The name of a surface; raises `InvalidInput` where there is none of that name."""
    if surface != SURFACE:
        raise InvalidInput(f"There is no surface {surface[:64]!r}; there is {SURFACE!r}.")
    return surface


class Surfaces:
    def __init__(self, states: WarmingLog, clock: Clock, *, poll: float) -> None:
        self._states = states
        self._poll = poll
        self._clock = clock
        self._seen: dict[str, Seen] = {}
        self._work = Wake(clock)

    def hint(self, session: str) -> None:
        """Look soon; empty = something may have been missed."""
        if session in self._seen or (not session and self._seen):
            self._work.wake()

    async def subscribe(self, client: Client, session: str, surface: str) -> None:
        """Show a surface to a client from now on.

        Raises:
            InvalidInput: there is no such surface.
            NotFound: there is no such session.
            TooMany: the client sees too many already.
            Unavailable: the database is away.
        """
        client.see(session, known(surface))
        try:
            state = (await self._states.warming([session])).get(session)
            if state is None:
                raise NotFound(kind="session", name=session, look="coder session list")
        except BaseException:
            client.surfaces.discard((session, surface))
            raise
        self._seen.setdefault(session, Seen(state)).clients[client] = None
        client.tell(Told(Surface(session, surface, shown(state))))
        self._work.wake()  # for what changed since the others were told

    async def run(self) -> None:
        while True:
            await self._work.wait(self._poll)
            try:
                await self._look()
            except Unavailable as away:
                log.info("surfaces are read another time", why=away.message)
            except Exception:
                log.exception("the surfaces met an error they do not know; they go on with the next poll")

    async def _look(self) -> None:
        for session, seen in list(self._seen.items()):
            seen.clients = {client: None for client in seen.clients if (session, SURFACE) in client.surfaces}
            if not seen.clients:
                del self._seen[session]
        sessions = list(self._seen)
        for at in range(0, len(sessions), LOOK_SESSIONS):
            for session, state in (await self._states.warming(sessions[at : at + LOOK_SESSIONS])).items():
                if (there := self._seen.get(session)) is not None and there.state != state:
                    there.state = state
                    told = Told(SurfaceUpdate(session, SURFACE, shown(state)))
                    for client in list(there.clients):
                        if (session, SURFACE) in client.surfaces:
                            client.tell(told)
