"""Changes and decisions: what a turn left to decide on, and what was decided.

A decision is stored first and carried out by a node that has the project; the request waits for that a while. So
"approved" is only ever answered when it is done, and a request that ends early has not lost the decision.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from coder.change import ChangeState, FileChange, display_path
from coder.checks import CheckState
from coder.errors import InvalidInput, Unavailable
from coder.ports import Door
from coder.web.asking import Actor, ByProject, BySession, ChangeId, DecisionId, TheDoor, session_or_none
from coder.web.openapi import answers, failing
from coder.web.paging import Cursor, Limit, decode, page, words
from coder.web.problems import problem
from coder.web.review_shapes import Check
from coder.web.shapes import CHANGE_ID, FINGERPRINT, Change, Comparison, Decision, ListedChange, Page

router = APIRouter(prefix="/changes", tags=["changes"])
decisions = APIRouter(prefix="/decisions", tags=["changes"])

SECONDS = 30.0
"""How long a request waits for its decision to be carried out."""
CHECKS = 50
DIFF = "text/x-diff"
DECIDED = (
    answers(Decision, 404, said="Carried out")
    | answers(Decision, 404, status=202, said="Stored, but not carried out yet; `Location` is the decision to ask for")
    | {409: failing(409, "stale", "superseded", "conflict", "checkout_dirty", "wrong_branch")}
)


class Approval(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"fingerprint": FINGERPRINT, "target": "checkout"}]})

    fingerprint: Annotated[str, Field(description="Of the change as it was read")]
    target: Annotated[Literal["checkout", "branch"], Field(description="Into the project's checkout, or as a commit on a branch")] = (
        "checkout"
    )
    branch: Annotated[str | None, Field(description="With target branch; without it `coder/<session>`")] = None
    commit: Annotated[bool, Field(strict=True, description="With target checkout: also commit just these files")] = False
    push: Annotated[bool, Field(strict=True, description="With target branch: also push it to the project's remote")] = False
    reason: Annotated[str | None, Field(description="Kept with the decision")] = None


class NamedChange(BaseModel):
    model_config = ConfigDict(extra="forbid")

    change_id: UUID
    fingerprint: Annotated[str, Field(description="Of the change as it was read")]


class OrderedApproval(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"changes": [{"change_id": CHANGE_ID, "fingerprint": FINGERPRINT}], "commit": True}]},
    )

    changes: Annotated[list[NamedChange], Field(min_length=1, max_length=200, description="In the order in which they are approved")]
    target: Annotated[Literal["checkout", "branch"], Field(description="As of one approval, for all of them")] = "checkout"
    branch: str | None = None
    commit: Annotated[bool, Field(strict=True)] = False
    push: Annotated[bool, Field(strict=True)] = False
    reason: str | None = None


class DecidedPart(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: Annotated[str, Field(description="Of a file of the change, as `files` shows it")]
    hunk: Annotated[int | None, Field(strict=True, description="Its number in that file; without it the whole file")] = None
    verdict: Annotated[Literal["approve", "reject", "leave"], Field(description="What is not named is left")]


class PartialDecision(Approval):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "fingerprint": FINGERPRINT,
                    "parts": [
                        {"path": "src/parser.py", "hunk": 1, "verdict": "approve"},
                        {"path": "src/parser.py", "hunk": 2, "verdict": "reject"},
                        {"path": "tests/test_parser.py", "verdict": "approve"},
                    ],
                    "reason": "The parser must stay pure",
                }
            ]
        },
    )

    parts: Annotated[list[DecidedPart], Field(min_length=1, description="Each file, or hunk of a file, at most once")]


class Rejection(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"fingerprint": FINGERPRINT, "reason": "The parser must stay pure", "work": "keep"}]},
    )

    fingerprint: Annotated[str, Field(description="Of the change as it was read")]
    reason: Annotated[str | None, Field(description="Told to the agent with the next prompt")] = None
    work: Annotated[
        Literal["keep", "discard"], Field(description="keep: it stays in the worktree; discard: the worktree goes back to its base")
    ] = "keep"


@router.get("", responses=answers(ListedChange, 404, page=Page[ListedChange]))
async def list_changes(
    door: TheDoor,
    state: Annotated[str | None, Query(description=f"Comma-separated: {', '.join(ChangeState)}", examples=["pending,conflicted"])] = None,
    session_id: BySession = None,
    project: ByProject = None,
    check: Annotated[
        str | None, Query(description=f"Of the latest check, comma-separated: {', '.join(CheckState)}", examples=["failed"])
    ] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """The changes, newest first."""
    checks = words(check)
    for word in checks:
        if word not in list(CheckState):
            raise InvalidInput(f"`check` is made of {', '.join(CheckState)}, not of {word!r}.", field="check")
    states = words(state)
    for word in states:
        if word not in list(ChangeState):
            raise InvalidInput(f"`state` is made of {', '.join(ChangeState)}, not of {word!r}.", field="state")
    time, last = decode(cursor, datetime, UUID)
    listed = await page(
        door,
        "change_list",
        limit,
        lambda row: [row["created_at"], row["id"]],
        states=states or None,
        checks=checks or None,
        session_id=session_or_none(session_id),
        project=project or None,
        before_time=time,
        before_id=last,
    )
    return JSONResponse(listed)


@router.get("/{change_id}", responses=answers(Change, 404))
async def get_change(change_id: ChangeId, door: TheDoor) -> JSONResponse:
    """One change, with its files, its diff as text, and the fingerprint that a decision names."""
    return JSONResponse(await door.row("change_get", change_id=change_id))


@router.get(
    "/{change_id}/diff",
    response_class=Response,
    responses={
        200: {"description": "What git wrote", "content": {DIFF: {"schema": {"type": "string"}, "example": Change.EXAMPLE["diff"]}}},
        401: failing(401),
        404: failing(404),
        422: failing(422),
    },
)
async def get_diff(change_id: ChangeId, door: TheDoor) -> Response:
    """The diff's bytes, as `git apply` takes them: in whatever encodings the files have."""
    diff = await door.blob("change_diff", change_id=change_id)
    return Response(diff, headers={"Content-Type": DIFF, "Content-Disposition": f'inline; filename="{change_id}.diff"'})


