"""From what a backtest is given (files, options) to the scenario that is replayed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.simulate.feed import LEAST_HISTORY_H, forecasts
from carbon_sched.simulate.scenario import TRAILING_H, Scenario, check_fit, homes, steps, units_of
from carbon_sched.simulate.sizing import sized
from carbon_sched.simulate.slack import parse_slack
from carbon_sched.simulate.traces import Jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.simulate.traces import Grid

HOUR = timedelta(hours=1)
STEPS_MIN = (5, 10, 15, 30, 60)
QUEUE_H = 14 * 24
"""What is looked at beyond the last job's latest end: where clusters are full, jobs queue up."""
MOST_STEPS = 2200
"""Steps are as fine as keeps a replay below this many plans, an hour at most."""


@dataclass(frozen=True)
class Options:
    """What may be asked of a backtest; see `carbon-sched policy backtest --help`.

    `step_min` is the resolution in minutes, one of `STEPS_MIN`; None: as fine as the length of the trace allows.
    """

    start: datetime | None = None
    days: float | None = None
    sample: int | None = None
    seed: int = 0
    utilisation: float | None = None
    slack: str = "6h<2h:24h"
    forecast: str = "own"
    step_min: int | None = None


def scenario(jobs: Jobs, grid: Grid, clusters: Sequence[Cluster], options: Options) -> Scenario:
    """Everything on one clock; raises InvalidInput where the pieces do not fit together."""
    zones = list(dict.fromkeys(cluster.zone for cluster in clusters))
    if missing := [zone for zone in zones if zone not in grid.zones]:
        known = ", ".join(sorted(grid.zones))
        raise InvalidInput("clusters", ", ".join(missing), "is no zone with an intensity file", f"There are: {known}")
    begin = _begin(grid, zones, options.start)
    known_h = _known_from(grid, zones, begin)
    rule = parse_slack(options.slack)
    jobs = _chosen(jobs, options)
    step_h = (options.step_min or step_min(jobs)) / 60
    submitted = np.ceil(jobs.submitted_h / step_h - 1e-9) * step_h
    slack_h = np.floor(rule.hours(jobs.hours) / step_h + 1e-9) * step_h
    keep = submitted + slack_h + jobs.hours + step_h <= known_h
    if not keep.any():
        problem = f"leaves {known_h / 24:.0f} days of intensity, in which no job of the trace ends"
        raise InvalidInput("--start", to_rfc3339(grid.start + begin * HOUR), problem, "Start earlier, or add data")
    known_h = min(known_h, int(np.ceil((submitted + slack_h + jobs.hours)[keep].max())) + QUEUE_H)
    jobs = Jobs(submitted, jobs.hours, jobs.units, jobs.group, jobs.resource).take(keep)
    wanted = _wanted_units(jobs, step_h, options.utilisation)
    built = sized(clusters, jobs.resource, wanted, float(jobs.units.sum()))
    units = np.array([units_of(cluster, jobs.resource) for cluster in built])
    out = Scenario(
        start=grid.start + begin * HOUR,
        step_h=step_h,
        jobs=jobs,
        slack_h=slack_h[keep],
        home=homes(built, units, len(jobs), options.seed),
        clusters=built,
        resource=jobs.resource,
        truth={zone: grid.zones[zone][: begin + known_h] for zone in zones},
        begin=begin,
        forecast=forecasts(
            options.forecast, {z: v[: begin + known_h] for z, v in grid.zones.items()}, zones, grid.start, begin,
            options.seed,
        ),
    )  # fmt: skip
    check_fit(out)
    return out


def _begin(grid: Grid, zones: Sequence[str], start: datetime | None) -> int:
    """The hour the trace begins at: as asked, else 28 days after the data of all zones begin (or as they do)."""
    first = max(int(np.flatnonzero(np.isfinite(grid.zones[zone]))[0]) for zone in zones)
    if start is None:
        return first + TRAILING_H
    begin = int((start - grid.start) // HOUR)
    if begin < first + LEAST_HISTORY_H:
        earliest = to_rfc3339(grid.start + (first + LEAST_HISTORY_H) * HOUR)
        remedy = f"Start at {earliest} or later, so that there is a past to forecast from"
        raise InvalidInput("--start", to_rfc3339(start), "is too early for the intensity data", remedy)
    if begin >= grid.hours:
        end = to_rfc3339(grid.start + grid.hours * HOUR)
        raise InvalidInput("--start", to_rfc3339(start), "is after the intensity data", f"They end at {end}")
    return begin


def _known_from(grid: Grid, zones: Sequence[str], begin: int) -> int:
    """Hours from `begin` on in which every zone is known; holes are refused, since a hole must not win."""
    known = np.all([np.isfinite(grid.zones[zone][begin:]) for zone in zones], axis=0)
    last = int(np.flatnonzero(known)[-1]) + 1 if known.any() else 0
    holes = np.flatnonzero(~known[:last])
    if len(holes) or last == 0:
        at = to_rfc3339(grid.start + (begin + int(holes[0]) if len(holes) else begin) * HOUR)
        raise InvalidInput("intensity", at, "is not known in every zone", "Fill the gap, or choose another --start")
    return last


def _chosen(jobs: Jobs, options: Options) -> Jobs:
    keep = jobs.submitted_h < (np.inf if options.days is None else options.days * 24)
    which = np.flatnonzero(keep)
    if options.sample is not None and options.sample < len(which):
        draw = np.random.default_rng([options.seed, 0]).choice(which, options.sample, replace=False)
        which = np.sort(draw)
    if len(which) == 0:
        raise InvalidInput("--days", options.days, "holds no job of the trace", "Give more days")
    return jobs.take(which)


def step_min(jobs: Jobs) -> int:
    """The finest resolution at which a trace is replayed within `MOST_STEPS` plans."""
    span_min = float(jobs.submitted_h.max() - jobs.submitted_h.min()) * 60
    fitting = [step for step in STEPS_MIN if span_min / step <= MOST_STEPS]
    return fitting[0] if fitting else STEPS_MIN[-1]


def _wanted_units(jobs: Jobs, step_h: float, utilisation: float | None) -> float | None:
    """Units of capacity for a utilisation: work / (capacity x span of the arrivals)."""
    if utilisation is None:
        return None
    span_h = max(float(jobs.submitted_h.max() - jobs.submitted_h.min()), step_h)
    return float(np.sum(jobs.units * steps(jobs.hours, step_h))) * step_h / (utilisation * span_h)
