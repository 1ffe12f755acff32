"""One work tree with the git directory behind it, and the one way to run git in it.

Invariant: git runs with the repository named by its environment, never found by searching. Omitted: how a process is run, and
what is kept from it (`process`).
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coder.errors import DiskFull, InternalError, NoProjectPath, NotARepository
from coder.git.process import Answer, converse, execute

_FULL_BELOW = 1 << 20
# Of what a remote says about a push; the end says most.
_LINES = 5
_LONGEST = 300
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
DEFAULT_REMOTE = "origin"
CODER = {
    "GIT_AUTHOR_NAME": "coder",
    "GIT_AUTHOR_EMAIL": "coder@localhost",
    "GIT_COMMITTER_NAME": "coder",
    "GIT_COMMITTER_EMAIL": "coder@localhost",
}


@dataclass(frozen=True, slots=True)
class Repository:
    """A work tree, its git directory, and the directory shared by all work trees of the repository; real, absolute paths.

    For a session's worktree `git_dir` is git's record of it, `<common>/worktrees/<session>`.
    """

    top: Path
    git_dir: Path
    common_dir: Path
    object_format: str = "sha1"

    @property
    def zeros(self) -> str:
        """The object id that stands for nothing."""
        return "0" * (64 if self.object_format == "sha256" else 40)

    @property
    def index(self) -> Path:
        return self.git_dir / "index"

    def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        index: Path | None = None,
        work_tree: Path | None = None,
        environment: Mapping[str, str] | None = None,
        accept: Container[int] = (0,),
    ) -> Answer:
        """Run git to its end.

        Args:
            arguments: the command and its arguments; paths go through `stdin`, NUL-separated, where git can take them so.
            stdin: what git reads; None = nothing.
            index: an index file to use instead of the work tree's own.
            work_tree: a directory to use as the work tree instead of `top`.
            environment: variables to add; by default the identity of `coder`.
            accept: exit statuses that are answers, not errors.

        Raises:
            DiskFull: git found no space.
            InternalError: any other exit status, with git's own words.
        """
        tree = work_tree or self.top
        variables = self._variables(tree)
        if index is not None:
            variables["GIT_INDEX_FILE"] = str(index)
        answer = execute(tree, arguments, stdin, {**variables, **(CODER if environment is None else environment)})
        if answer.status and (full := self._full_disk(answer.err)):
            raise DiskFull(what=f"git's objects and files of {self.top}", where=full)
        if answer.status not in accept:
            raise InternalError(
                f"`git {arguments[0]}` failed in {self.top} with status {answer.status}: {_first_error(answer.err)}; "
                f"run `git fsck` in {self.common_dir} if that does not explain itself.",
                status=answer.status,
                stderr=answer.err,
            )
        return answer

    def push(self, branch: str, seconds: float) -> tuple[str, str | None]:
        """Bring a branch to the repository's remote (`remote.pushDefault`, else `origin`).

        Args:
            seconds: how long git may wait for the remote.

        Returns:
            The remote, and why it did not work; None when it did.
        """
        chosen = self.run("config", "--get", "remote.pushDefault", accept=(0, 1))
        remote = os.fsdecode(chosen.out).strip() or DEFAULT_REMOTE
        ref = f"refs/heads/{branch}"
        # Nobody is there to be asked for a password or a host key.
        patience = {"GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes")}
        words = ("push", "--porcelain", "--no-follow-tags", "--recurse-submodules=no", "--end-of-options", remote, f"{ref}:{ref}")
        try:
            answer = execute(self.top, words, None, {**self._variables(self.top), **patience}, seconds)
        except TimeoutError as error:
            return remote, str(error)
        if answer.status == 0:
            return remote, None
        return remote, _why_not_pushed(os.fsdecode(answer.out), answer.err)

    def converse(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start git and leave it running, to be written to and read from; it ends when its input does."""
        return converse(self.top, arguments, {**self._variables(self.top), **CODER})

    def _variables(self, tree: Path) -> dict[str, str]:
        return {"GIT_DIR": str(self.git_dir), "GIT_COMMON_DIR": str(self.common_dir), "GIT_WORK_TREE": str(tree)}

    def _full_disk(self, err: str) -> Path | None:
        """Where a failed git found no space; it says so for objects, of a file it only says that it was unable to write."""
        for place in (self.top, self.common_dir) if "unable to write" in err else ():
            found = os.statvfs(place)
            if found.f_bavail * found.f_frsize < _FULL_BELOW or (found.f_files and not found.f_favail):
                return place
        return self.common_dir if "No space left on device" in err or "Disk quota exceeded" in err else None

    def line(self, *arguments: str, stdin: bytes | None = None, index: Path | None = None) -> str:
        """Run git and answer its output as text without the line end."""
        return os.fsdecode(self.run(*arguments, stdin=stdin, index=index).out).rstrip("\n")

    def commit_tree(self, tree: str, *parents: str, message: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Make a commit object, no ref; by default with the identity of `coder`, so that it needs no `user.name`."""
        arguments = ("commit-tree", tree, *(word for parent in parents for word in ("-p", parent)))
        if message is None:
            return self.line(*arguments, "-m", "coder")
        answer = self.run(*arguments, stdin=message.encode("utf-8", "replace"), environment=environment)
        return answer.out.decode().strip()

    def resolve(self, revision: str) -> str | None:
        """The commit a revision names, None when it names none."""
        answer = self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}", accept=(0, 1, 128))
        return answer.out.decode().strip() if answer.status == 0 else None

    def trees(self, *treeishes: str) -> list[str]:
        """The trees of commits (or of trees)."""
        return self.line("rev-parse", *(f"{each}^{{tree}}" for each in treeishes)).split("\n")

    def head_branch(self) -> str | None:
        """The branch HEAD is on, without `refs/heads/`; None when detached."""
        answer = self.run("symbolic-ref", "--quiet", "HEAD", accept=(0, 1))
        return os.fsdecode(answer.out).strip().removeprefix("refs/heads/") if answer.status == 0 else None

    def is_ancestor(self, commit: str, of: str) -> bool:
        """Whether a commit is the other one or came before it."""
        return self.run("merge-base", "--is-ancestor", commit, of, accept=(0, 1)).status == 0


def _why_not_pushed(said: str, err: str) -> str:
    """What git says of the branch, and before it what the remote, or whatever leads there, says of the reason."""
    rejected = [line.split("\t")[-1].strip() for line in said.splitlines() if line.startswith("!")]
    why = [line.removeprefix("remote:").strip() for line in err.splitlines() if line.startswith(("remote:", "ssh:"))]
    words = [*(line.rstrip(".") for line in why if line), *(rejected or [_first_error(err)])][-_LINES:]
    # A remote says what it likes: no text of ours holds control characters, and no column of the database a zero.
    return "; ".join(_CONTROL.sub("\ufffd", line)[:_LONGEST] for line in words)


def _first_error(err: str) -> str:
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (named or lines or ["it said nothing"])[0].removeprefix("fatal: ").removeprefix("error: ").rstrip(".")


def open_repository(path: str, project: object) -> Repository:
    """Find the repository of a project's checkout.

    Args:
        path: the checkout's top level, as the project names it.
        project: what an error calls the project (its name or id).

    Raises:
        NoProjectPath: the path is no directory.
        NotARepository: it is in no repository, in a bare one, or below the top level of one.
    """
    if not os.path.isdir(path):
        raise NoProjectPath(project=project, path=path)
    real = Path(os.path.realpath(path))
    questions = ("--is-bare-repository", "--show-object-format", "--absolute-git-dir", "--git-common-dir", "--show-toplevel")
    answer = execute(real, ("rev-parse", "--path-format=absolute", *questions), None, {})
    bare, *places = os.fsdecode(answer.out).rstrip("\n").split("\n")
    if bare == "true":
        raise NotARepository(project=project, path=path, detail="it is a bare repository, which has no checkout")
    if answer.status != 0 or len(places) != 4:
        raise NotARepository(project=project, path=path, detail=_first_error(answer.err))
    git_dir, common_dir, top = (Path(os.path.realpath(place)) for place in places[1:])
    if top != real:
        raise NotARepository(project=project, path=path, detail=f"the top level of the repository it lies in is {top}")
    return Repository(top, git_dir, common_dir, places[0])


@contextmanager
def temporary_index() -> Iterator[Path]:
    """A path for an index that is nobody else's; what git writes there is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="coder-index-") as directory:
        yield Path(directory, "index")
