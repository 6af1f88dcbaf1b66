"""What every request passes before anything reads it: the names this server goes by, and what a request may be.

A browser can be made to send requests here under a stranger's name (DNS rebinding): only the names of this server are
answered. An address in numbers is no name, so it cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import json
import socket
from typing import TYPE_CHECKING

from carbon_sched.api.problems import answer
from carbon_sched.domain.errors import CarbonSchedError, InvalidInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 4 * 1024**2
"""Of everything but bundles, packages and energy segments, which have limits of their own."""
STREAMED = ("/v1/bundles/", "/api/packages/", "/v1/journal/")
KEPT = "/assets/"
"""Below here are files whose names change with their content."""
MAX_QUERY = 8 * 1024
LOOPBACK = frozenset({"localhost"})
NUL = b"%00"
"""No text that anybody means, and none that PostgreSQL takes."""


class Misdirected(CarbonSchedError):
    """The server does not go by this name; its operator adds names to `allowed_hosts`."""

    exit_code = 120
    http_status = 421


def own_names(host: str, more: Sequence[str]) -> frozenset[str]:
    """What this server may be called: loopback, what it listens on, this machine's name, and those configured."""
    names = {host, socket.gethostname(), *more}
    return LOOPBACK | {name.lower() for name in names if name}


class Gate:
    """ASGI middleware; `names` are lower case, `*` among them stands for any."""

    def __init__(self, app: ASGIApp, *, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what must not come in, and hand on the rest."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
            if scope["type"] == "http" and not scope["path"].startswith(STREAMED):
                receive = _replayed(await _document(scope, receive), receive)
        except CarbonSchedError as error:
            await answer(scope["path"], error)(scope, receive, send)
        else:
            await self._app(scope, receive, _hardened(scope["path"], send))

    def _check(self, scope: Scope) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not self._ours(host):
            raise Misdirected
        query = scope["query_string"]
        if len(query) > MAX_QUERY:
            raise TooLarge("query", f"{len(query)} bytes", f"is over the {MAX_QUERY} taken", "Ask for less at once")
        if NUL in query or "\0" in scope["path"]:
            raise InvalidInput("address", "(not shown)", "holds a NUL", "Leave it out")

    def _ours(self, host: str) -> bool:
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        name = name.strip("[]").rstrip(".").lower()
        return "*" in self._names or name in self._names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


async def _document(scope: Scope, receive: Receive) -> bytes:
    """The whole body, a JSON document that everything behind here can store and send on.

    Raises TooLarge (before anything is read where the length is told), or InvalidInput for what Python reads but JSON
    does not have: NaN, infinities, lone surrogates, another encoding than UTF-8, and depths that exhaust the stack.
    """
    told = dict(scope["headers"]).get(b"content-length", b"")
    if told.isdigit() and int(told) > MAX_BODY:
        raise _too_large(int(told))
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY:
            raise _too_large(len(body))
    if body:
        _require_json(body)
    return body


def _require_json(body: bytes) -> None:
    try:
        json.dumps(json.loads(body.decode("utf-8")), allow_nan=False, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise InvalidInput("body", "(not shown)", "is nested too deep", "Send a flatter document") from None
    except ValueError as error:
        what = str(error) if isinstance(error, json.JSONDecodeError) else "a text or number that JSON does not have"
        remedy = "Send UTF-8 as RFC 8259 has it"
        raise InvalidInput("body", "(not shown)", f"is not JSON ({what})", remedy) from None


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body again for those behind, in one piece; then whatever else comes."""
    pieces: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pieces.pop() if pieces else await receive()

    return replayed


def _too_large(size: int) -> TooLarge:
    return TooLarge("body", f"{size} bytes", f"is over the {MAX_BODY >> 20} MiB taken", "Send less; files are bundles")


def _hardened(path: str, send: Send) -> Send:
    """Answers that no browser guesses the type of, and no cache keeps, but for files that never change."""

    async def hardened(message: Message) -> None:
        if message["type"] == "http.response.start":
            marks = [(b"x-content-type-options", b"nosniff")]
            kept = message["headers"]
            if not path.startswith(KEPT):
                marks.append((b"cache-control", b"no-store"))
                kept = [pair for pair in kept if pair[0] != b"cache-control"]
            message = {**message, "headers": [*kept, *marks]}
        await send(message)

    return hardened
