"""The tools of the native agent: list, read, search, edit, write and run, in the worktree of one turn.

Invariant: file tools reach nothing outside the worktree (see `confine.py`), every answer is bounded and says what was left
out, and no process outlives its call. A failed tool is a `Refused`: a sentence to the model, never the end of the turn.

Omitted on purpose: the model's side (names, schemas and calls are `native.py`'s), and confinement of what `run` runs (`sandbox.py`).
A method's docstring is what the model reads about the tool.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coder.backends.command import HeadTail, Overrun, run_to_end
from coder.backends.confine import Confined, Refused
from coder.backends.sandbox import Starter
from coder.backends.text_file import TextFile, decode, is_binary
from coder.backends.turn_log import TurnLog
from coder.transcript import clean

FILE_BYTES = 10_000_000
READ_BYTES = 100_000
READ_LINES = 2_000
LINE_CHARACTERS = 2_000
ENTRIES = 1_000
MATCHES = 500
SEARCH_SECONDS = 60.0

# The repository's configuration is not ours: no hook and no file system monitor of its choosing may run.
GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "--no-pager")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool gives back: text for the model, and the exit code where a command ran to its end."""

    text: str
    exit_code: int | None = None


def offered(tools: Tools) -> tuple[Callable[..., Awaitable[Answer]], ...]:
    """What the model is offered, in the order it is told; the order is part of the prompt."""
    return (tools.list, tools.read, tools.search, tools.edit, tools.write, tools.run)


