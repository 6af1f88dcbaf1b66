"""The page Now: the grid, the clusters, what the fleet emits at this moment, and what was saved this month."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from carbon_sched.api import clusters
from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.dashboard import plots
from carbon_sched.api.dashboard.answers import answer
from carbon_sched.api.dashboard.figures import first_of_month
from carbon_sched.api.dashboard.months import month
from carbon_sched.api.dashboard.pages import PageRoute, render, seen, team_of
from carbon_sched.domain.intensity import Reading
from carbon_sched.domain.job import ON_CLUSTER_STATES, Attempt, JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.domain.units import UJ_PER_J
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.records import AttemptRecord
from carbon_sched.service.outlooks import SHOWN
from carbon_sched.wire import ClusterView

router = APIRouter(route_class=PageRoute)

RECENT, STALE = timedelta(minutes=10), timedelta(minutes=20)
"""Over what time a job's power is averaged, and how old the newest reading may be."""
LATEST = 64
"""Stretches of an attempt's energy that are looked at for its newest reading."""


@dataclass(frozen=True)
class ZoneNow:
    """A zone in use: what holds now, what is expected, and its cleanest hours."""

    zone: str
    now: Reading
    clusters: int
    best: Reading
    chart: Any


@dataclass(frozen=True)
class Rate:
    """What running jobs emit at this moment: IT power x PUE x intensity.

    The power of `metered` jobs is what their meters said last, of `planned` ones what was expected of them; of
    `unknown` ones nobody knows, and they are not in the figure.
    """

    g_per_h: float
    power_w: float
    metered: int
    planned: int
    unknown: int


@router.get("/", include_in_schema=False)
def show(request: Request, context: Ctx, caller: Reader, team: str | None = None) -> Response:
    """The page."""
    now, mine = seen(context), team_of(caller, team)
    views = clusters.list_clusters(context, caller)
    readings = context.outlooks.shown([view["zone"] for view in views], now)
    return render(
        request, caller, "now.html", now=now,
        clusters=views,
        zones=zones(readings, views, now),
        curves={"src": "/curves.json"},
        rate=rate(context, caller.teams, views),
        states=states(context),
        month=month(context, first_of_month(now), mine),
        team=mine,
    )  # fmt: skip


@router.get("/curves.json", include_in_schema=False)
def curves(context: Ctx, _caller: Reader) -> dict[str, Any]:
    """What is expected of every zone in use, for the live chart: one row of hours, one row of g/kWh per zone."""
    now = seen(context)
    found = context.outlooks.shown(context.fleet.zones(), now)
    edges = sorted({reading.start for readings in found.values() for reading in readings} | {now + SHOWN})
    rows = [{"label": zone, "values": at_each(readings, edges)} for zone, readings in sorted(found.items())]
    return {"times": [edge.timestamp() for edge in edges], "rows": rows, "unit": "g/kWh", "step": True}


def at_each(readings: Sequence[Reading], moments: Sequence[datetime]) -> list[float | None]:
    """The intensity at each of these ordered moments; at the end that before it."""
    found: list[float | None] = []
    number = 0
    for moment in moments:
        while number < len(readings) - 1 and readings[number].end <= moment:
            number += 1
        found.append(readings[number].intensity_mg_per_kwh / 1000 if readings else None)
    return found


def zones(expected: dict[str, tuple[Reading, ...]], views: Sequence[ClusterView], now: datetime) -> list[ZoneNow]:
    """Zones in use, cleanest first, their pictures to one scale."""
    used = Counter(view["zone"] for view in views)
    span = plots.Span(now, now + SHOWN)
    most = max((one.high_mg_per_kwh or one.intensity_mg_per_kwh for rs in expected.values() for one in rs), default=1)
    made = [_zone(zone, readings, used[zone], span, most) for zone, readings in expected.items()]
    return sorted(made, key=lambda one: (one.now.intensity_mg_per_kwh, one.zone))


