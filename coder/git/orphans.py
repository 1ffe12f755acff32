"""What lies around of worktrees whose session nobody knows: found, saved, removed.

Invariant: content goes only after a ref holds it; what git cannot read stays where it is. Only names that bear a session's id
count as ours. Omitted: deciding which sessions are known.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from coder.change import Worktree
from coder.errors import InternalError
from coder.git.disk import remove_tree
from coder.git.record import Record
from coder.git.repository import Repository, open_repository
from coder.git.snapshot import Snapshots


def session_of(path: Path) -> UUID | None:
    """The session whose id a path's last name begins with, None when it is none of ours."""
    try:
        return UUID(path.name.partition(".")[0])
    except ValueError:
        return None


def find_orphans(place: Path, repository: Repository, known: Collection[UUID]) -> list[Path]:
    """Directories of unknown sessions, files without a directory, remains of a removal, and git's stale records of such.

    Args:
        place: the directory of one project's worktrees.
    """
    beside = [(path, session) for path in (sorted(place.iterdir()) if place.is_dir() else []) if (session := session_of(path))]
    found = [path for path, session in beside if path.name.endswith(".gone") or session not in known]
    for record in sorted(repository.common_dir.glob("worktrees/*")):
        link = record / "gitdir"
        target = Path(os.fsdecode(link.read_bytes()).strip()).parent if link.is_file() else None
        if target and target.parent == place and not target.exists() and session_of(target) not in known:
            found.append(record)
    # What lies beside a worktree goes with it.
    worktrees = {path for path in found if path.is_dir() and path.parent == place and "." not in path.name}
    return [path for path in found if path in worktrees or path.with_name(path.name.partition(".")[0]) not in worktrees]


def find_strays(root: Path, known: Collection[UUID], before: float) -> list[Path]:
    """Worktrees of unknown projects, and what lies where a worktree of theirs was, all untouched since a moment.

    Args:
        root: the directory of all worktrees, one below it for each project.
        known: the projects whose worktrees are to stay.
        before: seconds since the epoch.
    """
    found = []
    for place in sorted(root.iterdir()) if root.is_dir() else ():
        if (project := session_of(place)) is None or project in known or not place.is_dir():
            continue
        for path in sorted(place.iterdir()):
            beside = [each for each in place.glob(f"{path.name}*") if session_of(each)]
            if session_of(path) and path.is_dir() and "." not in path.name and max(map(_touched, beside)) < before:
                found.append(path)
    return found


def _touched(path: Path) -> float:
    return path.lstat().st_mtime


def repository_of(path: Path) -> Repository:
    """The repository that a worktree's `.git` leads to.

    Raises:
        InternalError: it leads nowhere.
        NoProjectPath, NotARepository: the repository is gone, or has no checkout.
    """
    link = path / ".git"
    text = link.read_text(errors="replace") if link.is_file() and not link.is_symlink() else ""
    kept = Path(text.removeprefix("gitdir: ").strip())
    if not text.startswith("gitdir: ") or kept.parent.name != "worktrees" or kept.name != path.name:
        raise InternalError(f"Nothing says which repository the worktree {path} is of; look at it by hand.")
    return open_repository(str(kept.parent.parent.parent), path)


def remove_orphan(record: Record, project_id: UUID, snapshots: Snapshots, path: Path) -> str | None:
    """Save what an orphan holds under a ref, then delete it; answers the ref, if one was made.

    Raises:
        InternalError: git cannot read it; it stays.
    """
    if path != record.path:
        remove_tree(path)
        return None
    saved = None
    if not record.making.exists():
        repository = record.project
        base = repository.resolve(record.base_ref) or repository.resolve("HEAD")
        if base is None:
            raise InternalError(f"No commit of {repository.top} says what the worktree {path} was made from; look at it by hand.")
        record.repair(base)
        worktree = Worktree(record.session_id, project_id, str(repository.top), str(record.path), base, None)
        saved = snapshots.save_new(record, worktree)
    record.drop()
    return saved