@router.get("/{change_id}/compare", responses=answers(Comparison, 404))
async def compare_change(
    change_id: ChangeId,
    since: Annotated[UUID, Query(description="An earlier change of the same session", examples=[Comparison.EXAMPLE["since"]])],
    request: Request,
    door: TheDoor,
) -> JSONResponse:
    """What a change has that an earlier one of its session had not, and the reverse: what changed since somebody looked.

    Approvals and rebases between them are no difference. It is worked out from the project's repository, so ask the API of its host.
    """
    await door.row("change_get", change_id=since)
    found = await door.row("change_compared", change_id=change_id, since=since)
    if found["session_id"] != found["since_session"]:
        raise InvalidInput("`since` is a change of another session; name one of the same.", field="since")
    if UUID(found["host_id"]) != request.app.state.host_id:
        raise Unavailable(f"The repository of this change is on {found['host']}; ask the API there.")
    files, diff = await asyncio.to_thread(request.app.state.compare, found["repository"], found["since_commits"], found["commits"])
    answer = {"change_id": str(change_id), "since": str(since), "files": [_file(each) for each in files]}
    return JSONResponse({**answer, "diff": display_path(diff)})


def _file(file: FileChange) -> dict[str, Any]:
    old = None if file.old_path is None else display_path(file.old_path)
    hunks = [{"number": number, **asdict(hunk)} for number, hunk in enumerate(file.hunks, 1)]
    return {**asdict(file), "path": display_path(file.path), "old_path": old, "hunks": hunks}


@router.get("/{change_id}/check", responses=answers(Check, 404))
async def get_check(change_id: ChangeId, door: TheDoor) -> JSONResponse:
    """The latest check of a change, with what it printed."""
    return JSONResponse(await door.row("change_check", change_id=change_id))


@router.get("/{change_id}/checks", responses=answers(Check, 404, page=Page[Check]))
async def list_checks(change_id: ChangeId, door: TheDoor) -> JSONResponse:
    """All runs of the check of a change, the latest first, at most 50, in one page."""
    await door.row("change_get", change_id=change_id)
    return JSONResponse({"items": await door.rows("change_checks", change_id=change_id, limit=CHECKS), "next_cursor": None})


@router.post("/{change_id}/check", status_code=202, responses=answers(Check, 404, 409, status=202, said="Queued"))
async def check_again(change_id: ChangeId, door: TheDoor) -> JSONResponse:
    """Run the project's check command on a change that waits (again)."""
    return JSONResponse(await door.row("change_check_again", change_id=change_id), 202)


@router.post("/{change_id}/approve", responses=DECIDED)
async def approve_change(change_id: ChangeId, asked: Approval, request: Request, door: TheDoor, actor: Actor) -> Response:
    """Bring a change into the project's checkout or onto a branch, if it is still the one that was read."""
    decision = await door.row("change_approve", change_id=change_id, actor=actor, **asked.model_dump())
    return await _carried_out(door, decision, request.app.state.decision_seconds)


@router.post("/{change_id}/decide", responses=DECIDED)
async def decide_on_parts(change_id: ChangeId, asked: PartialDecision, request: Request, door: TheDoor, actor: Actor) -> Response:
    """Decide on parts of a change, if it is still the one that was read.

    What is approved goes to the target; what is rejected leaves the worktree at the turn boundary, and the agent is told; what is
    left stays the session's open change, under a new id and fingerprint (`left_change_id`).
    """
    decision = await door.row("change_decide", change_id=change_id, actor=actor, **asked.model_dump())
    return await _carried_out(door, decision, request.app.state.decision_seconds)


