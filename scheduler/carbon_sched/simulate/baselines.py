"""Rules that others use, to measure ours against: each decides once, at submission, with what it could have known then.

Written from the descriptions in the papers: lowest-slot, lowest-window and carbon-time (Hanafy et al., ASPLOS 2024),
ecovisor (Souza et al., ASPLOS 2023), wait-awhile (Wiesner et al., Middleware 2021), threshold with a longest delay
(Compute Gardener), lowest window of 48 hours (CATS).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

QUANTILE = 0.3
DAY = 24
CATS_HOURS = 48
PASSES = 20_000
"""Jobs looked at together, to bound memory."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What n jobs see when they are submitted.

    Attributes:
        offset: `[n]` part of the current hour that is over.
        slack: `[n]` whole hours a job may wait.
        usual: `[n]` mean run time of the job's class, in hours: all that is known of its length.
        ahead: `[n, leads]` g/kWh expected of the current hour and those that follow.
        truth: `[n, leads]` what they will really be, for rules that act on the value of each hour as it comes.
    """

    offset: Floats
    slack: Ints
    usual: Floats
    ahead: Singles
    truth: Singles

    def windows(self, hours: Floats) -> Floats:
        """`[n, longest slack + 1]` expected grams of a run of `hours` from each start; infinite beyond the slack."""
        ahead = np.arange(int(self.slack.max()) + 1)
        total = np.concatenate(
            [np.zeros((len(self.ahead), 1)), np.cumsum(self.ahead, axis=1, dtype=np.float64)], axis=1
        )
        starts = self.offset[:, None] + ahead
        costs = _at(total, starts + hours[:, None]) - _at(total, starts)
        return np.where(ahead <= self.slack[:, None], costs, np.inf)


def _at(total: Floats, hours: Floats) -> Floats:
    """Each row's running total at fractional hours; beyond its end it goes on with the mean of its last day."""
    end = total.shape[1] - 1
    whole = np.minimum(hours.astype(np.int64), end - 1)
    low, high = np.take_along_axis(total, whole, 1), np.take_along_axis(total, whole + 1, 1)
    inside = low + (high - low) * np.minimum(hours - whole, 1.0)
    usual = (total[:, -1:] - total[:, max(end - DAY, 0), None]) / min(DAY, end)
    out: Floats = inside + np.maximum(hours - end, 0.0) * usual
    return out


def run_now(seen: Sight) -> Ints:
    """Never wait."""
    return np.zeros(len(seen.slack), dtype=np.int64)


def lowest_slot(seen: Sight) -> Ints:
    """The start whose first hour is cleanest."""
    out: Ints = seen.windows(np.ones(len(seen.slack))).argmin(axis=1)
    return out


def lowest_window(seen: Sight) -> Ints:
    """The start whose window of the usual length is cleanest."""
    out: Ints = seen.windows(seen.usual).argmin(axis=1)
    return out


def cats(seen: Sight) -> Ints:
    """The cleanest window within 48 hours, or within the slack if that is shorter."""
    return lowest_window(Sight(seen.offset, np.minimum(seen.slack, CATS_HOURS), seen.usual, seen.ahead, seen.truth))


def carbon_time(seen: Sight) -> Ints:
    """The start that saves most per hour of completion time."""
    costs = seen.windows(seen.usual)
    hours = np.arange(costs.shape[1]) + seen.usual[:, None]
    saved = np.where(np.isfinite(costs), (costs[:, :1] - costs) / hours, -np.inf)
    out: Ints = saved.argmax(axis=1)
    return out


def threshold(seen: Sight) -> Ints:
    """Hold while the hour's value is above the 30 % quantile of the next day's forecast; go at the longest delay."""
    limit = np.quantile(seen.ahead[:, :DAY], QUANTILE, axis=1)
    longest = int(seen.slack.max())
    low = seen.truth[:, : longest + 1] <= limit[:, None]
    low |= np.arange(longest + 1) >= seen.slack[:, None]
    out: Ints = low.argmax(axis=1)
    return out


RULES: Mapping[str, Callable[[Sight], Ints]] = {
    "run-now-here": run_now,
    "lowest-slot": lowest_slot,
    "lowest-window": lowest_window,
    "carbon-time": carbon_time,
    "threshold+max-delay": threshold,
    "cats-48h": cats,
}


