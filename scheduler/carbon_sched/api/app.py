"""Build the FastAPI application: authentication, error answers, routers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.requests import HTTPConnection
from fastapi.responses import JSONResponse

from carbon_sched import __version__
from carbon_sched.api import budgets, clusters, grid, jobs, ledger, metrics, policies, server, tokens
from carbon_sched.api.access import Guarded, guarded
from carbon_sched.api.ray import routes as ray
from carbon_sched.domain.errors import CarbonSchedError, InvalidInput

if TYPE_CHECKING:
    from carbon_sched.api.context import Context
    from carbon_sched.wire import Problem

log = logging.getLogger(__name__)

ROUTERS = (
    (server.public, ""),
    (tokens.public, ""),
    (metrics.router, ""),
    (ray.router, "/api"),
    *((module.router, "/v1") for module in (server, tokens, jobs, clusters, policies, budgets, grid, ledger)),
)
MAY_HOLD_SECRETS = {"runtime_env", "secrets", "token", "headers", "metadata"}
"""Fields whose values no error repeats."""


def create_app(context: Context) -> FastAPI:
    """The application serving `context`; every route says who may use it, or is one of the few that anybody may."""
    app = FastAPI(
        title="carbon-sched", version=__version__, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.state.context = context

    app.add_middleware(metrics.Timed, metrics=context.metrics)
    table: list[Guarded] = []
    for router, prefix in ROUTERS:
        table += guarded(router, prefix)
        app.include_router(router, prefix=prefix)
    app.state.routes = table
    app.add_exception_handler(CarbonSchedError, _domain_error)
    app.add_exception_handler(RequestValidationError, _request_error)
    app.add_exception_handler(Exception, _bug)
    return app


def _domain_error(request: HTTPConnection, error: Exception) -> Response:
    if not isinstance(error, CarbonSchedError):
        raise error
    problem: Problem = {
        "type": f"about:blank#{error.code}",
        "title": error.code.replace("-", " "),
        "status": error.http_status,
        "detail": str(error),
        "code": error.code,
        "exit_code": error.exit_code,
    }
    if isinstance(error, InvalidInput):
        problem["field"], problem["value"], problem["remedy"] = error.field, error.value, error.remedy
    if request.url.path.startswith("/api/"):
        return ray.error_answer(error.http_status, str(error))
    headers = {"Retry-After": "1"} if error.retryable else None
    return JSONResponse(problem, error.http_status, headers, media_type="application/problem+json")


def _request_error(request: Request, error: Exception) -> Response:
    """The first thing the schema found, said as every other bad input is."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    remedy = "See GET /v1/openapi.json for what is accepted"
    value = first.get("input", "")
    # whole bodies, unknown fields and what belongs into these fields may hold secrets in the wrong place
    if (
        not isinstance(value, (str, int, float))
        or first["type"] == "extra_forbidden"
        or MAY_HOLD_SECRETS & {*first["loc"]}
    ):
        value = "(not shown)"
    return _domain_error(request, InvalidInput(field or "body", value, first["msg"].lower(), remedy))


def _bug(_request: Request, error: Exception) -> JSONResponse:
    log.error("request failed with a bug", exc_info=error)
    problem = {
        "type": "about:blank#internal",
        "title": "internal",
        "status": 500,
        "code": "internal",
        "exit_code": 127,
        "detail": "a bug in carbon-sched; the server's log has the details (`carbon-sched server logs`)",
    }
    return JSONResponse(problem, 500, media_type="application/problem+json")
