"""A worktree's content as a commit, and the difference to its base.

Job: record, diff, diff again after the base moved, and put back. Invariant: the worktree's own index and HEAD play no part
in a snapshot: it is taken with an index of ours, so that nothing an agent stages, commits, stashes or hides there changes
what a reviewer sees; that index is only ever replaced whole, so a killed process leaves no half of it and no lock.
Omitted: files that are ignored (unless the base has them), copied in, or part of a nested repository.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from coder.change import FileChange, Snapshot, Worktree, display_path
from coder.diff import GITLINK, parse_diff, parse_raw
from coder.errors import InternalError
from coder.git.disk import Kind, look
from coder.git.ignored import hidden_files, ignored_by, ignored_files, is_ignore_file
from coder.git.keeper import Keeper
from coder.git.record import Record
from coder.git.repository import Repository

_NAMED = 5
# No submodule is left out, whatever the config says: its entry is part of the tree that is approved.
_FORM = (
    *("-z", "-M", "--raw", "--numstat", "-p", "--binary", "--full-index"),
    *("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=none"),
)
_FACTS_KEPT = 4096
_BROKEN_INDEX = re.compile(r"index file|bad signature|bad index|unable to (mmap|map) index|unordered stage", re.IGNORECASE)
_NO_COMMIT = re.compile(r"^error: '(.*?)/?' does not have a commit checked out$")


@dataclass(frozen=True, slots=True)
class _Facts:
    tree: str
    parents: tuple[str, ...]


class Snapshots:
    """Takes snapshots; remembers trees and parents of commits, which never change, to spare processes."""

    def __init__(self) -> None:
        self._known: dict[str, _Facts] = {}
        self._keepers: dict[Path, Keeper] = {}

    def take(self, record: Record, worktree: Worktree) -> Snapshot:
        """Record the worktree's content under `refs/coder/<session>/<n>` and diff it against the base.

        No commit is made when nothing differs from the base, nor when the last snapshot says the same already.
        """
        warnings = _require(record, worktree.base_commit)
        known = self._facts(record.repository, worktree.base_commit, worktree.last_snapshot)
        base = known[worktree.base_commit]
        content = _Content(record, worktree, base.tree, self._keeper(record.repository))
        content.record()
        last = known.get(worktree.last_snapshot or "")
        if content.tree == base.tree:
            commit = worktree.base_commit
        elif worktree.last_snapshot and last == _Facts(content.tree, (worktree.base_commit,)):
            commit = worktree.last_snapshot
        else:
            ref = f"refs/coder/{worktree.session_id}/{worktree.snapshots + 1}"
            commit = self._keep(record.repository, content.tree, worktree.base_commit, ref)
        return _snapshot(worktree, base.tree, commit, content.tree, content.files, content.patch, (*warnings, *content.warnings))

    def rebase(self, repository: Repository, worktree: Worktree, commit: str) -> Snapshot:
        """The same content against the worktree's present base, under `refs/coder/<session>/rebased/<base version>`."""
        known = self._facts(repository, worktree.base_commit, commit)
        base, snapshot = known[worktree.base_commit], known[commit]
        # An index that does not exist: git would otherwise read that of the checkout, for attributes.
        files, patch = difference(repository, base.tree, snapshot.tree, repository.git_dir / "coder-no-index")
        if snapshot.tree == base.tree:
            commit = worktree.base_commit
        elif snapshot.parents != (worktree.base_commit,):
            ref = f"refs/coder/{worktree.session_id}/rebased/{worktree.base_version}"
            commit = self._keep(repository, snapshot.tree, worktree.base_commit, ref)
        return _snapshot(worktree, base.tree, commit, snapshot.tree, files, patch, ())

    def save(self, record: Record, worktree: Worktree) -> str:
        """Record the present content under the next `refs/coder/<session>/discarded/<n>`; answers the ref."""
        _require(record, worktree.base_commit)
        base = self._facts(record.repository, worktree.base_commit)[worktree.base_commit]
        content = _Content(record, worktree, base.tree, self._keeper(record.repository))
        content.record()
        ref = next_discarded(record.repository, worktree.session_id)
        self._keep(record.repository, content.tree, worktree.base_commit, ref)
        return ref

    def reset(self, record: Record, worktree: Worktree, to_commit: str) -> str:
        """Save the present content, then make the files those of a commit, HEAD detached there and the index clean."""
        ref = self.save(record, worktree)
        repository = record.repository
        record.forget_unfinished()
        with own_index(record, worktree.base_commit) as index:
            # Our index is exactly what was saved, so this deletes and writes just what differs; ignored files stay.
            repository.run("read-tree", "--reset", "-u", to_commit, index=index)
        repository.run("update-ref", "--no-deref", "HEAD", to_commit)
        copy_index(record.index, repository.index)
        return ref

    def save_new(self, record: Record, worktree: Worktree) -> str | None:
        """Save the present content unless the base or a ref of the session has it; answers the ref, if one was made.

        Commits an agent made there are kept as `refs/coder/<session>/head`, since nothing else may reach them.
        """
        repository = record.repository
        head = repository.resolve("HEAD")
        if head and head != worktree.base_commit:
            repository.run("update-ref", f"refs/coder/{worktree.session_id}/head", head)
        base = self._facts(repository, worktree.base_commit)[worktree.base_commit]
        content = _Content(record, worktree, base.tree, self._keeper(record.repository))
        content.record()
        saved = repository.line("for-each-ref", "--format=%(tree)", f"refs/coder/{worktree.session_id}/").split()
        if content.tree in (base.tree, *saved):
            return None
        ref = next_discarded(repository, worktree.session_id)
        self._keep(repository, content.tree, worktree.base_commit, ref)
        return ref

    def _keep(self, repository: Repository, tree: str, base: str, ref: str) -> str:
        commit = self._keeper(repository).keep(tree, base, ref)
        self._remember(commit, _Facts(tree, (base,)))
        return commit

    def _keeper(self, repository: Repository) -> Keeper:
        return self._keepers.setdefault(repository.common_dir, Keeper(repository))

    def _remember(self, commit: str, facts: _Facts) -> None:
        if len(self._known) >= _FACTS_KEPT:
            self._known.clear()
        self._known[commit] = facts

    def _facts(self, repository: Repository, *commits: str | None) -> dict[str, _Facts]:
        wanted = {commit for commit in commits if commit}
        found = {commit: facts for commit in wanted if (facts := self._known.get(commit))}
        if missing := sorted(wanted - found.keys()):
            answer = repository.run("rev-list", "--no-walk=unsorted", "--no-commit-header", "--format=%H %T %P", *missing)
            for line in answer.out.decode().splitlines():
                commit, tree, *parents = line.split(" ")
                found[commit] = _Facts(tree, tuple(parent for parent in parents if parent))
                self._remember(commit, found[commit])
        return found


