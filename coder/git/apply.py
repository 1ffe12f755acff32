"""Carry out a plan, find out how far one came, and forget it.

Invariant: each path goes from its old content to its new content in one step (rename or unlink), and nothing else is ever
overwritten: a third content stops everything. So a plan may be begun, killed anywhere and begun again; what is new already is
skipped. A branch moves last, from its expected commit. Omitted: fsync per file; a power failure is found by `examine`.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby
from pathlib import Path

from coder.change import Found, Plan, PlannedFile, display_path
from coder.diff import NO_MODE, RawRow, parse_raw
from coder.errors import CheckoutDirty, InternalError, UnsafePath, WrongBranch
from coder.git.disk import (
    Kind,
    Seen,
    clear_empty_directory,
    copy_file,
    directories,
    look,
    look_all,
    look_in,
    parent_of,
    prune_empty_parents,
    remove_tree,
    require_safe,
)
from coder.git.plan import PLANS, named, require_movable
from coder.git.present import Entry, matching, put_entries, rows_between
from coder.git.repository import Repository, temporary_index

_MODES = (NO_MODE, "100644", "100755", "120000")


def examine(repository: Repository, plan: Plan) -> tuple[Found, tuple[bytes, ...]]:
    """Compare the target with a plan.

    Returns:
        What was found, and the paths with a third content; none when it is a branch or HEAD that moved elsewhere.
    """
    head = _ref_state(repository, plan)
    if plan.target == "branch":
        return head, ()
    states = _file_states(repository, plan)
    if others := tuple(path for path, state in states.items() if state is Found.OTHER):
        return Found.OTHER, others
    if head is Found.OTHER:
        return Found.OTHER, ()
    parts = {*states.values(), *([head] if plan.new_commit else [])}
    if len(parts) > 1:
        return Found.MIXED, ()
    return (parts.pop() if parts else Found.NEW), ()


def carry_out(repository: Repository, plan: Plan) -> None:
    """Do what a plan says, as far as it is not done yet.

    Raises:
        UnsafePath: a path leads out of the checkout, or is no file or link; nothing was written.
        CheckoutDirty: a path holds a third content, or the index is locked; nothing more was written.
        WrongBranch: HEAD or the branch is not where the plan found it.
    """
    # A plan was made by us, but has been stored since.
    require_safe(file.path for file in plan.files)
    if odd := next((file for file in plan.files if file.new_mode not in _MODES), None):
        raise UnsafePath(path=f"{display_path(odd.path)} (mode {odd.new_mode})")
    head = _ref_state(repository, plan)
    if head is Found.OTHER:
        raise _moved(plan, "it was moved meanwhile")
    if plan.target == "checkout":
        if plan.new_commit and head is Found.OLD and repository.index.with_name("index.lock").exists():
            raise _locked(repository)
        _write_files(repository, plan)
    if plan.new_commit is None or head is Found.NEW:
        return
    if plan.target == "branch":
        require_movable(repository, plan.branch or "")
        _move(repository, plan, f"refs/heads/{plan.branch}")
    else:
        # The index first: once HEAD has moved, an index left behind would look like staged reverts and nobody would know.
        _refresh_index(repository, plan)
        _move(repository, plan, "HEAD")


def forget(repository: Repository, plan: Plan) -> None:
    """Drop the ref that kept the plan's objects, and what a killed run left behind."""
    remove_tree(_staging(repository, plan))
    repository.run("update-ref", "-d", plan.keep_ref)


# --- how far it came


def _ref_state(repository: Repository, plan: Plan) -> Found:
    """Where HEAD or the branch is; a commit made on top of the new one counts as new."""
    if plan.new_commit is None:
        return Found.OLD
    present = repository.resolve("HEAD" if plan.target == "checkout" else f"refs/heads/{plan.branch}")
    if present and (present == plan.new_commit or repository.is_ancestor(plan.new_commit, present)):
        return Found.NEW
    return Found.OLD if present == plan.old_commit else Found.OTHER


def _file_states(repository: Repository, plan: Plan) -> dict[bytes, Found]:
    seen = look_all(repository.top, (file.path for file in plan.files))
    new = matching(repository, {file.path: (file.new_blob, file.new_mode) for file in plan.files}, seen)
    rest = {file.path: (file.old_blob, file.old_mode) for file in plan.files if file.path not in new}
    old = matching(repository, rest, seen)
    return {f.path: Found.NEW if f.path in new else Found.OLD if f.path in old else Found.OTHER for f in plan.files}


# --- files


def _write_files(repository: Repository, plan: Plan) -> None:
    seen = look_all(repository.top, (file.path for file in plan.files))
    # The old content first: nearly always that is all of them. What nobody touched since it was compared is not read again.
    old = {path for path, mark in plan.marks.items() if mark and seen[path].signature == mark}
    old |= matching(repository, {file.path: (file.old_blob, file.old_mode) for file in plan.files if file.path not in old}, seen)
    new = matching(repository, {file.path: (file.new_blob, file.new_mode) for file in plan.files if file.path not in old}, seen)
    if others := [file.path for file in plan.files if file.path not in old | new]:
        raise _dirty(repository, others)
    todo = [file for file in plan.files if file.path in old]
    staging = _staging(repository, plan)
    try:
        if any(file.new_blob for file in todo):
            _stage(repository, staging, todo)
        for file in sorted(todo, key=lambda file: file.path, reverse=True):
            if file.new_blob is None:
                _delete(repository, file, seen[file.path])
        for file in plan.files:
            if file.new_blob is None:
                prune_empty_parents(repository.top, file.path)
        placed = [file for file in todo if file.new_blob is not None]
        for _, files in groupby(placed, key=lambda file: file.path.rpartition(b"/")[0]):
            _place_all(repository, staging, list(files), seen)
    finally:
        remove_tree(staging)


