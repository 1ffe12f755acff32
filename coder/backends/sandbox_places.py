"""What of this machine a confined program sees, and what is hidden: the lists behind `sandbox.py`."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TOOL_CHAINS = (
    *(".cargo", ".rustup", ".nvm", ".fnm", ".volta", ".bun", ".deno", ".pyenv", ".rbenv", ".asdf", ".sdkman", ".jdks", ".dotnet", ".ghcup"),
    *(".elan", ".juliaup", ".opam", ".nix-profile", ".npm-global", ".opencode", ".claude/local", "go", "bin", ".bin"),
    *(".local/bin", ".local/lib", ".local/opt", ".local/pipx", ".local/share/claude", ".local/share/fnm", ".local/share/mise"),
    *(".local/share/pipx", ".local/share/pnpm", ".local/share/uv", ".local/state/nix", "miniconda3", "anaconda3", "miniforge3"),
)
"""Below the user's home, shown read-only: programs and libraries."""

KEYS_IN_TOOL_CHAINS = (".cargo/credentials", ".cargo/credentials.toml", ".local/share/uv/credentials/credentials.toml", ".nvm/.npmrc")
VARIABLES = (
    "JAVA_HOME",
    "GOPATH",
    "GOROOT",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "NVM_DIR",
    "PYENV_ROOT",
    "VOLTA_HOME",
    "PNPM_HOME",
    "BUN_INSTALL",
)
"""Variables that name tool chains."""

ROOTS_OWN = ("/etc/ssl/private", "/var/lib/postgresql", "/var/lib/mysql", "/var/lib/docker", "/var/lib/containerd", "/var/spool/cron")
ROOTS_FILES = ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/krb5.keytab")
"""What permissions keep from everybody but root, masked for root."""

TEMPORARY = ".tmp"
IN_RUN = ("/run/current-system", "/run/opengl-driver")
IN_RUN_ONLINE = (Path("/run/systemd/resolve"),)
"""A resolver's sockets: whoever may ask for names can tell what he likes to whoever answers."""


@dataclass(frozen=True, slots=True)
class Git:
    """Where git keeps what belongs to a worktree.

    Attributes:
        link: the file `.git` in the worktree.
        record: git's record of the worktree, `<common>/worktrees/<name>`.
        common: the repository's directory.
        configured: whether git takes settings from the worktrees' records too: a filter in them is a program that git runs.
    """

    link: Path
    record: Path
    common: Path
    configured: bool

    def binds(self, *, alone: bool) -> Iterator[str]:
        """Arguments of bubblewrap that let a program work with the worktree, and do nothing to the repository.

        Args:
            alone: only this worktree's record is written to; else those of all worktrees of the repository, each of them whole:
                more come while the program runs, and what an agent does to what leads git about is put right before coder runs git.
                None is where they hold settings.
        """
        for path in (self.common, *alternates(self.common)):
            yield from ("--ro-bind", str(path), str(path))
        objects = self.common / "objects"
        yield from ("--bind", str(objects), str(objects))
        # Its `alternates` names further directories of objects, which are shown.
        yield from ("--ro-bind", str(objects / "info"), str(objects / "info"))
        if not alone:
            if not self.configured:
                yield from ("--bind", str(self.record.parent), str(self.record.parent))
            return
        yield from ("--bind", str(self.record), str(self.record))
        # What leads git from the worktree to the repository and its settings stays as it is.
        for path in (self.link, self.record / "commondir", self.record / "gitdir", self.record / "config.worktree"):
            if _is_file(path):
                yield from ("--ro-bind", str(path), str(path))


def git_of(worktree: Path) -> Git | None:
    """Git's directories of a worktree; None where its `.git` is not git's own, so that nobody is led elsewhere."""
    link = worktree / ".git"
    try:
        record = Path(os.path.realpath(worktree / _told(link)))
        back = Path(os.path.realpath(record / _told(record / "gitdir")))
    except (OSError, ValueError):  # a directory, or gone, or no path at all: then there is nothing to open beside the worktree
        return None
    common = record.parent.parent
    if record.parent.name != "worktrees" or record.is_relative_to(os.path.realpath(worktree)) or back != Path(os.path.realpath(link)):
        return None
    objects = common / "objects"
    if not _is_directory(objects):
        return None
    if not os.path.lexists(objects / "info"):
        (objects / "info").mkdir()  # there, so that it can be kept as it is
    own = record / "config.worktree"
    if not _is_directory(objects / "info") or (os.path.lexists(own) and not _is_file(own)):
        return None
    configured = b"worktreeconfig" in (common / "config").read_bytes().lower()
    if configured and not own.exists():
        own.touch()  # likewise
    return Git(link, record, common, configured)


