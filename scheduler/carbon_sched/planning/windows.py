"""Run windows of jobs that may be suspended: whether one runs in the slot that begins now, over all its clusters.

The slots are as fine as the outlook needs and at most `MOST_SLOTS`. A job that runs pays the intensity of its own
cluster now; every later slot is taken at the cleanest cluster on which it could be resumed, since a suspended job is
placed anew. See `planning.suspend` for the programme that weighs the two.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.grid import NICE_STEPS_S
from carbon_sched.planning.options import Board, Site, obstacle
from carbon_sched.planning.snapshot import Belief
from carbon_sched.planning.suspend import Remaining, State, costs, still_needed

if TYPE_CHECKING:
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.planning.snapshot import Snapshot, WaitingJob

    Floats = NDArray[np.float64]

MOST_SLOTS = 300
COARSEST_S = NICE_STEPS_S[-1]
LEAST_LEFT = 0.05
"""A run that outlasts everything believed of it is taken to need this share of the longest belief more."""


@dataclass(frozen=True)
class Interruptible:
    """A job that may be suspended.

    `job` is what is left of it: its belief is of the remaining run time, its latest start the moment by which it must
    run for good. `runs_on` is the cluster where it runs now, None while it waits; `bound_to` the only one that has its
    checkpoints, None where any may resume it. A resume costs `restart_s` seconds of energy.
    """

    job: WaitingJob
    state: State
    restart_s: float
    runs_on: str | None = None
    bound_to: str | None = None


@dataclass(frozen=True)
class Window:
    """Whether a job runs until `until`, when to decide again.

    `saving` is what the choice saves, as a share of what the job is expected to emit from here on with the other one.
    """

    run: bool
    until: datetime
    saving: float


def remaining(belief: Belief, done_s: float) -> Belief:
    """What is believed of the rest of a run of which `done_s` seconds of work are behind it."""
    if done_s <= 0:
        return belief
    left = [(d - done_s, w) for d, w in zip(belief.durations_s, belief.weights, strict=True) if d > done_s]
    left = left or [(LEAST_LEFT * belief.durations_s[-1], 1.0)]
    total = sum(weight for _, weight in left)
    reached = max((level for level, seconds in belief.upper if seconds <= done_s), default=0.0)
    upper = tuple(
        ((level - reached) / (1 - reached), seconds - done_s) for level, seconds in belief.upper if seconds > done_s
    )
    return Belief(
        tuple(d for d, _ in left), tuple(w / total for _, w in left), belief.power_w, belief.moved_power_w,
        belief.source, upper=upper, gpu_type=belief.gpu_type, start_up_s=belief.start_up_s,
    )  # fmt: skip


def paced(belief: Belief, left_s: float) -> Belief:
    """The same belief with `left_s` for its mean duration: what the run itself shows goes before what was expected."""
    factor = left_s / belief.mean_duration_s
    durations = tuple(seconds * factor for seconds in belief.durations_s)
    return replace(belief, durations_s=durations, upper=tuple((level, s * factor) for level, s in belief.upper))


def window(one: Interruptible, snapshot: Snapshot) -> Window | None:
    """Whether the job runs in the slot that begins now; None where no cluster can be ranked for it."""
    sites = _sites(one, snapshot)
    pausable_s = (one.job.latest_start - snapshot.now).total_seconds()
    longest_s = max(one.job.belief.longest_s(one.job.confidence), one.job.belief.durations_s[-1])
    if not sites:
        return None
    step_s = _step(longest_s + max(pausable_s, 0.0))
    until = _border(snapshot.now, step_s)
    pauses = int(pausable_s // step_s)
    if pauses < 1:
        return Window(run=True, until=until, saving=0.0)
    durations = np.array([one.job.belief.durations_s]) / step_s
    slots = int(np.ceil(durations.max()))
    work, alive = still_needed(durations, np.zeros(1, dtype=np.int64), slots)
    ahead = np.min([_slots(site, slots + pauses + 1, step_s) for site in sites], axis=0)
    own = next((site for site in sites if site.cluster.name == one.runs_on), None)
    here = None if own is None else _slots(own, 1, step_s)
    jobs = Remaining(work, alive, np.array([pauses]), np.array([int(one.state)]))
    now, later = (float(cost[0]) for cost in costs(jobs, ahead[None, :], one.restart_s / step_s, here))
    return Window(run=now <= later, until=until, saving=abs(now - later) / max(now, later) if now != later else 0.0)


def _sites(one: Interruptible, snapshot: Snapshot) -> list[Site]:
    """Clusters on which it runs or could be resumed, as far as their grids can be ranked."""
    sites = [site for site in Board.of(snapshot).sites if site.curve is not None]
    if one.bound_to is not None:
        sites = [site for site in sites if site.cluster.name == one.bound_to]
    free = [site for site in sites if site.cluster.name != one.runs_on and not obstacle(site, one.job, fresh=False)]
    own = [site for site in sites if site.cluster.name == one.runs_on]
    return [*own, *free]


def _slots(site: Site, count: int, step_s: float) -> Floats:
    """`[count]` mean g/kWh at the site, PUE included, of the slots from now on."""
    assert site.curve is not None  # noqa: S101 - `_sites` left the others out
    starts = np.arange(count, dtype=np.float64) * step_s
    grams = site.curve.ranked_g(starts, np.array([float(step_s)]), np.array([1.0]))
    out: Floats = grams * 3600.0 / step_s * site.pue
    return out


def _step(reach_s: float) -> float:
    return next((float(nice) for nice in NICE_STEPS_S if nice * MOST_SLOTS >= reach_s), float(COARSEST_S))


def _border(now: datetime, step_s: float) -> datetime:
    """The next whole multiple of a step since 1970, where outlooks have theirs."""
    return now + timedelta(seconds=step_s - now.timestamp() % step_s)