def _staging(repository: Repository, plan: Plan) -> Path:
    """In the git directory: nearly always on the checkout's file system, and never seen by anybody's `git status`."""
    return repository.git_dir / f"coder-staging-{plan.keep_ref.removeprefix(PLANS)}"


def _stage(repository: Repository, staging: Path, files: list[PlannedFile]) -> None:
    """Let git write the new contents, with the filters, modes and links they have once the plan is carried out.

    The staging directory plays the work tree: git finds attributes of new and changed `.gitattributes` in the index, those that
    stay are copied beside.
    """
    remove_tree(staging)
    staging.mkdir()
    new: dict[bytes, Entry] = {file.path: (file.new_blob, file.new_mode) for file in files if file.new_blob}
    leaving = {file.path for file in files}
    for rules in {b"/".join([place, b".gitattributes"]).lstrip(b"/") for place in directories(new)} - leaving:
        copy_file(repository.top, staging, rules)
    with temporary_index() as index:
        put_entries(repository, index, new)
        repository.run("checkout-index", "--all", "--quiet", index=index, work_tree=staging)


def _delete(repository: Repository, file: PlannedFile, seen: Seen) -> None:
    if look(repository.top, file.path).signature != seen.signature:
        raise _dirty(repository, [file.path])
    try:
        with parent_of(repository.top, file.path, create=False) as (directory, name):
            os.unlink(name, dir_fd=directory)
    except (NotADirectoryError, FileNotFoundError, IsADirectoryError) as error:
        raise _dirty(repository, [file.path]) from error


def _place_all(repository: Repository, staging: Path, files: list[PlannedFile], seen: Mapping[bytes, Seen]) -> None:
    """Put the new files of one directory in their places."""
    try:
        with parent_of(repository.top, files[0].path, create=True) as (directory, _):
            for file in files:
                _place(repository, staging, file, seen[file.path], directory)
    except NotADirectoryError as error:
        raise _dirty(repository, [files[0].path]) from error


def _place(repository: Repository, staging: Path, file: PlannedFile, seen: Seen, directory: int) -> None:
    staged, name = os.path.join(os.fsencode(staging), file.path), file.path.rpartition(b"/")[2]
    try:
        if seen.kind is Kind.DIRECTORY:
            # All it held was deleted above; empty directories may be left.
            clear_empty_directory(repository.top, file.path)
            seen = Seen(Kind.ABSENT)
        if look_in(directory, name).signature != seen.signature:
            raise _dirty(repository, [file.path])
        try:
            os.replace(staged, name, dst_dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _bring_over(staged, directory, name, f".coder-{staging.name}".encode())
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise _dirty(repository, [file.path]) from error
        raise


def _bring_over(staged: bytes, directory: int, name: bytes, passing: bytes) -> None:
    """Rename across file systems: a copy beside the target first, under a name that a second run uses again."""
    # Only there when a run was killed at this very point.
    with suppress(FileNotFoundError):
        os.unlink(passing, dir_fd=directory)
    if os.path.islink(staged):
        os.symlink(os.readlink(staged), passing, dir_fd=directory)
    else:
        made = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory)
        with open(staged, "rb") as reader, open(made, "wb") as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)
            os.fchmod(made, os.stat(staged).st_mode & 0o777)
    os.replace(passing, name, src_dir_fd=directory, dst_dir_fd=directory)


# --- refs and index


def _refresh_index(repository: Repository, plan: Plan) -> None:
    """Put the committed files into the user's index where it holds HEAD's entry; what the user staged stays."""
    if not repository.index.exists() or plan.old_commit is None or plan.new_commit is None:
        return
    staged = {row.path for row in _staged_rows(repository, plan.old_commit)}
    rows = rows_between(repository, plan.old_commit, plan.new_commit)
    entries = {row.path: (row.new_blob, row.new_mode) for row in rows if row.path not in staged}
    try:
        put_entries(repository, repository.index, entries)
        repository.run("update-index", "-q", "--refresh", accept=(0, 1))
    except InternalError as error:
        if "index.lock" in str(error.facts.get("stderr", "")):
            raise _locked(repository) from error
        raise


def _staged_rows(repository: Repository, commit: str) -> tuple[RawRow, ...]:
    return parse_raw(repository.run("diff-index", "--cached", "-z", "--raw", "--no-renames", commit).out)


def _move(repository: Repository, plan: Plan, ref: str) -> None:
    old = plan.old_commit or repository.zeros
    try:
        repository.run("update-ref", "-m", "coder: approve", ref, plan.new_commit or old, old)
    except InternalError as error:
        raise _moved(plan, str(error.facts.get("stderr", "")).strip() or "git gave no reason") from error


# --- sentences


def _moved(plan: Plan, why: str) -> WrongBranch:
    what = f"Branch {plan.branch}" if plan.target == "branch" else "HEAD"
    return WrongBranch(
        f"{what} of {plan.repository} cannot go from {plan.old_commit or 'nothing'} to the approved commit: {why}; approve again.",
        expected=plan.old_commit,
        actual=None,
    )


def _locked(repository: Repository) -> CheckoutDirty:
    lock = repository.index.with_name("index.lock")
    return CheckoutDirty(
        f"Another git is at work in {repository.top}, or one was killed there and left {lock}; "
        "wait or delete that file, then approve again.",
        path=str(repository.top),
        files=[],
    )


def _dirty(repository: Repository, paths: list[bytes]) -> CheckoutDirty:
    files = [display_path(path) for path in paths]
    sentence = (CheckoutDirty.__doc__ or "").format(path=repository.top, files=named(paths))
    return CheckoutDirty(sentence, path=str(repository.top), files=files)
