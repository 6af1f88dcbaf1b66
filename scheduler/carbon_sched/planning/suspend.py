"""Whether an interruptible job runs or pauses in the next slot, over remaining work of unknown size.

An exact dynamic programme over the slots of work done and the pauses taken, re-solved on every forecast: with f the
expected intensity of each slot, A(x) the expected share of slot x of work that is still needed, and u pauses from now,

    V(x, u) = min( f[x + u] A(x) + V(x + 1, u),  V(x, u + 1) )

A comes from the survival curve of the run time as it is, unnormalised: what has run already needs no conditioning.
Resuming after a pause costs `restart` slots of energy, so "running" and "paused" are two layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]


class State(IntEnum):
    """What a job does as the slot begins: a first start and going on cost nothing, a resume costs the restart."""

    WAITING = 0
    RUNNING = 1
    PAUSED = 2


@dataclass(frozen=True, eq=False)
class Remaining:
    """n jobs with work left.

    Attributes:
        work: `[n, X]` expected share of each coming slot of work that will still be needed; see `still_needed`.
        alive: `[n, X]` chance that the run goes on at the beginning of that slot of work.
        pauses: `[n]` slots that a job may still pause and meet its deadline.
        state: `[n]` what each job does now, as `State`.
    """

    work: Floats
    alive: Floats
    pauses: Ints
    state: Ints


def still_needed(durations: Floats, done: Ints, slots: int) -> tuple[Floats, Floats]:
    """Shares of the coming slots of work that are needed, and the chances to reach them: `[n, slots]` each.

    `durations` `[n, K]` are equally likely run times in slots, `done` `[n]` whole slots of work behind each job.
    """
    needed, alive = np.empty((len(durations), slots)), np.empty((len(durations), slots))
    for slot in range(slots):
        left = durations - (done + slot)[:, None]
        needed[:, slot] = np.clip(left, 0.0, 1.0).mean(axis=1)
        alive[:, slot] = (left > 0).mean(axis=1)
    return needed, alive


def runs(jobs: Remaining, ahead: Floats, restart: float = 0.0) -> Bools:
    """Whether each job runs in the slot that begins now; ties run. Arguments as those of `costs`."""
    at_once, later = costs(jobs, ahead, restart)
    out: Bools = at_once <= later
    return out


def costs(jobs: Remaining, ahead: Floats, restart: float = 0.0, here: Floats | None = None) -> tuple[Floats, Floats]:
    """What each job is expected to emit from here on if it runs in the slot that begins now, and if it does not.

    Args:
        jobs: the jobs.
        ahead: `[n, at least X + the most pauses]` expected g/kWh of the slots from now on.
        restart: slots of energy that a resume costs.
        here: `[n]` g/kWh of the first slot for a job that runs now, where that is not the place of `ahead`.

    Returns:
        `[n]` each, in g/kWh times slots; the second is infinite for a job without pauses left.
    """
    most = int(jobs.pauses.max(initial=0)) + 1
    value = np.where(np.arange(most) > jobs.pauses[:, None], np.inf, 0.0)  # out of time stays out of time
    cost = resumed = value
    for x in range(jobs.work.shape[1] - 1, -1, -1):
        now = ahead[:, x : x + most]
        cost = now * jobs.work[:, x, None] + value
        resumed = _best_later(cost + now * (restart * jobs.alive[:, x, None]))
        value = np.minimum(cost, _one_pause_on(resumed))
    first = _one_pause_on(_best_later(cost))[:, 0]
    later = np.where(jobs.state == State.WAITING, first, _one_pause_on(resumed)[:, 0])
    at_once = cost[:, 0] + np.where(jobs.state == State.PAUSED, restart * ahead[:, 0] * jobs.alive[:, 0], 0.0)
    if here is not None:
        at_once = at_once + (here - ahead[:, 0]) * jobs.work[:, 0]
    return at_once, later


def _best_later(costs: Floats) -> Floats:
    """The least of each column and those after it: pausing on is free."""
    out: Floats = np.minimum.accumulate(costs[:, ::-1], axis=1)[:, ::-1]
    return out


def _one_pause_on(values: Floats) -> Floats:
    """What a pause of one slot leads to; infinite after the last."""
    out = np.full_like(values, np.inf)
    out[:, :-1] = values[:, 1:]
    return out