class Rebase(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"fingerprint": FINGERPRINT, "resolve": True}]})

    fingerprint: Annotated[str, Field(description="Of the change as it was read")]
    target: Annotated[Literal["checkout", "branch"], Field(description="What the work is put on")] = "checkout"
    branch: Annotated[str | None, Field(description="With target branch; without it `coder/<session>`")] = None
    resolve: Annotated[
        bool, Field(strict=True, description="Where both sides edited the same lines, queue a task for the agent instead of refusing")
    ] = False
    reason: Annotated[str | None, Field(description="Kept with the decision")] = None


@router.post("/{change_id}/rebase", responses=DECIDED)
async def rebase_change(change_id: ChangeId, asked: Rebase, request: Request, door: TheDoor, actor: Actor) -> Response:
    """Put a session's work on its target as it is by now ("update from target"), if the change is still the one that was read.

    The target is not touched. The target's edits come into the worktree at the turn boundary; what the change is on them is the
    session's open change from then on (`left_change_id`).
    """
    decision = await door.row("change_rebase", change_id=change_id, actor=actor, **asked.model_dump())
    return await _carried_out(door, decision, request.app.state.decision_seconds)


class Undo(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"reason": "It broke the nightly build"}]})

    reason: Annotated[str | None, Field(description="Kept with the decision")] = None


@router.post("/{change_id}/undo", responses=DECIDED)
async def undo_change(change_id: ChangeId, asked: Undo, request: Request, door: TheDoor, actor: Actor) -> Response:
    """Take an approved change, or the parts of it that were approved, out of its target again, while nothing stands on it.

    Its work waits for a decision again, as the session's open change (`left_change_id`).
    """
    decision = await door.row("change_undo", change_id=change_id, actor=actor, **asked.model_dump())
    return await _carried_out(door, decision, request.app.state.decision_seconds)


@router.post("/approve", responses=DECIDED)
async def approve_in_order(asked: OrderedApproval, request: Request, door: TheDoor, actor: Actor) -> Response:
    """Approve several changes, one after the other, and stop at the first that cannot be approved.

    Answers the last decision, or the one that failed; those behind it are `failed` with outcome `skipped`, and their changes wait on.
    """
    answer: Response = Response(status_code=204)
    for decision in await door.rows("change_approve_in_order", actor=actor, **asked.model_dump(mode="json")):
        answer = await _carried_out(door, decision, request.app.state.decision_seconds)
        if answer.status_code != 200:
            break
    return answer


@router.post("/{change_id}/reject", responses=DECIDED)
async def reject_change(change_id: ChangeId, asked: Rejection, request: Request, door: TheDoor, actor: Actor) -> Response:
    """Refuse a change, if it is still the one that was read."""
    decision = await door.row("change_reject", change_id=change_id, actor=actor, **asked.model_dump())
    return await _carried_out(door, decision, request.app.state.decision_seconds)


@decisions.get("", responses=answers(Decision, 404, page=Page[Decision]))
async def list_decisions(
    door: TheDoor,
    session_id: BySession = None,
    change_id: Annotated[UUID | None, Query(description="Only on this change", examples=[CHANGE_ID])] = None,
    project: ByProject = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JSONResponse:
    """Who decided what, when and why, newest first."""
    time, last = decode(cursor, datetime, UUID)
    listed = await page(
        door,
        "decision_list",
        limit,
        lambda row: [row["created_at"], row["id"]],
        session_id=session_or_none(session_id),
        change_id=change_id,
        project=project or None,
        before_time=time,
        before_id=last,
    )
    return JSONResponse(listed)


@decisions.get("/{decision_id}", responses=answers(Decision, 404))
async def get_decision(decision_id: DecisionId, door: TheDoor) -> JSONResponse:
    """One decision, and what became of it."""
    return JSONResponse(await door.row("decision_get", decision_id=decision_id))


async def _carried_out(door: Door, decision: dict[str, Any], seconds: float) -> Response:
    location = {"Location": f"/api/v1/decisions/{decision['id']}"}
    try:
        decision = await door.settled(UUID(decision["id"]), seconds)
    except Unavailable:
        return JSONResponse(decision, 202, location)  # it is stored: whoever asks for it later learns the end
    if decision["state"] == "failed":
        code = decision["outcome"] or "internal"
        said = decision["error"] or f"The decision failed ({code}); read the change again and decide anew."
        facts = {**decision["facts"], "decision_id": decision["id"], "change_id": decision["change_id"]}
        return problem(500 if code == "internal" else 409, said, code=code, headers=location, facts=facts)
    return JSONResponse(decision, 200 if decision["state"] == "done" else 202, location)