def waited(
    rule: Callable[[Sight], Ints], jobs: Jobs, slack: Ints, usual: Floats, forecast: Singles, actual: Floats
) -> Ints:
    """`[J]` hours each job waits under a rule.

    `forecast` is `[hours, leads]`, row i issued at the beginning of hour i of the trace; `actual` `[hours]` the truth.
    """
    hour = np.floor(jobs.submitted_h).astype(np.int64)
    truth = rows_ahead(actual, forecast.shape[1])
    out = np.empty(len(jobs), dtype=np.int64)
    for begin in range(0, len(jobs), PASSES):
        part = slice(begin, begin + PASSES)
        at = hour[part]
        seen = Sight(jobs.submitted_h[part] - at, slack[part], usual[part], forecast[at], truth[at])
        out[part] = rule(seen)
    return out


def rows_ahead(actual: Floats, leads: int) -> Singles:
    """`[hours, leads]` a perfect forecast; the last value is repeated past the end."""
    longer = np.concatenate([actual, np.full(leads, actual[-1])]).astype(np.float32)
    out: Singles = np.lib.stride_tricks.sliding_window_view(longer, leads)[: len(actual)]
    return out


# suspend and resume ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Paused:
    """What jobs that pause emit, `[J]` grams of a kilowatt per unit, and `[J]` hours by which they end later."""

    grams: Floats
    later_h: Floats


def wait_awhile(jobs: Jobs, slack: Ints, forecast: Singles, actual: Floats) -> Paused:
    """Each job, its true length D known, runs in the cheapest slots of the next D + slack hours.

    Slots are hours from the submission on, ties go to the earlier; the last slot is used in part.
    """
    return _by_slots(jobs, slack, forecast, actual, _cheapest)


def ecovisor(jobs: Jobs, slack: Ints, forecast: Singles, actual: Floats) -> Paused:
    """Jobs run in every slot below the 30 % quantile of the next day until their slack is used up."""

    @cache
    def limit(hour: int, hours: int) -> Any:
        return np.quantile(forecast[hour, :hours], QUANTILE)

    def below(expected: Floats, hour: int, length: float, wait: int) -> Floats:
        go = expected <= limit(hour, min(len(expected) + 1, DAY))
        # once the pauses add up to the slack, every slot from there on is used
        go |= np.cumsum(~go) > wait
        before = np.concatenate([[0], np.cumsum(go)[:-1]])
        use: Floats = np.where(go, np.clip(length - before, 0.0, 1.0), 0.0)
        return use

    return _by_slots(jobs, slack, forecast, actual, below)


def _by_slots(jobs: Jobs, slack: Ints, forecast: Singles, actual: Floats, choose: Callable[..., Floats]) -> Paused:
    hours = np.arange(len(actual) + 1)
    total = np.concatenate([[0.0], np.cumsum(actual)])
    grams, later = np.empty(len(jobs)), np.empty(len(jobs))
    for i, (begin, length, units, wait) in enumerate(zip(jobs.submitted_h, jobs.hours, jobs.units, slack, strict=True)):
        seen = _reaching(forecast[int(begin)], int(np.ceil(length)) + int(wait) + 1)
        offset = begin % 1.0
        expected = (1 - offset) * seen[:-1] + offset * seen[1:]
        borders = np.interp(begin + np.arange(len(expected) + 1), hours, total)
        use = choose(expected, int(begin), length, int(wait))
        grams[i] = np.sum(use * np.diff(borders)) * units
        last = int(np.flatnonzero(use)[-1])
        later[i] = max(last + float(use[last]) - length, 0.0)
    return Paused(grams, later)


def _reaching(seen: Singles, count: int) -> Singles:
    """A forecast of `count` hours: beyond its end the mean of its last day holds."""
    if count <= len(seen):
        return seen[:count]
    return np.concatenate([seen, np.full(count - len(seen), seen[-DAY:].mean(), dtype=seen.dtype)])


def _cheapest(expected: Floats, _hour: int, length: float, _wait: int) -> Floats:
    """Share of each slot in use."""
    use = np.zeros(len(expected))
    ranked = np.argsort(expected, kind="stable")
    whole = min(int(length), len(expected))
    use[ranked[:whole]] = 1.0
    if whole < len(ranked):
        use[ranked[whole]] = length - whole
    return use
