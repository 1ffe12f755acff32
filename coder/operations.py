"""What clients send over the WebSocket: operations, each a JSON object with a `type`.

With `frames.py` the only file that spells a wire `type`. Unknown fields are refused, so that a misspelt one is noticed.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

CLIENT_ID = r"^[A-Za-z0-9_-]{8,64}$"


class Operation(BaseModel):
    """Something a client asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class HelloOperation(Operation):
    """The first message on every socket: who the client is, and up to which frame it has everything.

    `epoch` and `since` are those of an earlier socket; a new client leaves them out. A client id belongs to one tab.
    """

    type: Literal["hello"] = "hello"
    client_id: Annotated[str, Field(pattern=CLIENT_ID)]
    epoch: str | None = None
    since: Annotated[int, Field(strict=True)] = 0


class ChatSend(Operation):
    """Queue a message: in a session, or in a new one of a project. The sender is subscribed. Sent twice it is stored once.
    With `interrupt` the session's running turn is cancelled, and the message goes to the head."""

    type: Literal["chat.send"] = "chat.send"
    client_message_id: Annotated[str, Field(min_length=1, max_length=255)]
    text: str
    session_id: UUID | None = None
    project: str | None = None
    workspace_id: str | None = None
    agent: str | None = None
    model: str | None = None
    mode_id: str | None = None
    thinking_option_id: str | None = None
    interrupt: Annotated[bool, Field(strict=True)] = False


class ChatSubscribe(Operation):
    """Watch a session; answered by `session_history` and the turn that runs, then everything as it happens."""

    type: Literal["chat.subscribe"] = "chat.subscribe"
    session_id: UUID


class ChatUnsubscribe(Operation):
    type: Literal["chat.unsubscribe"] = "chat.unsubscribe"
    session_id: UUID


class Ack(Operation):
    """The client has every frame up to this number; to be sent every 5 s while frames come."""

    type: Literal["ack"] = "ack"
    seq: Annotated[int, Field(strict=True, ge=0)]


class Pong(Operation):
    """The answer to `ping`."""

    type: Literal["pong"] = "pong"


class SurfaceSubscribe(Operation):
    """See a surface of a session; answered by `surface`, then `surface_update` whenever it changes."""

    type: Literal["surface.subscribe"] = "surface.subscribe"
    session_id: UUID
    surface: str


class SurfaceUnsubscribe(Operation):
    type: Literal["surface.unsubscribe"] = "surface.unsubscribe"
    session_id: UUID
    surface: str


class SurfaceInvoke(Operation):
    """Use a control of a surface. `cache-warming` has `toggle` (true, false, or nothing: the other way round) and `interval` (seconds)."""

    type: Literal["surface.invoke"] = "surface.invoke"
    session_id: UUID
    surface: str
    action: str
    value: bool | float | str | None = None


AnyOperation = (
    HelloOperation | ChatSend | ChatSubscribe | ChatUnsubscribe | Ack | Pong | SurfaceSubscribe | SurfaceUnsubscribe | SurfaceInvoke
)
CLIENT_OPERATIONS: tuple[type[Operation], ...] = (
    *(HelloOperation, ChatSend, ChatSubscribe, ChatUnsubscribe, Ack, Pong),
    *(SurfaceSubscribe, SurfaceUnsubscribe, SurfaceInvoke),
)
"""Every operation, in the order docs/wire.md shows them."""

_READER: TypeAdapter[AnyOperation] = TypeAdapter(Annotated[AnyOperation, Field(discriminator="type")])


def read(content: object) -> AnyOperation:
    """The operation that a JSON value is; raises pydantic's `ValidationError` where it is none."""
    return _READER.validate_python(content)
