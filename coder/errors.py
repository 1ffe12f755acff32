"""The errors of coder. A class's docstring is its message; facts fill the braces.

CoderError
├── InvalidInput            422  what was sent cannot be accepted
├── NotFound                404  the thing named does not exist
├── Conflict                409  the thing exists, but not in the state this needs
│   ├── Stale                    the fingerprint is not the change's present one
│   ├── Superseded               a newer change took this one's place
│   ├── MergeConflict            the change and its target edit the same lines
│   ├── CheckoutDirty            the checkout holds work that is not coder's
│   ├── WrongBranch              the checkout or the branch is not the one it must be
│   ├── UnsafePath               a change holds a path that leads out of the project, or into git's own directory
│   └── Held                     somebody else is using the worktree at this moment
├── Unauthorized            401  no token, or one that is not known
├── ForeignOrigin           403  a page of another origin asked for something
├── TooMany                 429  a bound on what one client, or all of them, may hold was reached
├── Unavailable             503  something coder stands on cannot be reached
│   └── Contended                somebody else holds the rows this needs, or it was called off
├── Fenced                       this node lost the task to another claim
└── TurnError                    ends a turn as `failed`, with a reason code
    ├── NoProjectPath            no_project_path
    ├── NotARepository           not_a_repository
    ├── NoCommit                 no_commit
    ├── AgentUnavailable         agent_unavailable
    ├── ProviderError            provider
    ├── ToolLoop                 tool_loop
    ├── TurnTimeout              timeout
    ├── DiskFull                 disk
    └── InternalError            internal

Every message is a sentence that names the thing, says what is wrong and what to do.
"""

from __future__ import annotations

from typing import Any, ClassVar


class CoderError(Exception):
    """{message}"""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500

    def __init__(self, message: str | None = None, **facts: Any) -> None:
        template = type(self).__doc__ or "{message}"
        self.facts = facts
        self.message = message if message is not None else template.format_map(facts)
        super().__init__(self.message)


class InvalidInput(CoderError):
    """{message}"""

    code = "invalid_input"
    status = 422


class NotFound(CoderError):
    """There is no {kind} {name}; `{look}` lists those that exist."""

    code = "not_found"
    status = 404


class Unauthorized(CoderError):
    """This request bears no valid token; send `Authorization: Bearer <token>` with the one printed at the first start."""

    code = "unauthorized"
    status = 401


class ForeignOrigin(CoderError):
    """The page {origin} is not coder's, so it may do nothing here; open the panel at {host} instead."""

    code = "foreign_origin"
    status = 403


class TooMany(CoderError):
    """{message}"""

    code = "too_many"
    status = 429


class Unavailable(CoderError):
    """{message}"""

    code = "unavailable"
    status = 503


class Contended(Unavailable):
    """{message}"""


class Conflict(CoderError):
    """{message}"""

    code = "conflict"
    status = 409


class Stale(Conflict):
    """Change {change} is not what was shown: its fingerprint is now {fingerprint}; read it again and decide on that."""

    code = "stale"


class Superseded(Conflict):
    """Change {change} is {state}, so it cannot be decided on; `coder change list` shows the changes that wait."""

    code = "superseded"


class MergeConflict(Conflict):
    """The change conflicts with {target} in {files}; nothing was touched: rebase it, approve again after resolving it there, or reject it."""

    code = "conflict"


class CheckoutDirty(Conflict):
    """The checkout {path} has uncommitted work in {files}; nothing was touched: commit or stash it, then approve again, or approve into a branch."""

    code = "checkout_dirty"


class WrongBranch(Conflict):
    """{message}"""

    code = "wrong_branch"


class UnsafePath(Conflict):
    """The change holds the path {path}, which no checkout may have; nothing was touched: reject it."""

    code = "unsafe_path"


class Held(Conflict):
    """The worktree of session {session} is in use by a turn; try again when the turn has ended."""

    code = "held"


class Fenced(CoderError):
    """Task {task} is no longer this node's (epoch {epoch}); what it produced after that is dropped."""

    code = "fenced"


class TurnError(CoderError):
    """{message}"""

    code = "internal"
    reason: ClassVar[str] = "internal"


class NoProjectPath(TurnError):
    """Project {project} points to {path}, which is not a directory on this host; correct the project's path or create the directory."""

    code = reason = "no_project_path"


class NotARepository(TurnError):
    """Project {project} points to {path}, which is not a git repository with a checkout ({detail}); run `git init` there, or correct the project's path."""

    code = reason = "not_a_repository"


class NoCommit(TurnError):
    """The repository {path} of project {project} has no commit yet; commit something there first, a worktree needs a commit to start from."""

    code = reason = "no_commit"


class AgentUnavailable(TurnError):
    """Agent {agent} is not available on this host ({detail}); install it, name another agent, or set the project's agent_fallback to native."""

    code = reason = "agent_unavailable"


class ProviderError(TurnError):
    """{message}"""

    code = reason = "provider"


class ToolLoop(TurnError):
    """The model made {requests} requests in one turn without coming to an end, which is the limit; say more exactly what to do, or raise CODER_MAX_REQUESTS."""

    code = reason = "tool_loop"


class TurnTimeout(TurnError):
    """{message}"""

    code = reason = "timeout"


class DiskFull(TurnError):
    """No space is left for {what}; free some on the disk of {where} and retry the task."""

    code = reason = "disk"


class InternalError(TurnError):
    """{message}"""
