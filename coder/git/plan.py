"""What an approval will do, worked out without touching anything.

Job: the three-way merge of a snapshot into a checkout or a branch. Invariant: the merge base is the session's recorded base
and nothing else: both sides are made commits on it, since real ancestry makes a second approval conflict with the first.
A checkout's present content is HEAD's with what lies on disk at the paths that matter; of that, only HEAD's content and what
coder wrote there itself may be overwritten. Omitted: doing it (`apply`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coder.change import Approval, ConflictFile, Plan, PlannedFile, display_path
from coder.diff import GITLINK, Merged, RawRow, parse_conflicts, parse_merge, parse_raw
from coder.errors import CheckoutDirty, MergeConflict, NoCommit, WrongBranch
from coder.git.disk import Kind, files_below, look
from coder.git.ignored import read_blobs
from coder.git.present import Entry, disk_entries, matching, overlay, tree_entries
from coder.git.repository import CODER, Repository

PLANS = "refs/coder/plans/"
_REGULAR = ("100644", "100755")


@dataclass(frozen=True, slots=True)
class _Merge:
    """A merge without conflicts: its tree, and the two synthetic commits it was made of."""

    tree: str
    ours: str
    theirs: str


def make_plan(repository: Repository, approval: Approval) -> Plan:
    """Merge a snapshot with its target.

    Raises:
        MergeConflict: both sides edit the same lines; facts `files`, `target`, `conflicts` (of `ConflictFile`).
        CheckoutDirty: a file to be written holds work that is neither HEAD's nor coder's; facts `path`, `files`.
        WrongBranch: the checkout is on another branch than the session's base, or the branch may not be moved.
        NoCommit: the repository lost its HEAD commit.
    """
    if approval.snapshot_commit == approval.worktree.base_commit:
        # Nothing was approved of it.
        return Plan("checkout", str(repository.top), f"{PLANS}{approval.decision_id}")
    head = repository.resolve("HEAD")
    if head is None:
        raise NoCommit(path=repository.top, project=approval.worktree.project_id)
    return _branch_plan(repository, approval, head) if approval.target == "branch" else _checkout_plan(repository, approval, head)


def rows_between(repository: Repository, old: str, new: str) -> tuple[RawRow, ...]:
    """The entries that differ between two trees or commits, renames as deletion and addition."""
    return parse_raw(repository.run("diff-tree", "-r", "-z", "--raw", "--no-renames", f"{old}^{{tree}}", f"{new}^{{tree}}").out)


# --- into a branch


def _branch_plan(repository: Repository, approval: Approval, head: str) -> Plan:
    branch = approval.branch or ""
    require_movable(repository, branch)
    tip = repository.resolve(f"refs/heads/{branch}")
    start = tip or head
    merge = _merge(repository, approval, f"{start}^{{tree}}", f"branch {branch}")
    same = merge.tree == repository.line("rev-parse", f"{start}^{{tree}}")
    new = start if same else _commit(repository, merge.tree, start, approval.message)
    keep = _keep(repository, approval, merge, start, new)
    return Plan("branch", str(repository.top), keep, branch=branch, old_commit=tip, new_commit=new)


def require_movable(repository: Repository, branch: str) -> None:
    """Refuse a branch whose name git does not take, or that some work tree has checked out or rebases."""
    ref = f"refs/heads/{branch}"
    valid = not branch.startswith("-") and branch != "HEAD" and "\0" not in branch
    if not valid or repository.run("check-ref-format", ref, accept=(0, 1)).status:
        raise WrongBranch(f"{branch!r} is not a name git takes for a branch; choose another one.", expected=branch, actual=None)
    listing = os.fsdecode(repository.run("worktree", "list", "--porcelain", "-z").out)
    for block in listing.split("\0\0"):
        place, *facts = block.split("\0")
        if f"branch {ref}" in facts:
            place = place.removeprefix("worktree ")
            raise WrongBranch(
                f"Branch {branch} is checked out in {place}, so moving it would leave that checkout behind; "
                "approve into the checkout instead, or into another branch.",
                expected=branch,
                actual=branch,
            )
    for git_dir in (repository.common_dir, *repository.common_dir.glob("worktrees/*")):
        for name in (git_dir / "rebase-merge" / "head-name", git_dir / "rebase-apply" / "head-name"):
            if name.is_file() and os.fsdecode(name.read_bytes()).strip() == ref:
                raise WrongBranch(f"Branch {branch} is being rebased ({name}); finish that first.", expected=branch, actual=branch)


# --- into the checkout


def _checkout_plan(repository: Repository, approval: Approval, head: str) -> Plan:
    expected, actual = approval.worktree.base_branch, repository.head_branch()
    if expected is not None and expected != actual:
        here = f"branch {actual}" if actual else "no branch (detached HEAD)"
        raise WrongBranch(
            f"The checkout {repository.top} is on {here}, but the session started from branch {expected}; "
            f"switch to {expected} there and approve again, or approve into a branch.",
            expected=expected,
            actual=actual,
        )
    change = rows_between(repository, approval.worktree.base_commit, approval.snapshot_commit)
    snapshot = {row.path: (row.new_blob, row.new_mode) for row in change}
    paths = {*approval.paths, *snapshot}
    while True:
        present = _present_tree(repository, approval, head, paths, snapshot)
        merge = _merge(repository, approval, present, "the checkout")
        rows = rows_between(repository, present, merge.tree)
        # A file the user renamed takes the change under its new name, which must be as free of unknown work as the old one.
        more = {row.path for row in rows} - paths
        if not more:
            break
        paths |= more
    _require_room(repository, rows)
    new = _commit_of(repository, approval, head, merge.tree, paths)
    files = tuple(
        PlannedFile(row.path, row.old_blob, row.old_mode, row.new_blob, row.new_mode)
        for row in rows
        if GITLINK not in (row.old_mode, row.new_mode)
    )
    if len(files) < len(rows) and not approval.commit:
        links = [row.path for row in rows if GITLINK in (row.old_mode, row.new_mode)]
        raise _dirty(
            repository,
            links,
            f"The change moves the submodule {_named(links)}, which only a commit can record; approve with a commit, or into a branch.",
        )
    keep = _keep(repository, approval, merge, head, new)
    return Plan("checkout", str(repository.top), keep, old_commit=head, new_commit=new, files=files)


def _present_tree(repository: Repository, approval: Approval, head: str, paths: set[bytes], snapshot: Mapping[bytes, Entry]) -> str:
    """HEAD's tree with what coder wrote and nobody committed yet; refuses where other work lies at the paths."""
    _require_reachable(repository, paths)
    heads = tree_entries(repository, head, paths | approval.written.keys())
    files = {path: entry for path, entry in heads.items() if entry[1] != GITLINK}
    disk = disk_entries(repository, files)
    differing = {path for path, entry in files.items() if disk[path] != entry}
    accepted: dict[bytes, Entry] = {}
    # The snapshot's own content in place already is nothing to lose either.
    for known in (approval.written, snapshot):
        asked = {path: known[path] for path in differing - accepted.keys() if path in known}
        accepted.update({path: asked[path] for path in matching(repository, asked)})
    if dirty := sorted((differing - accepted.keys()) & paths):
        raise _dirty(repository, dirty)
    return overlay(repository, head, accepted)


