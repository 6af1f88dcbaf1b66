"""What one plan leaves to the next: prices, where jobs were put, who waits, and what classes were promised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.placing import NOWHERE
from carbon_sched.planning.prices import Prices
from carbon_sched.planning.solving import Warm
from carbon_sched.planning.waiting import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from carbon_sched.domain.intensity import Reading
    from carbon_sched.planning.columns import Columns
    from carbon_sched.planning.snapshot import ClusterView
    from carbon_sched.planning.solving import Solution

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PriceBook:
    """Capacity prices, g per unit-hour: `values[i, k]` on `lanes[i]` from epoch second `origin + k slot_s` on.

    `unbalanced` is the share of the load that they left out of balance.
    """

    lanes: tuple[tuple[str, str], ...]
    origin: float
    slot_s: float
    values: Floats
    unbalanced: float = 0.0

    def at(self, cluster: str, moment: float) -> float:
        """The highest price on any lane of a cluster at a moment; 0 with room to spare, or where nothing is known."""
        k = int((moment - self.origin) // self.slot_s)
        if not 0 <= k < self.values.shape[1]:
            return 0.0
        mine = [i for i, (name, _) in enumerate(self.lanes) if name == cluster]
        return float(self.values[mine, k].max(initial=0.0))

    def moved_to(self, of: Columns) -> Floats:
        """The same prices on the lanes and slots of another problem; 0 where this book knows nothing."""
        out = np.zeros((len(of.lanes), of.problem.price_slots))
        slot_s = of.grid.coarse * of.grid.step_s
        begin = of.snapshot.now.timestamp() + of.grid.origin_s
        middle = begin + (np.arange(out.shape[1]) + 0.5) * slot_s
        k = np.floor((middle - self.origin) / self.slot_s).astype(np.int64)
        known = (k >= 0) & (k < self.values.shape[1])
        mine = {lane: i for i, lane in enumerate(self.lanes)}
        for i, lane in enumerate(of.lane_names):
            if lane in mine:
                out[i, known] = self.values[mine[lane], k[known]]
        return out


@dataclass(frozen=True, eq=False)
class WarmStart:
    """The state of a plan; an empty one is a cold start.

    `waiting` are the jobs told to wait, `seen` those the gate has noted, `placed` the cluster, kind of capacity and
    start (epoch seconds) of each planned job, and its grams; `amended` how often the spec had been changed of those
    whose spec was. `world` is a fingerprint of outlooks and free capacity: while it stands, so do the decisions.
    """

    waiting: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    gate: Gate = field(default_factory=Gate)
    prices: PriceBook | None = None
    placed: Mapping[str, tuple[str, str, float, float]] = field(default_factory=dict)
    amended: Mapping[str, int] = field(default_factory=dict)
    world: int = 0


def reuse(state: WarmStart, of: Columns) -> Warm | None:
    """An earlier plan on the grid of the present one; a job that was amended since is a new one."""
    if state.prices is None:
        return None
    names = {name: i for i, name in enumerate(of.lane_names)}
    lane = np.full(len(of.jobs), NOWHERE)
    start = np.full(len(of.jobs), NOWHERE)
    paid = np.full(len(of.jobs), np.nan)
    now = of.snapshot.now.timestamp()
    for i, job in enumerate(of.jobs):
        cluster, kind, moment, grams = state.placed.get(job.job_id, ("", "", 0.0, 0.0))
        if (cluster, kind) in names and job.amendments == state.amended.get(job.job_id, 0):
            lane[i], start[i], paid[i] = names[cluster, kind], of.grid.slot(moment - now), grams
    prices = Prices(state.prices.moved_to(of), state.prices.unbalanced, 0)
    return Warm(prices, lane, start, paid, stands=state.world == world_of(of))


def world_of(of: Columns) -> int:
    """Fingerprint of everything but the jobs that a plan rests on."""
    now = of.snapshot.now
    grids = [
        (view.cluster, tuple((r.end, r.intensity_mg_per_kwh) for r in _readings(view) if r.end > now))
        for view in sorted(of.snapshot.clusters, key=lambda view: view.cluster.name)
    ]
    return hash((repr([cluster for cluster, _ in grids]), *(steps for _, steps in grids), *of.free_now()))


def _readings(view: ClusterView) -> tuple[Reading, ...]:
    return view.outlook.readings + (view.steered.readings if view.steered else ())


def leave(of: Columns, solution: Solution, waiting: frozenset[str], gate: Gate) -> WarmStart:
    """The state after a plan."""
    now = of.snapshot.now.timestamp()
    slot_s = of.grid.coarse * of.grid.step_s
    book = PriceBook(
        tuple(of.lane_names), now + of.grid.origin_s, slot_s, solution.prices.values, solution.prices.unbalanced
    )
    lanes, starts = solution.lane.tolist(), solution.start.tolist()
    placed = {
        job.job_id: (*of.lane_names[lane], now + of.grid.time(start), grams)
        for job, lane, start, grams in zip(of.jobs, lanes, starts, solution.costs().tolist(), strict=True)
        if lane != NOWHERE
    }
    seen = frozenset(job.job_id for job in of.snapshot.jobs)
    amended = {job.job_id: job.amendments for job in of.jobs if job.amendments}
    return WarmStart(waiting, seen, gate, book, placed, amended, world_of(of))
