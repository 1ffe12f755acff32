"""What is said about changes: comments of reviewers, checks of projects."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from coder.checks import CheckState
from coder.comments import CommentState
from coder.web.shapes import CHANGE_ID, COMMENT_ID, LATER, PROJECT_ID, SESSION_ID, Shape


class Check(Shape):
    """One run of a project's check command on what a turn left."""

    id: UUID
    change_id: UUID
    session_id: UUID
    project_id: UUID
    task_id: int
    command: str
    state: Annotated[CheckState, Field(description="skipped: the session's next turn came first, or the change was replaced or rejected")]
    exit_code: Annotated[int | None, Field(description="null when coder ended it, or it has not ended")]
    detail: Annotated[str | None, Field(description="What became of it, as the end of a sentence that begins with the command")]
    output: Annotated[str, Field(description="What it printed, without colours, its middle cut out where it is long")]
    fixes: Annotated[int, Field(description="How many tasks in a row were made of failed checks before it")]
    fix_task: Annotated[int | None, Field(description="The task that was made of this failure")]
    created_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    seconds: float | None

    EXAMPLE: ClassVar = {
        "id": "0b9d8c7a-6f5e-4d3c-8b2a-1a0f9e8d7c6b", "change_id": CHANGE_ID, "session_id": SESSION_ID, "project_id": PROJECT_ID,
        "task_id": 42, "command": "make test", "state": "passed", "exit_code": 0, "detail": "ended with exit code 0",
        "output": "2 passed in 0.03s\n", "fixes": 0, "fix_task": None, "created_at": LATER, "started_at": LATER, "ended_at": LATER,
        "seconds": 1.27,
    }  # fmt: skip


class Comment(Shape):
    """What a reviewer says about a file of a change, or lines of it."""

    id: UUID
    session_id: UUID
    project_id: UUID
    project: str
    change_id: Annotated[UUID, Field(description="The change it stands on now: the session's latest, once it was carried there")]
    path: str
    side: Annotated[Literal["old", "new"], Field(description="Whether its lines are numbered as before or as after the change")]
    line: Annotated[int | None, Field(description="The first line, from 1; null: the comment is about the file")]
    end_line: int | None
    outdated: Annotated[bool, Field(description="What it is about is gone; path and lines are those it was written on")]
    code: Annotated[str, Field(description="The lines and what stood around them, as the diff showed them")]
    body: str
    author: str
    state: Annotated[CommentState, Field(description="A draft is seen by its author alone")]
    task_id: Annotated[int | None, Field(description="The task it was sent with")]
    resolved_by: str | None
    resolved_at: AwareDatetime | None
    first_change_id: Annotated[UUID, Field(description="The change it was written on, and where there")]
    first_path: str
    first_line: int | None
    first_end_line: int | None
    created_at: AwareDatetime
    edited_at: AwareDatetime | None

    EXAMPLE: ClassVar = {
        "id": COMMENT_ID, "session_id": SESSION_ID, "project_id": PROJECT_ID, "project": "demo", "change_id": CHANGE_ID,
        "path": "tests/test_parser.py", "side": "new", "line": 2, "end_line": 2, "outdated": False,
        "code": "+def test_empty():\n+    assert parse('') == []", "body": "Test a blank line as well.", "author": "admin",
        "state": "draft", "task_id": None, "resolved_by": None, "resolved_at": None, "first_change_id": CHANGE_ID,
        "first_path": "tests/test_parser.py", "first_line": 2, "first_end_line": 2, "created_at": LATER, "edited_at": None,
    }  # fmt: skip