def gits_of(worktrees: Path) -> list[Git]:
    """Git's directories of all worktrees below a directory of ours, `<project>/<session>`: one for each repository."""
    found: dict[str, Git] = {}
    for link in sorted(worktrees.glob("*/*/.git")):
        try:
            records = os.path.dirname(_told(link))
        except OSError:
            continue
        if records not in found and (git := git_of(link.parent)) is not None:
            found[records] = git
    return list(found.values())


def _is_file(path: Path) -> bool:
    """Whether it is a file itself: a link shows what it leads to."""
    return path.is_file() and not path.is_symlink()


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def led_away(worktree: Path) -> bool:
    """Whether a worktree, or the directory of its project's, is a link: who serves all worktrees could have made it."""
    return worktree.is_symlink() or worktree.parent.is_symlink()


def temporary(home: Path) -> Path:
    """What a program with this home gets as its /tmp: beside the home, where it cannot be replaced, under a name that no agent has."""
    return home.parent / TEMPORARY / home.name


def _told(file: Path) -> str:
    """The path that a file of git's names. Raises OSError where it is no file: a pipe would be waited for."""
    if not file.is_file():
        raise FileNotFoundError(file)
    return file.read_text(errors="surrogateescape").removeprefix("gitdir: ").rstrip("\n")


def alternates(common: Path) -> list[Path]:
    """Directories whose objects the repository borrows."""
    listed = common / "objects" / "info" / "alternates"
    lines = listed.read_text(errors="surrogateescape").splitlines() if listed.is_file() else []
    found = [Path(os.path.realpath(common / "objects" / line)) for line in lines if line and not line.startswith("#")]
    return [path for path in found if path.name == "objects" and path.is_dir()]


def user_homes() -> list[Path]:
    """The user's home, and the one the system knows where HOME names another."""
    return list(dict.fromkeys((Path.home(), Path(pwd.getpwuid(os.geteuid()).pw_dir))))


def masked_folders(homes: Sequence[Path], data: Path) -> list[Path]:
    """Directories that are empty for a confined program, outer ones first; the data directory is masked apart from these."""
    named = [Path("/run"), Path("/home"), Path("/root"), *homes]
    if not Path("/var/run").is_symlink():
        named.append(Path("/var/run"))
    if os.geteuid() == 0:
        named += map(Path, ROOTS_OWN)
    real = {Path(os.path.realpath(folder)) for folder in named if os.path.isdir(folder)}
    return sorted(folder for folder in real if folder != data and folder != Path("/") and not any(up in real for up in folder.parents))


def masked_files(homes: Sequence[Path], hidden: Sequence[Path]) -> list[Path]:
    """Files that a confined program cannot open, wherever they are."""
    named = [home / name for home in homes for name in KEYS_IN_TOOL_CHAINS]
    named += hidden
    if os.geteuid() == 0:
        named += [*map(Path, ROOTS_FILES), *Path("/etc/ssh").glob("ssh_host_*_key")]
    return [path for path in named if os.path.isfile(path) and not os.path.islink(path)]


def exposed(homes: Sequence[Path], masked: Sequence[Path], program: str, env: Mapping[str, str], further: Sequence[Path]) -> list[Path]:
    """What is shown read-only although it lies in a masked directory: tool chains, what is on the PATH, the program's package."""
    named = [home / chain for home in homes for chain in TOOL_CHAINS]
    named += [Path(env[name]) for name in VARIABLES if name in env]
    named += [*map(Path, IN_RUN), Path(os.path.realpath("/etc/resolv.conf")), *further, Path(program), package_of(Path(program), homes)]
    for place in env.get("PATH", "").split(os.pathsep):
        folder = Path(place)
        if folder.is_absolute() and _within(folder, masked):
            named += [folder, *linked(folder)]
    inside = {path for path in named if _within(path, masked) and os.path.exists(path)}
    parts = {path for path in inside if not any(home.is_relative_to(path) for home in homes)}
    return sorted(path for path in parts if not any(up in parts for up in path.parents))


def _within(path: Path, masked: Sequence[Path]) -> bool:
    return any(folder in path.parents for folder in masked)


def linked(folder: Path) -> list[Path]:
    """What the symlinks of a directory of programs lead to: the program, with the node_modules it lies in."""
    try:
        links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError:  # it is not there, or not ours to read
        return []
    real = {Path(os.path.realpath(link)) for link in links}
    return [_modules(path) or path for path in real if os.path.isfile(path)]


def _modules(path: Path) -> Path | None:
    return Path(*path.parts[: path.parts.index("node_modules") + 1]) if "node_modules" in path.parts else None


def package_of(program: Path, homes: Sequence[Path]) -> Path:
    """The directory a program's own files lie in: that of its node_modules, or the one above its `bin`."""
    real = Path(os.path.realpath(program))
    if (modules := _modules(real)) is not None:
        return modules
    above = real.parent.parent if real.parent.name == "bin" else real.parent
    return real if any(home.is_relative_to(above) for home in homes) else above
