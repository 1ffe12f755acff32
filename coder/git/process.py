"""One git process, from its start to its end.

Invariant: everything is switched off that a project's config could use to run programs of its own accord or to change what git
prints: hooks, fsmonitor, pagers, prompts; plumbing neither signs nor collects garbage anyway. Inherited `GIT_*` variables that
point git elsewhere are dropped. Omitted on purpose: filters (LFS, line ends), ignore files and the user's and system's config
stay in force, since a snapshot must see files the way the user's own git sees them. Omitted too: GitPython's and subprocess's
ways to run a program, whose own share is a third of what git takes, several times a turn.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from coder.errors import InternalError

_CONFIG = {
    "core.fsmonitor": "false",
    "core.hooksPath": "/dev/null",
    "core.quotePath": "false",
    "core.safecrlf": "false",
    "core.splitIndex": "false",
    "diff.suppressBlankEmpty": "false",
    "i18n.commitEncoding": "UTF-8",
    # A reviewer approved the paths that were shown; a merge must not move files to others by guessing.
    "merge.conflictStyle": "merge",
    "merge.directoryRenames": "false",
    "submodule.recurse": "false",
    "worktree.useRelativePaths": "false",
}
_FORM = ("--no-pager", "--no-replace-objects", *(word for name, value in _CONFIG.items() for word in ("-c", f"{name}={value}")))

# All other inherited GIT_* variables point git elsewhere or change what paths, diffs and identities mean.
_HARMLESS = re.compile(
    r"GIT_(ASKPASS|CONFIG_(COUNT|GLOBAL|KEY_\d+|NOSYSTEM|SYSTEM|VALUE_\d+)|EXEC_PATH|HTTP.*|PROXY.*|PYTHON.*|SSH.*|SSL.*|TEMPLATE_DIR)"
)

# What git says is read, so it says it in English.
_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_EDITOR": ":", "LANGUAGE": "C", "LC_ALL": "C"}

# Python ignores these, and a program inherits what is ignored.
_SIGNALS = (signal.SIGPIPE, signal.SIGXFSZ)
_READ = 1 << 16


class Answer(NamedTuple):
    """What a git process left behind: exit status, standard output as bytes, standard error as text."""

    status: int
    out: bytes
    err: str


def execute(
    directory: Path, arguments: tuple[str, ...], stdin: bytes | None, variables: Mapping[str, str], seconds: float | None = None
) -> Answer:
    """Run git in a directory to its end.

    Args:
        stdin: what git reads; None = nothing.
        variables: for its environment, beside what it may inherit.
        seconds: how long it may be silent, where that depends on others; None = as long as it takes.

    Raises:
        InternalError: it could not be started.
        TimeoutError: it said nothing for so long, and was killed.
    """
    environment = _environment(variables)
    with ExitStack() as files:
        given = files.enter_context(tempfile.TemporaryFile() if stdin is not None else open(os.devnull, "rb"))  # noqa: SIM115 - it is entered
        if stdin is not None:
            given.write(stdin)
            given.seek(0)
        out, out_end = os.pipe()
        files.callback(os.close, out)
        err, err_end = os.pipe()
        files.callback(os.close, err)
        try:
            streams = ((given.fileno(), 0), (out_end, 1), (err_end, 2))
            actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in streams]
            process = os.posix_spawnp("git", _words(directory, arguments), environment, file_actions=actions, setsigdef=_SIGNALS)
        except (FileNotFoundError, PermissionError) as error:
            raise _missing(directory) from error
        finally:
            os.close(out_end)
            os.close(err_end)
        try:
            said, complaints = _read_both(out, err, seconds)
        except BaseException:
            # Nobody reads it any more, so it might never end.
            os.kill(process, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(process, 0)
    return Answer(os.waitstatus_to_exitcode(status), said, complaints.decode("utf-8", "replace"))


def converse(directory: Path, arguments: tuple[str, ...], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start git and leave it running, to be written to and read from; it ends when its input does."""
    try:
        return subprocess.Popen(
            _words(directory, arguments),
            env=_environment(variables),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except (FileNotFoundError, PermissionError) as error:
        raise _missing(directory) from error


def git_version() -> tuple[int, ...]:
    """The version of the git on this host, `(2, 39, 5)`; raises `InternalError` when there is none."""
    said = execute(Path("/"), ("version",), None, {}).out.decode("ascii", "replace")
    return tuple(int(number) for number in re.findall(r"\d+", said)[:3])


def _words(directory: Path, arguments: tuple[str, ...]) -> list[str]:
    return ["git", "-C", str(directory), *_FORM, *arguments]


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or _HARMLESS.fullmatch(name)}
    return {**inherited, **_ENVIRONMENT, **variables}


def _missing(directory: Path) -> InternalError:
    return InternalError(f"git could not be started for {directory}; install git 2.38 or newer on this host.")


def _read_both(out: int, err: int, seconds: float | None) -> tuple[bytes, bytes]:
    """What a process writes until it closes both; neither may fill up while the other one is waited for."""
    chunks: dict[int, list[bytes]] = {out: [], err: []}
    poll = select.poll()
    for descriptor in chunks:
        poll.register(descriptor, select.POLLIN)
    open_ends = len(chunks)
    while open_ends:
        ready = poll.poll(None if seconds is None else seconds * 1000)
        if not ready:
            raise TimeoutError(f"git said nothing for {seconds:g} s")
        for descriptor, _ in ready:
            if chunk := os.read(descriptor, _READ):
                chunks[descriptor].append(chunk)
            else:
                poll.unregister(descriptor)
                open_ends -= 1
    return b"".join(chunks[out]), b"".join(chunks[err])
