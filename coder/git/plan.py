"""What an approval will do, worked out without touching anything.

Job: the three-way merge of a snapshot into a checkout or a branch. Invariant: the merge base is the session's recorded base. A
checkout's present content is HEAD's with what lies on disk at the paths that matter; of that, only HEAD's content and what coder
wrote there itself may be overwritten. Omitted: doing it (`apply`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from coder.change import Approval, Plan, PlannedFile, display_path
from coder.diff import GITLINK, RawRow
from coder.errors import CheckoutDirty, MergeConflict, NoCommit, WrongBranch
from coder.git.disk import Kind, Seen, files_below, look_all, require_safe
from coder.git.merge import Merge, merge
from coder.git.present import Entry, matching, overlay, rows_between, tree_entries
from coder.git.repository import CODER, Repository

PLANS = "refs/coder/plans/"
CHECKOUT = "the checkout"
_NAMED = 10
_IDENT = re.compile(r"(.*) <([^<>]*)> \d+ [-+]\d{4}")
_NO_NAME = re.compile(r"[\x00-\x1f<>]")


def make_plan(repository: Repository, approval: Approval) -> Plan:
    """Merge a snapshot with its target.

    Raises:
        MergeConflict: both sides edit the same lines; facts `files`, `target`, `conflicts` (of `ConflictFile`).
        UnsafePath: the change holds a path that no checkout may have.
        CheckoutDirty: a file to be written holds work that is neither HEAD's nor coder's; facts `path`, `files`.
        WrongBranch: the checkout is on another branch than the session's base, or the branch may not be moved.
        NoCommit: the repository lost its HEAD commit.
    """
    if approval.rebase or (approval.parts and not any(each.approved for each in approval.parts)):
        # Nothing of it goes to the target.
        return Plan("checkout", str(repository.top), f"{PLANS}{approval.decision_id}")
    head = repository.resolve("HEAD")
    if head is None:
        raise NoCommit(path=repository.top, project=approval.worktree.project_id)
    return _branch_plan(repository, approval, head) if approval.target == "branch" else _checkout_plan(repository, approval, head)


# --- into a branch


def _branch_plan(repository: Repository, approval: Approval, head: str) -> Plan:
    branch = approval.branch or ""
    require_movable(repository, branch)
    require_safe(row.path for row in rows_between(repository, approval.worktree.base_commit, approval.snapshot_commit))
    tip = repository.resolve(f"refs/heads/{branch}")
    start = tip or head
    merged = _merge(repository, approval, start, f"branch {branch}")
    same = merged.tree == repository.line("rev-parse", f"{start}^{{tree}}")
    new = start if same else _commit(repository, approval, merged.tree, start)
    keep = _keep(repository, approval, merged, start, new)
    return Plan("branch", str(repository.top), keep, branch=branch, old_commit=tip, new_commit=new)


def require_movable(repository: Repository, branch: str) -> None:
    """Refuse a branch whose name git does not take, or that some work tree has checked out or rebases."""
    ref = f"refs/heads/{branch}"
    valid = not branch.startswith("-") and branch not in ("HEAD", "@") and "\0" not in branch
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
    require_branch(repository, approval)
    change = rows_between(repository, approval.worktree.base_commit, approval.snapshot_commit)
    paths = {*approval.paths, *(row.path for row in change)}
    require_safe(paths)
    while True:
        present, seen = present_tree(repository, approval, head, paths, change)
        merged = _merge(repository, approval, present, CHECKOUT)
        # Nobody touched the target since: what is to be written is the change.
        rows = change if merged.ours == approval.worktree.base_commit else rows_between(repository, present, merged.tree)
        # A file the user renamed takes the change under its new name, which must be as free of unknown work as the old one.
        more = {row.path for row in rows} - paths
        if not more:
            break
        paths |= more
    _require_room(repository, rows, seen)
    new = _commit_of(repository, approval, head, merged.tree, paths)
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
            f"The change moves the submodule {named(links)}, which only a commit can record; approve with a commit, or into a branch.",
        )
    keep = _keep(repository, approval, merged, head, new)
    marks = {file.path: seen[file.path].signature for file in files}
    return Plan("checkout", str(repository.top), keep, old_commit=head, new_commit=new, files=files, marks=marks)


def require_branch(repository: Repository, approval: Approval) -> None:
    """Refuse a checkout that is on another branch than the one the session started from."""
    expected, actual = approval.worktree.base_branch, repository.head_branch()
    if expected is not None and expected != actual:
        here = f"branch {actual}" if actual else "no branch (detached HEAD)"
        raise WrongBranch(
            f"The checkout {repository.top} is on {here}, but the session started from branch {expected}; "
            f"switch to {expected} there and approve again, or approve into a branch.",
            expected=expected,
            actual=actual,
        )


def present_tree(
    repository: Repository, approval: Approval, head: str, paths: set[bytes], change: Iterable[RawRow]
) -> tuple[str, dict[bytes, Seen]]:
    """HEAD's tree with what coder wrote and nobody committed yet; refuses where other work lies at the paths.

    Returns:
        The tree (HEAD itself when it is its), and what was seen at the paths before their content was compared.
    """
    wanted = paths | approval.written.keys()
    seen = look_all(repository.top, wanted)
    _require_reachable(repository, paths, seen)
    files = {path: entry for path, entry in _heads_entries(repository, approval, head, wanted, change).items() if entry[1] != GITLINK}
    differing = files.keys() - matching(repository, files, seen)
    accepted: dict[bytes, Entry] = {}
    # The snapshot's own content in place already is nothing to lose either.
    for known in (approval.written, {row.path: (row.new_blob, row.new_mode) for row in change}):
        asked = {path: known[path] for path in differing - accepted.keys() if path in known}
        accepted.update({path: asked[path] for path in matching(repository, asked, seen)})
    if dirty := sorted((differing - accepted.keys()) & paths):
        raise _dirty(repository, dirty)
    return overlay(repository, head, accepted) if accepted else head, seen


def _heads_entries(
    repository: Repository, approval: Approval, head: str, paths: Iterable[bytes], change: Iterable[RawRow]
) -> dict[bytes, Entry]:
    """HEAD's entries: those of the base where the two do not differ, so that nobody reads the whole of a large tree."""
    base = approval.worktree.base_commit
    known = {row.path: (row.old_blob, row.old_mode) for row in change}
    known.update({row.path: (row.new_blob, row.new_mode) for row in rows_between(repository, base, head)} if head != base else {})
    return tree_entries(repository, head, [path for path in paths if path not in known]) | {
        path: known[path] for path in paths if path in known
    }


