"""Commits and their refs, written by git processes that stay: starting one costs more than all it has to do here.

Invariant: git writes every object and every ref; one process is asked by one thread at a time, and whatever goes wrong with it,
the same is done again by processes of the moment, which also say why it failed. None outlives us, however we die: they end when
their input does. None outlives a change of the repository's config either, nor many uses. Omitted: all that reads an index, a
work tree or attributes; what git reads of these it keeps, so a process that stays would answer from the past.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
import weakref
from contextlib import suppress
from pathlib import Path

import structlog

from coder.git.repository import CODER, Repository

# At rest; more are started when more threads ask at once, and ended afterwards.
_RESTING = 2
# Git remembers objects it has seen as long as it runs.
_USES = 1000
_LAST_SECONDS = 5

log = structlog.get_logger(__name__)


class Keeper:
    """Keeps trees of one repository alive as commits under refs."""

    def __init__(self, repository: Repository) -> None:
        common = repository.common_dir
        # No work tree: those of sessions come and go.
        self._repository = Repository(common, common, common, repository.object_format)
        self._resting: list[_Pair] = []

    def keep(self, tree: str, parent: str, ref: str) -> str:
        """Make a commit of a tree on a parent and point a ref at it; answers the commit."""
        try:
            pair = self._take(_stamp(self._repository.common_dir / "config"))
            commit = pair.keep(tree, parent, ref)
        except (OSError, ValueError) as error:
            log.info("a git process that stays failed; another one does its work", repository=str(self._repository.top), why=str(error))
            commit = self._repository.commit_tree(tree, parent)
            self._repository.run("update-ref", ref, commit)
            return commit
        if pair.uses < _USES and len(self._resting) < _RESTING:
            self._resting.append(pair)
        return commit

    def _take(self, config: tuple[int, ...]) -> _Pair:
        while True:
            try:
                pair = self._resting.pop()
            except IndexError:
                return _Pair(self._repository, config)
            if pair.config == config:
                return pair


class _Pair:
    """One process for commit objects and one for refs; ended when nobody holds the pair any more."""

    def __init__(self, repository: Repository, config: tuple[int, ...]) -> None:
        self.config = config
        self.uses = 0
        self._draft = tempfile.NamedTemporaryFile(prefix="coder-commit-")  # noqa: SIM115 - closed in `_end`
        self._objects = repository.converse("hash-object", "-t", "commit", "-w", "--no-filters", "--stdin-paths")
        self._refs = repository.converse("update-ref", "--stdin")
        self._digits = len(repository.zeros)
        weakref.finalize(self, _end, self._draft, self._objects, self._refs)

    def keep(self, tree: str, parent: str, ref: str) -> str:
        """Raises OSError or ValueError when a process is gone or says anything unexpected; the pair must not be used again then."""
        self.uses += 1
        who = f"{CODER['GIT_AUTHOR_NAME']} <{CODER['GIT_AUTHOR_EMAIL']}> {int(time.time())} {time.strftime('%z')}"
        content = f"tree {tree}\nparent {parent}\nauthor {who}\ncommitter {who}\n\ncoder\n"
        self._draft.seek(0)
        self._draft.truncate()
        self._draft.write(content.encode())
        self._draft.flush()
        (commit,) = _ask(self._objects, self._draft.name)
        if len(commit) != self._digits:
            raise ValueError(f"git hash-object said {commit!r}")
        said = _ask(self._refs, "start", f"update {ref} {commit}", "commit", answers=2)
        if said != ["start: ok", "commit: ok"]:
            raise ValueError(f"git update-ref said {said}")
        return commit


def _ask(process: subprocess.Popen[bytes], *lines: str, answers: int = 1) -> list[str]:
    assert process.stdin is not None, "it was started with pipes"
    assert process.stdout is not None, "it was started with pipes"
    process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    process.stdin.flush()
    return [process.stdout.readline().decode().rstrip("\n") for _ in range(answers)]


def _end(draft: tempfile._TemporaryFileWrapper[bytes], *processes: subprocess.Popen[bytes]) -> None:
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
