"""Routes about grid intensity."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from carbon_sched.api.access import Operator, Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.instants import aware
from carbon_sched.api.views import intensity_view, skill_view
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.wire import GridCheck, GridForecast, GridHistory, GridNow, ProviderView

router = APIRouter(prefix="/v1")

NOW = timedelta(hours=1)
LEAST_HOURS, MAX_HOURS = 0.1, 168.0
PAST = timedelta(days=1)

Zones = Annotated[list[str] | None, Query()]


def _known(context: Context, zones: list[str] | None) -> list[str]:
    return [context.known_zone(zone) for zone in zones or []]


@router.get("/grid/now")
def show_now(context: Ctx, _caller: Reader, zone: Zones = None) -> GridNow:
    """The intensity that holds now, of these zones or of those of all clusters."""
    found = context.intensities.expected(_known(context, zone), NOW)
    readings = [intensity_view(readings[0]) for readings in found.readings.values()]
    return {"at": to_rfc3339(found.now), "readings": readings, "notes": list(found.notes)}


@router.get("/grid/forecast")
def show_forecast(
    context: Ctx,
    _caller: Reader,
    zone: Zones = None,
    hours: Annotated[float, Query(ge=LEAST_HOURS, le=MAX_HOURS)] = 48.0,
) -> GridForecast:
    """What is expected from now on, comparable between the zones."""
    found = context.intensities.expected(_known(context, zone), timedelta(hours=hours))
    return {
        "at": to_rfc3339(found.now),
        "until": to_rfc3339(found.until),
        "zones": [
            {"zone": name, "readings": [intensity_view(r) for r in rs], "skill": skill_view(found.records[name])}
            for name, rs in found.readings.items()
        ],
        "notes": list(found.notes),
    }


@router.get("/grid/history")
def show_history(context: Ctx, _caller: Reader, zone: str, since: datetime | None = None) -> GridHistory:
    """What would be booked from `since` (a day ago when not given) until now."""
    known = context.known_zone(zone)
    begin = aware("since", since) or context.clock.now() - PAST
    until, readings = context.intensities.past(known, begin)
    return {
        "zone": known,
        "since": to_rfc3339(begin),
        "until": to_rfc3339(until),
        "readings": [intensity_view(reading) for reading in readings],
    }


@router.get("/grid/providers")
def show_providers(context: Ctx, _caller: Reader) -> list[ProviderView]:
    """Every provider there is, configured ones first."""
    return context.grid_providers()


@router.post("/grid/check")
def check(context: Ctx, _caller: Operator, zone: Zones = None) -> GridCheck:
    """Ask each configured provider once, for one of these zones or of the clusters', and say what is wrong."""
    zones = _known(context, zone) or context.fleet.zones()
    return {"findings": context.check_grid(zones)}
