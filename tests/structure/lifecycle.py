"""Draws docs/lifecycle.md from the tables in code: `python -m tests.structure.lifecycle > docs/lifecycle.md`."""

from __future__ import annotations

from coder.change import OPEN_CHANGE, ChangeState
from coder.permission import MOVES, PermissionState
from coder.task import ENDED, TRANSITIONS, Reason, TaskState

CHANGE = (
    ("[*]", "pending", "a turn ends with a diff, parts were left, or an approval was undone"),
    ("pending", "applying", "an approval is carried out"),
    ("conflicted", "applying", "approved again"),
    ("applying", "approved", "the target holds it"),
    ("applying", "pending", "refused, nothing was touched"),
    ("applying", "conflicted", "the target was changed meanwhile"),
    ("pending", "conflicted", "the merge has conflicts"),
    ("applying", "rejected", "some of its parts were rejected, none approved"),
    ("pending", "rejected", "rejected"),
    ("conflicted", "rejected", "rejected"),
    ("pending", "superseded", "the next turn ends"),
    ("conflicted", "superseded", "the next turn ends"),
    ("applying", "superseded", "put on its target as it is by now"),
    ("approved", "undone", "taken out of its target again"),
)
DECISION = (
    ("[*]", "queued", "approve, decide on parts, rebase or undo"),
    ("[*]", "done", "reject"),
    ("queued", "running", "a node of the project's host takes it"),
    ("running", "running", "its node died, another goes on"),
    ("running", "done", "approved, its parts rejected, rebased or undone"),
    ("running", "failed", "stale, superseded, conflict, checkout_dirty, wrong_branch"),
)
QUEUE = (
    ("[*]", "ready", "a task is inserted"),
    ("[*]", "scheduled", "a task with a later run_at is inserted"),
    ("idle", "ready", "a task is inserted"),
    ("idle", "scheduled", "a task with a later run_at is inserted"),
    ("scheduled", "ready", "the time has come"),
    ("ready", "running", "claimed"),
    ("ready", "scheduled", "the run_at of what waited was moved to later"),
    ("ready", "idle", "what waited was cancelled"),
    ("scheduled", "idle", "what waited was cancelled"),
    ("running", "ready", "the turn ended, more waits"),
    ("running", "scheduled", "the turn ended, more waits for its time"),
    ("running", "idle", "the turn ended, nothing waits"),
    ("running", "held", "the task was interrupted, or failed in a session that holds on failure"),
    ("held", "ready", "resume, retry, or dismiss with more waiting"),
    ("held", "scheduled", "dismiss, and more waits for its time"),
    ("held", "idle", "dismiss, or the session is closed"),
)
PERMISSION = (("[*]", str(PermissionState.REQUESTED), "the agent asks"), *((str(old), str(new), why) for old, new, why in MOVES))
CHECK = (
    ("[*]", "queued", "a turn left a change, or somebody wants it again"),
    ("queued", "running", "a node of the project's host takes it, while the session rests"),
    ("running", "running", "its node died, another begins again"),
    ("running", "queued", "its node stops"),
    ("running", "passed", "exit code 0"),
    ("running", "failed", "another exit code, too long, or too much"),
    ("running", "skipped", "the session's next turn comes, or the change is replaced or rejected"),
    ("queued", "skipped", "the change is replaced or rejected"),
)
AGENT_SESSION = (
    ("[*]", "active", "a turn ended and can be gone on with"),
    ("active", "stopped", "its node ended the agent cleanly"),
    ("active", "lost", "its node died, or the agent crashed or was cancelled in an unclear state"),
    ("stopped", "active", "resumed by a turn"),
    ("stopped", "lost", "the turn that resumed it did not end clearly"),
    ("lost", "active", "a new one took its place"),
)


def diagram(rows: tuple[tuple[str, str, str], ...], ends: frozenset[str] = frozenset()) -> str:
    lines = [f"    {start} --> {end}: {why}" for start, end, why in rows]
    lines += [f"    {end} --> [*]" for end in sorted(ends)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```"])


def draw() -> str:
    """The whole page."""
    tasks = tuple((str(state), str(end), str(outcome)) for (state, outcome), end in TRANSITIONS.items())
    tasks = (("[*]", str(TaskState.PENDING), "inserted"), *tasks)
    decided = frozenset(str(state) for state in ChangeState if state not in OPEN_CHANGE)
    return "\n".join(
        [
            "# Lifecycles",
            "",
            "Drawn from the tables in code by `python -m tests.structure.lifecycle`; a test compares this page, the code and `schema.sql`.",
            "",
            "## A task",
            "",
            diagram(tasks, frozenset(str(state) for state in ENDED)),
            "",
            "Attempts are counted at the claim. Until its first event is *seen* (`first_event_at`) a task whose node dies is requeued",
            "while attempts are left; after it, it is interrupted and holds its session until somebody resumes, retries or dismisses",
            "it. Resume and retry insert a new task at the head of the session (`retry_of`); the old one stays as it is.",
            "",
            f"Reasons of an ending: {', '.join(f'`{reason}`' for reason in Reason)}.",
            "",
            "## A session in the queue (`session_queue.state`)",
            "",
            diagram(QUEUE),
            "",
            "## A change",
            "",
            diagram(CHANGE, decided),
            "",
            f"Open, at most one per session: {', '.join(f'`{state}`' for state in ChangeState if state in OPEN_CHANGE)}.",
            "",
            "## A decision",
            "",
            diagram(DECISION, frozenset({"done", "failed"})),
            "",
            "## A check",
            "",
            diagram(CHECK, frozenset({"passed", "failed", "skipped"})),
            "",
            "One that failed becomes the session's next task (`fix_task`) as often in a row as the project's `auto_fix` says.",
            "",
            "## A permission or a question",
            "",
            diagram(PERMISSION, frozenset(str(state) for state in PermissionState if state is not PermissionState.REQUESTED)),
            "",
            "The first answer counts. A request whose turn was interrupted stays open until its deadline: it moves on to the task that",
            "resumes or retries the turn (`permissions.task_id`), and when the agent asks the same again, that answer is the answer.",
            "",
            "## What an agent keeps of a chat (`agent_sessions.status`)",
            "",
            diagram(AGENT_SESSION),
            "",
        ]
    )


if __name__ == "__main__":
    print(draw(), end="")