def _zone(zone: str, readings: Sequence[Reading], used: int, span: plots.Span, most: int) -> ZoneNow:
    best = min(readings, key=lambda one: (one.intensity_mg_per_kwh, one.start))
    label = (
        f"Expected intensity of {zone} over 48 hours: now {readings[0].intensity_mg_per_kwh / 1000:.0f} g/kWh, "
        f"least {best.intensity_mg_per_kwh / 1000:.0f} g/kWh at {to_rfc3339(max(best.start, span.start))}"
    )
    return ZoneNow(zone, readings[0], used, best, plots.forecast(readings, span, label, most))


def states(context: Context) -> dict[str, int]:
    """Jobs that have not ended: running (or on their way) and waiting."""
    with context.store.transaction(write=False) as tx:
        counts = tx.live_counts()
    return {
        "running": sum(counts.get(state, 0) for state in ON_CLUSTER_STATES),
        "waiting": counts.get(JobState.QUEUED, 0),
    }


def rate(context: Context, teams: frozenset[str] | None, views: Iterable[ClusterView]) -> Rate | None:
    """What the caller's jobs that run now emit, by what their meters said last, else by what was planned.

    None while the ledger is being read.
    """
    places = {view["name"]: view["pue"] * view["intensity_g_per_kwh"] / 1000 for view in views}
    with context.store.transaction(write=False) as tx:
        there = {one.attempt_id: one for one in tx.attempts(open_only=True) if one.cluster in places}
    now = context.clock.now()
    jobs = [one.job_id for one in there.values()]
    found = answer(
        context,
        ("watts", teams),
        partial(context.statements.of, jobs, since=now - STALE - RECENT),
        lambda book: _metered(book, there.values(), teams, now),
    )
    if found is None:
        return None
    metered = {name: one for name, one in found.value.items() if name in there}
    told = {name: _planned(context, name, job_id) for name, (job_id, watts) in metered.items() if watts is None}
    powers = {name: told.get(name) if watts is None else watts for name, (_, watts) in metered.items()}
    known = {name: watts for name, watts in powers.items() if watts is not None}
    return Rate(
        g_per_h=sum(watts * places[there[name].cluster] for name, watts in known.items()),
        power_w=sum(known.values()),
        metered=sum(watts is not None for _, watts in metered.values()),
        planned=sum(watts is not None for watts in told.values()),
        unknown=len(powers) - len(known),
    )


def _planned(context: Context, attempt_id: str, job_id: str) -> float | None:
    """Watts that were expected when the attempt was opened."""

    def look() -> float | None:
        with context.store.transaction(write=False) as tx:
            decision = tx.decision(job_id)
        return decision.expected_power_w if decision else None

    return context.answers.once(("power", attempt_id), look)


def _metered(
    book: Book, there: Iterable[Attempt], teams: frozenset[str] | None, now: datetime
) -> dict[str, tuple[str, float | None]]:
    """By attempt: its job, and watts over the last minutes that its journal speaks of; None where that is long ago."""
    found: dict[str, tuple[str, float | None]] = {}
    for one in there:
        job = book.jobs.get(one.job_id)
        if job is None or (teams is not None and job.team not in teams):
            continue
        record = job.attempts.get(one.attempt_id)
        found[one.attempt_id] = one.job_id, None if record is None else _watts(record, now)
    return found


def _watts(record: AttemptRecord, now: datetime) -> float | None:
    last = max((stretch.end for stretch in record.recorded[-LATEST:]), default=None)
    if last is None or last < now - STALE:
        return None
    since = last - RECENT
    counting = [stretch for stretch in record.stretches if stretch.start >= since]
    if not counting:
        return None
    seconds = (last - min(stretch.start for stretch in counting)).total_seconds()
    return sum(sum(stretch.energy_uj) for stretch in counting) / UJ_PER_J / seconds
