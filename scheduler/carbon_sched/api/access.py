"""Whom a request comes from, and whether they may: the dependency that every route but the public ones declares.

A credential comes in a header (`Authorization: Bearer`, or `X-Ray-Authorization` as Ray's clients send it where a proxy
wants the other one), or as a browser's session cookie. A cookie travels by itself, so what it is used for beyond
reading must also carry the session's CSRF token.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi.concurrency import run_in_threadpool
from fastapi.requests import HTTPConnection
from fastapi.routing import APIRoute, APIWebSocketRoute

from carbon_sched.api.context import Ctx
from carbon_sched.domain.access import Kind, Permission, Principal
from carbon_sched.domain.errors import Forbidden
from carbon_sched.service.access import refused

COOKIE = "carbon_sched_session"
CSRF_HEADER = "X-CSRF-Token"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
PUBLIC = frozenset(
    {"/healthz", "/readyz", "/login", "/assets/{name}", "/v1/openapi.json", "/v1/journal/{attempt}/{name}"}
)
"""What anybody may ask: nothing there tells of jobs or people. A pushed segment asks for its attempt's own token."""


class Requires:
    """A dependency: the caller, if their role grants `permission`."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, connection: HTTPConnection, context: Ctx) -> Principal:
        """Raise NotAllowed without valid credentials, TooMany, or Forbidden where they do not grant this."""
        presented = _presented(connection)
        caller = context.access.owner(*presented)
        if caller is None:  # only what asks the database is worth a thread
            caller = await run_in_threadpool(context.access.principal, *presented)
        context.rates.take(caller.token_id or caller.name)
        caller.require(self.permission)
        return caller


Reader = Annotated[Principal, Depends(Requires(Permission.READ))]
Submitter = Annotated[Principal, Depends(Requires(Permission.SUBMIT))]
Operator = Annotated[Principal, Depends(Requires(Permission.OPERATE))]
Auditor = Annotated[Principal, Depends(Requires(Permission.AUDIT))]
Admin = Annotated[Principal, Depends(Requires(Permission.ADMINISTER))]


def csrf_token(session: str) -> str:
    """What a page sends in `X-CSRF-Token`; another site can neither read nor guess it."""
    return hmac.new(session.encode(), b"carbon-sched csrf", hashlib.sha256).hexdigest()


def _presented(connection: HTTPConnection) -> tuple[str, Kind]:
    for header in ("authorization", "x-ray-authorization"):
        scheme, _, secret = connection.headers.get(header, "").partition(" ")
        if scheme.lower() == "bearer" and secret:
            return secret.strip(), Kind.API
    session = connection.cookies.get(COOKIE)
    if not session:
        raise refused(Kind.API)
    unsafe = connection.scope["type"] == "websocket" or connection.scope["method"] not in SAFE
    given = connection.headers.get(CSRF_HEADER, "")
    if unsafe and not hmac.compare_digest(given.encode(), csrf_token(session).encode()):
        raise Forbidden(f"a browser's session needs the header {CSRF_HEADER} for this; GET /v1/session tells its value")
    return session, Kind.SESSION


@dataclass(frozen=True)
class Guarded:
    """One route: its method (`WS` for a websocket) and path, and what it asks for; None for what anybody may."""

    method: str
    path: str
    permission: Permission | None


def guarded(router: APIRouter) -> list[Guarded]:
    """Every route of a router; RuntimeError for one that says neither who may use it nor that anybody may."""
    found = []
    for route in router.routes:
        if not isinstance(route, (APIRoute, APIWebSocketRoute)):
            raise RuntimeError(f"{route} is no route that can say who may use it")  # noqa: TRY004 - a bug, not a type
        asked = [one.call.permission for one in route.dependant.dependencies if isinstance(one.call, Requires)]
        if not asked and route.path not in PUBLIC:
            raise RuntimeError(f"{route.path} is open to everybody: let it depend on an api.access.Requires")
        methods = sorted(route.methods or ()) if isinstance(route, APIRoute) else ["WS"]
        found += [Guarded(method, route.path, asked[0] if asked else None) for method in methods]
    return found
