"""`coder`, but it dies on command: run like `python -m coder`, with a file that names the point in CODER_TEST_DEATH.

The file holds a point and how often it is passed unharmed, such as `place 2`; it is read at every point, and taken away before
the end, so that the next process lives. Points are the steps of an approval, in this order:

    begin     the plan is made, nothing is stored          begun     the plan is stored, nothing is touched
    unlink    before a file is taken out of the checkout   place     before a file is put in
    index     before the user's index is brought up to a commit       move      before HEAD or a branch is moved
    push      the branch was moved, the remote has heard nothing
    settle    all is done, the database does not know
    shift     before the worktree is brought along with parts that were rejected, or with the target's edits
    shifted   its files are written, the database does not know

The point `settle-database` kills the embedded PostgreSQL instead, at `settle`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from coder import main
from coder.git import apply, worktrees
from coder.git.repository import Repository
from coder.postgres.changes import PostgresChanges

ORDER = Path(os.environ["CODER_TEST_DEATH"])
passed = 0


def reach(point: str) -> None:
    """Die here if this is the point."""
    global passed
    if not ORDER.exists():
        return
    wanted, unharmed = ORDER.read_text().split()
    if wanted == f"{point}-database":
        ORDER.unlink()
        os.kill(int((Path(os.environ["CODER_DATA_DIR"]) / "postgres/cluster/postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    if wanted != point:
        return
    passed += 1
    if passed > int(unharmed):
        ORDER.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def before(point: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def mortal(*arguments: Any, **named: Any) -> Any:
        reach(point)
        return call(*arguments, **named)

    return mortal


PostgresChanges.begin_applying = before("begin", PostgresChanges.begin_applying)  # type: ignore[method-assign]
apply.carry_out = before("begun", apply.carry_out)
apply._delete = before("unlink", apply._delete)
apply._place = before("place", apply._place)
apply._refresh_index = before("index", apply._refresh_index)
apply._move = before("move", apply._move)
Repository.push = before("push", Repository.push)  # type: ignore[method-assign]
PostgresChanges.settle_decision = before("settle", PostgresChanges.settle_decision)  # type: ignore[method-assign]
worktrees.bring_along = before("shift", worktrees.bring_along)
PostgresChanges.shifted = before("shifted", PostgresChanges.shifted)  # type: ignore[method-assign]

sys.argv[0] = "coder"
main.main()
