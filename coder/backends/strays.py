"""What the tools of one turn left running below a server that lives on, and its end.

The server's guardian cannot be asked for this: it ends everything or nothing. Whose a process is, is told by where it works:
its directory, or the one it was started in (`PWD`), lies in the session's worktree, and no other session has that worktree.
What belongs to the server itself (its process group: language servers, watchers) stays.

Invariant: `end` returns False while one of them lives. Linux only: elsewhere nothing is found, and the server's own abort has to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from coder.backends import guard

GRACE = 0.3
TRIES = 4


def strays(guardian: int, worktree: Path) -> list[int]:
    """Handles (pidfds, the caller's to close) of the processes below a guardian that work in a worktree and are tools."""
    server = next(guard.children(guardian), None)
    if server is None:
        return []
    roots = (worktree, worktree.resolve())
    found = []
    for pid in _below(guardian):
        if pid == server:
            continue
        try:
            handle = os.pidfd_open(pid)
        except OSError:
            continue
        if _is_tool(pid, server) and _works_in(pid, roots):
            found.append(handle)
        else:
            os.close(handle)
    return found


async def end(guardian: int, worktree: Path, grace: float = GRACE) -> bool:
    """End them: TERM, `grace` seconds, KILL, again for those that were born meanwhile; whether none is left."""
    for attempt in range(TRIES):
        handles = await asyncio.to_thread(strays, guardian, worktree)
        if not handles:
            return True
        try:
            if attempt == 0:
                _signal(handles, signal.SIGTERM)
                if await _gone(handles, grace):
                    continue
            _signal(handles, signal.SIGKILL)
            await _gone(handles, grace)
        finally:
            for handle in handles:
                os.close(handle)
    return not await asyncio.to_thread(_any, guardian, worktree)


def _any(guardian: int, worktree: Path) -> bool:
    handles = strays(guardian, worktree)
    for handle in handles:
        os.close(handle)
    return bool(handles)


def _signal(handles: list[int], number: int) -> None:
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)


async def _gone(handles: list[int], seconds: float) -> bool:
    """Wait until all have ended, at most so long."""
    loop = asyncio.get_running_loop()
    waits = []
    for handle in handles:
        ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(handle, lambda ended=ended: ended.done() or ended.set_result(None))  # type: ignore[misc]
        waits.append(ended)
    try:
        async with asyncio.timeout(seconds):
            await asyncio.gather(*waits)
    except TimeoutError:
        return False
    finally:
        for handle in handles:
            loop.remove_reader(handle)
    return True


def _below(guardian: int) -> Iterator[int]:
    seen, parents = {guardian}, [guardian]
    while parents:
        for pid in guard.children(parents.pop()):
            if pid not in seen:
                seen.add(pid)
                parents.append(pid)
                yield pid


def _is_tool(pid: int, server: int) -> bool:
    """Whether it lives, in another process group than the server."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0] not in (b"Z", b"X") and int(fields[2]) != os.getpgid(server)
    except (OSError, ValueError):
        return False


def _works_in(pid: int, roots: tuple[Path, ...]) -> bool:
    try:
        places = [os.readlink(f"/proc/{pid}/cwd")]
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    places += [os.fsdecode(entry.partition(b"=")[2]) for entry in environ if entry.startswith((b"PWD=", b"OLDPWD="))]
    return any(Path(place).is_relative_to(root) for place in places for root in roots if place)
