"""A session's worktree as git and we keep record of it.

Three things belong together: the directory, git's record (`<common>/worktrees/<session>`) and our own index beside the
directory. Invariant: git's record bears the session's id, so it is found without asking git, and each side names the other;
what an agent broke of that is put right before git is run. Omitted: what the worktree contains.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from coder.git.disk import remove_tree
from coder.git.repository import Repository

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EISDIR)
_HEAD_MOST = 8192
_HEAD = re.compile(rb"(ref: refs/\S+|[0-9a-f]{40}|[0-9a-f]{64})\n?")

# What an unfinished merge, rebase, cherry-pick or bisect leaves in a git directory (gitrepository-layout(5)).
_UNFINISHED = (
    *("MERGE_HEAD", "MERGE_MODE", "MERGE_MSG", "AUTO_MERGE", "SQUASH_MSG", "CHERRY_PICK_HEAD", "REVERT_HEAD", "REBASE_HEAD"),
    *("BISECT_LOG", "BISECT_START", "BISECT_NAMES", "BISECT_TERMS", "BISECT_EXPECTED_REV", "BISECT_ANCESTORS_OK"),
    *("rebase-merge", "rebase-apply", "sequencer", "index.lock", "HEAD.lock"),
)


@dataclass(frozen=True, slots=True)
class Record:
    """Where everything of one session's worktree lies.

    Attributes:
        project: the repository of the project's checkout.
        path: the worktree's root, `<data>/worktrees/<project>/<session>`; real and absolute.
    """

    project: Repository
    session_id: UUID
    path: Path

    @property
    def repository(self) -> Repository:
        """The worktree as git sees it."""
        return Repository(self.path, self.kept, self.project.common_dir, self.project.object_format)

    @property
    def kept(self) -> Path:
        """Git's record: HEAD, index and whereabouts of the linked worktree."""
        return self.project.common_dir / "worktrees" / str(self.session_id)

    @property
    def index(self) -> Path:
        """Our own index, which no agent gets to see; made again from the base whenever it is missing."""
        return self.path.with_name(f"{self.path.name}.index")

    @property
    def base_ref(self) -> str:
        """Keeps the first base alive, and says what it was should nobody else have written it down."""
        return f"refs/coder/{self.session_id}/base"

    @property
    def making(self) -> Path:
        """There while the worktree is being made: a directory with this beside it is half-made and holds no work."""
        return self.path.with_name(f"{self.path.name}.making")

    @property
    def there(self) -> bool:
        """Whether the worktree is a directory at its own place: behind a link that an agent put there is somebody else's."""
        return self.path.is_dir() and os.path.realpath(self.path) == str(self.path)

    @property
    def complete(self) -> bool:
        return self.there and not self.making.exists()

    def repair(self, base: str) -> tuple[str, ...]:
        """Put right the links between directory and record; one sentence for each thing that was broken.

        Args:
            base: commit for a HEAD that is missing.
        """
        broken = []
        if self._repair_kept(base):
            broken.append(f"Git's record of this worktree ({self.kept}) was missing or changed; it was made again.")
        link = self.path / ".git"
        wanted = f"gitdir: {self.kept}\n".encode()
        if not _is_file_with(str(link), wanted):
            if os.path.lexists(link):
                aside = self._aside()
                os.rename(link, aside)
                broken.append(f"The worktree's .git was replaced during the turn; it was put right, what was there is now {aside}.")
            else:
                broken.append("The worktree's .git was removed during the turn; it was made again.")
            link.write_bytes(wanted)
        return tuple(broken)

    def _repair_kept(self, base: str) -> bool:
        kept = str(self.kept)
        if os.path.islink(kept):
            os.unlink(kept)
        wanted = {"commondir": b"../..\n", "gitdir": f"{self.path}/.git\n".encode()}
        broken = [name for name, content in wanted.items() if not _is_file_with(f"{kept}/{name}", content)]
        os.makedirs(kept, exist_ok=True)
        for name in broken:
            self._write_kept(name, wanted[name])
        if not _HEAD.fullmatch(_begins(f"{kept}/HEAD", _HEAD_MOST, follow=True) or b""):
            self._write_kept("HEAD", f"{base}\n".encode())
            broken.append("HEAD")
        if os.path.islink(settings := f"{kept}/config.worktree") or (os.path.lexists(settings) and not self._configured()):
            # Nobody but an agent made that, and git takes it up when the repository is told to keep settings per worktree.
            remove_tree(self.kept / "config.worktree")
            broken.append("config.worktree")
        if not _is_index(f"{kept}/index"):
            remove_tree(self.kept / "index")
            self.repository.run("read-tree", base)
            broken.append("index")
        return bool(broken)

    def _configured(self) -> bool:
        """Whether git takes settings from the records of worktrees too."""
        return b"worktreeconfig" in (self.project.common_dir / "config").read_bytes().lower()

    def _write_kept(self, name: str, content: bytes) -> None:
        """Put a file in the place of whatever an agent made of it: through a link, another file would be written."""
        remove_tree(self.kept / name)
        with open(self.kept / name, "xb") as file:
            file.write(content)

    def _aside(self) -> Path:
        number = 1
        while os.path.lexists(place := self.path.with_name(f"{self.path.name}.git-{number}")):
            number += 1
        return place

    def forget_unfinished(self) -> None:
        """Drop what an unfinished merge, rebase, cherry-pick or bisect left, and locks of a git that was killed."""
        for name in _UNFINISHED:
            remove_tree(self.kept / name)

    def drop(self) -> None:
        """Delete the directory, our index and git's record; the directory is out of the way at once."""
        gone = self.path.with_name(f"{self.path.name}.gone")
        remove_tree(gone)
        if os.path.lexists(self.path):
            os.rename(self.path, gone)
        remove_tree(self.kept)
        for beside in self.path.parent.glob(f"{self.path.name}.*"):
            remove_tree(beside)


def _begins(place: str, most: int, *, follow: bool = False) -> bytes | None:
    """The first bytes of a regular file, None where there is none; a link is none unless it is to be followed."""
    try:
        # Without waiting: a pipe may have taken the file's place.
        descriptor = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        return None
    try:
        return os.read(descriptor, most) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    finally:
        os.close(descriptor)


def _is_file_with(place: str, content: bytes) -> bool:
    return _begins(place, len(content) + 1) == content


def _is_index(place: str) -> bool:
    """Whether a file begins like an index (gitformat-index(5)); what is wrong further down is between the agent and its git."""
    return _begins(place, 4) == b"DIRC"
