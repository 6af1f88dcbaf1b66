"""The page of one job: its life, the decision behind it, its energy, its receipt, its output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Request, Response

from carbon_sched.api import footprints
from carbon_sched.api import jobs as api
from carbon_sched.api.access import Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.dashboard import plots
from carbon_sched.api.dashboard.pages import PageRoute, render, seen
from carbon_sched.api.dashboard.queue import priced
from carbon_sched.api.policies import effective_for_job
from carbon_sched.domain.errors import CarbonSchedError, ClusterError, NotFound
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import from_rfc3339
from carbon_sched.domain.units import UJ_PER_J
from carbon_sched.ledger.account import Part, actual
from carbon_sched.ledger.book import Book
from carbon_sched.wire import DecisionView, Receipt

router = APIRouter(route_class=PageRoute)

TAIL = 24_000
"""Bytes of output on the page; the rest is a click away."""
KINDS = {"gpu": "c1", "cpu": "c3", "dram": "c4", "node": "c6"}
CHOICES = 50
"""Jobs that are offered to be compared."""
POINTS = 600
"""Moments of a power curve."""


@router.get("/jobs/{job_id}", include_in_schema=False)
def show(request: Request, job_id: str, context: Ctx, caller: Reader) -> Response:
    """The page."""
    view, now = api.view_of(context, caller, job_id), seen(context)
    decision = _decision(context, job_id, caller)
    receipt = api.show_receipt(job_id, context, caller)
    log, problem = _log(context, job_id)
    return render(
        request, caller, "job.html", now=now,
        job=view,
        events=api.show_events(job_id, context, caller),
        decision=decision,
        row=priced(context, [view])[0] if decision else None,
        curve=_starts(decision) if decision else None,
        receipt=receipt,
        devices=_by_kind(receipt),
        policy=effective_for_job(job_id, context, caller),
        log=log,
        log_problem=problem,
    )  # fmt: skip


def _decision(context: Context, job_id: str, caller: Reader) -> DecisionView | None:
    try:
        return api.show_decision(job_id, context, caller)
    except NotFound:
        return None


def _log(context: Context, job_id: str) -> tuple[str, str]:
    """The end of the newest attempt's output; else what is in the way of it."""
    try:
        whole = context.logs.read(job_id, 0, 0.0)["text"]
    except ClusterError as error:
        return "", str(error)
    return whole[-TAIL:], ""


def _by_kind(receipt: Receipt) -> list[tuple[str, int]]:
    sums: dict[str, int] = defaultdict(int)
    for device in receipt["devices"]:
        sums[device["kind"]] += round(device["energy_j"] * UJ_PER_J)
    return [(kind, sums[kind]) for kind in sorted(sums)]


def _starts(decision: DecisionView) -> Any:
    """What every start on the chosen cluster would emit, with the plan's own start."""
    curve = decision["curve"]
    if len(curve) < 2:
        return None
    moments = [from_rfc3339(one["start"]) for one in curve]
    span = plots.Span(moments[0], moments[-1])
    most = max(one["high_g"] for one in curve)
    ends = [*moments[1:], moments[-1]]
    both = [(span.at(a), span.at(b)) for a, b in zip(moments, ends, strict=True)]
    lines = [(a, b, one["co2e_g"]) for (a, b), one in zip(both, curve, strict=True)]
    bands = [(a, b, one["low_g"], one["high_g"]) for (a, b), one in zip(both, curve, strict=True)]
    chosen = decision["start"]
    mark = plots.upright(span, from_rfc3339(chosen), 110, "present") if chosen else ""
    inner = plots.stretched(0, 110, plots.area(lines, most), plots.band(bands, most), plots.line(lines, most))
    least = min(one["co2e_g"] for one in curve)
    label = f"Expected CO2e by start: from {least:.3g} g to {max(one['co2e_g'] for one in curve):.3g} g"
    rows = [(one["start"], one["co2e_g"], one["low_g"], one["high_g"]) for one in curve]
    figures = plots.Figures(("start", "g CO2e", "low (g CO2e)", "high (g CO2e)"), rows)
    return plots.picture(130, label, *plots.hours(span, 0, 110), inner, mark, figures=figures)


