"""The words of permissions, and the policy that answers without a person. Pure.

A request is answered by the first of: a rule that somebody made with "always", the project's policy, a person, the
deadline. The agent itself is only ever told yes or no, once: what holds for longer is a rule of ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from coder.events import PermissionRequest


class Policy(StrEnum):
    """What a project lets its agents do without asking a person."""

    ASK = "ask"
    ALLOW_IN_WORKTREE = "allow_in_worktree"
    DENY = "deny"


class PermissionState(StrEnum):
    REQUESTED = "requested"
    ALLOWED_ONCE = "allowed_once"
    ALLOWED_ALWAYS = "allowed_always"
    DENIED = "denied"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Rule:
    """What somebody allowed for good.

    Attributes:
        tool: the tool it is about.
        pattern: of the request's title, with `*` and `?`.
    """

    tool: str
    pattern: str


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


def outside(request: PermissionRequest, worktree: str) -> tuple[str, ...]:
    """The paths a request names that are not in the worktree."""
    root = PurePosixPath(worktree)
    return tuple(path for path in request.paths if ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(root))


def decide(request: PermissionRequest, policy: Policy, rules: tuple[Rule, ...], worktree: str, network: bool) -> Answer | None:
    """Answer a request by rule or policy; None when a person has to.

    Args:
        rules: those of the session and its project.
        worktree: absolute root of the session's worktree.
        network: whether the project's policy lets agents reach the network.
    """
    if any(rule.tool == request.tool and fnmatchcase(request.title, rule.pattern) for rule in rules):
        return Answer(True)
    if policy is Policy.DENY:
        return Answer(False, "The project's policy denies whatever has to be asked for; do without it, or say what is missing.")
    if policy is Policy.ASK:
        return None
    if outside(request, worktree):
        return None
    if request.kind == "fetch":
        return Answer(True) if network else Answer(False, "This project's agents have no network; do without it.")
    return None if request.kind == "other" and not request.paths else Answer(True)