class _Content:
    """One look at a worktree: the tree git makes of it, its difference to the base, and what a reviewer must know."""

    def __init__(self, record: Record, worktree: Worktree, base_tree: str, keeper: Keeper) -> None:
        self._repository = record.repository
        self._record = record
        self._keeper = keeper
        self._base = worktree.base_commit
        self._base_tree = base_tree
        self._copied = worktree.copied
        self.tree = base_tree
        self.files: tuple[FileChange, ...] = ()
        self.patch = b""
        self.warnings: list[str] = []

    def record(self) -> None:
        with own_index(self._record, self._base) as index:
            try:
                self._add(index)
            except InternalError as error:
                if not _BROKEN_INDEX.search(str(error.facts.get("stderr", ""))):
                    raise
                index.unlink()
                self._repository.run("read-tree", self._base, index=index)
                self._add(index)
            self._measure(index)
            if self._correct(index):
                self._measure(index)
            if any(is_ignore_file(file.path) or is_ignore_file(file.old_path or b"") for file in self.files):
                self._warn_exposed()
                self._warn_unhidden()

    def _add(self, index: Path) -> None:
        arguments = ["add", "--all", "--ignore-errors"]
        stdin = None
        if self._copied:
            arguments += ["--pathspec-from-file=-", "--pathspec-file-nul"]
            stdin = b"\0".join([b".", *(b":(exclude,glob)" + each for path in self._copied for each in _patterns(path))])
        # Status 1 = some file could not be read: the rest still counts, and the reviewer is told.
        answer = self._repository.run(*arguments, stdin=stdin, index=index, accept=(0, 1))
        if answer.status:
            errors = [line for line in answer.err.splitlines() if line.startswith("error: ")]
            nested = [found[1] for line in errors if (found := _NO_COMMIT.match(line))]
            self._warn_nested(nested)
            others = [line.removeprefix("error: ") for line in errors if not _NO_COMMIT.match(line)]
            if others or not errors:
                self.warnings.append(f"Git could not read some files, so this change lacks them: {_some(others or [answer.err], '; ')}.")

    def _measure(self, index: Path) -> None:
        out = self._repository.run("diff-index", "--cached", *_FORM, self._base_tree, index=index).out
        self.files, self.patch = parse_diff(out)
        self.tree = self._base_tree
        if rows := parse_raw(out):
            self.tree = self._keeper.tree(self._base_tree, rows) or self._repository.line("write-tree", index=index)

    def _correct(self, index: Path) -> bool:
        """Take out nested repositories and files ignored by now, take back files of the base that are ignored."""
        submodules = any(file.path == b".gitmodules" for file in self.files)
        nested = [f.path for f in self.files if f.new_mode == GITLINK and f.old_mode != GITLINK and not submodules]
        added = {f.path for f in self.files if f.operation in ("added", "renamed", "copied")}
        hidden = hidden_files(self._repository, index, added) if any(is_ignore_file(f.path) for f in self.files) else []
        gone = [f.old_path or f.path for f in self.files if f.operation in ("deleted", "renamed")]
        kept = [path for path in gone if look(self._record.path, path).kind in (Kind.FILE, Kind.LINK)]
        self._warn_nested([display_path(path) for path in nested])
        if nested or hidden:
            self._repository.run("update-index", "--force-remove", "-z", "--stdin", stdin=b"\0".join([*nested, *hidden]), index=index)
        if kept:
            literal = b"\0".join(b":(literal)" + path for path in kept)
            arguments = ("add", "--force", "--ignore-errors", "--pathspec-from-file=-", "--pathspec-file-nul")
            self._repository.run(*arguments, stdin=literal, index=index, accept=(0, 1))
        return bool(nested or hidden or kept)

    def _warn_nested(self, names: list[str]) -> None:
        if names:
            self.warnings.append(
                f"A git repository was made inside the worktree at {_some(names)}; its files are not part of this change: "
                "delete its .git directory to have them in the next one."
            )

    def _warn_exposed(self) -> None:
        added = [f.path for f in self.files if f.operation in ("added", "renamed", "copied")]
        if exposed := ignored_by(self._repository, self._base, added):
            self.warnings.append(
                f"An ignore file was changed, so {len(exposed)} formerly ignored file(s) are now part of this change: "
                f"{_some([display_path(path) for path in exposed])}; look for secrets before approving."
            )

    def _warn_unhidden(self) -> None:
        """Of what the person's checkout ignores, and of the copies here, what the ignore files of the change would no longer hide."""
        hidden = sorted({*ignored_files(self._record.project), *self._copied})
        still = {*ignored_by(self._repository, self.tree, hidden)} if hidden else set()
        if unhidden := [display_path(path) for path in hidden if path not in still]:
            self.warnings.append(
                f"An ignore file was changed so that {len(unhidden)} ignored file(s) of the checkout would no longer be ignored there: "
                f"{_some(unhidden)}; once this is approved, `git add` takes them: look for secrets."
            )


