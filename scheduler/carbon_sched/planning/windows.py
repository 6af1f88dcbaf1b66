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

from carbon_sched.planning.costs import J_PER_KWH, exists_for_jobs, idle_hold_kwh
from carbon_sched.planning.grid import NICE_STEPS_S
from carbon_sched.planning.options import Board, Site, obstacle
from carbon_sched.planning.snapshot import Belief
from carbon_sched.planning.suspend import Remaining, State, costs, still_needed

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    run for good. `runs_on` is the cluster where it runs now, None while it waits. A resume costs `restart_s` seconds of
    energy, and what nodes that come for the job draw while nothing runs on them.
    """

    job: WaitingJob
    state: State
    restart_s: float
    runs_on: str | None = None


@dataclass(frozen=True)
class Window:
    """Whether a job runs until `until`, when to decide again.

    `saving` is what the choice saves, as a share of what running in this slot would emit: of days of work, a night's
    pause saves a small part, and may still halve what that night's work emits.
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
    restart_s = one.restart_s + _idle_hold_s(one.job, sites)
    now, later = (float(cost[0]) for cost in costs(jobs, ahead[None, :], restart_s / step_s, here))
    this_slot = float((ahead[:1] if here is None else here)[0] * work[0, 0])
    return Window(run=now <= later, until=until, saving=abs(now - later) / this_slot)


def _sites(one: Interruptible, snapshot: Snapshot) -> list[Site]:
    """Clusters on which it runs or could be resumed, as far as their grids can be ranked."""
    sites = [site for site in Board.of(snapshot).sites if site.curve is not None]
    free = [site for site in sites if site.cluster.name != one.runs_on and not obstacle(site, one.job, fresh=False)]
    own = [site for site in sites if site.cluster.name == one.runs_on]
    return [*own, *free]


def _idle_hold_s(job: WaitingJob, sites: Sequence[Site]) -> float:
    """The least that nodes draw idle for a resume, in seconds of the job's own power; nothing on nodes that stay on."""
    kind = "gpu" if job.spec.resources.gpus else "cpu"
    pools = [exists_for_jobs(site.cluster, kind) for site in sites]
    held_kwh = min((idle_hold_kwh(pool, job) if pool else 0.0 for pool in pools), default=0.0)
    return held_kwh * J_PER_KWH / job.belief.power_w if job.belief.power_w > 0 else 0.0


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
