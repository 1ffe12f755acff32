"""What one change of a session has that an earlier one had not, and the reverse.

Job: the difference between two snapshots. Invariant: what became of the base meanwhile (approvals, rebases) is no difference: the
earlier work is put on the later base first. Omitted: whose changes these are; nothing is written but objects.
"""

from __future__ import annotations

from collections.abc import Sequence

from coder.change import FileChange
from coder.errors import NoProjectPath, NotARepository, NotFound, Unavailable
from coder.git.merge import merge
from coder.git.present import overlay, tree_entries
from coder.git.repository import Repository, open_repository
from coder.git.snapshot import difference


def compare(path: str, earlier: Sequence[str], later: Sequence[str]) -> tuple[tuple[FileChange, ...], bytes]:
    """The difference between two changes of a session.

    Args:
        path: the project's checkout.
        earlier, later: of each change its base commit and its snapshot commit.

    Returns:
        The files that differ, renames found, and the patch that turns what the earlier change would be on the later one's base
        into the later change, as `git diff --binary` writes it.

    Raises:
        Unavailable: there is no repository at the path any more.
        NotFound: the repository lost one of the commits.
    """
    try:
        repository = open_repository(path, path)
    except (NoProjectPath, NotARepository) as error:
        raise Unavailable(error.message) from error
    for commit in (*earlier, *later):
        if repository.resolve(commit) is None:
            raise NotFound(kind="commit", name=commit, look=f"git -C {path} for-each-ref refs/coder")
    old, new = (repository.line("rev-parse", f"{commit}^{{tree}}") for commit in (_moved(repository, earlier, later[0]), later[1]))
    return difference(repository, old, new, repository.git_dir / "coder-no-index")


def _moved(repository: Repository, change: Sequence[str], base: str) -> str:
    """A change's content on another base; where both edit the same lines, files are as the change had them."""
    own, snapshot = change
    if repository.line("rev-parse", f"{own}^{{tree}}") == repository.line("rev-parse", f"{base}^{{tree}}"):
        return snapshot
    merged = merge(repository, own, base, snapshot, ("the base", "the change"))
    clashing = [each.path for each in merged.conflicts]
    return overlay(repository, merged.tree, tree_entries(repository, snapshot, clashing))
