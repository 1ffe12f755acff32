"""What an ACP agent may ask of us, as the official SDK calls it. Loads that SDK: import it when a process starts.

Files are read and written inside the worktree of the turn that asks, and nowhere else; terminals are not offered,
agents run commands themselves.
"""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable
from typing import Any, Protocol

import acp
from acp import RequestError
from acp.client import ClientSideConnection as Connection
from acp.schema import (
    AllowedOutcome,
    ClientCapabilities,
    DeniedOutcome,
    FileSystemCapabilities,
    Implementation,
    PermissionOption,
    ReadTextFileResponse,
    RequestPermissionResponse,
    TextContentBlock,
    ToolCallUpdate,
    WriteTextFileResponse,
)

import coder
from coder.backends.confine import Confined, Refused
from coder.backends.text_file import decode
from coder.permission import Answer

__all__ = ["Client", "Connection", "RequestError", "connect", "initialize", "say"]

FILE_BYTES = 10_000_000


class Listener(Protocol):
    """A turn, as far as the agent's requests concern it."""

    files: Confined

    async def ask(self, tool_call: dict[str, Any]) -> Answer | None:
        """Have a permission request answered; None when the turn is over."""
        ...


class Client:
    """Answers the requests of one process.

    Args:
        listener: finds the turn that runs in a session, None when none does.
    """

    def __init__(self, listener: Callable[[str], Listener | None]) -> None:
        self._listener = listener

    async def request_permission(
        self, session_id: str, tool_call: ToolCallUpdate, options: list[PermissionOption], **_: Any
    ) -> RequestPermissionResponse:
        """Only ever once: what is allowed for longer is a rule of ours."""
        listener = self._listener(session_id)
        answer = await listener.ask(tool_call.model_dump(mode="json", by_alias=True, exclude_none=True)) if listener else None
        if answer is None:
            return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))
        for kind in ("allow_once", "allow_always") if answer.allow else ("reject_once", "reject_always"):
            for option in options:
                if option.kind == kind:
                    # The protocol has no place for a reason; agents that look into the metadata find it there.
                    meta = {"message": answer.message} if answer.message else None
                    outcome = AllowedOutcome(outcome="selected", option_id=option.option_id)
                    return RequestPermissionResponse(outcome=outcome, field_meta=meta)
        return RequestPermissionResponse(outcome=DeniedOutcome(outcome="cancelled"))

    async def read_text_file(
        self, session_id: str, path: str, line: int | None = None, limit: int | None = None, **_: Any
    ) -> ReadTextFileResponse:
        text = await self._filed(session_id, path, lambda files: _read(files, path))
        if line is not None or limit is not None:
            first = max(0, (line or 1) - 1)
            text = "".join(text.splitlines(keepends=True)[first : None if limit is None else first + limit])
        return ReadTextFileResponse(content=text)

    async def write_text_file(self, session_id: str, path: str, content: str, **_: Any) -> WriteTextFileResponse:
        await self._filed(session_id, path, lambda files: files.store(path, content.encode("utf-8", "replace")))
        return WriteTextFileResponse()

    async def _filed(self, session_id: str, path: str, work: Callable[[Confined], Any]) -> Any:
        """Do something with the files of a session's turn; failures are what the agent's own file system would say."""
        listener = self._listener(session_id)
        if listener is None:
            raise RequestError(-32600, f"No turn runs in session {session_id}, so {path} is not touched.", {"path": path})
        try:
            return await asyncio.to_thread(work, listener.files)
        except FileNotFoundError as error:
            raise RequestError(-32002, f"ENOENT: no such file or directory, open '{path}'", {"uri": path, "code": "ENOENT"}) from error
        except Refused as refusal:
            raise RequestError(-32602, str(refusal), {"path": path, "code": "EACCES"}) from refusal
        except OSError as error:
            raise RequestError(-32603, f"{path}: {error.strerror or error}", {"path": path}) from error


def _read(files: Confined, path: str) -> str:
    with open(files.open(path), "rb") as file:
        if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
            raise Refused(f"{path} is a directory; only files can be read.")
        content = file.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise Refused(f"{path} is longer than {FILE_BYTES // 1_000_000} MB; read it in parts with a command.")
    return decode(content)


def connect(client: Client, wire: Any) -> Connection:
    """Speak through a wire."""
    return acp.connect_to_agent(client, wire)  # type: ignore[arg-type]  # elicitation is not offered


async def initialize(connection: Connection, *, files: bool) -> dict[str, Any]:
    """Say who we are and what we can; answers what the agent says of itself, as on the wire.

    Args:
        files: whether to offer that files are read and written here.
    """
    answer = await connection.initialize(
        protocol_version=acp.PROTOCOL_VERSION,
        client_capabilities=ClientCapabilities(fs=FileSystemCapabilities(read_text_file=files, write_text_file=files)),
        client_info=Implementation(name="coder", title="coder", version=coder.__version__),
    )
    said: dict[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
    return said


async def say(connection: Connection, session_id: str, text: str) -> dict[str, Any]:
    """Send a prompt; answers, when the turn is over, what the agent says of its end, as on the wire."""
    answer = await connection.prompt(session_id=session_id, prompt=[TextContentBlock(type="text", text=text)])
    ended: dict[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
    return ended


async def open_session(connection: Connection, cwd: str) -> tuple[str, dict[str, Any]]:
    """Make a session in a directory; answers its id, and what it lets one choose, as on the wire."""
    answer = await connection.new_session(cwd=cwd, mcp_servers=[])
    return answer.session_id, answer.model_dump(mode="json", by_alias=True, exclude_none=True)


async def load_session(connection: Connection, session_id: str, cwd: str, *, replay: bool) -> dict[str, Any]:
    """Open a session of an earlier process; answers what it lets one choose, as on the wire.

    Args:
        replay: by the call that tells the whole conversation again, for an agent that has no other.
    """
    if replay:
        loaded: Any = await connection.load_session(cwd=cwd, session_id=session_id, mcp_servers=[])
    else:
        loaded = await connection.resume_session(cwd=cwd, session_id=session_id, mcp_servers=[])
    said: dict[str, Any] = loaded.model_dump(mode="json", by_alias=True, exclude_none=True)
    return said


async def set_mode(connection: Connection, session_id: str, mode: str) -> None:
    await connection.set_session_mode(mode_id=mode, session_id=session_id)


async def set_option(connection: Connection, session_id: str, option: str, value: str) -> dict[str, Any]:
    """Choose a config option's value; answers the options as they are then, as on the wire."""
    answer = await connection.set_config_option(config_id=option, session_id=session_id, value=value)
    said: dict[str, Any] = answer.model_dump(mode="json", by_alias=True, exclude_none=True)
    return said


async def close_session(connection: Connection, session_id: str) -> None:
    await connection.close_session(session_id=session_id)
