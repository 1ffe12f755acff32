"""What every request passes before a route sees it: who asks, how much is sent, and whether it is JSON.

A plain ASGI layer, since it must come before FastAPI reads a body. The invariant: a route only ever sees a request
with a known token (or an open path) and a body that is empty or sound JSON of at most 4 MiB, without the characters
that PostgreSQL cannot store; whatever escapes a route becomes a logged 500 without a traceback.
A WebSocket is let in by the same tokens, and only from a page of our own origin or from a program, which names none.

The panel's pages are open: they hold nothing. A browser that has logged in (`login.py`) bears two halves of one secret: a cookie
that no script can read, and a key that only our own origin's scripts can, since cookies go to every port of a host. A request or
socket with the halves must come from our origin; nothing but them lets it in, so no other page can borrow the cookie.
It leaves out: CORS (no other origin is let in; a token is sent by programs, not by pages).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote_to_bytes, urlsplit

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coder.errors import CoderError, ForeignOrigin, InvalidInput, NotFound, Unauthorized
from coder.ports import Door
from coder.web.problems import of_error, problem

log = structlog.get_logger(__name__)

BODY_BYTES = 4 * 1024 * 1024
REMEMBER_SECONDS = 3.0
"""How long a token that was found is not looked up again, and so how long one that was revoked still works."""
REMEMBER_TOKENS = 256
OPEN = frozenset({"/api/v1/health", "/api/v1/ready", "/api/v1/openapi.json", "/api/v1/login"})
API = "/api/"
"""What lies below it needs a token; everything else is the panel's pages, and whether the service is well."""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}
ACTOR = "coder.actor"
STILL_KNOWN = "coder.still_known"
"""Where a socket, which outlives its handshake, finds a call that raises `Unauthorized` once who asks is not let in any more."""
LOCAL = "local"
TOKEN_PROTOCOL = "bearer."
"""A WebSocket offers its token as a subprotocol that begins so; never in its address, which is logged."""
KEY_PROTOCOL = "key."
KEY_HEADER = "x-coder-key"


class Disconnected(Exception):
    """The client went away before it had sent its request."""


class Gate:
    """The outermost layer of the application.

    Args:
        app: what requests that may pass are handed to.
        door: knows the tokens.
        local: the digest of a token besides these, for who owns the process.
    """

    def __init__(self, app: ASGIApp, door: Door, local: bytes = b"") -> None:
        self._app = app
        self._door = door
        self._local = local
        self._known: dict[bytes, tuple[str, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._socket(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal: Response
        try:
            await self._admit(scope)
            body = await self._body(scope, receive)
            if not isinstance(body, Response):
                await self._app(scope, _replay(body, receive), answer)
                return
            refusal = body
        except Disconnected:
            return
        except CoderError as error:
            refusal = of_error(error)
        except Exception:
            log.exception("request failed", method=scope["method"], path=scope["path"])
            if started:
                raise
            refusal = problem(500, "Something went wrong inside coder; its log says what. The request may be tried again.")
        await refusal(scope, receive, answer)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a WebSocket in, or refuse its handshake with the status and problem that a request would get."""
        headers = Headers(scope=scope)
        try:
            check_origin(headers)
            await self._admit(scope)
        except CoderError as error:
            await of_error(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        """Find out who asks; raises `Unauthorized`, always the same one."""
        if "\0" in scope["path"] or b"\0" in unquote_to_bytes(scope["query_string"]):
            raise InvalidInput("The address contains the character U+0000 (%00), which nothing is named by; leave it out.")
        if scope["path"] in OPEN or not scope["path"].startswith(API):
            return
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = headers.get(KEY_HEADER, "")
        for offered in scope.get("subprotocols", ()):  # a page cannot set headers of a WebSocket
            if offered.startswith(TOKEN_PROTOCOL):
                scheme, token = "bearer", offered.removeprefix(TOKEN_PROTOCOL)
            elif offered.startswith(KEY_PROTOCOL):
                key = offered.removeprefix(KEY_PROTOCOL)
        cookie = HTTPConnection(scope).cookies.get(cookie_name(headers), "")
        if scheme.lower() == "bearer" and token.strip():
            known = partial(self._name_of, "token_known", digest(token.strip()))
        elif cookie and key:
            check_origin(headers)
            known = partial(self._name_of, "login_known", digest(cookie + key))
        else:
            raise Unauthorized
        scope[ACTOR], scope[STILL_KNOWN] = await known(), known

    async def _name_of(self, statement: str, token: bytes) -> str:
        if token == self._local:
            return LOCAL
        now = asyncio.get_running_loop().time()
        name, until = self._known.get(token, ("", 0.0))
        if now < until:
            return name
        try:
            name = str((await self._door.row(statement, hash=token))["name"])
        except NotFound:
            self._known.pop(token, None)
            raise Unauthorized from None
        if len(self._known) >= REMEMBER_TOKENS:
            self._known.clear()
        self._known[token] = (name, now + REMEMBER_SECONDS)
        return name

    async def _body(self, scope: Scope, receive: Receive) -> bytes | Response:
        """The whole body, or the refusal of one that is too large or of another kind."""
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        whole = bytearray()
        too_large = length.isdecimal() and int(length) > BODY_BYTES
        more = not too_large
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            whole += message.get("body", b"")
            more = message.get("more_body", False)
            if len(whole) > BODY_BYTES:
                too_large, more = True, False
        if too_large:
            return problem(413, f"A request may have {BODY_BYTES} bytes; put large material into a file of the project and name it.")
        if whole:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
                return problem(415, f"The body is {kind or 'of no stated kind'}; send JSON with `Content-Type: application/json`.")
            check_json(bytes(whole))
        return bytes(whole)


def digest(secret: str) -> bytes:
    """What is stored of a secret."""
    return hashlib.sha256(secret.encode("latin-1", "replace")).digest()


def cookie_name(headers: Headers) -> str:
    """Of our cookie: browsers send the cookies of a host to all its ports, and there may be a coder on several."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"coder-{port}" if port.isdecimal() else "coder"


def check_origin(headers: Headers) -> None:
    """Raise `ForeignOrigin` for a page of another origin; programs name none."""
    origin, host = headers.get("origin"), headers.get("host", "")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        raise ForeignOrigin(origin=origin, host=host)


def check_json(body: bytes) -> None:
    """Raise `InvalidInput` unless these bytes are JSON that every part of coder can hold (RFC 8259, UTF-8 only)."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The body is not UTF-8 (byte {error.start}); encode it as UTF-8.") from None
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}; correct it.") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The body is not JSON that can be read: {error}; correct it.") from None
    if "\\u" in text:  # only an escape can bring these characters in: raw ones were refused above
        _check_strings(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _check_strings(value: Any) -> None:
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        name, found = rest.pop()
        if isinstance(found, dict):
            rest += [("the name of a field", key) for key in found]
            rest += [(f"`{key}`", inner) for key, inner in found.items()]
        elif isinstance(found, list):
            rest += [(name, inner) for inner in found]
        elif isinstance(found, str):
            if "\0" in found:
                raise InvalidInput(f"The body contains the character U+0000 in {name or 'a string'}, which cannot be stored; leave it out.")
            if any("\ud800" <= character <= "\udfff" for character in found):
                raise InvalidInput(f"The body contains half of a surrogate pair in {name or 'a string'}; send the whole character.")


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was already read, then whatever comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
