"""The `Worktrees` port over real git.

Job: where worktrees lie, how they come and go, who owns one; the rest is handed down. Invariant: making and removing is
serialised per repository by a file lock, and a worktree that is being made is marked as such, so that after a crash a half-made
one is told from one with work in it. Blocking calls run in threads at this edge and nowhere below. Omitted: the setup command,
and who may decide what.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar
from uuid import UUID

from coder.change import Approval, Found, Plan, Rest, Shift, Snapshot, Worktree
from coder.comments import Owed, Place
from coder.errors import Held, InternalError, NoCommit
from coder.git import apply
from coder.git.carry import places
from coder.git.disk import disk_error
from coder.git.guard import Guard
from coder.git.ignored import copy_ignored
from coder.git.orphans import find_orphans, find_strays, remove_orphan, repository_of, session_of
from coder.git.parts import divide
from coder.git.plan import make_plan
from coder.git.rebase import rebase
from coder.git.record import Record
from coder.git.repository import Repository, open_repository
from coder.git.shift import bring_along
from coder.git.snapshot import Snapshots, copy_index
from coder.task import Project

P = ParamSpec("P")
T = TypeVar("T")
PUSH_SECONDS = 60.0
"""How long a remote may be silent while a branch is pushed."""


class GitWorktrees:
    """Worktrees of sessions below a data directory: `<data>/worktrees/<project>/<session>`.

    Args:
        data_dir: coder's data directory; made when missing.
    """

    def __init__(self, data_dir: Path) -> None:
        self._root = Path(os.path.realpath(data_dir.expanduser())) / "worktrees"
        self._snapshots = Snapshots()
        self._opened: dict[str, Repository] = {}
        self._guards: dict[Repository, Guard] = {}

    # --- the port

    @asynccontextmanager
    async def hold(self, session_id: UUID) -> AsyncIterator[None]:
        """Own the session's worktree on this host; raises `Held` at once when somebody else does."""
        descriptor = self._lock_session(session_id)
        try:
            yield
        finally:
            os.close(descriptor)

    async def ensure(self, project: Project, session_id: UUID, known: Worktree | None) -> Worktree:
        """Make the worktree, or find it, or make it again as of its last snapshot when it was deleted.

        Raises:
            NoProjectPath, NotARepository, NoCommit: the project's checkout cannot give one.
            DiskFull: no space for it; nothing half-made stays.
        """
        return await self._in_thread(self._ensure, project, session_id, known)

    async def guard_state(self, worktree: Worktree) -> str:
        """A digest of the repository's config, hooks and refs outside ours."""
        return await self._in_thread(lambda: self._guard_of(worktree).digest())

    async def snapshot(self, worktree: Worktree) -> Snapshot:
        """Record the worktree's content under `refs/coder/<session>/<n>` and diff it against the base."""
        return await self._in_thread(lambda: self._snapshots.take(self._record_of(worktree), worktree))

    async def diff(self, worktree: Worktree, commit: str) -> Snapshot:
        """The same snapshot against the worktree's present base, when the base moved meanwhile."""
        return await self._in_thread(lambda: self._snapshots.rebase(self._project_of(worktree), worktree, commit))

    async def reset(self, worktree: Worktree, to_commit: str) -> str:
        """Save the present content under a ref, put the worktree back to a commit, answer the ref."""
        return await self._in_thread(lambda: self._snapshots.reset(self._record_of(worktree), worktree, to_commit))

    async def shift(self, worktree: Worktree, shift: Shift) -> tuple[bytes, ...]:
        """Bring the worktree's files along with a shift; answers the paths where both say something else."""
        return await self._in_thread(lambda: bring_along(self._snapshots, self._record_of(worktree), worktree, shift))

    async def divide(self, approval: Approval) -> Rest:
        """Work out what a decision on parts leaves, touching nothing; raises `Conflict` for parts that only go together."""
        return await self._in_thread(lambda: divide(self._project_of(approval.worktree), approval))

    async def rebase(self, approval: Approval) -> Rest:
        """Work out what a change is on its target as it is by now, touching nothing; raises as `plan` does."""
        return await self._in_thread(lambda: rebase(self._project_of(approval.worktree), approval))

    async def plan(self, approval: Approval) -> Plan:
        """Merge without touching anything; raises `MergeConflict`, `CheckoutDirty` or `WrongBranch`."""
        return await self._in_thread(lambda: make_plan(self._project_of(approval.worktree), approval))

    async def push(self, plan: Plan) -> tuple[str, str | None]:
        """Bring the plan's branch to the project's remote; answers the remote, and why it did not work, None when it did."""
        return await self._in_thread(lambda: self._open(plan.repository, plan.repository).push(plan.branch or "", PUSH_SECONDS))

    async def carry_out(self, plan: Plan) -> None:
        """Do what the plan says; doing it twice or going on after a crash ends the same."""
        await self._in_thread(lambda: apply.carry_out(self._open(plan.repository, plan.repository), plan))

    async def examine(self, plan: Plan) -> tuple[Found, tuple[bytes, ...]]:
        """Compare the target with the plan; the paths are those with a third content."""
        return await self._in_thread(lambda: apply.examine(self._open(plan.repository, plan.repository), plan))

    async def forget(self, plan: Plan) -> None:
        """Drop the ref that kept the plan's objects."""
        await self._in_thread(lambda: apply.forget(self._open(plan.repository, plan.repository), plan))

    async def remove(self, worktree: Worktree) -> str | None:
        """Save what is unsaved under a ref, then delete the worktree and git's record of it; answers the ref, if one was made."""
        return await self._in_thread(self._remove, worktree)

    async def orphans(self, project: Project, known_sessions: Collection[UUID]) -> list[Path]:
        """What lies around of worktrees whose session nobody knows: directories, remains of a removal, and git's stale records.

        Args:
            known_sessions: the sessions of the project whose worktrees are to stay.
        """
        place = self._root / str(project.id)
        return await self._in_thread(lambda: find_orphans(place, self._open(project.path, project.name), known_sessions))

    async def strays(self, known_projects: Collection[UUID], retention: float) -> list[Path]:
        """Worktrees of projects that nobody knows (of another database), untouched for longer than `retention` seconds."""
        return await self._in_thread(lambda: find_strays(self._root, known_projects, time.time() - retention))

    async def remove_orphan(self, project: Project | None, path: Path) -> str | None:
        """Save what an orphan, or a stray (no project), holds under a ref, then delete it; answers the ref, if one was made.

        Raises:
            Held: it is in use.
            InternalError: git cannot read it. In both cases it stays.
        """
        return await self._in_thread(self._remove_orphan, project, path)

    async def places(self, owed: Owed) -> tuple[Place, ...]:
        """Where each of a session's comments stands in its present change."""
        return await self._in_thread(lambda: places(self._open(owed.repository, owed.project_id), owed))

    # --- behind it, in threads

    async def _in_thread(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except OSError as error:
            full = disk_error(error, self._root)
            if full is None:
                raise
            raise full from error

    def _ensure(self, project: Project, session_id: UUID, known: Worktree | None) -> Worktree:
        repository = self._open(project.path, project.name)
        record = Record(repository, session_id, self._path(project.id, session_id))
        if known is not None and record.complete:
            record.repair(known.base_commit)
            return replace(known, repository=str(repository.top), path=str(record.path))
        with _creation(repository):
            return self._find_or_make(project, record) if known is None else self._make_again(project, record, known)

    def _find_or_make(self, project: Project, record: Record) -> Worktree:
        repository = record.project
        head = repository.resolve("HEAD")
        if head is None:
            raise NoCommit(path=repository.top, project=project.name)
        if record.complete:
            # Made, but never written down by its owner: found as it was left.
            base = repository.resolve(record.base_ref) or head
            record.repair(base)
            copied = copy_ignored(repository, record.repository, project.copy_globs)
        else:
            base = head
            copied = self._build(project, record, base, base)
        return Worktree(
            session_id=record.session_id,
            project_id=project.id,
            repository=str(repository.top),
            path=str(record.path),
            base_commit=base,
            base_branch=repository.head_branch(),
            copied=copied,
            fresh=True,
        )

    def _make_again(self, project: Project, record: Record, known: Worktree) -> Worktree:
        copied, fresh = known.copied, not record.complete
        if fresh:
            new = self._build(project, record, known.base_commit, known.last_snapshot or known.base_commit)
            copied = tuple(sorted({*known.copied, *new}))
        return replace(known, repository=str(record.project.top), path=str(record.path), copied=copied, fresh=fresh)

    def _build(self, project: Project, record: Record, base: str, content: str) -> tuple[bytes, ...]:
        """Make the directory with some commit's content, HEAD detached at the base, our index beside it, ignored files copied in."""
        record.drop()
        record.path.parent.mkdir(parents=True, exist_ok=True)
        record.making.touch()
        try:
            record.project.run("worktree", "add", "--quiet", "--detach", "--no-checkout", str(record.path), base)
            repository = record.repository
            repository.run("read-tree", "--reset", "-u", content)
            copy_index(repository.index, record.index)
            if content != base:
                repository.run("read-tree", "--reset", base)
            copied = copy_ignored(record.project, repository, project.copy_globs)
            repository.run("update-ref", record.base_ref, base)
        except BaseException:
            record.drop()
            raise
        record.making.unlink()
        return copied

    def _remove(self, worktree: Worktree) -> str | None:
        record, saved = self._record_of(worktree), None
        with _creation(record.project):
            if record.complete:
                record.repair(worktree.base_commit)
                saved = self._snapshots.save_new(record, worktree)
            record.drop()
        self._lock_path(worktree.session_id).unlink(missing_ok=True)
        return saved

    def _remove_orphan(self, project: Project | None, path: Path) -> str | None:
        session_id = session_of(path)
        if session_id is None:
            raise InternalError(f"{path} is no worktree of coder's; look at it by hand.")
        # One that was made after the list of known sessions was read is in use, not orphaned.
        descriptor = self._lock_session(session_id)
        try:
            repository = repository_of(path) if project is None else self._open(project.path, project.name)
            project_id = UUID(path.parent.name) if project is None else project.id
            record = Record(repository, session_id, self._path(project_id, session_id))
            with _creation(record.project):
                saved = remove_orphan(record, project_id, self._snapshots, path)
            self._lock_path(session_id).unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        return saved

    # --- places and locks

    def _path(self, project_id: UUID, session_id: UUID) -> Path:
        return self._root / str(project_id) / str(session_id)

    def _open(self, path: str, project: object) -> Repository:
        """The repository at a path; asked of git once, checked by a look afterwards."""
        known = self._opened.get(path)
        if (
            known
            and os.path.isfile(f"{known.git_dir}/HEAD")
            and os.path.exists(f"{known.top}/.git")
            and os.path.realpath(path) == str(known.top)
        ):
            return known
        self._opened[path] = opened = open_repository(path, project)
        return opened

    def _project_of(self, worktree: Worktree) -> Repository:
        return self._open(worktree.repository, worktree.project_id)

    def _guard_of(self, worktree: Worktree) -> Guard:
        project = self._project_of(worktree)
        return self._guards.setdefault(project, Guard(project))

    def _record_of(self, worktree: Worktree) -> Record:
        return Record(self._project_of(worktree), worktree.session_id, self._path(worktree.project_id, worktree.session_id))

    def _lock_path(self, session_id: UUID) -> Path:
        return self._root / f"{session_id}.lock"

    def _lock_session(self, session_id: UUID) -> int:
        place = self._lock_path(session_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.exists(place) and os.path.samestat(os.fstat(descriptor), os.stat(place)):
                    return descriptor
            except BlockingIOError as taken:
                os.close(descriptor)
                raise Held(session=session_id) from taken
            # Removed with its worktree between our open and our lock: the next one is a file of its own.
            os.close(descriptor)


@contextmanager
def _creation(repository: Repository) -> Iterator[None]:
    """One maker or remover of worktrees per repository, over all processes of the host; released when the process dies."""
    descriptor = os.open(repository.common_dir / "coder.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
