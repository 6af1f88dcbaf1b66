"""Local search on a placed plan: take a few jobs that stand in each other's way out and put them back better.

Ruin and recreate after Schrimpf et al., "Record breaking optimization results using the ruin and recreate principle",
2000. A round costs the same whatever the number of jobs, so the effort is bounded by the number of rounds alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.placing import NOWHERE, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST_RUINED = 8
WORTH_WHILE = 1e-4
FRUITLESS = 100
"""The search ends after so many exchanges in a row in vain: thousands of jobs then have nothing left to gain that a few
exchanges would show, and of a handful most has been tried."""
NO_PLACE = 1e15
"""What being nowhere counts as, in grams: more than any plan, so that a place is always gained."""


def improve(field: Field, seed: int, rounds: int) -> int:
    """Try `rounds` exchanges on `field`, keeping those that lower the emissions; returns how many were kept.

    Stops at once when every job has its own best offer, and when many in a row were tried in vain.
    """
    search = _Search(field, np.random.default_rng(seed))
    kept = last = 0
    for done in range(rounds):
        job = search.unhappy()
        if job is None or done - last >= FRUITLESS:
            break
        if search.exchange(job):
            kept, last = kept + 1, done
    return kept


@dataclass(eq=False)
class _Search:
    field: Field
    rng: np.random.Generator

    def __post_init__(self) -> None:
        problem = self.problem = self.field.problem
        self.wish = problem.wishes
        self.paid = np.minimum(self.field.costs(), NO_PLACE)
        self.ends = self.field.start + problem.slots[problem.group]

    def unhappy(self) -> int | None:
        """A job drawn in proportion to what it pays above its own best offer."""
        regret = self.paid - self.wish
        total = regret.sum()
        if not total > WORTH_WHILE * self.wish.sum():
            return None
        return int(np.searchsorted(np.cumsum(regret), self.rng.random() * total))

    def exchange(self, job: int) -> bool:
        """Give `job` one of the offers it would rather have, move those in its way, keep the result if it is better."""
        lane, start = self._rather(job)
        out = [job, *self._in_the_way(job, lane, start)]
        before = [(int(self.field.lane[k]), int(self.field.start[k])) for k in out]
        paid = self.paid[out].sum()
        for k in out:
            self.field.lift(k)
        after = self._put_back(out)
        if after < paid - 1e-9 * abs(paid):
            for k in out:
                self.paid[k] = min(self.field.cost_of(k), NO_PLACE)
                self.ends[k] = self.field.start[k] + self.problem.slots[self.problem.group[k]]
            return True
        for k, (old_lane, old_start) in zip(out, before, strict=True):
            self.field.lift(k)
            if old_lane != NOWHERE:
                self.field.put(k, old_lane, old_start)
        return False

    def _rather(self, job: int) -> tuple[int, int]:
        """One of the offers that are cheaper than what the job has, the cheap ones more often."""
        problem = self.problem
        first, last = problem.first[job], problem.last[job]
        offers = problem.cost[problem.group[job], :, first : last + 1].ravel() * problem.units[job]
        better = np.flatnonzero(offers < self.paid[job])
        ranked = better[np.argsort(offers[better])]
        pick = ranked[int(len(ranked) * self.rng.random() ** 2)]
        return int(pick // (last - first + 1)), int(first + pick % (last - first + 1))

    def _in_the_way(self, job: int, lane: int, start: int) -> Ints:
        """Some of the jobs that hold units there at that time."""
        end = start + self.problem.slots[self.problem.group[job]]
        there = (self.field.lane == lane) & (self.field.start < end) & (self.ends > start)
        there[job] = False
        rivals = np.flatnonzero(there)
        return self.rng.permutation(rivals)[: int(self.rng.integers(1, MOST_RUINED))]

    def _put_back(self, out: Sequence[int]) -> float:
        """Re-insert, the unhappy one first and the others by size; what they pay together."""
        problem = self.problem
        first, rest = out[0], out[1:]
        amount = problem.units[rest] * problem.slots[problem.group[rest]] if len(rest) else np.empty(0)
        total = 0.0
        for k in [first, *(rest[i] for i in np.argsort(-amount, kind="stable"))]:
            lane, start = self.field.best(k, self.field.offers(k))
            if lane == NOWHERE:
                return float("inf")
            self.field.put(k, lane, start)
            total += self.field.cost_of(k)
        return total