# ------------------------------------------------------------------------------------------------------ power, live


@router.get("/jobs/{job_id}/power.json", include_in_schema=False)
def power(job_id: str, context: Ctx, caller: Reader) -> dict[str, Any]:
    """Power by kind of device over the job's life, and the intensity that each moment is booked with."""
    api.require_visible(context, caller, job_id)
    parts = context.statements.of([job_id], lambda book: _parts(book, job_id))
    return curves(parts)


def _parts(book: Book, job_id: str) -> list[Part]:
    job = book.jobs.get(job_id)
    return [] if job is None else [part for attempt in job.attempts.values() for part in actual(attempt).parts]


def curves(parts: Sequence[Part]) -> dict[str, Any]:
    """Watts of each kind of device and g/kWh, at moments that are no closer than a chart can show."""
    if not parts:
        return {
            "times": [],
            "rows": [],
            "step": True,
            "empty": "No energy is booked yet: journals come every half minute.",
        }
    start, end = min(part.start for part in parts), max(part.end for part in parts)
    step = max(timedelta(seconds=1), (end - start) / POINTS)
    edges = sorted({start + step * ((edge - start) // step) for part in parts for edge in (part.start, part.end)})
    if len(edges) == 1:
        edges.append(edges[0] + step)
    kinds = sorted({part.channel.device_kind for part in parts})
    rows: list[dict[str, Any]] = [
        {
            "label": kind,
            "unit": "W",
            "fill": True,
            "values": _watts([p for p in parts if p.channel.device_kind == kind], edges),
        }
        for kind in kinds
    ]
    rows.append({"label": "grid", "unit": "g/kWh", "right": True, "values": _grid(parts, edges)})
    return {"times": [edge.timestamp() for edge in edges], "rows": rows, "step": True}


def _watts(parts: Sequence[Part], edges: Sequence[datetime]) -> list[float | None]:
    """Mean power between each edge and the next; the last repeats, so that the step is drawn to its end."""
    joules = [0.0] * len(edges)
    ordered = sorted(parts, key=lambda part: part.start)
    for part in ordered:
        length = (part.end - part.start).total_seconds()
        for number in range(len(edges) - 1):
            inside = (min(part.end, edges[number + 1]) - max(part.start, edges[number])).total_seconds()
            if inside > 0:
                joules[number] += part.energy_uj / UJ_PER_J * inside / length
    watts: list[float | None] = [
        joules[number] / (edges[number + 1] - edges[number]).total_seconds() for number in range(len(edges) - 1)
    ]
    return [*watts, watts[-1]]


def _grid(parts: Sequence[Part], edges: Sequence[datetime]) -> list[float | None]:
    readings = sorted({part.reading for part in parts if part.reading}, key=lambda one: one.start)
    found: list[float | None] = []
    for edge in edges:
        holds = next((one for one in readings if one.start <= edge < one.end), None)
        found.append(holds.intensity_mg_per_kwh / 1000 if holds else found[-1] if found else None)
    return found


# --------------------------------------------------------------------------------------------------------- comparing


@router.get("/compare", include_in_schema=False)
def compare(request: Request, context: Ctx, caller: Reader, a: str = "", b: str = "", per: str = "job") -> Response:
    """Two jobs, or two names of jobs, beside each other under equal conditions."""
    found, problem = None, ""
    if a and b:
        try:
            found = footprints.show_comparison(context, caller, side=[a, b], per=per)
        except CarbonSchedError as error:
            problem = str(error)
    ended = api.list_jobs(context, caller, state=[JobState.SUCCEEDED.value], limit=CHOICES)["jobs"]
    return render(
        request, caller, "compare.html", now=seen(context), found=found, problem=problem, a=a, b=b, per=per, ended=ended
    )
