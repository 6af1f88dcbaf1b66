"""What one plan leaves to the next: prices, where jobs were put, who waits, and what classes were promised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.placing import NOWHERE
from carbon_sched.planning.solving import Solution, Warm
from carbon_sched.planning.waiting import Gate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from carbon_sched.planning.columns import Columns

    Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class PriceBook:
    """Capacity prices, g per unit-hour: `values[i, k]` on `lanes[i]` from epoch second `origin + k slot_s` on."""

    lanes: tuple[tuple[str, str], ...]
    origin: float
    slot_s: float
    values: Floats

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
    start (epoch seconds) of each planned job, `gap` how far the plan was above its bound.
    """

    waiting: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    gate: Gate = field(default_factory=Gate)
    prices: PriceBook | None = None
    placed: Mapping[str, tuple[str, str, float]] = field(default_factory=dict)
    gap: float = 0.0


def reuse(state: WarmStart, of: Columns) -> Warm | None:
    """An earlier plan on the grid of the present one."""
    if state.prices is None:
        return None
    names = {name: i for i, name in enumerate(of.lane_names)}
    lane = np.full(len(of.jobs), NOWHERE)
    start = np.full(len(of.jobs), NOWHERE)
    now = of.snapshot.now.timestamp()
    for i, job in enumerate(of.jobs):
        cluster, kind, moment = state.placed.get(job.job_id, ("", "", 0.0))
        if (cluster, kind) in names:
            lane[i], start[i] = names[cluster, kind], of.grid.slot(moment - now)
    return Warm(state.prices.moved_to(of), lane, start, state.gap)


def leave(of: Columns, solution: Solution, waiting: frozenset[str], gate: Gate) -> WarmStart:
    """The state after a plan."""
    now = of.snapshot.now.timestamp()
    slot_s = of.grid.coarse * of.grid.step_s
    book = PriceBook(tuple(of.lane_names), now + of.grid.origin_s, slot_s, solution.prices)
    placed = {
        job.job_id: (*of.lane_names[lane], now + of.grid.time(start))
        for job, lane, start in zip(of.jobs, solution.lane.tolist(), solution.start.tolist(), strict=True)
        if lane != NOWHERE
    }
    seen = frozenset(job.job_id for job in of.snapshot.jobs)
    return WarmStart(waiting, seen, gate, book, placed, solution.gap)
