"""The WebSocket: a socket on one side, a client of the live view on the other, and nothing in between that waits for both.

A receiver reads operations one by one, a sender sends what waits: frames that belong to this socket (`seq` 0) first, then the
client's outbox, many frames as one JSON array. A timer pings, and ends a socket that was not heard of for two intervals or
that does not let anything be sent for so long. Every end has a code and a reason: 4400 what was sent cannot be read, 4401 the token or
login holds no longer, 4408 no sign of life, 4409 the client has a newer socket, 4429 too much at once, 1009 too large.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import orjson
import structlog
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from coder import operations
from coder.config import Settings
from coder.errors import CoderError, InvalidInput, TooMany, Unauthorized
from coder.frames import Accepted, ErrorFrame, Frame, Hello, Ping
from coder.ports import Door
from coder.runtime.clients import Client, unnumbered
from coder.runtime.surfaces import known
from coder.runtime.watching import Watching
from coder.web.gate import ACTOR, STILL_KNOWN, check_json
from coder.web.problems import of_error, sentence

PROTOCOL = "coder.v1"
HELLO_SECONDS = 10.0
CLOSE_SECONDS = 1.0
MESSAGE_BYTES = 4 * 1024 * 1024
OPERATION_CHARACTERS = 65_536
"""Of any operation but `chat.send`, whose text may be as long as a task's input."""
SENT_FRAMES = 1_000
SENT_BYTES = 262_144
WAITING_REPLIES = 200
REASON_BYTES = 123
REFUSED_MOST = 200
"""Operations that could not be done, one after another, before the socket is closed; `ack` and `pong` do not count."""
SLOW = "This client asks faster than it reads the answers; read them, or ask for less."

log = structlog.get_logger(__name__)


