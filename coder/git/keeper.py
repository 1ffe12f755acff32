"""Trees, commits and their refs, written by git processes that stay: starting one costs more than all it has to do here.

Invariant: git writes every object and every ref; a process is asked by one thread at a time, and whatever goes wrong with one,
the same is done again by processes of the moment, which also say why it failed. None outlives us, however we die: they end when
their input does. None outlives a change of the repository's config either, nor many uses. Omitted: all that reads an index, a
work tree or attributes; what git reads of these it keeps, so a process that stays would answer from the past.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from coder.diff import RawRow
from coder.git.repository import CODER, Repository
from coder.git.trees import changed_tree, directories_of

# Threads beyond that wait; a turn needs a crew for a millisecond or two.
_CREWS = 2
# Git remembers objects it has seen as long as it runs.
_USES = 1000
# A change in more directories is less work for one `git write-tree` than for us.
_DIRECTORIES = 32
_LAST_SECONDS = 5

log = structlog.get_logger(__name__)


class Keeper:
    """Writes what keeps a snapshot of one repository."""

    def __init__(self, repository: Repository) -> None:
        common = repository.common_dir
        # No work tree: those of sessions come and go.
        self._repository = Repository(common, common, common, repository.object_format)
        self._places = threading.BoundedSemaphore(_CREWS)
        self._resting: list[_Crew] = []

    def tree(self, base: str, rows: Sequence[RawRow]) -> str | None:
        """Make the tree that differs from another one in some entries; None when that is better left to `git write-tree`."""
        if directories_of(rows) > _DIRECTORIES:
            return None
        try:
            with self._crew() as crew:
                return crew.tree(base, rows)
        except (OSError, ValueError) as error:
            self._tell(error)
            return None

    def keep(self, tree: str, parent: str, ref: str) -> str:
        """Make a commit of a tree on a parent and point a ref at it; answers the commit."""
        try:
            with self._crew() as crew:
                return crew.keep(tree, parent, ref)
        except (OSError, ValueError) as error:
            self._tell(error)
        commit = self._repository.commit_tree(tree, parent)
        self._repository.run("update-ref", ref, commit)
        return commit

    def _tell(self, error: Exception) -> None:
        log.info("a git process that stays failed; another one does its work", repository=str(self._repository.top), why=str(error))

    @contextmanager
    def _crew(self) -> Iterator[_Crew]:
        """A crew for one piece of work; after a failure it is not used again."""
        with self._places:
            config = _stamp(self._repository.common_dir / "config")
            crew: _Crew | None
            try:
                crew = self._resting.pop()
            except IndexError:
                crew = None
            if crew is None or crew.config != config or crew.uses >= _USES:
                crew = _Crew(self._repository, config)
            crew.uses += 1
            yield crew
            self._resting.append(crew)


class _Crew:
    """One process each for reading trees, writing trees, writing commits and moving refs; ended when nobody holds the crew."""

    def __init__(self, repository: Repository, config: tuple[int, ...]) -> None:
        self.config = config
        self.uses = 0
        self.processes: list[subprocess.Popen[bytes]] = []
        self._draft = tempfile.NamedTemporaryFile(prefix="coder-object-")  # noqa: SIM115 - closed in `_end`
        weakref.finalize(self, _end, self._draft, self.processes)
        written = ("-w", "--no-filters", "--stdin-paths")
        for command in (("cat-file", "--batch"), ("hash-object", "-t", "tree", *written), ("hash-object", "-t", "commit", *written)):
            self.processes.append(repository.converse(*command))
        self.processes.append(repository.converse("update-ref", "--stdin"))
        self._reads, self._trees, self._commits, self._refs = self.processes
        self._digits = len(repository.zeros)

    def tree(self, base: str, rows: Sequence[RawRow]) -> str:
        """Raises OSError or ValueError when a process is gone or says anything unexpected, as does `keep`."""
        return changed_tree(base, rows, self._read, lambda content: self._write(self._trees, content))

    def keep(self, tree: str, parent: str, ref: str) -> str:
        who = f"{CODER['GIT_AUTHOR_NAME']} <{CODER['GIT_AUTHOR_EMAIL']}> {int(time.time())} {time.strftime('%z')}"
        content = f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\ncoder\n"
        commit = self._write(self._commits, content.encode())
        said = _ask(self._refs, "start", f"update {ref} {commit}", "commit", answers=2)
        if said != ["start: ok", "commit: ok"]:
            raise ValueError(f"git update-ref said {said}")
        return commit

    def _read(self, tree: str) -> bytes:
        (head,) = _ask(self._reads, tree)
        named, _, size = head.rpartition(" ")
        if named != f"{tree} tree":
            raise ValueError(f"git cat-file said {head!r}")
        assert self._reads.stdout is not None, "it was started with pipes"
        return self._reads.stdout.read(int(size) + 1)[:-1]

    def _write(self, process: subprocess.Popen[bytes], content: bytes) -> str:
        draft = self._draft.fileno()
        os.ftruncate(draft, 0)
        if os.pwrite(draft, content, 0) != len(content):
            raise ValueError(f"{self._draft.name} could not be written whole")
        (written,) = _ask(process, self._draft.name)
        if len(written) != self._digits:
            raise ValueError(f"git hash-object said {written!r}")
        return written


def _ask(process: subprocess.Popen[bytes], *lines: str, answers: int = 1) -> list[str]:
    assert process.stdin is not None, "it was started with pipes"
    assert process.stdout is not None, "it was started with pipes"
    process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    process.stdin.flush()
    return [process.stdout.readline().decode().rstrip("\n") for _ in range(answers)]


def _end(draft: tempfile._TemporaryFileWrapper[bytes], processes: list[subprocess.Popen[bytes]]) -> None:
    with suppress(FileNotFoundError):
        draft.close()
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            # What could not be written any more is of no use to anybody.
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _stamp(config: Path) -> tuple[int, ...]:
    found = config.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
