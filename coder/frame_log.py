"""What the live view needs of the database, as Protocols beside those of `ports.py`: frames, and the tables as watchers see them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from coder.frames import SessionFrame, SessionHistory, TaskStateFrame, TurnStarted
from coder.live import StoredAnswer


class FrameRow(NamedTuple):
    """One frame of a turn as it is stored; `payload` is JSON text."""

    task: int
    epoch: int
    seq: int
    payload: str


@dataclass(frozen=True, slots=True)
class Watch:
    """What a process knows of a session it watches.

    Attributes:
        task, epoch, seq: the turn whose frames it reads, and the last it has; zeros for none.
        floor: turns up to this one are known to their end.
        known: tasks that were pending or running when it last looked, with the version of their rows.
    """

    session: str
    task: int
    epoch: int
    seq: int
    floor: int
    known: dict[int, str]


@dataclass(frozen=True, slots=True)
class EndedTurn:
    """A turn that has ended, with all that its message holds. `usage`: input, cached and output tokens."""

    started: TurnStarted
    prompt: str
    state: str
    reason: str | None
    error: str | None
    answer: StoredAnswer
    usage: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Sight:
    """A watched session at one moment, all of it from one snapshot.

    Attributes:
        running: the turn that runs, and its prompt.
        frames: the next stored frames of the turn that is read, with their numbers; `more`: there are others behind them.
        ended: turns above the floor that have ended, in order; `gap`: there may be others before them.
        states: of the tasks that wait or run, and of those that were known; what one that waits says only where that may be new.
        versions: of their rows.
        change_id: the open change.
    """

    session: str
    running: tuple[TurnStarted, str] | None
    frames: list[tuple[int, SessionFrame]]
    more: bool
    ended: list[EndedTurn]
    gap: bool
    states: list[TaskStateFrame]
    versions: dict[int, str]
    change_id: str | None


@dataclass(frozen=True, slots=True)
class History:
    """A session as it is stored. `floor`: turns up to this one are in `frame`; `states`: of the tasks that wait or run; `versions`: of
    the rows of those that wait."""

    frame: SessionHistory
    floor: int
    states: dict[int, str]
    versions: dict[int, str]


class FrameLog(Protocol):
    """What turns said so far, for other processes and for after a crash. Every call may raise `Unavailable`."""

    async def append(self, rows: list[FrameRow], touched: set[str]) -> None:
        """Store frames of turns that still run under their epoch (others are dropped, those stored before are left), and ring
        with the sessions as a hint."""
        ...

    async def prune(self) -> int:
        """Drop the frames of turns that ended more than five minutes ago; answers how many."""
        ...


class SessionLog(Protocol):
    """What watchers of a session are shown of the tables. Every call may raise `Unavailable`."""

    async def history(self, session: str) -> History:
        """Raises `NotFound`."""
        ...

    async def look(self, watches: list[Watch]) -> list[Sight]: ...

    async def calls(self, epoch: int, task: int, parts: Collection[int]) -> list[SessionFrame]:
        """The last stored snapshot of these tool calls of a turn."""
        ...
