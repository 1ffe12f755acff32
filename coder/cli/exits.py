"""How commands end: exit codes for scripts, one line on standard error for people; before it what a change conflicts in.

0    done; of `run`, `watch` and `task wait`: the task completed
1    failed: the task, the decision, a finding of `doctor`; or a thing was not in the state this needs
2    the command was not understood, or what it names does not exist
3    the task was cancelled
4    the task was interrupted and waits for resume, retry or dismiss
5    waited as long as was asked, and it has not ended
6    the service or the database cannot be reached, or does not accept the token
70   a fault of coder itself
130  stopped by Ctrl-C
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any, ClassVar

import typer
from typer.core import TyperGroup

from coder.cli.desk import sound
from coder.cli.screen import one_line, put_conflicts
from coder.errors import CoderError, InvalidInput, NotFound, Unauthorized, Unavailable

FAILED, USAGE, CANCELLED, INTERRUPTED, WAITED, UNREACHABLE, FAULT, STOPPED = 1, 2, 3, 4, 5, 6, 70, 130
OF_STATE = {"completed": 0, "failed": FAILED, "cancelled": CANCELLED, "interrupted": INTERRUPTED}


class Waited(CoderError):
    """{message}"""

    code: ClassVar[str] = "waited"


OF_ERROR: tuple[tuple[type[CoderError], int], ...] = (
    (InvalidInput, USAGE),
    (NotFound, USAGE),
    (Waited, WAITED),
    (Unavailable, UNREACHABLE),
    (Unauthorized, UNREACHABLE),
)


def complain(sentence: str) -> None:
    """Say what went wrong: one line, on standard error."""
    print(f"coder: {one_line(sentence)}", file=sys.stderr)


class Commands(TyperGroup):
    """The root of all commands: whatever they raise ends as a line and an exit code, never as a traceback."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        sys.exit(self._code(args, extra))

    def _code(self, args: Sequence[str] | None, extra: dict[str, Any]) -> int:
        try:
            for argument in sys.argv[1:] if args is None else args:
                sound(argument, f"The argument {argument!r}")
            ended = super().main(args, prog_name="coder", standalone_mode=False, **extra)
            sys.stdout.flush()
            return ended if isinstance(ended, int) else 0
        except BrokenPipeError:
            # Whoever read us has seen enough. Python would complain when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except typer.TyperException as error:
            return _misused(error)
        except typer.Abort:
            return STOPPED
        except CoderError as error:
            with redirect_stdout(sys.stderr):
                put_conflicts(error.facts.get("conflicts", ()))
            complain(error.message)
            return next((code for kind, code in OF_ERROR if isinstance(error, kind)), FAILED)
        except OSError as error:
            complain(
                f"{error.strerror or type(error).__name__}: {error.filename or 'the output'}; correct the path, its rights or its space."
            )
            return FAILED
        except Exception as error:  # noqa: BLE001 - the last resort: a sentence with the place instead of a traceback
            return _fault(error)


def _misused(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    said = error.format_message()
    if "\n" in said:  # the whole help, for a group that was named without a command
        print(said, file=sys.stderr)
    else:
        complain(f"{said.rstrip('.')}; see `{context.command_path} --help`." if context is not None else said)
    return error.exit_code


def _fault(error: Exception) -> int:
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = "CODER_" + "_".join(str(step) for step in first["loc"]).upper()
        complain(f"The setting {name} is not acceptable: {first['msg'][:1].lower()}{first['msg'][1:]}; correct it.")
        return USAGE
    place = traceback.extract_tb(error.__traceback__)[-1]
    complain(f"This is a fault of coder itself, please report it: {type(error).__name__}: {error} ({place.filename}:{place.lineno}).")
    return FAULT