class Closed(Exception):
    """The socket is to be closed, with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason.encode()[:REASON_BYTES].decode("utf-8", "ignore")


class Live:
    """The ASGI endpoint.

    Args:
        door: queues what is sent.
        settings: how often to ping, how many sockets there may be.
    """

    def __init__(self, watching: Watching, door: Door, settings: Settings) -> None:
        self._watching = watching
        self._door = door
        self._ping = settings.ping_seconds
        self._most = settings.max_sockets
        self.sockets: set[Socket] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self.sockets) >= self._most:
            refusal = of_error(TooMany(f"This server has {self._most} sockets open (CODER_MAX_SOCKETS); close some, or try again later."))
            await refusal(scope, receive, send)
            return
        socket = Socket(scope, receive, send, self._watching, self._door, self._ping)
        self.sockets.add(socket)
        try:
            await socket.serve()
        finally:
            self.sockets.discard(socket)


class Socket:
    """One open WebSocket."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, watching: Watching, door: Door, ping: float) -> None:
        self._offered = scope.get("subprotocols", [])
        self._read = receive
        self._write = send
        self._watching = watching
        self._door = door
        self._ping = ping
        self._actor = str(scope[ACTOR])
        self._still_known = scope[STILL_KNOWN]
        self._checking: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self._replies: list[bytes] = []
        self._refused = 0
        self._full = False
        self._wrote = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._heard + ping
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._client: Client | None = None

    async def serve(self) -> None:
        """From the handshake to the end."""
        closed = Closed(1000, "")
        try:
            await self._read()  # the handshake; the gate has let it in
            await self._write({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in self._offered else None})
            client = await self._hello()
        except Closed as refused:
            await self._close(refused)
            return
        except OSError:
            return
        self._client = client
        tasks = [asyncio.create_task(self._receive(client)), asyncio.create_task(self._send(client))]
        self._due = self._loop.time() + self._ping
        self._timer = self._loop.call_later(self._ping, self._tick)
        try:
            await asyncio.wait({*tasks, self._over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._timer.cancel()
            if self._checking is not None:
                tasks.append(self._checking)
            for task in tasks:
                task.cancel()
            results = [*await asyncio.gather(*tasks, return_exceptions=True), self._over.exception() if self._over.done() else None]
            self._watching.clients.detach(client, self)
        for result in results:
            if isinstance(result, Closed):
                closed = result
            elif isinstance(result, Exception) and not isinstance(result, OSError):
                log.error("a socket met an error it does not know", exc_info=result)
                closed = Closed(1011, "Something went wrong inside coder; its log says what.")
        await self._close(closed)

    async def _close(self, closed: Closed) -> None:
        """Say why, if the other side still listens; what it does not take is dropped with the connection."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._write({"type": "websocket.close", "code": closed.code, "reason": closed.reason})
        except (OSError, RuntimeError, TimeoutError):
            log.debug("a socket was closed without a word", code=closed.code)

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────

    async def _hello(self) -> Client:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                operation = await self._operation()
        except TimeoutError:
            raise Closed(4408, f"No `hello` came within {HELLO_SECONDS:g} s; send it first.") from None
        if not isinstance(operation, operations.HelloOperation):
            raise Closed(4400, "The first message of a socket is `hello`; connect again and send it.")
        try:
            clients = self._watching.clients
            client, found, missed = clients.attach(self._actor, operation.client_id, operation.epoch, operation.since, self)
        except TooMany as many:
            raise Closed(4429, many.message) from None
        await self._out([unnumbered(Hello(client.id, clients.epoch, found.value)), *missed])
        return client

    async def _operation(self) -> operations.AnyOperation:
        """The next operation; raises `Closed` for what is none at all, `OSError` when the socket has gone."""
        while True:
            message = await self._read()
            if message["type"] == "websocket.disconnect":
                raise ConnectionResetError
            self._heard = self._loop.time()
            text = message.get("text")
            if text is None:
                raise Closed(4400, "A binary message was sent; operations are JSON text.")
            try:
                content = orjson.loads(text)
            except ValueError:
                raise Closed(4400, "What was sent is not JSON; send one operation as a JSON object.") from None
            if not isinstance(content, dict):
                raise Closed(4400, "What was sent is not a JSON object; send one operation at a time.")
            kind = content.get("type")
            if len(text) > OPERATION_CHARACTERS and kind != "chat.send":
                raise Closed(1009, f"An operation may have {OPERATION_CHARACTERS} characters, `chat.send` more.")
            try:
                if "\\u" in text:
                    check_json(text.encode())
                return operations.read(content)
            except InvalidInput as wrong:
                said = wrong.message
            except ValidationError as wrong:
                said = _wrong(wrong)
            if self._client is None:
                raise Closed(4400, said)
            self._refuse(ErrorFrame(InvalidInput.code, said, _word(kind)))

    async def _receive(self, client: Client) -> None:
        count = 0
        while True:
            operation = await self._operation()
            try:
                await self._do(client, operation)
            except CoderError as error:
                about = getattr(operation, "client_message_id", None) or getattr(operation, "session_id", None)
                self._refuse(ErrorFrame(error.code, error.message, operation.type, str(about) if about is not None else None))
            count += 1
            if count % 100 == 0:
                await asyncio.sleep(0)  # a flood of small operations must not keep others waiting

    async def _do(self, client: Client, operation: operations.AnyOperation) -> None:
        match operation:
            case operations.Ack(seq=seq):
                client.outbox.acknowledge(seq, self._loop.time())
                return
            case operations.Pong():
                client.outbox.seen = self._loop.time()
                return
        await self._check()
        match operation:
            case operations.ChatSubscribe(session_id=session):
                await self._subscribe(client, str(session))
            case operations.ChatUnsubscribe(session_id=session):
                client.unsubscribe(str(session))
            case operations.ChatSend():
                await self._chat_send(client, operation)
            case operations.HelloOperation():
                raise InvalidInput("`hello` is the first message of a socket and comes once; open another socket for another client.")
            case operations.SurfaceSubscribe(session_id=session, surface=surface):
                await self._watching.surfaces.subscribe(client, str(session), surface)
            case operations.SurfaceUnsubscribe(session_id=session, surface=surface):
                client.surfaces.discard((str(session), surface))
            case operations.SurfaceInvoke():
                await self._invoke(operation)
        self._refused = 0

    def _refuse(self, error: ErrorFrame) -> None:
        """Say why an operation could not be done; who goes on and on like this is told to stop by the end of the socket."""
        self._refused += 1
        if self._refused > REFUSED_MOST:
            raise Closed(4429, f"{REFUSED_MOST} operations in a row were refused; the last: {error.message}")
        self._reply(error)

    async def _subscribe(self, client: Client, session: str) -> None:
        """Show a session, once what an earlier subscription began with is on its way: a history may be large, so only one waits."""
        self._full = client.outbox.opening
        while client.outbox.opening:
            self._wrote.clear()
            await self._wrote.wait()
            self._heard = self._loop.time()  # what it says waits unread meanwhile, but it reads
        self._full = False
        await self._watching.subscribe(client, session)

    async def _invoke(self, asked: operations.SurfaceInvoke) -> None:
        """Use a control; whoever sees the surface is told once it is stored."""
        known(asked.surface)
        match asked.action, asked.value:
            case "toggle", bool() | None as enabled:
                await self._door.row("warming_toggle", session_id=asked.session_id, enabled=enabled)
            case "interval", int() | float() as seconds if not isinstance(seconds, bool):
                await self._door.row("warming_interval", session_id=asked.session_id, seconds=Decimal(str(seconds)))
            case action, value:
                raise InvalidInput(
                    f"{asked.surface} has the actions `toggle` (true, false or nothing) and `interval` (seconds), not {action[:64]!r} "
                    f"with {str(value)[:64]!r}."
                )

    async def _chat_send(self, client: Client, asked: operations.ChatSend) -> None:
        """Queue a message, say so, and let its sender see it."""
        choices = {"agent": asked.agent, "model": asked.model, "mode_id": asked.mode_id, "thinking_option_id": asked.thinking_option_id}
        given: dict[str, Any] = {"input": asked.text, "idempotency_key": asked.client_message_id, "labels": [], **choices}
        if asked.session_id is not None:
            task = await self._door.row("queue_add", session_id=asked.session_id, interrupt=asked.interrupt, actor=self._actor, **given)
        elif asked.project:
            task = await self._door.row("task_add", project=asked.project, workspace_id=asked.workspace_id, actor=self._actor, **given)
        else:
            raise InvalidInput("`chat.send` names a session_id, or the project to open a new session in.")
        self._reply(Accepted(asked.client_message_id, task["session_id"], task["id"], task["existed"]))
        if task["session_id"] not in client.subscriptions:
            await self._subscribe(client, task["session_id"])

    # ── what goes out ────────────────────────────────────────────────────────────────────────────────

    def _reply(self, frame: Frame) -> None:
        """Answer on this socket alone."""
        self._replies.append(unnumbered(frame))
        if len(self._replies) > WAITING_REPLIES:
            raise Closed(4429, SLOW)
        if self._client is not None:
            self._client.bell.set()

    async def _send(self, client: Client) -> None:
        bell, outbox = client.bell, client.outbox
        bell.set()
        while True:
            await bell.wait()
            if client.socket is not self:
                bell.set()  # for the newer one
                raise Closed(4409, "This client has opened a newer socket.")
            if self._replies:
                replies, self._replies = self._replies, []
                await self._out(replies)
                continue
            bell.clear()
            # One batch at a time: what comes while it is sent can still be merged, and another socket may take over.
            if outbox.waiting:
                await self._out(outbox.take(self._loop.time()))

    async def _out(self, contents: list[bytes]) -> None:
        """Send frames, several as one JSON array."""
        for batch in _batches(contents):
            text = batch[0] if len(batch) == 1 else b"[" + b",".join(batch) + b"]"
            await self._write({"type": "websocket.send", "text": text.decode()})
            self._wrote.set()

    def _tick(self) -> None:
        """Ping; end what gives no sign of life. A tick that comes late judges nobody: this process was busy, and what they
        said may still be unread."""
        now = self._loop.time()
        late, self._due = now - self._due > self._ping / 2, now + self._ping
        if now - self._heard > 2 * self._ping and not late:
            silent = Closed(4408, f"Nothing was heard of this client for {2 * self._ping:g} s.")
            self._end(Closed(4429, SLOW) if self._full else silent)
            return
        self._timer = self._loop.call_later(self._ping, self._tick)
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._look())
        try:
            self._reply(Ping())
        except Closed as closed:
            self._end(closed)

    async def _look(self) -> None:
        try:
            await self._check()
        except Closed as closed:
            self._end(closed)
        except CoderError as error:  # nobody can say; the next ping asks again
            log.debug("whether a socket may stay could not be seen", why=error.message)

    async def _check(self) -> None:
        """Whether who opened this socket would still be let in. Raises `Closed` when not, `Unavailable` when nobody can say."""
        try:
            await self._still_known()
        except Unauthorized:
            raise Closed(4401, "The token or login of this socket holds no longer; connect again with another.") from None

    def _end(self, closed: Closed) -> None:
        if not self._over.done():
            self._over.set_exception(closed)


def _batches(contents: list[bytes]) -> list[list[bytes]]:
    batches: list[list[bytes]] = []
    batch: list[bytes] = []
    size = 0
    for content in contents:
        if batch and (len(batch) >= SENT_FRAMES or size + len(content) > SENT_BYTES):
            batches.append(batch)
            batch, size = [], 0
        batch.append(content)
        size += len(content)
    if batch:
        batches.append(batch)
    return batches


def _wrong(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        known = ", ".join(str(each.model_fields["type"].default) for each in operations.CLIENT_OPERATIONS)
        return f"This is no operation; `type` is one of {known}."
    return sentence({**first, "loc": ("body", *first["loc"][1:])})[1]


def _word(kind: Any) -> str | None:
    return kind[:64] if isinstance(kind, str) else None
