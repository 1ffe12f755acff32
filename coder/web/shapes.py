"""What the API answers, for OpenAPI: each shape with an example.

The rows come from `postgres/door.sql` in just these shapes and are passed on as they are; a test validates the
answers against the models, so that neither drifts. Times are RFC 3339 with an offset.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from coder.change import ChangeState, Operation
from coder.checks import CheckState
from coder.events import AskedFor
from coder.permission import PermissionState, Policy
from coder.task import ExecutionPath, Reason, TaskState

PROJECT_ID = "0b6f2c1e-6d0f-4a53-9a3e-2f1d6a1c7e10"
SESSION_ID = "5c1f0a52-93c1-4a2b-8c0f-5f7c1f3f2a11"
CHANGE_ID = "9d0c7a34-1f0b-4c6e-8b8e-6a4d0f5e3c22"
OLD_CHANGE_ID = "1b6e4f02-53d8-4a7b-9c41-7f0e2d8a6b90"
COMMENT_ID = "6f0d2c1b-8a35-4c9e-b1d7-2e4f6a8c0d51"
DECISION_ID = "3e2b9f60-7a4d-4d1c-9c55-1b2a3c4d5e33"
HOST_ID = "f1a2b3c4-d5e6-4f70-8123-456789abcdef"
PERMISSION_ID = "a4b5c6d7-e8f9-4a0b-9c1d-2e3f4a5b6c77"
RULE_ID = "c0ffee00-1234-4abc-8def-0123456789ab"
CHAT_ID = "7f3e2d1c-0b9a-4877-a665-544332211000"
FINGERPRINT = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
EARLIER = "2026-03-01T09:30:00.000000+00:00"
LATER = "2026-03-01T09:31:12.500000+00:00"
COMMIT = "8d7c6b5a4f3e2d1c0b9a8f7e6d5c4b3a29180706"


class Shape(BaseModel):
    """A shape of the API; `EXAMPLE` is one that could really be answered."""

    EXAMPLE: ClassVar[dict[str, Any]] = {}


class Project(Shape):
    id: UUID
    name: str
    path: Annotated[str, Field(description="Absolute path of the checkout on its host")]
    host_id: Annotated[UUID | None, Field(description="The host it is on; null = any")]
    agent_fallback: Literal["native", "fail"]
    permission_policy: Annotated[Policy, Field(description="What its agents may do without asking a person")]
    network: Annotated[Literal["on", "off"], Field(description="Whether its agents may reach the network")]
    copy_globs: list[str]
    setup_command: str | None
    check_command: Annotated[str | None, Field(description="Run on what each turn left")]
    check_seconds: float
    auto_fix: Annotated[int, Field(description="How often in a row a failed check is fed back to the agent")]
    created_at: AwareDatetime

    EXAMPLE = {
        "id": PROJECT_ID, "name": "demo", "path": "/srv/demo", "host_id": HOST_ID, "agent_fallback": "native",
        "permission_policy": "allow_in_worktree", "network": "on", "copy_globs": [], "setup_command": None,
        "check_command": "make test", "check_seconds": 600.0, "auto_fix": 0, "created_at": EARLIER,
    }  # fmt: skip


class Task(Shape):
    id: int
    project_id: UUID
    project: str
    session_id: UUID
    chat_id: UUID | None
    state: TaskState
    waiting_for: Annotated[
        Literal["run_at", "decision", "host", "session", "dispatcher", "permission", "question", "provider"] | None,
        Field(
            description="Why a pending task does not run yet: its time, a person's decision, its host, the turn before it, a free slot; "
            "what a running one waits for: a person's answer to `permission_id`, or the provider, which failed and is asked again"
        ),
    ]
    permission_id: Annotated[UUID | None, Field(description="The oldest open request or question of this task's agent")]
    reason: Reason | None
    error: str | None
    notices: list[str]
    input: str
    agent: str | None
    agent_used: str | None
    model: str | None
    mode_id: str | None
    thinking_option_id: str | None
    priority: int
    run_at: AwareDatetime | None
    labels: list[str]
    asked_by: Annotated[str, Field(description="Who queued it: the name of a token, or the database's role")]
    idempotency_key: str | None
    attempts: int
    max_attempts: int
    timeout_seconds: float | None
    retry_of: int | None
    retried_by: int | None
    change_id: Annotated[UUID | None, Field(description="The change this task's turn left to decide on")]
    output_summary: Annotated[str | None, Field(description="The first 500 characters of the agent's answer")]
    cost_tokens: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    execution_path: ExecutionPath | None
    created_at: AwareDatetime
    claimed_at: AwareDatetime | None
    first_event_at: AwareDatetime | None
    cancel_requested_at: AwareDatetime | None
    ended_at: AwareDatetime | None

    EXAMPLE = {
        "id": 42, "project_id": PROJECT_ID, "project": "demo", "session_id": SESSION_ID, "chat_id": None, "state": "completed",
        "waiting_for": None, "permission_id": None, "reason": None, "error": None, "notices": [], "input": "Add a test for the parser",
        "agent": None,
        "agent_used": "native", "model": None, "mode_id": None, "thinking_option_id": None, "priority": 0, "run_at": None, "labels": ["ci"],
        "asked_by": "admin",
        "idempotency_key": None, "attempts": 1, "max_attempts": 3, "timeout_seconds": None, "retry_of": None, "retried_by": None,
        "change_id": CHANGE_ID, "output_summary": "I added tests/test_parser.py.", "cost_tokens": 5210, "input_tokens": 4800,
        "cached_tokens": 3900, "output_tokens": 410, "execution_path": "native", "created_at": EARLIER, "claimed_at": EARLIER,
        "first_event_at": EARLIER, "cancel_requested_at": None, "ended_at": LATER,
    }  # fmt: skip


class AddedTask(Task):
    existed: Annotated[bool, Field(description="Whether the idempotency key named a task that was there already")]

    EXAMPLE = Task.EXAMPLE | {
        "state": "pending", "waiting_for": "dispatcher", "agent_used": None, "attempts": 0, "change_id": None, "output_summary": None,
        "cost_tokens": 0, "input_tokens": 0, "cached_tokens": 0, "output_tokens": 0, "execution_path": None, "claimed_at": None,
        "first_event_at": None, "ended_at": None, "existed": False,
    }  # fmt: skip


class QueuedTask(Task):
    position: Annotated[str, Field(description="A decimal number: in this order they run")]

    EXAMPLE = {name: value for name, value in AddedTask.EXAMPLE.items() if name != "existed"} | {"position": "42"}


class Session(Shape):
    id: UUID
    project_id: UUID
    project: str
    workspace_id: str
    title: str
    status: Literal["active", "idle", "closed"]
    queue_state: Literal["idle", "scheduled", "ready", "running", "held"] | None
    waiting_for_host: Annotated[bool | None, Field(description="No node is alive on the session's host")]
    held_by: Annotated[int | None, Field(description="The task that waits for resume, retry or dismiss")]
    on_failure: Literal["continue", "hold"]
    cwd: Annotated[str | None, Field(description="Its own working directory, inside the project; null = its workspace's or project's")]
    effective_cwd: Annotated[str, Field(description="Where its turns start, each in this directory of the session's worktree")]
    worktree: str | None
    host_id: UUID | None
    pending_tasks: int
    running_task: int | None
    open_change_id: UUID | None
    context_size: Annotated[int | None, Field(description="Tokens in the context of its latest turn; null = not known")]
    context_limit: Annotated[int | None, Field(description="Tokens that context can hold; null = not known")]
    compacted_from: Annotated[UUID | None, Field(description="The chat whose summary its present chat goes on from")]
    created_at: AwareDatetime
    last_activity_at: AwareDatetime
    closed_at: AwareDatetime | None

    EXAMPLE = {
        "id": SESSION_ID, "project_id": PROJECT_ID, "project": "demo", "workspace_id": "default", "title": "Add a test for the parser",
        "status": "idle", "queue_state": "idle", "waiting_for_host": False, "held_by": None, "on_failure": "continue", "cwd": None,
        "effective_cwd": "/srv/demo", "worktree": "/home/ada/.local/share/coder/worktrees/5c1f0a52",
        "host_id": HOST_ID, "pending_tasks": 0, "running_task": None,
        "open_change_id": CHANGE_ID, "context_size": 5210, "context_limit": 200000, "compacted_from": None, "created_at": EARLIER,
        "last_activity_at": LATER, "closed_at": None,
    }  # fmt: skip


class OneSession(Session):
    cost_tokens: Annotated[int, Field(description="What all its turns took")]

    EXAMPLE = Session.EXAMPLE | {"cost_tokens": 48210}


class Cwd(Shape):
    explicit: Annotated[str | None, Field(description="The session's own")]
    effective: Annotated[
        str, Field(description="The session's own, else its workspace's default inside the project, else the project's root")
    ]

    EXAMPLE = {"explicit": "/srv/demo/api", "effective": "/srv/demo/api"}


class Workspace(Shape):
    id: str
    title: str
    default_cwd: Annotated[str | None, Field(description="Where turns of its sessions start, in projects that it is inside of")]
    session_count: int
    created_at: AwareDatetime
    last_activity_at: AwareDatetime

    EXAMPLE = {
        "id": "payments", "title": "Payments", "default_cwd": "/srv/demo/api", "session_count": 12, "created_at": EARLIER,
        "last_activity_at": LATER,
    }  # fmt: skip


class DeletedWorkspace(Shape):
    id: str
    closed_count: Annotated[int, Field(description="Sessions that were open; all of its sessions are in `default` now")]

    EXAMPLE = {"id": "payments", "closed_count": 3}


class Message(Shape):
    id: UUID
    ordinal: int
    session_id: UUID
    chat_id: UUID
    task_id: int
    role: Literal["user", "assistant"]
    state: Literal["streaming", "complete", "failed", "cancelled", "interrupted"]
    text: str
    reasoning: str
    tool_calls: list[dict[str, Any]]
    created_at: AwareDatetime
    ended_at: AwareDatetime | None
    agent: Annotated[str | None, Field(description="Who did the turn; null of what the user said, as are the next two")]
    cost_tokens: Annotated[int | None, Field(description="What the turn took")]
    error: Annotated[str | None, Field(description="Why the turn failed")]

    EXAMPLE = {
        "id": "1a2b3c4d-5e6f-4a7b-8c9d-0e1f2a3b4c5d", "ordinal": 84, "session_id": SESSION_ID, "chat_id": CHAT_ID, "task_id": 42,
        "role": "assistant", "state": "complete", "text": "I added tests/test_parser.py.", "reasoning": "", "tool_calls": [],
        "created_at": EARLIER, "ended_at": LATER, "agent": "native", "cost_tokens": 5210, "error": None,
    }  # fmt: skip


class ListedChange(Shape):
    id: UUID
    session_id: UUID
    project_id: UUID
    project: str
    task_id: int
    asked_by: Annotated[str, Field(description="Who queued that task")]
    agent: str
    title: str
    state: ChangeState
    turn_outcome: Annotated[
        Literal["completed", "failed", "cancelled", "interrupted"], Field(description="How the turn ended; look twice when not completed")
    ]
    fingerprint: Annotated[str, Field(description="What a decision names: sha256 of base tree ':' snapshot tree")]
    file_count: int
    additions: int
    deletions: int
    warnings: list[str]
    check_state: Annotated[CheckState | None, Field(description="Of its latest check; null where the project has no check command")]
    superseded_by: UUID | None
    created_at: AwareDatetime
    decided_at: AwareDatetime | None

    EXAMPLE = {
        "id": CHANGE_ID, "session_id": SESSION_ID, "project_id": PROJECT_ID, "project": "demo", "task_id": 42, "asked_by": "admin",
        "agent": "native",
        "title": "Add a test for the parser", "state": "pending", "turn_outcome": "completed", "fingerprint": FINGERPRINT, "file_count": 1,
        "additions": 2, "deletions": 0, "warnings": [], "check_state": "passed", "superseded_by": None, "created_at": LATER,
        "decided_at": None,
    }  # fmt: skip


class Hunk(Shape):
    number: Annotated[int, Field(description="From 1 in its file; what a decision on parts names, together with the fingerprint")]
    old_start: Annotated[int, Field(description="Its first line in the base, from 1")]
    old_lines: int
    new_start: Annotated[int, Field(description="Its first line in the snapshot, from 1")]
    new_lines: int
    diff_line: Annotated[int, Field(description="The line of `diff`, from 1, where its `@@` stands")]
    diff_lines: Annotated[int, Field(description="How many lines of `diff` it takes, the `@@` included")]


class ChangedFile(Shape):
    path: str
    old_path: str | None
    operation: Operation
    additions: Annotated[int | None, Field(description="Lines; null for a binary file")]
    deletions: int | None
    old_mode: str
    new_mode: str
    hunks: Annotated[list[Hunk], Field(description="None where the file can only be decided on whole: binary, mode alone, another type")]


class ConflictRegion(Shape):
    line: Annotated[int, Field(description="Where it begins in the merged file, from 1")]
    ours: Annotated[str, Field(description="What the target has there")]
    theirs: Annotated[str, Field(description="What the change has there")]


class ConflictedFile(Shape):
    path: str
    detail: Annotated[str, Field(description="What git says of it")]
    hunks: Annotated[list[ConflictRegion], Field(description="The regions both sides edited; none of a binary file, or one that is gone")]


class Change(ListedChange):
    conflicts: Annotated[list[ConflictedFile], Field(description="Of a conflicted change: the files that clash")]
    base_commit: str
    snapshot_commit: str
    worktree: str | None
    files: list[ChangedFile]
    decision_id: Annotated[UUID | None, Field(description="The latest decision on it")]
    diff: Annotated[str, Field(description="As text for reading; /diff has the bytes")]

    EXAMPLE = ListedChange.EXAMPLE | {
        "conflicts": [], "base_commit": COMMIT, "snapshot_commit": COMMIT[::-1], "worktree": Session.EXAMPLE["worktree"],
        "files": [{"path": "tests/test_parser.py", "old_path": None, "operation": "added", "additions": 2, "deletions": 0,
                   "old_mode": "000000", "new_mode": "100644",
                   "hunks": [{"number": 1, "old_start": 0, "old_lines": 0, "new_start": 1, "new_lines": 2,
                              "diff_line": 5, "diff_lines": 3}]}],
        "decision_id": None,
        "diff": "diff --git a/tests/test_parser.py b/tests/test_parser.py\nnew file mode 100644\n"
                "--- /dev/null\n+++ b/tests/test_parser.py\n"
                "@@ -0,0 +1,2 @@\n+def test_empty():\n+    assert parse('') == []\n",
    }  # fmt: skip


class Comparison(Shape):
    change_id: UUID
    since: Annotated[UUID, Field(description="The earlier change")]
    files: Annotated[list[ChangedFile], Field(description="Those that differ; a file that reads the same in both is not here")]
    diff: Annotated[str, Field(description="As text for reading; `-` had the earlier change, `+` has the later one")]

    EXAMPLE = {
        "change_id": CHANGE_ID, "since": OLD_CHANGE_ID, "files": Change.EXAMPLE["files"],
        "diff": Change.EXAMPLE["diff"],
    }  # fmt: skip


class Part(Shape):
    path: str
    hunk: Annotated[int | None, Field(description="Null: the whole file")]
    verdict: Literal["approve", "reject"]


class Decision(Shape):
    id: UUID
    change_id: UUID
    session_id: UUID
    project_id: UUID
    project: str
    kind: Annotated[Literal["approve", "reject", "part", "undo", "rebase"], Field(description="part: a decision on parts of the change")]
    target: Literal["checkout", "branch"] | None
    branch: str | None
    commit: bool
    push: bool
    work: Literal["keep", "discard"] | None
    actor: str
    reason: str | None
    parts: Annotated[list[Part], Field(description="What was approved or rejected, when it was not all of the change")]
    state: Literal["queued", "running", "done", "failed"]
    outcome: str | None
    error: str | None
    facts: dict[str, Any]
    fingerprint: str
    change_state: ChangeState
    left_change_id: Annotated[UUID | None, Field(description="The session's open change after it, with what was left")]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None

    EXAMPLE = {
        "id": DECISION_ID, "change_id": CHANGE_ID, "session_id": SESSION_ID, "project_id": PROJECT_ID, "project": "demo", "kind": "approve",
        "target": "checkout", "branch": None, "commit": False, "push": False, "work": None, "actor": "admin", "reason": None, "parts": [],
        "state": "done", "outcome": "approved", "error": None, "facts": {}, "fingerprint": FINGERPRINT, "change_state": "approved",
        "left_change_id": None, "created_at": LATER,
        "started_at": LATER, "ended_at": LATER,
    }  # fmt: skip


class PermissionChoice(Shape):
    label: str
    description: str


class Permission(Shape):
    id: UUID
    kind: Literal["permission", "question"]
    state: Annotated[PermissionState, Field(description="A question that was answered is `allowed_once`")]
    project_id: UUID
    project: str
    session_id: UUID
    task_id: int
    asked_by: Annotated[str, Field(description="Who queued that task")]
    agent: str
    tool: Annotated[str | None, Field(description="What the agent wants to use, as it names it; null of a question")]
    asked_for: AskedFor | None
    title: Annotated[str, Field(description="The exact command, path or address; of a question, its text")]
    input: Annotated[Any, Field(description="The tool's arguments")]
    paths: list[str]
    choices: Annotated[list[PermissionChoice], Field(description="What a question proposes; other answers are free text")]
    several: Annotated[bool, Field(description="Whether a question may have several answers")]
    answers: list[str]
    message: Annotated[str | None, Field(description="Why it was denied, as the agent reads it")]
    actor: Annotated[str | None, Field(description="Who answered: a person, or `rule`, `policy`, `deadline`, `coder`")]
    rule_id: UUID | None
    requested_at: AwareDatetime
    deadline: Annotated[AwareDatetime, Field(description="Unanswered by then, it is denied")]
    answered_at: AwareDatetime | None
    told_at: Annotated[AwareDatetime | None, Field(description="When the agent was told the answer")]

    EXAMPLE = {
        "id": PERMISSION_ID, "kind": "permission", "state": "requested", "project_id": PROJECT_ID, "project": "demo",
        "session_id": SESSION_ID, "task_id": 42, "asked_by": "admin", "agent": "opencode", "tool": "bash",
        "asked_for": "execute", "title": "npm test",
        "input": {"command": "npm test"}, "paths": [], "choices": [], "several": False, "answers": [], "message": None, "actor": None,
        "rule_id": None, "requested_at": EARLIER, "deadline": LATER, "answered_at": None, "told_at": None,
    }  # fmt: skip


class PermissionRule(Shape):
    id: UUID
    project_id: UUID
    project: str
    session_id: Annotated[UUID | None, Field(description="Only in this session; null = in all of the project")]
    tool: Annotated[str, Field(description="The agent's tool; `*` = any")]
    pattern: Annotated[str, Field(description="Of the request's title: `*` is any text, `?` a character, `\\` takes the next as it is")]
    actor: str
    created_at: AwareDatetime

    EXAMPLE = {
        "id": RULE_ID, "project_id": PROJECT_ID, "project": "demo", "session_id": None, "tool": "bash", "pattern": "npm *",
        "actor": "admin",
        "created_at": EARLIER,
    }  # fmt: skip


class Chat(Shape):
    id: UUID
    session_id: UUID
    context_size: int | None
    context_limit: int | None
    compacted_from: Annotated[UUID | None, Field(description="The chat whose summary this one began with")]
    created_at: AwareDatetime
    closed_at: AwareDatetime | None

    EXAMPLE = {
        "id": CHAT_ID, "session_id": SESSION_ID, "context_size": None, "context_limit": None, "compacted_from": None,
        "created_at": EARLIER, "closed_at": None,
    }  # fmt: skip


class Problem(BaseModel):
    """RFC 9457; further members are the facts of this error."""

    type: str
    title: str
    status: int
    detail: Annotated[str, Field(description="A sentence: what was wrong with what, and what to do")]
    code: Annotated[str, Field(description="Stable; what programs compare")]


S = TypeVar("S", bound=Shape)


class Page(BaseModel, Generic[S]):
    items: list[S]
    next_cursor: Annotated[str | None, Field(description="Send it as `cursor` for the next page; null on the last")]


class SessionPage(Page[Session]):
    ignored: Annotated[list[str], Field(description="Words of `status` that are none")]
