"""The words of permissions, and the policy that answers without a person. Pure.

A request is answered by the first of: a rule that somebody made with "always", the project's policy, a person, the
deadline. The agent itself is only ever told yes or no, once: what holds for longer is a rule of ours.

`MOVES` is the one table of the life of a request. `schema.sql` repeats it, `docs/lifecycle.md` draws it, and a test
compares all three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import PurePosixPath

from coder.events import AskedFor, PermissionRequest


class Policy(StrEnum):
    """What a project lets its agents do without asking a person."""

    ASK = "ask"
    ALLOW_IN_WORKTREE = "allow_in_worktree"
    DENY = "deny"


class Scope(StrEnum):
    """For how long a person allows something."""

    ONCE = "once"
    SESSION = "session"
    PROJECT = "project"


class PermissionState(StrEnum):
    REQUESTED = "requested"
    ALLOWED_ONCE = "allowed_once"
    ALLOWED_ALWAYS = "allowed_always"
    DENIED = "denied"
    EXPIRED = "expired"


class By(StrEnum):
    """Who answers when no person does; else the actor is a person's name."""

    RULE = "rule"
    POLICY = "policy"
    DEADLINE = "deadline"
    CODER = "coder"


MOVES: tuple[tuple[PermissionState, PermissionState, str], ...] = (
    (PermissionState.REQUESTED, PermissionState.ALLOWED_ONCE, "the policy or a person allows it; a question is answered"),
    (PermissionState.REQUESTED, PermissionState.ALLOWED_ALWAYS, "a rule fits, or a person makes one"),
    (PermissionState.REQUESTED, PermissionState.DENIED, "the policy, a person or the deadline denies it"),
    (PermissionState.REQUESTED, PermissionState.EXPIRED, "the turn that asked is over"),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """What somebody allowed for good.

    Attributes:
        tool: the tool it is about, `*` for any.
        pattern: of the request's title: `*` is any text, `?` any character, `\\` takes the next character as it is.
        id: of its row, None for one that has none.
    """

    tool: str
    pattern: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the agent is told.

    Attributes:
        allow: whether it may; of a question: whether it was answered.
        message: why not, for the agent to read.
        answers: what was chosen or written in answer to a question.
    """

    allow: bool
    message: str | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruling:
    """An answer that needed no person, and what gave it."""

    answer: Answer
    by: By
    rule: str | None = None

    @property
    def state(self) -> PermissionState:
        if not self.answer.allow:
            return PermissionState.DENIED
        return PermissionState.ALLOWED_ALWAYS if self.by is By.RULE else PermissionState.ALLOWED_ONCE


POLICY_DENIES = "The project's policy denies whatever has to be asked for; do without it, or say what is missing."
NO_NETWORK = "This project's agents have no network; do without it."
NO_QUESTIONS = "Nobody answers questions in this project; decide yourself, and say what you assumed."

# In a command line a wildcard ends where another command or a redirection may begin: `git *` is not `git log; rm -rf ~`.
_BREAKS = frozenset(";|&<>`$(){}\r\n")
_Token = tuple[str, bool]


@lru_cache(1024)
def _tokens(pattern: str) -> tuple[_Token, ...]:
    """The characters of a pattern, each with whether it is a wildcard; stars in a row are one."""
    found: list[_Token] = []
    rest = iter(pattern)
    for character in rest:
        if character == "\\":
            found.append((next(rest, "\\"), False))
        elif character not in "*?" or (character == "*" and found[-1:] == [("*", True)]):
            found += [] if character == "*" else [(character, False)]
        else:
            found.append((character, True))
    return tuple(found)


def _glob(tokens: Sequence[_Token], text: str) -> bool:
    """Whether the pattern fits the whole text, in time of at most their product: no pattern is a trap."""
    at = place = 0
    star, resume = -1, 0
    while place < len(text):
        if at < len(tokens) and tokens[at] == ("*", True):
            star, resume, at = at, place, at + 1
        elif at < len(tokens) and tokens[at] in ((text[place], False), ("?", True)):
            at, place = at + 1, place + 1
        elif star >= 0:
            resume += 1
            at, place = star + 1, resume
        else:
            return False
    return all(token == ("*", True) for token in tokens[at:])


def _split(tokens: Iterable[_Token]) -> tuple[list[list[_Token]], list[str]]:
    """A pattern or text in the pieces between characters that break a command line, and these characters."""
    pieces: list[list[_Token]] = [[]]
    breaks: list[str] = []
    for token in tokens:
        if token[0] in _BREAKS and not token[1]:
            breaks.append(token[0])
            pieces.append([])
        else:
            pieces[-1].append(token)
    return pieces, breaks


def literal(text: str) -> str:
    """The pattern that fits exactly this text."""
    return re.sub(r"([*?\\])", r"\\\1", text)


def fits(rule: Rule, tool: str, title: str, kind: AskedFor) -> bool:
    """Whether a rule allows a request.

    A wildcard never reaches across `..` in a path, nor into a second command of a command line.
    """
    if rule.tool not in ("*", tool):
        return False
    if rule.pattern == literal(title):
        return True
    if kind != "execute" and ".." in PurePosixPath(title).parts:
        return False
    tokens = _tokens(rule.pattern)
    if kind != "execute" or rule.pattern == "*":  # whoever allows everything means it
        return _glob(tokens, title)
    patterns, allowed = _split(tokens)
    texts, found = _split((character, False) for character in title)
    return allowed == found and all(
        _glob(pattern, "".join(character for character, _ in text)) for pattern, text in zip(patterns, texts, strict=True)
    )


def outside(request: PermissionRequest, worktree: str) -> tuple[str, ...]:
    """The paths a request names that are not in the worktree; git's file there, which says where the repository is, counts as outside."""
    root = PurePosixPath(worktree)

    def inside(text: str) -> bool:
        path = PurePosixPath(text)
        if ".." in path.parts or not path.is_relative_to(root):
            return False
        return request.kind == "read" or path.relative_to(root).parts[:1] != (".git",)

    return tuple(path for path in request.paths if not inside(path))


def decide(request: PermissionRequest, policy: Policy, rules: tuple[Rule, ...], worktree: str, network: bool) -> Ruling | None:
    """Answer a request by rule or policy; None when a person has to.

    Args:
        rules: those of the session and its project.
        worktree: absolute root of the session's worktree.
        network: whether the project's policy lets agents reach the network.
    """
    for rule in rules:
        if fits(rule, request.tool, request.title, request.kind):
            return Ruling(Answer(True), By.RULE, rule.id)
    if policy is Policy.DENY:
        return Ruling(Answer(False, POLICY_DENIES), By.POLICY)
    if request.kind == "fetch" and not network:
        return Ruling(Answer(False, NO_NETWORK), By.POLICY)
    if policy is Policy.ASK or outside(request, worktree) or (request.kind == "other" and not request.paths):
        return None
    return Ruling(Answer(True), By.POLICY)


def decide_question(policy: Policy) -> Ruling | None:
    """Answer a question by policy; None when a person has to."""
    return Ruling(Answer(False, NO_QUESTIONS), By.POLICY) if policy is Policy.DENY else None


def too_late(seconds: float) -> Ruling:
    """The answer when nobody gave one before the deadline."""
    waited = f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"
    return Ruling(Answer(False, f"Nobody answered within {waited}; do without it, or say what is missing."), By.DEADLINE)
