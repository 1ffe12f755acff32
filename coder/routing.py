"""Which agent runs a task, and what it is told. Pure: what is available arrives as an argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from posixpath import normpath
from uuid import UUID

from coder.errors import AgentUnavailable
from coder.task import Part, Remark, Task

NATIVE = "native"
EARLIER_BYTES = 200_000
"""How much of a conversation an agent is primed with that does not remember it."""
NAMED_PARTS = 10
LEFT_OUT = "[… what was said before this is left out]"


@dataclass(frozen=True, slots=True)
class Route:
    """The agent that runs the task, and the sentence for watchers when it is not the one asked for."""

    agent: str
    notice: str | None = None


def choose(task: Task, available: Set[str]) -> Route:
    """Pick the agent of a task.

    Args:
        available: names of the agents this host can run.

    Raises:
        AgentUnavailable: the named agent is not there and the project's `agent_fallback` is `fail`.
    """
    asked = task.agent or NATIVE
    if asked == NATIVE or asked in available:
        return Route(asked)
    if task.project.agent_fallback == "fail":
        raise AgentUnavailable(agent=asked, detail="it was not found here")
    return Route(NATIVE, f"Agent {asked} is not available on this host, so the native agent does this task.")


def prompt(task: Task, clashes: Mapping[UUID, tuple[str, ...]] | None = None) -> str:
    """What the agent is told: what reviewers decided since it last heard of it, then the task.

    Args:
        clashes: where bringing the worktree along with a decision clashed, as far as that was done after the task was claimed.
    """
    sentences = [remark_sentence(replace(each, kept=(clashes or {}).get(each.decision_id, each.kept))) for each in task.remarks]
    return "\n".join([*sentences, "", task.input]) if sentences else task.input


def remark_sentence(remark: Remark) -> str:
    """One decision, as the agent reads it."""
    if remark.parts:
        return _parts_sentence(remark)
    if remark.target:
        markers = f"; where both sides changed the same lines, {', '.join(remark.kept)} has conflict markers" if remark.kept else ""
        return f"The worktree was brought up to date with {remark.target}, so files may have changed since you read them{markers}."
    kept = "That work is still in the worktree." if remark.work == "keep" else "That work was taken out of the worktree again."
    why = f"with this reason: {remark.reason.rstrip('.')}." if remark.reason else "without giving a reason."
    return f"A reviewer rejected the change of task {remark.task_id} {why} {kept}"


def resolution(files: Sequence[str]) -> str:
    """The task to resolve conflicts that a rebase left in files of the worktree."""
    named = ", ".join(files[:NAMED_PARTS]) + (f" and {len(files) - NAMED_PARTS} more" if len(files) > NAMED_PARTS else "")
    return (
        f"Resolve the conflicts in {named}. Your change was put on the project as it is by now, and both sides had edited the same lines. "
        "Each conflict stands between a line that begins with <<<<<<< and one that begins with >>>>>>>: first what the project has, then "
        "what your change had. Write what both want, delete the markers, and check that it works."
    )


def _parts_sentence(remark: Remark) -> str:
    approved, rejected = (_named([part for part in remark.parts if part.verdict == verdict]) for verdict in ("approve", "reject"))
    said = " and ".join(f"{what} {which}" for what, which in (("approved", approved), ("rejected", rejected)) if which)
    if not rejected:
        return f"Of the change of task {remark.task_id} a reviewer {said}; the rest still waits for a decision."
    why = f"with this reason: {remark.reason.rstrip('.')}" if remark.reason else "without giving a reason"
    kept = f", but not in {', '.join(remark.kept)}, which says something else by now" if remark.kept else ""
    return f"Of the change of task {remark.task_id} a reviewer {said}, {why}; what was rejected was taken out of the worktree again{kept}."


def _named(parts: Sequence[Part]) -> str:
    """Parts by file and lines, the first few of them."""
    shown = [part.path if part.line is None else f"{part.path} {_lines(part)}" for part in parts[:NAMED_PARTS]]
    more = f" and {len(parts) - NAMED_PARTS} more" if len(parts) > NAMED_PARTS else ""
    return ", ".join(shown) + more


def _lines(part: Part) -> str:
    if not part.lines:
        return f"after line {part.line}"
    return f"line {part.line}" if part.lines == 1 else f"lines {part.line}-{(part.line or 0) + part.lines - 1}"


@dataclass(frozen=True, slots=True)
class Said:
    """One message of a chat: `user` or `assistant`, and the state it was stored with."""

    role: str
    text: str
    state: str = "complete"


def conversation(messages: Sequence[Said], most: int = EARLIER_BYTES) -> str:
    """A chat as text, oldest first, at most so many bytes: what is older is left out, with a mark.

    Args:
        messages: in the order they were said.
    """
    pieces: list[str] = []
    room = most
    for message in reversed(messages):
        if not message.text.strip():
            continue
        ended = "" if message.state in ("complete", "streaming") else f"\n[this turn was {message.state}]"
        piece = f"{message.role.capitalize()}:\n{message.text.strip()}{ended}"
        raw = piece.encode()
        if len(raw) > room:
            if not pieces:  # of the newest message at least its end
                pieces.append(raw[len(raw) - room :].decode("utf-8", "ignore"))
            pieces.append(LEFT_OUT)
            break
        room -= len(raw) + 2
        pieces.append(piece)
    return "\n\n".join(reversed(pieces))


def directory(task: Task, worktree: str) -> str:
    """Where the turn starts: the session's directory mapped into the worktree, its root when that lies outside the project."""
    if task.cwd is None:
        return worktree
    try:
        inside = PurePosixPath(normpath(task.cwd)).relative_to(normpath(task.project.path))
    except ValueError:
        return worktree
    return str(PurePosixPath(worktree) / inside)