def _patterns(path: bytes) -> tuple[bytes, bytes]:
    """Globs of just this path and of what is below it.

    Not the literal path: git takes one that is excluded *and* ignored for one it was asked to add, and complains. With its first
    character escaped it begins with a wildcard to git, which is not compared that way.
    """
    escaped = re.sub(rb"[*?\[\\]", rb"\\\g<0>", path)
    escaped = escaped if escaped.startswith(b"\\") else b"\\" + escaped
    return escaped, escaped + b"/**"


def difference(repository: Repository, base_tree: str, tree: str, index: Path) -> tuple[tuple[FileChange, ...], bytes]:
    """The files that differ between two trees, renames found, and the patch as `git diff --binary` writes it.

    Args:
        index: where git looks for attributes that lie in no file; the work tree's own may be broken.
    """
    return parse_diff(repository.run("diff-tree", "-r", *_FORM, base_tree, tree, index=index).out)


def next_discarded(repository: Repository, session_id: UUID) -> str:
    """The next free `refs/coder/<session>/discarded/<n>`."""
    prefix = f"refs/coder/{session_id}/discarded/"
    taken = repository.line("for-each-ref", "--format=%(refname)", prefix).split()
    return f"{prefix}{1 + max((int(ref.removeprefix(prefix)) for ref in taken), default=0)}"


def copy_index(source: Path, target: Path) -> None:
    """Copy an index with its mtime: git tells by it which entries may have changed unseen (racy-git)."""
    working = target.with_name(f"{target.name}.{uuid4().hex}")
    shutil.copy2(source, working)
    os.replace(working, target)


@contextmanager
def own_index(record: Record, base: str) -> Iterator[Path]:
    """Our index under a name of its own; what git made of it takes the old one's place at the end.

    A hard link does for a copy: git never writes into an index, it replaces it.
    """
    working = record.index.with_name(f"{record.index.name}.{uuid4().hex}")
    try:
        try:
            os.link(record.index, working)
        except FileNotFoundError:
            record.repository.run("read-tree", base, index=working)
        yield working
        os.replace(working, record.index)
    finally:
        # Still there when git changed nothing (two names of one file) or failed.
        working.unlink(missing_ok=True)


def _require(record: Record, base: str) -> tuple[str, ...]:
    if not record.there:
        sentence = f"The worktree {record.path} is gone; the session's next turn makes it again as of its last snapshot."
        raise InternalError(sentence, gone=True)
    return record.repair(base)


def _some(names: Iterable[str], separator: str = ", ") -> str:
    listed = list(names)
    more = f"{separator}and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
    return separator.join(listed[:_NAMED]) + more


def _snapshot(
    worktree: Worktree, base_tree: str, commit: str, tree: str, files: tuple[FileChange, ...], patch: bytes, warnings: tuple[str, ...]
) -> Snapshot:
    return Snapshot(
        base_commit=worktree.base_commit,
        base_tree=base_tree,
        base_version=worktree.base_version,
        commit=commit,
        tree=tree,
        diff=patch,
        files=files,
        warnings=warnings,
    )
