"""Routes for online services."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from carbon_sched.api.access import Reader, Submitter
from carbon_sched.api.context import Context, Ctx
from carbon_sched.domain.access import Principal
from carbon_sched.domain.errors import InvalidInput, NotFound, ServerUnavailable
from carbon_sched.domain.serve_app import ServeApp, Site
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import grams, joules
from carbon_sched.service.requests import BOUNDARY, Answered
from carbon_sched.wire import AppRequest, AppView, EndpointView, RequestsView, SiteView

router = APIRouter(prefix="/v1")

LONGEST_WINDOW_S = 7 * 86_400


@router.put("/serve-apps/{name}", status_code=202)
def deploy(name: str, request: AppRequest, context: Ctx, caller: Submitter) -> AppView:
    """Have the service run on the cleanest cluster that meets its limits; a known one is changed where it is."""
    if request["name"] != name:
        raise InvalidInput("name", request["name"], f"is not the one of the address, {name}", "Give one name")
    if any(app.name == name for app in context.serving.apps()):
        _visible(context, caller, name)
    job = context.boundaries.request({"entrypoint": "", "team": request.get("team", "")}, caller)
    request["team"] = job.get("team", "")
    return _view(context.serving.deploy(request, submitter=caller.name))


@router.get("/serve-apps")
def list_apps(context: Ctx, caller: Reader) -> list[AppView]:
    """Those of the caller's teams, by name."""
    return [_view(app) for app in context.serving.apps() if caller.sees(app.team)]


@router.get("/serve-apps/{name}")
def show_app(name: str, context: Ctx, caller: Reader) -> AppView:
    """One service: where it is, where it is going, and what a person should know."""
    return _view(_visible(context, caller, name))


@router.delete("/serve-apps/{name}", status_code=202)
def delete_app(name: str, context: Ctx, caller: Submitter) -> AppView:
    """Have it go from wherever it is; what it used is booked then."""
    _visible(context, caller, name)
    return _view(context.serving.delete(name, by=caller.name))


@router.get("/serve-apps/{name}/endpoint")
def endpoint(name: str, response: Response, context: Ctx, caller: Reader) -> EndpointView:
    """Where clients reach it now. They may keep the address for `max_age_s`: so long it answers, whatever moves."""
    app = _visible(context, caller, name)
    if app.current is None:
        raise ServerUnavailable(f"the service {name} answers nowhere yet ({app.problem or app.state.value}). Ask again")
    response.headers["Cache-Control"] = f"private, max-age={app.spec.max_age_s:.0f}"
    return {
        "name": name,
        "address": app.current.address,
        "cluster": app.current.cluster,
        "max_age_s": app.spec.max_age_s,
    }


@router.get("/serve-apps/{name}/requests")
def requests(
    name: str,
    context: Ctx,
    caller: Reader,
    window_s: Annotated[float, Query(gt=0, le=LONGEST_WINDOW_S)] = 3600.0,
) -> RequestsView:
    """Joules and gCO2e per request and per output token over the newest window of about this length."""
    app = _visible(context, caller, name)
    since = context.clock.now() - timedelta(seconds=window_s)
    return _requests_view(name, context.requests.answered(app, since))


def _visible(context: Context, caller: Principal, name: str) -> ServeApp:
    """The service, or NotFound - also where it is another team's."""
    with context.store.transaction(write=False) as tx:
        app = tx.app(name)
    if not caller.sees(app.team):
        raise NotFound(f"there is no service {name!r}. `carbon-sched serve-app list` shows those there are")
    return app


def _view(app: ServeApp) -> AppView:
    return {
        "name": app.name,
        "state": app.state.value,
        "team": app.team,
        "model": str(app.spec.request.get("model", "")),
        "submitter": app.submitter,
        "created_at": to_rfc3339(app.created_at),
        "address": app.current.address if app.current else None,
        "current": _site_view(app.current) if app.current else None,
        "coming": _site_view(app.coming) if app.coming else None,
        "leaving": [_site_view(site) for site in app.leaving],
        "problem": app.problem,
    }


def _site_view(site: Site) -> SiteView:
    return {
        "cluster": site.cluster,
        "job_id": site.job_id,
        "address": site.address,
        "chosen_at": to_rfc3339(site.chosen_at),
        "expected_g_per_kwh": site.expected_g_per_kwh,
        "healthy_at": to_rfc3339(site.healthy_at) if site.healthy_at else None,
        "leaves_at": to_rfc3339(site.leaves_at) if site.leaves_at else None,
    }


def _requests_view(name: str, found: Answered) -> RequestsView:
    counts, energy_j = found.counts, joules(found.energy_uj)
    co2e_g = None if found.co2e_ug is None else grams(found.co2e_ug)
    return {
        "name": name,
        "since": to_rfc3339(found.since),
        "until": to_rfc3339(found.until),
        "boundary": BOUNDARY,
        "replicas": found.replicas,
        "requests": counts.requests,
        "failed": counts.failed,
        "serve_requests": None if found.by_serve is None else found.by_serve.requests,
        "serve_failed": None if found.by_serve is None else found.by_serve.failed,
        "input_tokens": counts.input_tokens,
        "output_tokens": counts.output_tokens,
        "batch_size": counts.batch_size,
        "p50_s": counts.latency_s(0.5),
        "p95_s": counts.latency_s(0.95),
        "energy_j": energy_j,
        "co2e_g": co2e_g,
        "j_per_request": _ratio(energy_j, counts.requests),
        "co2e_g_per_request": _ratio(co2e_g, counts.requests),
        "j_per_output_token": _ratio(energy_j, counts.output_tokens),
        "co2e_g_per_output_token": _ratio(co2e_g, counts.output_tokens),
    }


def _ratio(total: float | None, amount: int) -> float | None:
    return total / amount if total is not None and amount else None
