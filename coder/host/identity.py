"""The host's id, kept in the data directory: worktrees belong to it, whatever the machine is called."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from uuid import UUID, uuid4

from coder.errors import Unavailable


def host_id(data_dir: Path) -> UUID:
    """The id of this data directory's host, made at the first call. Safe against two processes at once.

    Raises:
        Unavailable: the file is there but holds no id.
    """
    path = data_dir / "host-id"
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = data_dir / f".host-id-{os.getpid()}"
        fresh.write_text(f"{uuid4()}\n")
        try:
            os.link(fresh, path)  # unlike a rename it does not replace what another process has just written
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    text = path.read_text().strip()
    try:
        return UUID(text)
    except ValueError:
        raise Unavailable(f"The file {path} does not hold a host id but {text[:60]!r}; restore it from a backup.") from None


def host_name() -> str:
    return socket.gethostname() or "localhost"
