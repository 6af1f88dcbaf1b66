"""One zone with room for everybody: when each job of a trace starts, decided hour by hour as in production."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.curve import Curve
from carbon_sched.planning.experience import Experience
from carbon_sched.planning.waiting import Gate, best_start, promised

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

HOUR_S = 3600.0
POINTS = 16


@dataclass(frozen=True, eq=False)
class Waits:
    """How a trace is replayed in one zone.

    Attributes:
        jobs: the trace; its time 0 is hour 0 of the intensities.
        slack: `[J]` whole hours a job may wait; it may start at its submission and every full hour after it.
        beliefs: `[J, K]` equally likely run times in seconds, as believed when the job was submitted.
        classes: `[J]` class of each job, for the gate.
    """

    jobs: Jobs
    slack: Ints
    beliefs: Floats
    classes: Ints


@dataclass(frozen=True)
class Rule:
    """How a job's start is chosen from the expected costs; see `planning.waiting`."""

    min_gain: float = 0.0
    gated: bool = False
    replan: bool = True


def slack_hours(jobs: Jobs, *, short_h: float = 2.0, short: int = 6, long: int = 24) -> Ints:
    """The field's usual rule (GAIA): six hours for jobs below two, a day for the others.

    It tells the planner whether a job is short: information from the true duration, as in every paper that uses it.
    """
    return np.where(jobs.hours < short_h, short, long)


def learnt_beliefs(jobs: Jobs, classes: Ints, points: int = POINTS) -> Floats:
    """`[J, points]` run times in seconds as believed at submission: learnt from jobs that had ended before that day."""
    sizes = np.unique(jobs.units, return_inverse=True)[1]
    experience = Experience(int(classes.max()) + 1, int(sizes.max()) + 1)
    ended = np.argsort(jobs.submitted_h + jobs.hours, kind="stable")
    ends = (jobs.submitted_h + jobs.hours)[ended]
    days = np.floor(jobs.submitted_h / 24).astype(np.int64)
    out = np.full((len(jobs), points), np.nan)
    known = 0
    for day in np.unique(days):
        until = int(np.searchsorted(ends, day * 24.0))
        new, known = ended[known:until], until
        experience.add(classes[new], sizes[new], jobs.hours[new] * HOUR_S)
        today = np.flatnonzero(days == day)
        kinds, which = np.unique(np.stack([classes[today], sizes[today]]), axis=1, return_inverse=True)
        out[today] = experience.beliefs(kinds[0], kinds[1], points)[which]
    return out


def decide(
    waits: Waits, forecast: Singles, first_issue: int, rule: Rule, believed: NDArray[np.bool_] | None = None
) -> Ints:
    """Hours each job waits, `[J]`; -1 for jobs submitted before the first forecast or whose belief is unknown.

    Args:
        waits: the jobs, their slack and what is believed of them.
        forecast: `[issues, leads]` g/kWh; row i was issued at the beginning of hour `first_issue + i` and its column k
            is the expected intensity of hour `first_issue + i + k`.
        first_issue: see above.
        rule: how to choose.
        believed: `[issues]` whether a forecast may be acted on (`planning.trust`); where not, nobody waits.
    """
    jobs = waits.jobs
    waited = np.full(len(jobs), -1)
    hour = np.floor(jobs.submitted_h).astype(np.int64)
    usable = (hour >= first_issue) & (hour < first_issue + len(forecast)) & np.isfinite(waits.beliefs[:, 0])
    arrivals = _by_hour(np.flatnonzero(usable), hour)
    gate, waiting = Gate(), np.empty(0, dtype=np.int64)
    edges = np.arange(forecast.shape[1] + 1) * HOUR_S
    for issue, row in enumerate(forecast, start=first_issue):
        new = arrivals.get(issue, np.empty(0, dtype=np.int64))
        waiting = np.concatenate([waiting, new])
        if len(waiting) == 0:
            continue
        costs = _costs(waits, waiting, Curve.from_values(edges, row.astype(np.float64)), issue)
        wait = best_start(costs)
        if believed is not None and not believed[issue - first_issue]:
            wait[:] = 0
        if len(new):
            gate = _turned_away(waits, rule, gate, issue, new, costs[-len(new) :], wait[-len(new) :])
        if rule.replan:
            start = wait == 0
            waited[waiting[start]] = (issue - hour[waiting])[start]
            waiting = waiting[~start]
        else:
            waited[waiting], waiting = wait, waiting[:0]
    return waited


def _by_hour(which: Ints, hour: Ints) -> dict[int, Ints]:
    ordered = which[np.argsort(hour[which], kind="stable")]
    hours, begins = np.unique(hour[ordered], return_index=True)
    return dict(zip(hours.tolist(), np.split(ordered, begins)[1:], strict=True))


def _costs(waits: Waits, which: Ints, curve: Curve, issue: int) -> Floats:
    """Expected grams per kilowatt for every start that each job has left, `[n, m]`; column 0 is now."""
    jobs, belief = waits.jobs, waits.beliefs[which]
    offset = jobs.submitted_h[which] % 1.0
    left = waits.slack[which] - (issue - np.floor(jobs.submitted_h[which]).astype(np.int64))
    ahead = np.arange(int(left.max()) + 1)
    starts = (offset[:, None] + ahead) * HOUR_S
    costs = curve.ranked_g(starts, belief, np.full(belief.shape, 1.0 / belief.shape[1]))
    return np.where(ahead <= left[:, None], costs, np.inf)


def _turned_away(waits: Waits, rule: Rule, gate: Gate, issue: int, new: Ints, costs: Floats, wait: Ints) -> Gate:
    """Let new jobs start at once where the gate says so (`wait` is changed in place); the gate with them noted."""
    gain = promised(costs[:, 0], costs.min(axis=1))
    today = issue // 24
    for number in np.unique(waits.classes[new]):
        these = waits.classes[new] == number
        least = gate.least_gain(str(number), today, rule.min_gain) if rule.gated else rule.min_gain
        wait[these & (gain <= least)] = 0
        gate = gate.noted(str(number), today, (costs[:, 0] * waits.jobs.units[new])[these], gain[these])
    return gate


def grams(jobs: Jobs, actual: Floats, start_h: Floats) -> Floats:
    """What each job really emits per kilowatt and unit when it runs from `start_h` on: `[J]`, g."""
    total = np.concatenate([[0.0], np.cumsum(actual)])
    hours = np.arange(len(total))
    out: Floats = (np.interp(start_h + jobs.hours, hours, total) - np.interp(start_h, hours, total)) * jobs.units
    return out


def options(jobs: Jobs, slack: Ints, actual: Floats) -> Floats:
    """What each job would emit at every hour it may wait, `[J, longest slack + 1]`; infinite beyond its own slack."""
    ahead = np.arange(int(slack.max()) + 1)
    total = np.concatenate([[0.0], np.cumsum(actual)])
    hours = np.arange(len(total))
    starts = jobs.submitted_h[:, None] + ahead
    costs = np.interp(starts + jobs.hours[:, None], hours, total) - np.interp(starts, hours, total)
    return np.where(ahead <= slack[:, None], costs * jobs.units[:, None], np.inf)
