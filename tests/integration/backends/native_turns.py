"""Turns of the native backend for the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from turns import Chat, make_worktree, settings

from coder.backends.guardian import Guardians
from coder.backends.native import NativeBackend
from coder.ports import Clock
from coder.runtime.clock import SystemClock

KEY = "sk-secret-of-the-endpoint"


@asynccontextmanager
async def chat(folder: Path, cwd: str = "", clock: Clock | None = None, **values: Any) -> AsyncIterator[Chat]:
    """A chat in a new worktree below a folder.

    Args:
        values: settings of the backend; requests are not retried unless they say so.
    """
    guardians = Guardians()
    backend = NativeBackend(settings(**{"model_api_key": SecretStr(KEY), **values}), guardians, clock or SystemClock())
    worktree = make_worktree(folder / "worktree")
    (worktree / cwd).mkdir(exist_ok=True)
    await backend.start()
    try:
        yield Chat(backend, worktree, folder, worktree / cwd)
    finally:
        await backend.stop()
        await guardians.stop_all()
