"""Routes for API tokens and the people who hold them, and for a browser's login."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from carbon_sched.api.access import COOKIE, Admin, Reader, csrf_token
from carbon_sched.api.context import Ctx
from carbon_sched.domain.access import Credential, Role
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.service.access import SESSION_LIFE
from carbon_sched.wire import Erased, EraseRequest, LoginCode, NewToken, SessionView, TokenRequest, TokenView

public = APIRouter()
router = APIRouter(prefix="/v1")


@router.post("/tokens", status_code=201)
def give_token(request: TokenRequest, context: Ctx, caller: Admin) -> NewToken:
    """Give a token; its secret is in this answer and nowhere else."""
    teams = request.get("teams")
    token, secret = context.access.give(
        caller,
        name=request["name"],
        role=_role(request["role"]),
        teams=None if teams is None else frozenset(teams),
        lifetime_s=request["lifetime_s"],
    )
    return {**_view(token), "token": secret}


@router.get("/tokens")
def list_tokens(context: Ctx, _caller: Admin) -> list[TokenView]:
    """Every token ever given, oldest first; never a secret."""
    return [_view(token) for token in context.access.tokens()]


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(token_id: str, context: Ctx, _caller: Admin) -> Response:
    """Make a token worthless at once."""
    context.access.revoke(token_id)
    return Response(status_code=204)


@router.post("/people/erase")
def erase_person(request: EraseRequest, context: Ctx, _caller: Admin) -> Erased:
    """Forget who is behind a pseudonym; the ledger keeps the pseudonym and verifies as before."""
    return {"pseudonym": context.access.erase(request["person"])}


@router.post("/login-codes", status_code=201)
def make_login_code(context: Ctx, caller: Reader) -> LoginCode:
    """A path that logs one browser in as the caller, once, within two minutes."""
    return {"path": f"/login?code={context.access.login_code(caller)}"}


@public.get("/login", include_in_schema=False)
def log_in(code: str, request: Request, context: Ctx) -> Response:
    """Exchange a code for a session cookie that scripts cannot read and other sites cannot send."""
    session = context.access.log_in(code)
    answer = RedirectResponse("/", status_code=303, headers={"Cache-Control": "no-store"})
    answer.set_cookie(
        COOKIE,
        session,
        max_age=int(SESSION_LIFE.total_seconds()),
        httponly=True,
        secure=request.url.scheme == "https",
        samesite="strict",
    )
    return answer


@router.get("/session")
def show_session(request: Request, caller: Reader) -> SessionView:
    """Who the caller is; for a browser, also the token that its changes must carry."""
    session = request.cookies.get(COOKIE)
    return {
        "name": caller.name,
        "role": caller.role.value,
        "teams": None if caller.teams is None else sorted(caller.teams),
        "csrf_token": csrf_token(session) if session else None,
    }


@router.delete("/session", status_code=204)
def log_out(request: Request, context: Ctx, _caller: Reader) -> Response:
    """End the browser's session."""
    if session := request.cookies.get(COOKIE):
        context.access.log_out(session)
    answer = Response(status_code=204)
    answer.delete_cookie(COOKIE)
    return answer


def _role(value: str) -> Role:
    try:
        return Role(value)
    except ValueError:
        known = ", ".join(role.value for role in Role)
        raise InvalidInput("role", value, "is not known", f"Use one of: {known}") from None


def _view(token: Credential) -> TokenView:
    return {
        "token_id": token.token_id,
        "name": token.name,
        "role": token.role.value,
        "teams": None if token.teams is None else sorted(token.teams),
        "created_at": to_rfc3339(token.created_at),
        "created_by": token.created_by,
        "expires_at": to_rfc3339(token.expires_at),
        "revoked_at": None if token.revoked_at is None else to_rfc3339(token.revoked_at),
    }
