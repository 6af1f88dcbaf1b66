"""Room for everybody: jobs that may pause, decided hour by hour as `planning.suspend` does, in many zones at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.suspend import Remaining, State, runs, still_needed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Rule = Callable[["Moment"], Bools]

DAY = 24
FARTHEST_H = 480
"""Hours of work that are weighed at most."""
EPSILON_H = 1e-9


@dataclass(frozen=True, eq=False)
class Places:
    """What Z zones emit, and which of them each job is in.

    Attributes:
        forecast: Z times `[hours, leads]` g/kWh, row i issued at the beginning of hour i.
        actual: `[Z, hours]` g/kWh.
        zone: `[J]` zone of each job.
    """

    forecast: Sequence[Singles]
    actual: Floats
    zone: Ints


@dataclass(frozen=True, eq=False)
class Interrupted:
    """`grams` `[J]` of every job, and how often it was paused after it had begun."""

    grams: Floats
    pauses: Ints


@dataclass(frozen=True, eq=False)
class Moment:
    """What n of the jobs stand at as an hour begins.

    Attributes:
        which: `[n]` the jobs.
        done: `[n]` hours of work behind each.
        left: `[n]` hours that each may still pause.
        state: `[n]` as `planning.suspend.State`.
        ahead: `[n, hours]` expected g/kWh from now on.
    """

    which: Ints
    done: Ints
    left: Ints
    state: Ints
    ahead: Floats


def dynamic(durations: Floats, restart_h: float = 0.0) -> Rule:
    """The planner's own rule; a resume costs as much energy as running for `restart_h`.

    `durations` `[J, K]` are equally likely run times in hours as believed at submission, ascending; so below.
    """
    beliefs, alike = np.unique(durations, axis=0, return_inverse=True)  # jobs of a kind and day are believed alike
    longest = min(max(int(np.ceil(beliefs.max(initial=1.0))), 1), FARTHEST_H)
    # past all that was believed nothing is needed any more: whoever still runs goes on
    needed = [np.pad(part, ((0, 0), (0, longest))) for part in still_needed(beliefs, _none_done(beliefs), longest)]

    def rule(at: Moment) -> Bools:
        kind = alike[at.which]
        slots = max(int(np.ceil((beliefs[kind, -1] - at.done).max())), 1)
        slots = min(slots, longest, at.ahead.shape[1] - int(at.left.max()) - 1)
        coming = np.minimum(at.done, longest)[:, None] + np.arange(slots)
        work, alive = (part[kind[:, None], coming] for part in needed)
        return runs(Remaining(work, alive, at.left, at.state), at.ahead, restart_h)

    return rule


def _none_done(durations: Floats) -> Ints:
    return np.zeros(len(durations), dtype=np.int64)


def cheapest_for_the_mean(durations: Floats) -> Rule:
    """Run when this slot is among the cheapest that the mean run time needs; past the mean, one slot is needed."""
    mean = durations.mean(axis=1)
    return lambda at: _among_cheapest(mean[at.which] - at.done, at.left, at.ahead)


def cheapest_for_the_rest(durations: Floats) -> Rule:
    """The same for the mean of what remains of those runs that are longer than what was done."""

    def rule(at: Moment) -> Bools:
        left = durations[at.which] - at.done[:, None]
        longer = left > EPSILON_H
        needed = np.where(longer, left, 0.0).sum(axis=1) / np.maximum(longer.sum(axis=1), 1)
        return _among_cheapest(needed, at.left, at.ahead)

    return rule


def _among_cheapest(needed: Floats, left: Ints, ahead: Floats) -> Bools:
    """Whether the first slot is among the cheapest that are needed, within those and the pauses that are left."""
    slots = np.maximum(np.ceil(needed), 1).astype(np.int64)
    window = np.arange(ahead.shape[1]) < (slots + left)[:, None]
    cheaper = (np.where(window, ahead, np.inf) < ahead[:, :1]).sum(axis=1)
    out: Bools = (cheaper < slots) | (left == 0)
    return out


def replay(jobs: Jobs, slack: Ints, places: Places, rule: Rule, restart_h: float = 0.0) -> Interrupted:
    """What every job emits under a rule that decides at its submission and every hour after it.

    Args:
        jobs: the trace; its time 0 is hour 0 of `places`.
        slack: `[J]` whole hours a job may wait and pause, together.
        places: where the jobs are.
        rule: whether those run that may still pause.
        restart_h: hours of energy that a resume really costs.
    """
    hours = places.actual.shape[1]
    grams, pauses = np.zeros(len(jobs)), np.zeros(len(jobs), dtype=np.int64)
    done, left, state = np.zeros(len(jobs), dtype=np.int64), slack.copy(), np.full(len(jobs), int(State.WAITING))
    hour = np.floor(jobs.submitted_h).astype(np.int64)
    offset = jobs.submitted_h - hour
    bounds = np.searchsorted(hour, np.arange(hours + 1))
    active = np.empty(0, dtype=np.int64)
    for now in range(hours):
        active = np.concatenate([active, np.arange(bounds[now], bounds[now + 1])])
        if len(active) == 0:
            continue
        go = left[active] == 0
        free = active[~go]
        if len(free):
            ahead = _ahead(np.stack([row[now] for row in places.forecast]), places.zone[free], offset[free])
            go[~go] = rule(Moment(free, done[free], left[free], state[free], ahead))
        ran, paused = active[go], active[~go]
        used = np.minimum(jobs.hours[ran] - done[ran], 1.0)
        this = np.minimum(used, 1.0 - offset[ran]) + np.where(state[ran] == State.PAUSED, restart_h, 0.0)
        next_ = np.maximum(used - (1.0 - offset[ran]), 0.0)
        value, coming = places.actual[places.zone[ran], now], places.actual[places.zone[ran], min(now + 1, hours - 1)]
        grams[ran] += (this * value + next_ * coming) * jobs.units[ran]
        pauses[paused] += state[paused] == State.RUNNING
        state[paused] = np.where(state[paused] == State.WAITING, int(State.WAITING), int(State.PAUSED))
        done[ran] += 1
        left[paused] -= 1
        state[ran] = int(State.RUNNING)
        active = active[~(go & (done[active] >= jobs.hours[active] - EPSILON_H))]
    return Interrupted(grams, pauses)


def _ahead(rows: Singles, zone: Ints, offset: Floats) -> Floats:
    """`[n, 3 * leads]` intensity of the hours from each job's own minute on; beyond its end the last day repeats."""
    leads = rows.shape[1]
    days = np.tile(rows[:, -DAY:], -(-2 * leads // DAY) + 1)
    longer = np.concatenate([rows, days], axis=1)[:, : 3 * leads + 1].astype(np.float64)
    seen, part = longer[zone], offset[:, None]
    out: Floats = (1 - part) * seen[:, :-1] + part * seen[:, 1:]
    return out