def _require_reachable(repository: Repository, paths: set[bytes], seen: Mapping[bytes, Seen]) -> None:
    unmerged = {line.partition(b"\t")[2] for line in repository.run("ls-files", "--unmerged", "-z").out.split(b"\0")}
    if conflicted := sorted(unmerged & paths):
        raise _dirty(repository, conflicted, because="a merge there is not resolved")
    if blocked := sorted({blocker for path in paths if (blocker := seen[path].blocker)} - paths):
        raise _dirty(repository, blocked, because="it stands where the change needs a directory")


def _require_room(repository: Repository, rows: Iterable[RawRow], seen: Mapping[bytes, Seen]) -> None:
    leaving = {row.path for row in rows if row.new_blob is None}
    for row in rows:
        if row.new_blob and row.new_mode != GITLINK and seen[row.path].kind is Kind.DIRECTORY:
            others = sorted(set(files_below(repository.top, row.path)) - leaving)
            if others:
                raise _dirty(repository, others, because=f"the change puts a file at {display_path(row.path)}")


def _commit_of(repository: Repository, approval: Approval, head: str, merged: str, paths: set[bytes]) -> str | None:
    """The commit of HEAD with just the change's files, None when there is none to make."""
    if not approval.commit:
        return None
    entries = {row.path: (row.new_blob, row.new_mode) for row in rows_between(repository, head, merged) if row.path in paths}
    return _commit(repository, approval, overlay(repository, head, entries), head) if entries else None


# --- both


def _merge(repository: Repository, approval: Approval, ours_tree: str, target: str) -> Merge:
    merged = merge(repository, approval.worktree.base_commit, ours_tree, approval.snapshot_commit, (target, "the change"))
    require_no_conflict(merged, target)
    return merged


def require_no_conflict(merged: Merge, target: str) -> None:
    """Raises `MergeConflict` where both sides of a merge clash."""
    if merged.conflicts:
        names = [display_path(conflict.path) for conflict in merged.conflicts]
        sentence = (MergeConflict.__doc__ or "").format(target=target, files=named([conflict.path for conflict in merged.conflicts]))
        raise MergeConflict(sentence, files=names, target=target, conflicts=list(merged.conflicts))


def _commit(repository: Repository, approval: Approval, tree: str, parent: str) -> str:
    """A commit people will see: by who asked for it, committed by whoever the repository is configured for, else by coder."""
    known = repository.run("-c", "user.useConfigOnly=true", "var", "GIT_AUTHOR_IDENT", environment={}, accept=(0, 1, 128))
    identity = {} if known.status == 0 else dict(CODER)
    own = _IDENT.match(known.out.decode("utf-8", "replace")) if known.status == 0 else None
    # git takes no angle brackets and no control characters in a name, and no name without anything else.
    if name := _NO_NAME.sub("", approval.author or "").strip(" .,:;\"'"):
        email = own[2] if own and own[1] == name else f"{re.sub(r'[^A-Za-z0-9._+-]+', '-', name)}@localhost"
        identity |= {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email}
    return repository.commit_tree(tree, parent, message=approval.message.rstrip("\n") + "\n", environment=identity)


def _keep(repository: Repository, approval: Approval, merged: Merge, target: str, new: str | None) -> str:
    ref = f"{PLANS}{approval.decision_id}"
    parents = dict.fromkeys((merged.ours, merged.theirs, target, new or target))
    repository.run("update-ref", ref, repository.commit_tree(merged.tree, *parents, message="plan"))
    return ref


def named(paths: Sequence[bytes]) -> str:
    """Paths as a sentence names them: the first few."""
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(display_path(path) for path in paths[:_NAMED]) + more


def _dirty(repository: Repository, paths: list[bytes], message: str | None = None, because: str = "") -> CheckoutDirty:
    files = named(paths) + (f" ({because})" if because else "")
    sentence = message or (CheckoutDirty.__doc__ or "").format(path=repository.top, files=files)
    return CheckoutDirty(sentence, path=str(repository.top), files=[display_path(path) for path in paths])