def _require_reachable(repository: Repository, paths: set[bytes]) -> None:
    unmerged = {line.partition(b"\t")[2] for line in repository.run("ls-files", "--unmerged", "-z").out.split(b"\0")}
    if conflicted := sorted(unmerged & paths):
        raise _dirty(repository, conflicted, because="a merge there is not resolved")
    blocked = sorted({seen.blocker for path in paths if (seen := look(repository.top, path)).blocker} - paths - {None}, key=bytes)
    if blocked:
        raise _dirty(repository, blocked, because="it stands where the change needs a directory")


def _require_room(repository: Repository, rows: Iterable[RawRow]) -> None:
    leaving = {row.path for row in rows if row.new_blob is None}
    for row in rows:
        if row.new_blob and row.new_mode != GITLINK and look(repository.top, row.path).kind is Kind.DIRECTORY:
            others = sorted(set(files_below(repository.top, row.path)) - leaving)
            if others:
                raise _dirty(repository, others, because=f"the change puts a file at {display_path(row.path)}")


def _commit_of(repository: Repository, approval: Approval, head: str, merged: str, paths: set[bytes]) -> str | None:
    """The commit of HEAD with just the change's files, None when there is none to make."""
    if not approval.commit:
        return None
    entries = {row.path: (row.new_blob, row.new_mode) for row in rows_between(repository, head, merged) if row.path in paths}
    return _commit(repository, overlay(repository, head, entries), head, approval.message) if entries else None


