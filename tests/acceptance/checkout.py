"""The project of the acceptance tests: a real open-source package in a git repository, and a person at work in it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

PACKAGE, VERSION = "more-itertools", "10.5.0"
SDIST_SHA256 = "5482bfef7849c25dc3c6dd53a6173ae4795da2a41a80faea6700d9f5846c5da6"
PERSON = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")

Content = tuple[str, bytes]
"""A file's kind and mode as git knows them ('100644', '100755', '120000'), and its bytes or the link's target."""


@dataclass(frozen=True)
class Checkout:
    """A git checkout, acted in with files and the git command."""

    path: Path

    def git(self, *arguments: str, feed: bytes | None = None) -> str:
        # Reading must not refresh the index, since tests compare its bytes.
        command = ["git", "--no-optional-locks", *PERSON, "-c", "core.quotePath=false", *arguments]
        done = subprocess.run(command, cwd=self.path, input=feed, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return os.fsdecode(done.stdout).rstrip("\n")

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_text(text)

    def replace(self, name: str, old: str, new: str) -> None:
        text = self.read(name)
        assert text.count(old) == 1
        self.write(name, text.replace(old, new))

    def commit(self, message: str = "work of a person") -> str:
        self.git("add", "-A")
        self.git("commit", "-qm", message)
        return self.head()

    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def status(self) -> set[str]:
        """The lines of `git status --porcelain`."""
        return set(self.git("status", "--porcelain", "--untracked-files=all").splitlines())

    def index(self) -> bytes:
        return (self.path / ".git" / "index").read_bytes()

    def files(self) -> dict[str, Content]:
        """All that git would record of the files that are there, and of those it ignores as well, bar bytecode."""
        found: dict[str, Content] = {}
        for place, names, files in os.walk(self.path):
            names[:] = [name for name in names if name not in (".git", "__pycache__")]
            for name in [*files, *(name for name in names if os.path.islink(os.path.join(place, name)))]:
                full = Path(place, name)
                if name != ".git":
                    found[str(full.relative_to(self.path))] = content(full)
        return found

    def patched(self, scratch: Path, diff: bytes) -> dict[str, Content]:
        """The files of HEAD after `git apply` of a diff, worked out in a clone: the oracle for approvals."""
        clone = clone_of(self.path, scratch)
        clone.git("apply", "--binary", "-", feed=diff)
        return clone.files()

    def tests(self, *names: str) -> str:
        """Run tests of the package, as its developers do; they must pass."""
        done = subprocess.run([sys.executable, "-B", "-m", "unittest", "-q", *names], cwd=self.path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stderr


def content(path: Path) -> Content:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return "120000", os.fsencode(os.readlink(path))
    return "100755" if mode & 0o100 else "100644", path.read_bytes()


def clone_of(source: Path, target: Path) -> Checkout:
    subprocess.run(["git", "clone", "-q", str(source), str(target)], check=True, stdin=subprocess.DEVNULL)
    return Checkout(target)


def fetch_package(downloads: Path, folder: Path) -> Checkout:
    """The package's source distribution from the Python registry, unpacked and committed.

    Args:
        downloads: where the archive stays for the next run.
        folder: where the repository is made.
    """
    found = [path for path in downloads.glob("*.tar.gz") if sha256(path.read_bytes()).hexdigest() == SDIST_SHA256]
    if not found:
        command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "-d", str(downloads), f"{PACKAGE}=={VERSION}"], check=True, stdin=subprocess.DEVNULL)
        found = list(downloads.glob("*.tar.gz"))
    (archive,) = found
    assert sha256(archive.read_bytes()).hexdigest() == SDIST_SHA256, "this is not the package these tests were written for"
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    checkout = Checkout(folder / archive.name.removesuffix(".tar.gz"))
    checkout.git("init", "-q", "-b", "main")
    checkout.commit(f"{PACKAGE} {VERSION}")
    return checkout
