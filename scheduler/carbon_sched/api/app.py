"""Build the FastAPI application: authentication, error answers, routers."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from carbon_sched import __version__
from carbon_sched.api import (
    budgets,
    clusters,
    footprints,
    grid,
    jobs,
    journal,
    ledger,
    metrics,
    policies,
    problems,
    schedules,
    serve_apps,
    server,
    streams,
    tokens,
)
from carbon_sched.api.access import Guarded, guarded
from carbon_sched.api.dashboard.pages import assets
from carbon_sched.api.dashboard.routes import DASHBOARD
from carbon_sched.api.gate import Gate
from carbon_sched.api.ray import routes as ray
from carbon_sched.domain.errors import CarbonSchedError

if TYPE_CHECKING:
    from carbon_sched.api.context import Context

log = logging.getLogger(__name__)

ROUTERS = (
    jobs.router,  # first, as they are asked for most
    server.public,
    tokens.public,
    metrics.router,
    ray.router,
    assets,
    *DASHBOARD,
    *(module.router for module in (server, tokens, schedules, streams, journal, clusters, policies, budgets, grid)),
    *(module.router for module in (ledger, footprints, serve_apps)),
)


def create_app(context: Context) -> FastAPI:
    """The application serving `context`; every route says who may use it, or is one of the few that anybody may."""
    app = FastAPI(
        title="carbon-sched", version=__version__, docs_url=None, redoc_url=None, openapi_url="/v1/openapi.json"
    )
    app.state.context = context

    app.add_middleware(metrics.Timed, metrics=context.metrics)
    app.add_middleware(Gate, names=context.names)
    table: list[Guarded] = []
    for router in ROUTERS:
        table += guarded(router)
        app.router.routes += router.routes  # including a router makes every route anew, at the first request
    app.state.routes = table
    app.add_exception_handler(CarbonSchedError, problems.domain_error)
    app.add_exception_handler(RequestValidationError, problems.request_error)
    app.add_exception_handler(HTTPException, problems.http_error)
    app.add_exception_handler(Exception, problems.bug)
    return app
