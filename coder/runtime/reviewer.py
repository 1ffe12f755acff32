"""Carries out approvals: plan -> store the plan -> touch the target -> settle. Crash-safe at every step.

The plan is stored before anything is touched; whoever takes over a decision of a dead node compares the
target with it and finishes forward, or says which files somebody else changed meanwhile.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog

from coder.change import ChangeState, Claim, Found, Plan, Rest, display_path
from coder.change_ports import ChangeStore, Worktrees
from coder.errors import CheckoutDirty, CoderError, InternalError, MergeConflict, Unavailable
from coder.ports import Clock
from coder.routing import resolution
from coder.runtime.lease import Lease
from coder.runtime.wake import Wake

REFUSALS = {"superseded": "Change {id} was superseded before it could be approved; decide on the one that took its place."}
NAMED_FILES = 10
TRIES = 30
TRY_SECONDS = 2.0
UNFORESEEN = "an approval failed in a way nobody foresaw"

log = structlog.get_logger(__name__)


class Reviewer:
    def __init__(self, store: ChangeStore, worktrees: Worktrees, lease: Lease, clock: Clock, *, host: UUID, poll: float) -> None:
        self._store = store
        self._worktrees = worktrees
        self._lease = lease
        self._clock = clock
        self._host = host
        self._poll = poll
        self._bell = Wake(clock)
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        self._bell.wake()

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="reviewer")

    async def stop(self) -> None:
        """Let the decision at hand be finished, then stop."""
        if self._task is not None:
            task, self._task = self._task, None
            self._bell.wake()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while self._task is not None:
            try:
                node = self._lease.node
                claim = await self._store.claim_decision(node, self._host) if node is not None else None
                if claim is not None:
                    await self._carry_out(claim)
                    continue
            except Unavailable as error:
                log.warning("decisions wait for the database", why=error.message)
            except Exception:
                log.exception("the reviewer met an error it does not know; the decision is tried again with the next poll")
            await self._bell.wait(self._poll)

    async def _carry_out(self, claim: Claim) -> None:
        """One decision to its end. What the database refuses passes: the decision stays this node's and is claimed again."""
        try:
            claim = await self._weighed(claim)
            plan = claim.plan or await self._worktrees.plan(claim.approval)
            found, others = await self._worktrees.examine(plan) if claim.plan else (Found.OLD, ())
        except MergeConflict as conflict:
            await self._store.settle_decision(
                claim,
                outcome=conflict.code,
                error=stands_on(conflict) if claim.undoes else conflict.message,
                facts={"files": conflict.facts["files"]},
                state=ChangeState.CONFLICTED,
                conflicts=tuple(conflict.facts["conflicts"]),
            )
        except CoderError as error:
            await self._settle_refused(claim, error)
        except Exception as error:
            log.exception(UNFORESEEN, decision=str(claim.decision_id))
            await self._settle_refused(claim, unforeseen(error))
        else:
            if claim.plan is not None:
                await self._recover(claim, plan, found, others)
                return
            verdict = await self._store.begin_applying(claim, plan)
            if verdict == "applying":
                await self._finish(claim, plan)
                return
            await self._worktrees.forget(plan)
            await self._refuse(claim, verdict)

    async def _weighed(self, claim: Claim) -> Claim:
        """With what the decision leaves; the same again after a crash, since it follows from what is stored alone."""
        approval = claim.approval
        if claim.undoes is not None:
            base, version = approval.snapshot_commit, approval.worktree.base_version + 1
            snapshot = await self._worktrees.diff(replace(approval.worktree, base_commit=base, base_version=version), claim.undoes)
            return replace(claim, rest=Rest(base, snapshot, None))
        if approval.rebase:
            # Nothing goes to the target: as of a decision that approves nothing, the plan is empty.
            rest = await self._worktrees.rebase(approval)
            return replace(claim, approval=replace(approval, snapshot_commit=approval.worktree.base_commit, paths=()), rest=rest)
        if approval.parts:
            rest = await self._worktrees.divide(approval)
            return replace(claim, approval=replace(approval, snapshot_commit=rest.base, paths=approved_paths(claim)), rest=rest)
        return claim

    async def _finish(self, claim: Claim, plan: Plan) -> None:
        """Touch the target as planned. What stops half-way is settled by comparing, like after a crash."""
        for left in reversed(range(TRIES)):
            error = await self._touch(claim, plan)
            if error is None:
                break
            found, others = await self._worktrees.examine(plan)
            if found is Found.NEW:
                break
            if found is Found.OLD:
                await self._worktrees.forget(plan)
                await self._settle_refused(claim, error, begun=True)
                return
            if found is Found.OTHER or not left:
                await self._half_done(claim, plan, error, others)
                return
            # A part is written (a full disk, say): only forward is whole again.
            log.warning("an approval is half-way; trying again", decision=str(claim.decision_id), why=error.message)
            await self._clock.sleep(TRY_SECONDS)
        await self._approved(claim, plan)

    async def _touch(self, claim: Claim, plan: Plan) -> CoderError | None:
        """Do what the plan says; answers what stopped it."""
        try:
            await self._worktrees.carry_out(plan)
        except CoderError as error:
            return error
        except Exception as error:
            log.exception(UNFORESEEN, decision=str(claim.decision_id))
            return unforeseen(error)
        return None

    async def _half_done(self, claim: Claim, plan: Plan, error: CoderError, others: tuple[bytes, ...]) -> None:
        files = [display_path(path) for path in others]
        sentence = (
            f"The {word(claim)} stopped half-way, with some files of the change in the checkout already ({error.message}); {again(claim)}."
        )
        await self._store.settle_decision(claim, outcome=error.code, error=sentence, facts={"files": files}, state=ChangeState.CONFLICTED)
        await self._worktrees.forget(plan)

    async def _approved(self, claim: Claim, plan: Plan) -> None:
        facts: dict[str, Any] = {
            "target": plan.target,
            "branch": plan.branch,
            "commit": plan.new_commit,
            "files": len(claim.approval.paths),
        }
        state = ChangeState.UNDONE if claim.undoes else ChangeState.APPROVED
        outcome, task = str(state), None
        if claim.approval.parts and not claim.approval.paths:
            facts, outcome, state = {}, "rejected", ChangeState.REJECTED
        if claim.approval.rebase and claim.rest is not None:
            conflicts = claim.rest.conflicts
            facts, outcome, state = {"files": list(conflicts)}, "rebased", ChangeState.SUPERSEDED
            task = resolution(conflicts) if conflicts else None
        if claim.approval.push and plan.branch is not None:
            remote, why = await self._worktrees.push(plan)
            facts["pushed"] = {"remote": remote, "error": why}
        await self._store.settle_decision(claim, outcome=outcome, facts=facts, state=state, written=plan.files, rest=claim.rest, task=task)
        await self._worktrees.forget(plan)
        log.info("change decided", change=str(claim.change_id), outcome=outcome, target=plan.target, commit=plan.new_commit)

    async def _recover(self, claim: Claim, plan: Plan, found: Found, others: tuple[bytes, ...]) -> None:
        """A node died, or its database went away, while it applied this plan: go on from how far it came."""
        log.warning("going on with an approval that was begun before", decision=str(claim.decision_id), found=found)
        if found is Found.NEW:
            await self._approved(claim, plan)
        elif found is Found.OTHER:
            files = [display_path(path) for path in others]
            sentence = (
                f"While this change was being applied, {', '.join(files[:NAMED_FILES])} got content that is neither old nor new; "
                f"look at these files, then {again(claim)}."
            )
            await self._store.settle_decision(
                claim, outcome="conflict", error=sentence, facts={"files": files}, state=ChangeState.CONFLICTED
            )
            await self._worktrees.forget(plan)
        else:
            # Nothing or a part was done; the plan is still exactly what was approved.
            await self._finish(claim, plan)

    async def _refuse(self, claim: Claim, verdict: str) -> None:
        if verdict in ("fenced", "moved"):
            return  # another node's by now, or to be weighed again: a turn has just ended
        sentence = REFUSALS.get(verdict, "Change {id} is {verdict} by now, so this decision was not carried out.")
        await self._store.settle_decision(
            claim, outcome=verdict, error=sentence.format(id=claim.change_id, verdict=verdict), facts={"state": verdict}
        )

    async def _settle_refused(self, claim: Claim, error: CoderError, begun: bool = False) -> None:
        """Nothing was touched; the change waits on, with a sentence on the decision.

        Args:
            begun: the change is `applying` by now, which must not stay; since it merges, it is no longer conflicted either.
        """
        facts = {key: value for key, value in error.facts.items() if isinstance(value, str | int | list)}
        stays = claim.change_state is ChangeState.CONFLICTED and isinstance(error, CheckoutDirty) and not begun
        await self._store.settle_decision(
            claim, outcome=error.code, error=error.message, facts=facts, state=None if stays else ChangeState.PENDING
        )


def stands_on(conflict: MergeConflict) -> str:
    files = ", ".join(conflict.facts["files"][:NAMED_FILES])
    return (
        f"The change cannot be taken out of {conflict.facts['target']} again, where {files} changed on the same lines since; nothing was "
        "touched: undo what came later first, or take it back by hand."
    )


def word(claim: Claim) -> str:
    return "undo" if claim.undoes else "approval"


def again(claim: Claim) -> str:
    return "undo it again" if claim.undoes else "approve again or reject"


def unforeseen(error: Exception) -> InternalError:
    return InternalError(f"The approval failed inside coder ({type(error).__name__}: {error}); see the service's log, then approve again.")


def approved_paths(claim: Claim) -> tuple[bytes, ...]:
    """The paths that a decision on parts brings to the target; of a renamed file the old one too."""
    files = [each.file for each in claim.approval.parts if each.approved]
    return tuple(sorted({path for file in files for path in (file.path, file.old_path) if path is not None}))
