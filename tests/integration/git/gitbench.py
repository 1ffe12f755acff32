"""What the tests of git act with: a work tree as people use one, and the port with the bookkeeping the database does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

from coder.change import Approval, Plan, Snapshot, Worktree
from coder.git import GitWorktrees
from coder.task import Project

SESSION = UUID("11111111-1111-4111-8111-111111111111")


@dataclass(frozen=True)
class Tree:
    """A work tree that a test acts in the way a person or an agent would: with files and the git command."""

    path: Path

    def git(self, *arguments: str, ok: bool = True) -> str:
        done = subprocess.run(["git", *arguments], cwd=self.path, capture_output=True, check=False)
        assert not ok or done.returncode == 0, done.stderr.decode()
        return os.fsdecode(done.stdout).rstrip("\n")

    def at(self, name: str | bytes) -> Path:
        return self.path / os.fsdecode(name)

    def write(self, name: str | bytes, content: str | bytes, mode: int | None = None) -> Path:
        place = self.at(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
        if mode is not None:
            place.chmod(mode)
        return place

    def read(self, name: str | bytes) -> bytes:
        return self.at(name).read_bytes()

    def commit(self, message: str = "work") -> str:
        self.git("add", "-A")
        self.git("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "commit", "-qm", message)
        return self.git("rev-parse", "HEAD")

    def files(self) -> dict[str, bytes]:
        """All that is no directory and not git's, links as their target."""
        found = {}
        for place, names, files in os.walk(self.path):
            if ".git" in names:
                names.remove(".git")
            for name in (*files, *(n for n in names if os.path.islink(os.path.join(place, n)))):
                full = Path(place, name)
                relative = str(full.relative_to(self.path))
                if relative != ".git":
                    found[relative] = b"-> " + os.fsencode(os.readlink(full)) if full.is_symlink() else full.read_bytes()
        return found


@dataclass
class Bench:
    """The port, a project and one session, with the bookkeeping that the database does otherwise."""

    worktrees: GitWorktrees
    repo: Tree
    project: Project
    data: Path

    async def start(self, session: UUID = SESSION) -> tuple[Worktree, Tree]:
        worktree = await self.worktrees.ensure(self.project, session, None)
        return worktree, Tree(Path(worktree.path))

    async def snapshot(self, worktree: Worktree) -> tuple[Snapshot, Worktree]:
        taken = await self.worktrees.snapshot(worktree)
        return taken, replace(worktree, last_snapshot=taken.commit, snapshots=worktree.snapshots + 1)

    def approval(self, worktree: Worktree, snapshot: Snapshot, **given: object) -> Approval:
        paths = {path for file in snapshot.files for path in (file.path, file.old_path) if path is not None}
        form: dict[str, object] = {
            "decision_id": uuid4(),
            "worktree": worktree,
            "snapshot_commit": snapshot.commit,
            "paths": tuple(sorted(paths)),
            "target": "checkout",
            "branch": None,
            "commit": False,
            "message": "Approved by a test",
        }
        return Approval(**{**form, **given})  # type: ignore[arg-type]

    async def approve(self, worktree: Worktree, snapshot: Snapshot, **given: object) -> tuple[Plan, Worktree]:
        """Plan and carry out; the worktree comes back with its base advanced."""
        plan = await self.worktrees.plan(self.approval(worktree, snapshot, **given))
        await self.worktrees.carry_out(plan)
        return plan, replace(worktree, base_commit=snapshot.commit, base_version=worktree.base_version + 1)


def written(*plans: Plan) -> dict[bytes, tuple[str | None, str]]:
    """What the database remembers of plans that were carried out."""
    return {file.path: (file.new_blob, file.new_mode) for plan in plans for file in plan.files}


def run_python(script: str, *arguments: str) -> int:
    """Run a script in a process of its own; answers its return code, negative for a signal."""
    return subprocess.run([sys.executable, "-c", script, *arguments], check=False).returncode


_HOLDER = """
import fcntl, os, sys
fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked_elsewhere(lock: Path) -> Iterator[None]:
    """Another process holds a lock file until it is killed at the end."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", _HOLDER, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        yield
        holder.kill()


async def changed(bench: Bench, **files: str | None) -> tuple[Snapshot, Worktree, Tree]:
    """A session that wrote (or, with None, deleted) some files `<name>.txt`."""
    worktree, tree = await bench.start()
    for name, content in files.items():
        if content is None:
            tree.at(f"{name}.txt").unlink()
        else:
            tree.write(f"{name}.txt", content)
    snapshot, worktree = await bench.snapshot(worktree)
    return snapshot, worktree, tree


def index_bytes(repo: Tree) -> bytes:
    return repo.read(".git/index")


LINES = [f"line {n}\n" for n in range(1, 11)]


def lines(**changes: str) -> str:
    """The ten lines of a.txt with some replaced: lines(l3="three")."""
    return "".join(f"{changes[f'l{n}']}\n" if f"l{n}" in changes else line for n, line in enumerate(LINES, 1))
