"""One zone with room for everybody: jobs that may pause, decided hour by hour as `planning.suspend` does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.suspend import Remaining, State, runs, still_needed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Rule = Callable[[Floats, Ints, Ints, Ints, Floats], Bools]

DAY = 24
EPSILON_H = 1e-9


@dataclass(frozen=True, eq=False)
class Interrupted:
    """`grams` `[J]` of every job, and how often it was paused after it had begun."""

    grams: Floats
    pauses: Ints


def dynamic(restart_h: float = 0.0) -> Rule:
    """The planner's own rule; a resume costs as much energy as running for `restart_h`."""

    def rule(durations: Floats, done: Ints, left: Ints, state: Ints, ahead: Floats) -> Bools:
        slots = max(int(np.ceil((durations[:, -1] - done).max())), 1)
        most = ahead.shape[1] - int(left.max(initial=0)) - 1
        return runs(Remaining(*still_needed(durations, done, min(slots, most)), left, state), ahead, restart_h)

    return rule


def cheapest_for_the_mean(durations: Floats, done: Ints, left: Ints, _state: Ints, ahead: Floats) -> Bools:
    """Run when this slot is among the cheapest that the mean run time needs; past the mean, one slot is needed."""
    return _among_cheapest(durations.mean(axis=1) - done, left, ahead)


def cheapest_for_the_rest(durations: Floats, done: Ints, left: Ints, _state: Ints, ahead: Floats) -> Bools:
    """The same for the mean of what remains of those runs that are longer than what was done."""
    longer = durations > done[:, None] + EPSILON_H
    needed = np.where(longer, durations - done[:, None], 0.0).sum(axis=1) / np.maximum(longer.sum(axis=1), 1)
    return _among_cheapest(needed, left, ahead)


def _among_cheapest(needed: Floats, left: Ints, ahead: Floats) -> Bools:
    """Whether the first slot is among the cheapest that are needed, within those and the pauses that are left."""
    slots = np.maximum(np.ceil(needed), 1).astype(np.int64)
    window = np.arange(ahead.shape[1]) < (slots + left)[:, None]
    cheaper = (np.where(window, ahead, np.inf) < ahead[:, :1]).sum(axis=1)
    out: Bools = (cheaper < slots) | (left == 0)
    return out


def replay(
    jobs: Jobs, slack: Ints, durations: Floats, forecast: Singles, actual: Floats, rule: Rule, restart_h: float = 0.0
) -> Interrupted:
    """What every job emits under a rule that decides at its submission and every hour after it.

    Args:
        jobs: the trace; its time 0 is hour 0 of `actual` and of `forecast`.
        slack: `[J]` whole hours a job may wait and pause, together.
        durations: `[J, K]` equally likely run times in hours as believed at submission, ascending.
        forecast: `[hours, leads]`, row i issued at the beginning of hour i.
        actual: `[hours]` g/kWh.
        rule: whether to run, from beliefs, hours done, pauses left, states and the hours ahead.
        restart_h: hours of energy that a resume really costs.
    """
    total = np.concatenate([[0.0], np.cumsum(actual)])
    clock = np.arange(len(total))
    grams, pauses = np.zeros(len(jobs)), np.zeros(len(jobs), dtype=np.int64)
    done, left, state = np.zeros(len(jobs), dtype=np.int64), slack.copy(), np.full(len(jobs), int(State.WAITING))
    hour = np.floor(jobs.submitted_h).astype(np.int64)
    offset = jobs.submitted_h - hour
    bounds = np.searchsorted(hour, np.arange(len(forecast) + 1))
    active = np.empty(0, dtype=np.int64)
    for now in range(len(forecast)):
        active = np.concatenate([active, np.arange(bounds[now], bounds[now + 1])])
        if len(active) == 0:
            continue
        ahead = _ahead(forecast[now], offset[active])
        go = rule(durations[active], done[active], left[active], state[active], ahead) | (left[active] == 0)
        ran, paused = active[go], active[~go]
        used = np.minimum(jobs.hours[ran] - done[ran], 1.0)
        begin = now + offset[ran]
        spent = np.interp(begin + used, clock, total) - np.interp(begin, clock, total)
        resumed = state[ran] == State.PAUSED
        grams[ran] += (spent + np.where(resumed, restart_h * actual[now], 0.0)) * jobs.units[ran]
        pauses[paused] += state[paused] == State.RUNNING
        state[paused] = np.where(state[paused] == State.WAITING, int(State.WAITING), int(State.PAUSED))
        done[ran] += 1
        left[paused] -= 1
        state[ran] = int(State.RUNNING)
        active = active[~(go & (done[active] >= jobs.hours[active] - EPSILON_H))]
    return Interrupted(grams, pauses)


def _ahead(row: Singles, offset: Floats) -> Floats:
    """`[n, 3 * leads]` intensity of the hours from each job's own minute on; beyond its end the last day repeats."""
    days = np.tile(row[-DAY:], -(-2 * len(row) // DAY) + 1)
    longer = np.concatenate([row, days])[: 3 * len(row) + 1].astype(np.float64)
    out: Floats = (1 - offset[:, None]) * longer[:-1] + offset[:, None] * longer[1:]
    return out
