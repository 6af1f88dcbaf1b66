"""Grams that nobody can go below, and what better knowledge would be worth: the bounds of a backtest.

All are clairvoyant about jobs that have not come yet only where they say so, and all but the capacity bound leave room
for everybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.curve import Curve
from carbon_sched.planning.prices import price_path
from carbon_sched.planning.priors import DURATIONS_S
from carbon_sched.planning.problem import Problem
from carbon_sched.planning.waiting import best_start
from carbon_sched.simulate.start_time import learnt_beliefs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from carbon_sched.simulate.scenario import Scenario

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

CHUNK = 2_000_000
"""Offers looked at together, to bound memory."""
LENGTH_STEP = 0.04
SETTLED = 2e-4
HOUR_S = 3600.0


@dataclass(frozen=True, eq=False)
class Oracle:
    """The best start of every job, had it known the grid and its own run time and found room: `[J]` each."""

    grams: Floats
    cluster: Ints
    start_h: Floats


def start_time_oracle(scenario: Scenario) -> Oracle:
    """Every job at its cheapest cluster and start within its slack, on the steps of the scenario."""
    count = len(scenario.jobs)
    out = Oracle(np.empty(count), np.empty(count, dtype=np.int64), np.empty(count))
    for which, ticks, offers in _offers(scenario):
        flat = offers.reshape(len(which), -1)
        best = flat.argmin(axis=1)
        cluster, column = np.divmod(best, offers.shape[2])
        out.grams[which], out.cluster[which] = flat[np.arange(len(which)), best], cluster
        out.start_h[which] = ticks[np.arange(len(which)), column] * scenario.step_h
    return out


def _offers(scenario: Scenario) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Jobs in chunks, their start steps `[n, W]`, and grams `[n, L, W]`; infinite beyond the slack and where too small.

    Jobs of like slack come together, so that W is no wider than needed.
    """
    width = np.rint(scenario.slack_h / scenario.step_h).astype(np.int64) + 1
    order = np.argsort(width, kind="stable")
    lanes = len(scenario.clusters)
    at = 0
    while at < len(order):
        size = max(1, CHUNK // (lanes * int(width[order[at]])))
        which = order[at : at + size]
        if width[which[-1]] > 2 * width[which[0]]:
            which = which[width[which] <= 2 * width[which[0]]]
        at += len(which)
        ahead = np.arange(int(width[which].max()))
        ticks = scenario.ticks[which][:, None] + ahead
        starts = (ticks * scenario.step_h).astype(np.float64)
        offers = np.stack([scenario.grams(np.array(lane), starts, which) for lane in range(lanes)], axis=1)
        open_ = (ahead < width[which][:, None])[:, None, :] & _able(scenario, which)[:, :, None]
        yield which, ticks, np.where(open_, offers, np.inf)


def _able(scenario: Scenario, which: Ints) -> NDArray[np.bool_]:
    """`[n, L]` whether a cluster is large enough for a job."""
    out: NDArray[np.bool_] = scenario.jobs.units[which][:, None] <= scenario.units[None, :] + 1e-9
    return out


def suspend_oracle(scenario: Scenario) -> Floats:
    """`[J]` grams of every job in the cheapest hours of its run time plus slack, on the best single cluster."""
    jobs = scenario.jobs
    out = np.empty(len(jobs))
    lanes = np.arange(len(scenario.clusters))[:, None]
    able = _able(scenario, np.arange(len(jobs)))
    for i in range(len(jobs)):
        length = float(jobs.hours[i])
        borders = jobs.submitted_h[i] + np.arange(int(np.ceil(length + scenario.slack_h[i])) + 1)
        hourly = np.sort(np.diff(scenario.integral(lanes, borders[None, :]), axis=1), axis=1)
        whole = int(length)
        part = hourly[:, whole] * (length - whole) if whole < hourly.shape[1] else 0.0
        out[i] = np.min(np.where(able[i], hourly[:, :whole].sum(axis=1) + part, np.inf))
    return out * jobs.units * scenario.unit_kw


# our rule, with room for everybody and better knowledge ----------------------------------------------------------


def beliefs(scenario: Scenario) -> Floats:
    """`[J, K]` seconds as learnt from the trace's own past; the published prior while nothing has ended."""
    classes = np.unique(scenario.slack_h, return_inverse=True)[1]
    learnt = learnt_beliefs(scenario.jobs, classes)
    prior = np.interp(np.linspace(0, 1, learnt.shape[1]), np.linspace(0, 1, len(DURATIONS_S)), np.sort(DURATIONS_S))
    return np.where(np.isfinite(learnt), learnt, prior)


def ruled(scenario: Scenario, forecast: Mapping[str, Singles], believed: Floats) -> Floats:
    """`[J]` grams when every job starts by our rule: the least expected cost, asked again every hour, no capacity.

    With a perfect forecast this is what learnt run times allow; with true run times (`[J, 1]`) what a forecast allows.
    """
    jobs = scenario.jobs
    hour = np.floor(jobs.submitted_h).astype(np.int64)
    order = np.argsort(hour, kind="stable")
    place, start_h = np.zeros(len(jobs), dtype=np.int64), jobs.submitted_h.copy()
    waiting, at, issue = np.empty(0, dtype=np.int64), 0, int(hour.min())
    while at < len(order) or len(waiting):
        new = at + int(np.searchsorted(hour[order[at:]], issue, side="right"))
        waiting, at = np.concatenate([waiting, order[at:new]]), new
        if len(waiting):
            costs = _expected(scenario, forecast, believed, waiting, issue)
            now = best_start(costs.min(axis=1)) == 0
            gone = waiting[now]
            place[gone] = costs[now, :, 0].argmin(axis=1)
            start_h[gone] = issue + jobs.submitted_h[gone] % 1.0
            waiting = waiting[~now]
        issue += 1
    return scenario.grams(place, start_h)


def _expected(scenario: Scenario, forecast: Mapping[str, Singles], believed: Floats, which: Ints, issue: int) -> Floats:
    """`[n, L, W]` expected grams per kilowatt of the starts that each job has left; column 0 is now."""
    jobs, belief = scenario.jobs, believed[which]
    left = np.floor(scenario.slack_h[which]).astype(np.int64) - (issue - np.floor(jobs.submitted_h[which])).astype(int)
    ahead = np.arange(int(left.max()) + 1)
    starts = (jobs.submitted_h[which][:, None] % 1.0 + ahead) * HOUR_S
    weights = np.full(belief.shape, 1.0 / belief.shape[1])
    curves = [_curve(forecast[cluster.zone], issue) for cluster in scenario.clusters]
    costs = np.stack([curve.ranked_g(starts, belief, weights) for curve in curves], axis=1)
    costs *= scenario.pue[None, :, None]
    open_ = (ahead <= left[:, None])[:, None, :] & _able(scenario, which)[:, :, None]
    return np.where(open_, costs, np.inf)


def _curve(forecast: Singles, issue: int) -> Curve:
    row = forecast[min(issue, len(forecast) - 1)].astype(np.float64)
    return Curve.from_values((np.arange(len(row) + 1) * HOUR_S).tolist(), row)


# capacity ------------------------------------------------------------------------------------------------------------


def capacity_bound(scenario: Scenario, oracle: Oracle) -> float:
    """Grams that no schedule within the clusters' capacity can go below, all jobs and the grid known in advance.

    The Lagrangian dual of capacity: prices come from jobs grouped by length, the bound itself is then evaluated job by
    job at those prices, so that it holds whatever the grouping. Where the oracle's own schedule fits, that is it.
    """
    if _fits(scenario, oracle):
        return float(oracle.grams.sum())
    problem = problem_of(scenario, np.rint(np.log(scenario.jobs.hours) / LENGTH_STEP).astype(np.int64))
    best = 0.0
    for _, prices in price_path(problem):
        before, best = best, max(best, _dual(scenario, problem, prices))
        if best <= before * (1 + SETTLED):
            break
    return max(best, float(oracle.grams.sum()))


def _fits(scenario: Scenario, oracle: Oracle) -> bool:
    ticks = np.rint(oracle.start_h / scenario.step_h).astype(np.int64)
    ends = ticks + scenario.held
    change = np.zeros((len(scenario.clusters), int(ends.max()) + 1))
    np.add.at(change, (oracle.cluster, ticks), scenario.jobs.units)
    np.add.at(change, (oracle.cluster, ends), -scenario.jobs.units)
    return bool((np.cumsum(change, axis=1) <= scenario.units[:, None] + 1e-6).all())


def problem_of(scenario: Scenario, kind: Ints) -> Problem:
    """The whole scenario as one problem; jobs of one `kind` `[J]` count as of their mean length."""
    kinds, group = np.unique(kind, return_inverse=True)
    counts = np.bincount(group)
    hours = np.bincount(group, weights=scenario.jobs.hours) / counts
    slots = np.maximum(np.rint(np.bincount(group, weights=scenario.held) / counts), 1).astype(np.int64)
    base = int(scenario.ticks.min())
    width = np.rint(scenario.slack_h / scenario.step_h).astype(np.int64)
    starts = int((scenario.ticks + width).max()) + 1 - base
    begin = ((np.arange(starts) + base) * scenario.step_h).astype(np.float64)
    lanes = np.arange(len(scenario.clusters))[:, None]
    cost = np.empty((len(kinds), len(lanes), starts), dtype=np.float32)
    for g, length in enumerate(hours.tolist()):
        run = scenario.integral(lanes, begin[None, :] + length) - scenario.integral(lanes, begin[None, :])
        cost[g] = run * scenario.unit_kw
    return Problem(
        step_h=scenario.step_h,
        coarse=max(1, round(1 / scenario.step_h)),
        cost=cost,
        slots=slots,
        capacity=np.repeat(scenario.units[:, None], starts + int(scenario.held.max()) + 1, axis=1),
        group=group,
        units=scenario.jobs.units,
        first=scenario.ticks - base,
        last=scenario.ticks - base + width,
        level=np.zeros(len(group), dtype=np.int64),
        urgency=np.zeros(len(group), dtype=np.int64),
    )


def _dual(scenario: Scenario, problem: Problem, prices: Floats) -> float:
    """The dual's value at these prices, with every job's own length and cost."""
    paid = problem.paid(prices)
    base = int(scenario.ticks.min())
    total = -float(np.sum(prices * problem.price_capacity))
    for which, ticks, offers in _offers(scenario):
        ends = np.minimum(ticks - base + scenario.held[which][:, None], problem.horizon)
        charge = paid[:, ends] - paid[:, np.minimum(ticks - base, problem.horizon)]
        whole = offers + charge.swapaxes(0, 1) * scenario.jobs.units[which][:, None, None]
        total += float(whole.reshape(len(which), -1).min(axis=1).sum())
    return total
