"""What every page has: its frame, who reads it, the headers that keep a browser to this host, and errors as pages."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from carbon_sched import __version__
from carbon_sched.api.access import COOKIE, csrf_token
from carbon_sched.api.context import Context
from carbon_sched.api.dashboard import figures, plots
from carbon_sched.domain.access import GRANTS, Permission, Principal
from carbon_sched.domain.errors import CarbonSchedError, InvalidInput, NotAllowed, NotFound

if TYPE_CHECKING:
    from datetime import datetime

HERE = Path(__file__).parent
STATIC = HERE / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline, nothing evaluated (Content Security Policy Level 3)."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Vary": "HX-Request",
}
SECTIONS = (
    ("now", "/", "Now"),
    ("queue", "/queue", "Queue"),
    ("footprint", "/footprint", "Footprint"),
    ("policies", "/policies", "Policies"),
    ("health", "/health", "Health"),
)
TYPES = {".css": "text/css", ".js": "text/javascript", ".woff2": "font/woff2", ".svg": "image/svg+xml"}
assets = APIRouter()


def _read_assets() -> tuple[dict[str, tuple[bytes, str]], dict[str, str]]:
    """Every file by the name that pages call it, which changes with its content, so that it may be kept for ever.

    Style sheets come last: they name fonts.
    """
    files: dict[str, tuple[bytes, str]] = {}
    names: dict[str, str] = {}
    paths = [path for path in STATIC.rglob("*") if path.suffix in TYPES]
    for path in sorted(paths, key=lambda path: (path.suffix == ".css", path.name)):
        content = path.read_bytes()
        if path.suffix == ".css":
            content = content.replace(b"url(inter.woff2)", f"url({names['inter.woff2']})".encode())
        name = f"{path.stem}-{hashlib.sha256(content).hexdigest()[:10]}{path.suffix}"
        files[name], names[path.name] = (content, TYPES[path.suffix]), f"/assets/{name}"
    return files, names


_FILES, _NAMES = _read_assets()


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(figures.FILTERS, meter=plots.meter, evidence=plots.evidence)
    made.globals.update(asset=_NAMES.__getitem__, sections=SECTIONS, version=__version__)
    return made


TEMPLATES = _environment()


def render(request: Request, caller: Principal, template: str, *, now: datetime, **values: Any) -> HTMLResponse:
    """A page; of it alone what moves (`main`) where a page that is open asks for it."""
    session = request.cookies.get(COOKIE)
    content = TEMPLATES.get_template(template).render(
        layout="part.html" if request.headers.get("HX-Request") else "base.html",
        caller=caller,
        may=lambda permission: Permission(permission) in GRANTS[caller.role],
        csrf=csrf_token(session) if session else "",
        now=now,
        here=request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        path=request.url.path,
        **values,
    )
    return HTMLResponse(content, headers=HEADERS)


def failed(request: Request, error: CarbonSchedError) -> HTMLResponse:
    """The error in the form that a person at a browser reads; who is not logged in is told how."""
    remedy = error.remedy if isinstance(error, InvalidInput) else ""
    template = "login.html" if isinstance(error, NotAllowed) else "error.html"
    content = TEMPLATES.get_template(template).render(layout="bare.html", error=error, remedy=remedy)
    headers = {**HEADERS, "HX-Refresh": "true"} if request.headers.get("HX-Request") else HEADERS
    return HTMLResponse(content, status_code=error.http_status, headers=headers)


class PageRoute(APIRoute):
    """A route whose errors are pages too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Turn what services raise into a page."""
        answer = super().get_route_handler()

        async def page(request: Request) -> Response:
            try:
                return await answer(request)
            except CarbonSchedError as error:
                return failed(request, error)
            except RequestValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"][1:])
                remedy = "Go back, and choose from what the page offers"
                return failed(request, InvalidInput(field, first.get("input", ""), first["msg"].lower(), remedy))

        return page


def team_of(caller: Principal, asked: str | None) -> str | None:
    """The team whose figures a page shows: the one asked for, else all, or the first of the caller's."""
    if not asked and caller.teams is not None and len(caller.teams) > 1:
        return min(caller.teams)
    return caller.team_of(asked or None)


@assets.get("/assets/{name}", include_in_schema=False)
def asset(name: str) -> Response:
    """A file of the dashboard."""
    if name not in _FILES:
        raise NotFound(f"there is no file {name!r}")
    content, media_type = _FILES[name]
    return Response(content, media_type=media_type, headers={"Cache-Control": "public, max-age=31536000, immutable"})


def seen(context: Context) -> datetime:
    """The present, to the second: what a page is computed for."""
    return context.clock.now().replace(microsecond=0)