# --- both


def _merge(repository: Repository, approval: Approval, ours_tree: str, target: str) -> _Merge:
    base = approval.worktree.base_commit
    ours = repository.commit_tree(ours_tree, base)
    theirs = repository.commit_tree(f"{approval.snapshot_commit}^{{tree}}", base)
    answer = repository.run("merge-tree", "--write-tree", "-z", ours, theirs, accept=(0, 1))
    merged = parse_merge(answer.out)
    if answer.status:
        conflicts = _conflicts(repository, merged, ours, theirs, target)
        names = [display_path(conflict.path) for conflict in conflicts]
        sentence = (MergeConflict.__doc__ or "").format(target=target, files=", ".join(names))
        raise MergeConflict(sentence, files=names, target=target, conflicts=conflicts)
    return _Merge(merged.tree, ours, theirs)


def _conflicts(repository: Repository, merged: Merged, ours: str, theirs: str, target: str) -> list[ConflictFile]:
    rows = {row.path: row for row in rows_between(repository, ours, merged.tree) if row.new_mode in _REGULAR and row.new_blob}
    marked = [path for path in merged.conflicted if path in rows]
    contents = dict(zip(marked, read_blobs(repository, [rows[path].new_blob or "" for path in marked]), strict=True))
    conflicts = []
    for path in merged.conflicted:
        remarks = [text for paths, kind, text in merged.messages if path in paths and kind.startswith("CONFLICT")]
        detail = " ".join(remarks).replace(ours, target).replace(theirs, "the change")
        hunks = parse_conflicts(contents.get(path, b""), ours, theirs)
        conflicts.append(ConflictFile(path, detail, hunks))
    return conflicts


def _commit(repository: Repository, tree: str, parent: str, message: str) -> str:
    """A commit people will see: in the name of whoever the repository is configured for, else in coder's."""
    known = repository.run("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT", environment={}, accept=(0, 1, 128))
    identity = {} if known.status == 0 else CODER
    return repository.commit_tree(tree, parent, message=message.rstrip("\n") + "\n", environment=identity)


def _keep(repository: Repository, approval: Approval, merge: _Merge, target: str, new: str | None) -> str:
    ref = f"{PLANS}{approval.decision_id}"
    parents = dict.fromkeys((merge.ours, merge.theirs, target, new or target))
    repository.run("update-ref", ref, repository.commit_tree(merge.tree, *parents, message="plan"))
    return ref


def _named(paths: Iterable[bytes]) -> str:
    return ", ".join(display_path(path) for path in paths)


def _dirty(repository: Repository, paths: list[bytes], message: str | None = None, because: str = "") -> CheckoutDirty:
    files = _named(paths) + (f" ({because})" if because else "")
    sentence = message or (CheckoutDirty.__doc__ or "").format(path=repository.top, files=files)
    return CheckoutDirty(sentence, path=str(repository.top), files=[display_path(path) for path in paths])
