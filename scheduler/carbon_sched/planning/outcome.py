"""What becomes of every job: the outlines of the decisions, without what explains them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.costs import J_PER_KWH
from carbon_sched.planning.options import full
from carbon_sched.planning.placing import NOWHERE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.planning.columns import Columns, Shape
    from carbon_sched.planning.costs import View
    from carbon_sched.planning.snapshot import Belief, WaitingJob

LOOK_AGAIN_S = 60.0
"""Held jobs are looked at again after this long, even if nothing was reported meanwhile."""


@dataclass(frozen=True)
class Spot:
    """A lane of a site (by number) at a start slot, and when exactly that is, in seconds from now."""

    lane: int
    site: int
    slot: int
    start_s: float


@dataclass(frozen=True)
class Expected:
    """Run time, mean power while it runs, and all energy of IT equipment that a run is expected to take."""

    duration_s: float
    power_w: float
    energy_kwh: float

    @staticmethod
    def of(belief: Belief, view: View | None = None, site: int = 0) -> Expected:
        """The run on a site of a view; without one on the hardware it was learnt on, and without anything beside it."""
        stretch, energy, overhead_kwh = view.factors[site] if view is not None else (1.0, 1.0, 0.0)
        run_kwh = belief.power_w * belief.mean_duration_s / J_PER_KWH * energy
        return Expected(belief.mean_duration_s * stretch, belief.power_w * energy / stretch, run_kwh + overhead_kwh)


class Outcomes:
    """Lane and start of every job of one problem, and the outline of the decision that follows."""

    def __init__(self, of: Columns, lanes: Sequence[int], starts: Sequence[int]) -> None:
        self._of, self._lanes = of, lanes
        self.sites = of.board.sites
        self.known = [site.curve is not None for site in self.sites]
        self._slots = starts
        self._starts_s = _starts_s(of, starts)
        self._views: dict[tuple[int, int], View] = {}
        self._full: dict[int, str] = {}

    def outline(self, i: int) -> Decision:
        """What becomes of job i, in numbers; in words only why it is held."""
        spot, verdict, job, now = self.spot(i), self.verdict(i), self._of.jobs[i], self._of.snapshot.now
        if spot is None or verdict is Verdict.HOLD:
            return self._outline(job, Verdict.HOLD, self._held(i, spot), Expected.of(job.belief))
        view = self.view(i, spot.lane)
        start = now + timedelta(seconds=spot.start_s)
        run = Expected.of(job.belief, view, spot.site)
        return Decision(
            job.job_id,
            verdict,
            now,
            "",
            self.sites[spot.site].cluster.name,
            start,
            expected_energy_kwh=run.energy_kwh,
            expected_co2e_g=view.gram(job.belief, spot.site, spot.slot) if self.known[spot.site] else None,
            expected_duration_s=run.duration_s,
            expected_power_w=run.power_w,
            policy=job.policy,
            next_look=start if verdict is Verdict.DELAY else None,
            amendments=job.amendments,
        )

    def undecided(self, job: WaitingJob, shape: Shape, reason: str = "") -> Decision:
        """REFUSE when no cluster will ever do, or for `reason`; else HOLD."""
        never = len(shape.obstacles) > 0 and all(barred is not None and barred.final for barred in shape.obstacles)
        verdict = Verdict.REFUSE if reason or never else Verdict.HOLD
        if not reason:
            named = zip(self.sites, shape.obstacles, strict=True)
            barred = {site.cluster.name: obstacle.reason for site, obstacle in named if obstacle is not None}
            reason = wording.refused(barred) if never else wording.held(barred)
        return self._outline(job, verdict, reason, Expected.of(job.belief))

    def spot(self, i: int) -> Spot | None:
        """Where job i is put; None if it found no room."""
        lane = self._lanes[i]
        return None if lane == NOWHERE else Spot(lane, self._of.lanes[lane].site, self._slots[i], self._starts_s[i])

    def verdict(self, i: int) -> Verdict:
        """A job without flexibility that would be late is held, not promised a start."""
        if self._lanes[i] == NOWHERE or (self._of.hurries[i] and self._slots[i] > self._of.earliest(i)):
            return Verdict.HOLD
        return Verdict.DELAY if self._starts_s[i] > 0 else Verdict.PLACE

    def view(self, i: int, lane: int | None = None) -> View:
        """What every site would make of job i: on `lane`, elsewhere on the first lane that it may use there."""
        of, shape = self._of, self._of.shapes[i]
        key = int(of.problem.group[i]), NOWHERE if lane is None else lane
        if key not in self._views:
            per_site = list(shape.per_site)
            if lane is not None:
                per_site[of.lanes[lane].site] = lane
            self._views[key] = of.costs.view(of.jobs[i], shape.lanes, tuple(per_site))
        return self._views[key]

    def _outline(self, job: WaitingJob, verdict: Verdict, reason: str, run: Expected) -> Decision:
        return Decision(
            job.job_id,
            verdict,
            self._of.snapshot.now,
            reason,
            expected_energy_kwh=run.energy_kwh,
            expected_duration_s=run.duration_s,
            expected_power_w=run.power_w,
            policy=job.policy,
            next_look=self._look_again(job) if verdict is Verdict.HOLD else None,
            amendments=job.amendments,
        )

    def _held(self, i: int, spot: Spot | None) -> str:
        shape = self._of.shapes[i]
        if id(shape) not in self._full:
            resources = self._of.jobs[i].spec.resources
            self._full[id(shape)] = wording.held(
                {
                    site.cluster.name: barred.reason if barred else full(site.room, resources)
                    for site, barred in zip(self.sites, shape.obstacles, strict=True)
                }
            )
        if spot is None:
            return self._full[id(shape)]
        name, when = self.sites[spot.site].cluster.name, wording.at(self._of.snapshot.now, spot.start_s)
        return f"{self._full[id(shape)]}; {name} is expected to have room at {when}"

    def _look_again(self, job: WaitingJob) -> datetime:
        now = self._of.snapshot.now
        later = now + timedelta(seconds=LOOK_AGAIN_S)
        return min(later, job.earliest_start) if job.earliest_start > now else later


def _starts_s(of: Columns, starts: Sequence[int]) -> list[float]:
    """`[J]` when exactly each job starts, in seconds from now: in its slot and inside its window."""
    if not len(starts):
        return []
    earliest, latest = np.array(of.windows).T
    begin = np.maximum(np.maximum(of.grid.origin_s + np.array(starts) * of.grid.step_s, 0.0), earliest)
    out: list[float] = np.where(latest > earliest, np.minimum(begin, latest), begin).tolist()
    return out