class Tools:
    """The tools of one turn.

    Args:
        cwd: absolute directory in the worktree that relative paths and commands start from.
        starter: starts the commands, confined or not.
        environment: all that commands see of ours.
        command_seconds: longest run of one command.
        output_bytes: how much of a command's output is answered.
    """

    def __init__(
        self,
        worktree: Path,
        cwd: Path,
        starter: Starter,
        log: TurnLog,
        *,
        environment: Mapping[str, str],
        command_seconds: float,
        output_bytes: int,
    ) -> None:
        self._files = Confined(worktree, cwd)
        self._cwd = cwd
        self._starter = starter
        self._log = log
        self._environment = environment
        self._command_seconds = command_seconds
        self._output_bytes = output_bytes

    async def list(self, path: str = ".", recursive: bool = False) -> Answer:
        """List a directory; entries that are directories end with a slash.

        Args:
            path: The directory; relative paths start from the working directory.
            recursive: List all files below it instead, except those that git ignores.
        """
        if recursive:
            where = _pathspec(self._files.real(path))
            out = await self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", where)
            names = self._present(out.split(b"\0"))
        else:
            names = self._entries(path)
        if not names:
            return Answer(f"[{path} is empty]")
        rest = len(names) - ENTRIES
        return Answer(clean("\n".join(names[:ENTRIES])) + (f"\n[… {rest:,} more; list a directory below]" if rest > 0 else ""))

    async def read(self, path: str, start: int = 1, lines: int = READ_LINES) -> Answer:
        """Read a text file.

        Args:
            path: The file; relative paths start from the working directory.
            start: The first line wanted, from 1.
            lines: How many lines are wanted.
        """
        content = self._content(path)
        if is_binary(content):
            raise Refused(f"{path} is a binary file of {len(content):,} bytes; its content is not shown.")
        every = [line.removesuffix("\r") for line in decode(content).removesuffix("\n").split("\n")] if content else []
        start = max(1, start)
        shown: list[str] = []
        size = 0
        for line in every[start - 1 : start - 1 + max(1, lines)]:
            if len(line) > LINE_CHARACTERS:
                line = f"{line[:LINE_CHARACTERS]}[… {len(line) - LINE_CHARACTERS:,} characters of this line cut]"
            size += len(line.encode("utf-8", "replace")) + 1
            if size > READ_BYTES:
                break
            shown.append(line)
        if not shown:
            return Answer(f"[{path} has {len(every)} lines; there is nothing from line {start} on]" if every else f"[{path} is empty]")
        end = start - 1 + len(shown)
        note = "" if start == 1 and end == len(every) else f"\n[lines {start}-{end} of {len(every)}]"
        return Answer(clean("\n".join(shown)) + note)

    async def search(self, pattern: str, path: str = ".", glob: str = "") -> Answer:
        """Search files for a regular expression (Perl's), line by line; files that git ignores and binary ones are left out.

        Args:
            pattern: The regular expression.
            path: A file or directory to search in; relative paths start from the working directory.
            glob: Only files whose name or path below `path` matches, such as `*.py` or `src/**/*.ts`.
        """
        real = self._files.real(path)
        where = _pathspec(real, glob)
        options = ("-n", "-I", "--untracked", "--no-recurse-submodules", "--no-color", "--no-column")
        out = await self._git("grep", *options, "-P", "-e", pattern, "--", where, fine=(0, 1))
        found = out.splitlines()
        if not found:
            return Answer(f"[no line matches {pattern}]")
        lines = [decode(line) for line in found[:MATCHES]]
        shown = [line if len(line) <= 300 else f"{line[:300]}[… line cut]" for line in lines]
        rest = len(found) - MATCHES
        return Answer(clean("\n".join(shown)) + (f"\n[… {rest:,} more lines; search more exactly]" if rest > 0 else ""))

    async def edit(self, path: str, old: str, new: str, all: bool = False) -> Answer:
        """Replace text in a file. The old text must be given exactly, and be there exactly once unless all is set.

        Args:
            path: The file; relative paths start from the working directory.
            old: The text to replace, with enough of its surroundings to be unique.
            new: The text to put in its place.
            all: Replace every occurrence.
        """
        content = self._content(path)
        if is_binary(content):
            raise Refused(f"{path} is a binary file; it cannot be edited as text.")
        edited, times = TextFile.of(content).replaced(old, new, all)
        self._files.store(path, edited)
        return Answer(f"Replaced {times} occurrence{'s' * (times != 1)} in {path}.")

    async def write(self, path: str, content: str) -> Answer:
        """Write a whole text file; directories that are missing are made, a file that is there is replaced.

        Args:
            path: The file; relative paths start from the working directory.
            content: The whole new content.
        """
        try:
            before = self._content(path)
        except FileNotFoundError:
            before = None
        rewrites = before is not None and not is_binary(before)
        self._files.store(path, TextFile.of(before).rewritten(content) if before is not None and rewrites else content.encode())
        return Answer(f"{'Wrote' if before is None else 'Replaced'} {path}.")

    async def run(self, command: str, seconds: float = 0) -> Answer:
        """Run a shell command in the working directory. Its standard input is empty; processes it leaves behind are ended.

        Args:
            command: The command.
            seconds: End it after so many seconds, if that is sooner than the limit for commands; 0 for the limit.
        """
        if not self._cwd.is_dir():
            raise Refused(f"The working directory {self._cwd} is gone; put it back with the write tool first.")
        limit = min(seconds, self._command_seconds) if seconds > 0 else self._command_seconds
        shell = shutil.which("bash", path=self._environment.get("PATH")) or "/bin/sh"
        self._log.line(f"$ {command}")
        output = HeadTail(self._output_bytes)

        def take(chunk: bytes) -> None:
            output.add(chunk)
            self._log.raw(chunk)

        try:
            code = await self._execute((shell, "-c", command), limit, take)
        except Overrun as overrun:
            self._log.line(f"[{overrun}]")
            raise Refused(_with_note(output.text(), f"[{overrun}]")) from overrun
        text = output.text()
        if code is None:
            self._log.line(f"[ended after {limit:g} s, its time limit]")
            raise Refused(_with_note(text, f"[ended after {limit:g} s, the time limit, with everything it had started]"))
        self._log.line(f"[exit code {code}]")
        return Answer(_with_note(text, f"[exit code {code}]") if code or not text else text, code)

    def _entries(self, path: str) -> Sequence[str]:
        fd = self._files.open(path, os.O_DIRECTORY)
        try:
            with os.scandir(fd) as entries:
                return sorted(entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in entries if entry.name != ".git")
        finally:
            os.close(fd)

    def _present(self, names: Sequence[bytes]) -> Sequence[str]:
        """Of the names git knows, those that are there."""
        return sorted({os.fsdecode(name) for name in names if name and os.path.lexists(os.fsencode(self._cwd) + b"/" + name)})

    def _content(self, path: str) -> bytes:
        fd = self._files.open(path)
        try:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise Refused(f"{path} is a directory; use the list tool for it.")
            if status.st_size > FILE_BYTES:
                raise Refused(f"{path} has {status.st_size:,} bytes, too many to hold; search it, or use run with sed, head or tail.")
            with open(fd, "rb", closefd=False) as file:
                return file.read(FILE_BYTES)
        finally:
            os.close(fd)

    async def _git(self, *arguments: str, fine: Sequence[int] = (0,)) -> bytes:
        output, errors = HeadTail(FILE_BYTES), HeadTail(4_000)
        try:
            code = await self._execute((*GIT, *arguments), SEARCH_SECONDS, output.add, errors.add)
        except Overrun as overrun:
            raise Refused(f"[{overrun}]") from overrun
        if code is None:
            raise Refused(f"That took longer than {SEARCH_SECONDS:g} s and was ended; ask for less, in a directory further down.")
        if code not in fine:
            raise Refused(f"git could not do that: {errors.text().strip() or f'exit code {code}'}")
        return output.kept()

    async def _execute(
        self, argv: Sequence[str], seconds: float, output: Callable[[bytes], None], errors: Callable[[bytes], None] | None = None
    ) -> int | None:
        return await run_to_end(self._starter, argv, cwd=self._cwd, env=self._environment, seconds=seconds, output=output, errors=errors)


def _with_note(text: str, note: str) -> str:
    """A note on a line of its own below the text."""
    return f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}{note}"


def _pathspec(real: str, glob: str = "") -> str:
    """What git takes for a path below the root, or for the files below it that match a glob (gitglossary(7), pathspec)."""
    below = "" if real == "." else real
    if not glob:
        return f":(top,literal){below}"
    escaped = "".join("\\" + character if character in "*?[]\\" else character for character in below)
    return f":(top,glob){escaped}{'/' * bool(below)}{glob if '/' in glob else '**/' + glob}"
