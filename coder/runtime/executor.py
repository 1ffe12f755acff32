"""THE run function: choose -> worktree -> turn -> transcript -> snapshot -> finish, for every backend.

Every outcome leaves by the same door (`_leave`), once, fenced by the task's epoch. Cancelling a turn is
leaving the `async with` of its backend. Nothing here knows an agent by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from coder.change import Snapshot, Worktree
from coder.change_ports import ProjectCommands, Worktrees
from coder.errors import CoderError, Fenced, Held, TurnError, Unavailable
from coder.ports import Backend, Clock, LiveTurn, Logbook, TaskStore, Turn
from coder.routing import EARLIER_BYTES, NATIVE, choose, conversation, directory, prompt
from coder.runtime.asking import Asking, Interview
from coder.runtime.boundary import Boundary
from coder.runtime.ending import Course, End, ending_of, smaller, stopped_end
from coder.runtime.finisher import Finisher
from coder.runtime.inflight import Running, Stopped
from coder.runtime.narration import Narrations
from coder.runtime.roster import Roster
from coder.runtime.watchdog import Limits, Pulse, watch
from coder.task import AgentSession, Ending, ExecutionPath, Outcome, Reason, Task, Verdict
from coder.transcript import Transcript

HELD_SECONDS = 0.05
HELD_MOST_SECONDS = 60.0
APPLYING_SECONDS = 0.05
AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Executor:
    """Runs claimed tasks.

    Args:
        backends: by the name of the agent they run.
        limits: seconds of silence and of one tool; a task's own timeout comes with it.
        logbook: files of a turn: what the agent prints beside its answer, and what was too long to store.
        narrations: tell what happens to those who watch.
    """

    def __init__(
        self,
        *,
        store: TaskStore,
        worktrees: Worktrees,
        backends: Mapping[str, Backend],
        roster: Roster,
        asking: Asking,
        finisher: Finisher,
        boundary: Boundary,
        clock: Clock,
        limits: Limits,
        logbook: Logbook,
        commands: ProjectCommands,
        narrations: Narrations,
    ) -> None:
        self._store = store
        self._worktrees = worktrees
        self._backends = backends
        self._roster = roster
        self._asking = asking
        self._finisher = finisher
        self._boundary = boundary
        self._clock = clock
        self._limits = limits
        self._logbook = logbook
        self._commands = commands
        self._narrations = narrations

    async def execute(self, running: Running) -> None:
        """Run one claimed task to its end."""
        claimed = running.claimed
        course = Course(claimed.task, claimed.worktree, Transcript(), self._narrations.narrate(claimed.task))
        course.narration.opened()
        try:
            try:
                async with self._hold(running):
                    await self._leave(course, await self._attempt(running, course))
            except Held as held:
                stopped = stopped_end(running.why, course, self._limits) if running.why is not None else None
                await self._leave(course, stopped or End(Outcome.FAILED, Reason.INTERNAL, held.message))
        except Fenced as fenced:
            log.warning("a turn was fenced", task=claimed.task.id, epoch=claimed.task.epoch, why=fenced.message)
        except Unavailable as away:
            log.error("the end of a turn could not be stored", task=claimed.task.id, why=away.message)
        finally:
            course.narration.left()

    @asynccontextmanager
    async def _hold(self, running: Running) -> AsyncIterator[None]:
        """Own the worktree; a reviewer or a dying agent may need a moment to let go of it. Raises `Held`, also when stopped meanwhile."""
        deadline = self._clock.monotonic() + HELD_MOST_SECONDS
        while True:
            hold = self._worktrees.hold(running.claimed.task.session_id)
            try:
                await hold.__aenter__()
                break
            except Held:
                if running.why is not None or self._clock.monotonic() >= deadline:
                    raise
                await self._clock.sleep(HELD_SECONDS)
        try:
            yield
        finally:
            await hold.__aexit__(None, None, None)

    async def _attempt(self, running: Running, course: Course) -> End:
        """The one ladder from whatever happens to how the turn ends."""
        whole = course.task.timeout
        limits = self._limits if whole is None else replace(self._limits, whole=whole.total_seconds())
        try:
            await running.stoppable(self._turn(running, course, limits))
            if not course.transcript.text.strip() and not course.transcript.tool_calls:
                course.notices.append("The agent ended its turn without a word and without using a tool.")
            return End(Outcome.COMPLETED)
        except Stopped as stopped:
            return stopped_end(stopped.why, course, limits)
        except TurnError as error:
            return End(Outcome.FAILED, Reason(error.reason), error.message)
        except Fenced:
            raise
        except Unavailable:
            return (
                End(
                    Outcome.INTERRUPTED,
                    Reason.LEASE_LOST,
                    "The database could not be reached while this task ran; resume, retry or dismiss it.",
                )
                if course.seen
                else End(Outcome.REQUEUED, Reason.SHUTDOWN)
            )
        except Exception as error:
            log.exception("a turn failed in a way nobody foresaw", task=course.task.id)
            sentence = error.message if isinstance(error, CoderError) else f"{type(error).__name__}: {error}"
            return End(
                Outcome.FAILED, Reason.INTERNAL, f"coder itself failed in this turn ({sentence}); see the service's log, then retry."
            )

    async def _turn(self, running: Running, course: Course, limits: Limits) -> None:
        task = course.task
        asked_for = task.agent or NATIVE
        course.route = choose(task, frozenset() if asked_for == NATIVE else await self._roster.available(asked_for))
        if course.route.notice:
            course.notices.append(course.route.notice)
        course.backend = self._backends[course.route.agent]
        worktree = course.worktree = await self._prepare(course)
        course.guard = await self._worktrees.guard_state(worktree)
        place = cwd = Path(worktree.path)
        if task.cwd is not None and not (cwd := Path(directory(task, worktree.path))).is_dir():
            missing = cwd.relative_to(place)
            course.notices.append(f"There is no directory {missing} in this session's worktree, so the turn started at its root.")
            cwd = place
        turn = Turn(
            task_id=task.id,
            epoch=task.epoch,
            session_id=task.session_id,
            chat_id=task.chat_id,
            prompt=prompt(task, dict(worktree.clashes)),
            worktree=place,
            cwd=cwd,
            model=task.model,
            mode_id=task.mode_id,
            thinking_option_id=task.thinking_option_id,
            model_history=task.model_history,
            log=self._logbook.path(task.id),
            network=task.project.network,
            agent_session=await self._agent_session(task, course.backend, course.route.agent),
            earlier=partial(self._earlier, task),
            hurry=running.hurry,
            compacts=task.compacts,
        )
        course.agent_started = True
        live: LiveTurn | None = None
        try:
            async with course.backend.run_turn(turn) as live:
                await self._listen(running, course, limits, turn, live)
        finally:
            if live is not None:  # what it keeps is known once its work has been ended
                course.agent_session = live.agent_session

    async def _listen(self, running: Running, course: Course, limits: Limits, turn: Turn, live: LiveTurn) -> None:
        """Hear the agent out: fold what it says, answer what it asks."""
        task = course.task
        assert course.route is not None, "a turn that runs was routed"
        pulse = Pulse(self._clock)
        interview = Interview(self._asking, running, course.route.agent, turn.worktree, live, pulse, self._clock, course.narration.publish)
        watching = watch(self._clock, pulse, limits, live.busy_with_tool, live.reconcile, running.stop)
        dog = asyncio.create_task(watching, name=f"watch-{task.id}")
        try:
            async with interview:
                async for event in live.events:
                    pulse.beat()
                    if not course.seen:
                        # Committed before anybody sees the event and before a tool it names runs.
                        await self._finisher.seen(task)
                        course.seen = True
                        course.tell_notices()
                    interview.hear(event)
                    course.narration.said(course.transcript.apply(event), course.transcript.usage)
                    for spill in course.transcript.take_spills():
                        await self._logbook.spill(task.id, spill)
        finally:
            dog.cancel()
            course.asked = interview.asked
            course.model_history = live.model_history

    async def _agent_session(self, task: Task, backend: Backend, agent: str) -> AgentSession | None:
        """What the agent itself keeps of this chat; the native one keeps nothing but its history, which came with the claim."""
        return None if backend.execution_path is ExecutionPath.NATIVE else await self._store.agent_session_of(task, agent)

    async def _earlier(self, task: Task) -> str:
        return conversation(await self._store.said_before(task, EARLIER_BYTES))

    async def _prepare(self, course: Course) -> Worktree:
        """The session's worktree, recorded, with nothing owed to it."""
        task, known = course.task, course.known
        worktree = await self._worktrees.ensure(task.project, task.session_id, known)
        if worktree.fresh or worktree != known:
            await self._finisher.works_in(task, worktree)
        if worktree.fresh and (command := task.project.setup_command):
            log = self._logbook.path(task.id).with_name("setup.log")
            ran = await self._commands.run(command, Path(worktree.path), task.project.setup_timeout.total_seconds(), log)
            if ran.exit_code != 0:
                course.notices.append(
                    f"The project's setup command {ran.ended}, so the worktree may not be ready to use; its output is in {log}."
                )
        if known is not None and (known.unsnapshotted_task is not None or known.discard_decision is not None or known.shifts):
            # Read again: a rescuer may have been at it until we got hold of the worktree.
            worktree = await self._boundary.settle(await self._store.worktree_of(task.session_id) or known)
        return worktree

    async def _snapshot(self, course: Course) -> Snapshot | None:
        """What the worktree holds now, with a warning when the repository itself was changed; raises `DiskFull`."""
        worktree = course.worktree
        if worktree is None:
            return None
        snapshot = await self._worktrees.snapshot(worktree)
        if course.guard is not None and await self._worktrees.guard_state(worktree) != course.guard:
            warning = (
                "The repository's configuration, hooks or refs outside coder's changed while this turn ran; "
                "look at .git/config, .git/hooks and the branches before approving."
            )
            course.notices.append(warning)
            snapshot = replace(snapshot, warnings=(*snapshot.warnings, warning))
        return snapshot

    async def _leave(self, course: Course, end: End) -> None:
        """The one door: snapshot, then one fenced transaction. A turn that runs again leaves no snapshot."""
        snapshot, unsnapshotted = None, False
        course.narration.said(course.transcript.end_tools(), course.transcript.usage)
        if end.outcome is not Outcome.REQUEUED:
            try:
                snapshot = await self._snapshot(course)
            except TurnError as error:
                unsnapshotted = course.seen
                if end.outcome is Outcome.COMPLETED:
                    end = End(Outcome.FAILED, Reason(error.reason), f"The work was done, but not recorded: {error.message}")
                else:
                    course.notices.append(f"What this turn did was not recorded: {error.message}")
            except Exception as error:
                log.exception("a worktree could not be recorded", task=course.task.id)
                unsnapshotted = course.seen
                if end.outcome is Outcome.COMPLETED:
                    end = End(Outcome.FAILED, Reason.INTERNAL, f"The work was done, but could not be read ({error}); see the log.")
        if end.outcome is not Outcome.REQUEUED:
            course.tell_notices()
        ending = ending_of(course, end, snapshot, unsnapshotted)
        await course.narration.closing()
        while True:
            try:
                verdict = await self._finisher.finish(ending)
                if verdict is Verdict.MOVED:
                    ending = await self._measured_anew(ending)
            except (Unavailable, Fenced):
                raise
            except Exception as error:
                # What cannot be stored whole is stored small: the work itself stays in the worktree.
                log.exception("the end of a turn could not be stored; storing less", task=course.task.id)
                if ending.snapshot is None and not ending.text:
                    await self._clock.sleep(AGAIN_SECONDS)
                ending = smaller(ending, error)
                continue
            if verdict is Verdict.APPLYING:
                await self._clock.sleep(APPLYING_SECONDS)
            elif verdict is not Verdict.MOVED:
                break
        course.narration.ended(ending, verdict)
        log.info("task ended", task=course.task.id, state=ending.state, reason=ending.reason, verdict=verdict)

    async def _measured_anew(self, ending: Ending) -> Ending:
        """The ending with its change against the worktree's present base, which an approval moved meanwhile."""
        current = await self._store.worktree_of(ending.task.session_id)
        assert current is not None, "a worktree that was moved is recorded"
        assert ending.snapshot is not None, "only a change has a base that can move"
        if current.shifts:
            current = await self._boundary.bring_along(current)
            again = await self._worktrees.snapshot(current)
        else:
            again = await self._worktrees.diff(current, ending.snapshot.commit)
        return replace(ending, snapshot=replace(again, warnings=ending.snapshot.warnings))
