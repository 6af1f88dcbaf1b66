"""The page Queue: jobs over clusters, past and planned, on top of the grid's intensity; and why each one waits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup, escape

from carbon_sched.api import jobs as api
from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.dashboard import plots
from carbon_sched.api.dashboard.answers import answer
from carbon_sched.api.dashboard.pages import PageRoute, render, seen
from carbon_sched.domain.cluster import Cluster
from carbon_sched.domain.intensity import Reading
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import UTC
from carbon_sched.ledger.book import Book
from carbon_sched.ledger.figures import shown
from carbon_sched.ports import Transaction
from carbon_sched.wire import JobView

router = APIRouter(route_class=PageRoute)

PAGE = 50
PAST, AHEAD = timedelta(hours=18), timedelta(hours=30)
MOST_BARS = 400
"""Bars of the plan: the newest; older ones of a busy day are left out, and the page says so."""
FEW = 12
"""So many clusters are always drawn; of more, those with jobs."""
LANES, LANE = 4, 9
"""Jobs drawn one above another on a cluster before they share a lane, and its height in pixels."""
RUNNING = "running"
VIEWS = {
    "live": [state.value for state in JobState if not state.final],
    "waiting": [JobState.QUEUED.value],
    "running": [state.value for state in JobState if not state.final and state is not JobState.QUEUED],
    "ended": [state.value for state in JobState if state.final],
}


@dataclass(frozen=True)
class Planned:
    """What a decision expects: `best_g` of the plan, `now_g` the least of a start at once on any cluster that can."""

    cluster: str | None
    start: datetime | None
    length: timedelta
    best_g: float | None
    now_g: float | None


@dataclass(frozen=True)
class Row:
    """A job of the table, with what is planned while it waits."""

    job: JobView
    plan: Planned | None

    @property
    def cost_g(self) -> float | None:
        """What starting now would cost beyond the plan."""
        plan = self.plan
        return None if plan is None or plan.best_g is None or plan.now_g is None else plan.now_g - plan.best_g


@dataclass(frozen=True)
class Bar:
    """One attempt, or the planned run of a waiting job."""

    job_id: str
    name: str
    cluster: str
    start: datetime
    end: datetime
    kind: str


@dataclass(frozen=True)
class Lane:
    """A cluster of the plan with its picture."""

    name: str
    zone: str
    g_per_kwh: float | None
    chart: Markup


@router.get("/queue", include_in_schema=False)
def show(
    request: Request,
    context: Ctx,
    caller: Reader,
    show: Annotated[str, Query(pattern=f"^({'|'.join(VIEWS)})$")] = "live",
    team: str | None = None,
    name: str | None = None,
    after: str | None = None,
) -> Response:
    """The page."""
    now = seen(context)
    found = api.list_jobs(
        context, caller, state=VIEWS[show], team=team or None, name=name or None, after=after, limit=PAGE
    )
    rows = priced(context, found["jobs"])
    waiting = rows if show in ("live", "waiting") else []
    bars, left_out = _bars(context, caller.teams, waiting, now)
    return render(
        request, caller, "queue.html", now=now,
        rows=rows, next=found["next"], show=show, views=list(VIEWS), team=team or "", name=name or "",
        lanes=_lanes(context, bars, now), left_out=left_out, axis=_axis(now), counts=_counts(context),
    )  # fmt: skip


def _counts(context: Context) -> dict[str, int]:
    with context.store.transaction(write=False) as tx:
        return {state.value: number for state, number in tx.live_counts().items()}


def priced(context: Context, views: Sequence[JobView]) -> list[Row]:
    """The jobs with what their plans and a start at once would emit."""
    waiting = [view["job_id"] for view in views if view["state"] == JobState.QUEUED.value]
    with context.store.transaction(write=False) as tx:
        numbers = tx.decision_numbers(waiting) if waiting else {}
        plans = {
            name: context.answers.once(("plan", number), partial(_plan, tx, name)) for name, number in numbers.items()
        }
    return [Row(view, plans.get(view["job_id"])) for view in views]


def _plan(tx: Transaction, job_id: str) -> Planned | None:
    decision = tx.decision(job_id)
    if decision is None:
        return None
    nows = (one.now_co2e_g for one in decision.candidates if one.feasible and one.now_co2e_g is not None)
    length = timedelta(seconds=decision.expected_duration_s or 0)
    return Planned(decision.cluster, decision.start, length, decision.expected_co2e_g, min(nows, default=None))


# ---------------------------------------------------------------------------------------------------------- the plan


def _bars(
    context: Context, teams: frozenset[str] | None, waiting: Sequence[Row], now: datetime
) -> tuple[list[Bar], int]:
    """Attempts of the last hours by the ledger, and planned runs; the second number counts bars that are left out."""
    found = answer(
        context, ("attempts", teams), partial(_of_late, context, now - PAST), lambda book: _attempts(book, teams, now)
    )
    past = [_until(bar, now) for bar in found.value] if found else []
    planned = [bar for row in waiting if (bar := _planned(row, now))]
    newest = sorted(past, key=lambda bar: bar.start)[-MOST_BARS:]
    return [*newest, *planned], len(past) - len(newest)


def _of_late(context: Context, since: datetime, question: Callable[[Book], Any]) -> Any:
    """A book of the jobs that are not over since long, without their energy."""
    jobs = context.statements.look(
        lambda index: [index.jobs[number].job_id for number in {*index.since(since), *index.live}]
    )
    return context.statements.of(jobs, question, since=datetime.max.replace(tzinfo=UTC))


def _until(bar: Bar, now: datetime) -> Bar:
    """What runs is drawn until now."""
    return replace(bar, end=max(now, bar.start)) if bar.kind == RUNNING else bar


def _attempts(book: Book, teams: frozenset[str] | None, now: datetime) -> list[Bar]:
    found = []
    for job in book.jobs.values():
        if (job.ended_at is not None and job.ended_at < now - PAST) or (teams is not None and job.team not in teams):
            continue
        for attempt in job.attempts.values():
            start, end = attempt.started_at or attempt.opened_at, attempt.ended_at or job.ended_at or now
            if end >= now - PAST and start <= end:
                kind = attempt.outcome or RUNNING
                found.append(Bar(job.job_id, job.name, attempt.cluster, start, end, kind))
    return found


def _planned(row: Row, now: datetime) -> Bar | None:
    plan = row.plan
    if plan is None or plan.cluster is None or plan.start is None:
        return None
    start = max(plan.start, now)
    return Bar(row.job["job_id"], row.job["name"], plan.cluster, start, start + plan.length, "planned")


def _lanes(context: Context, bars: Sequence[Bar], now: datetime) -> list[Lane]:
    """Clusters with anything to show, by name; without any, all of them."""
    clusters = context.fleet.all()
    busy = {bar.cluster for bar in bars}
    drawn = clusters if len(clusters) <= FEW else [one for one in clusters if one.name in busy] or clusters[:FEW]
    span = plots.Span(now - PAST, now + AHEAD)
    expected = context.outlooks.shown([cluster.zone for cluster in clusters], now)
    curves = {
        zone: [*context.outlooks.actual(zone, span.start, now, now), *expected[zone]]
        for zone in {cluster.zone for cluster in drawn}
    }
    by_cluster: dict[str, list[Bar]] = defaultdict(list)
    for bar in bars:
        by_cluster[bar.cluster].append(bar)
    most = max((one.intensity_mg_per_kwh for readings in curves.values() for one in readings), default=1)
    return [_lane(cluster, by_cluster[cluster.name], curves[cluster.zone], span, now, most) for cluster in drawn]


def _lane(
    cluster: Cluster, bars: Sequence[Bar], readings: Sequence[Reading], span: plots.Span, now: datetime, most: int
) -> Lane:
    placed = stacked(bars)
    height = max(40, 14 + LANE * (1 + max((lane for _, lane in placed), default=0)))
    points = plots.intensities(readings, span)
    present = next((one for one in readings if one.start <= now < one.end), None)
    g_per_kwh = present.intensity_mg_per_kwh / 1000 if present else None
    label = f"{cluster.name}: {len(bars)} jobs over the intensity of {cluster.zone}"
    parts: list[Any] = [
        plots.stretched(0, height - 5, plots.area(points, most), plots.line(points, most)),
        *plots.ribbon(points, height - 4, 4),
        *(_drawn(bar, lane, span) for bar, lane in placed),
        plots.upright(span, now, height, "present"),
    ]
    return Lane(cluster.name, cluster.zone, g_per_kwh, plots.picture(height, shown(label), *parts, role="group"))


def stacked(bars: Iterable[Bar]) -> list[tuple[Bar, int]]:
    """Each bar with a lane in which it meets none, as far as there are lanes."""
    free: list[datetime] = []
    placed = []
    for bar in sorted(bars, key=lambda bar: (bar.start, bar.job_id)):
        lane = next((number for number, until in enumerate(free) if until <= bar.start), len(free))
        if lane == len(free) and lane < LANES:
            free.append(bar.end)
        elif lane == len(free):
            lane = min(range(LANES), key=free.__getitem__)
        free[lane] = max(free[lane], bar.end)
        placed.append((bar, lane))
    return placed


def _drawn(bar: Bar, lane: int, span: plots.Span) -> str:
    a, b = span.at(bar.start), span.at(bar.end)
    title = escape(shown(f"{bar.name}: {bar.kind}, {bar.start:%-d %b %H:%M} to {bar.end:%-d %b %H:%M}"))
    place = f'x="{a:.2f}%" width="{max(b - a, 0.25):.2f}%" y="{5 + lane * LANE}" height="{LANE - 2}" rx="2"'
    drawn = f'<rect class="bar bar-{escape(bar.kind)}" {place}><title>{title}</title></rect>'
    return f'<a href="/jobs/{escape(bar.job_id)}" aria-label="{title}">{drawn}</a>'


def _axis(now: datetime) -> Markup:
    span = plots.Span(now - PAST, now + AHEAD)
    return plots.picture(20, "Hours from before to after now", *plots.hours(span, 0, 4, most=12), kind="axis")
