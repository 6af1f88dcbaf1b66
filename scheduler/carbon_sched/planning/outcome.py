"""Where each job ends up once nodes are looked at one by one, and the decision that says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Candidate, Decision, Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.columns import like, units_of
from carbon_sched.planning.options import full
from carbon_sched.planning.placing import NOWHERE, Field, order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.planning.columns import Columns, Shape
    from carbon_sched.planning.options import Site
    from carbon_sched.planning.snapshot import WaitingJob
    from carbon_sched.planning.solving import Solution

PATIENCE_S = 6 * 3600.0
"""What a job without flexibility is told it could have saved, if it had been allowed to wait this long."""
LOOK_AGAIN_S = 60.0
PATIENCE_LOOKS = 73
EPSILON = 1e-6
"""Held jobs are looked at again after this long, even if nothing was reported meanwhile."""


def settle(of: Columns, solution: Solution, spared: Sequence[int]) -> tuple[list[int], list[int]]:
    """Lane and start slot per job, after every job that is to start now has been laid on nodes.

    Lanes count units, not nodes: where the units lie scattered, the job takes its next best offer instead. Jobs that
    are `spared` the waiting start as early as they may, if there is room then.
    """
    problem, early = of.problem, set(spared)
    field = Field.filled(problem, solution.lane, solution.start)
    for i in order(problem)[np.argsort(problem.level[order(problem)], kind="stable")].tolist():
        cost = None
        if i in early:
            _bring_forward(field, i)
        while field.lane[i] != NOWHERE and field.start[i] == of.grid.now and of.windows[i][0] <= 0:
            nodes = of.site(int(field.lane[i])).room.assign(of.jobs[i].spec.resources)
            if nodes is not None:
                for node, need in nodes:
                    node.take(need)
                break
            cost = problem.cost[problem.group[i]].copy() if cost is None else cost
            lane, start = field.lift(i)
            cost[lane, start] = np.inf
            lane, start = field.best(i, cost)
            if lane != NOWHERE:
                field.put(i, lane, start)
    return field.lane.tolist(), field.start.tolist()


def _bring_forward(field: Field, i: int) -> None:
    """Move a job to its cheapest offer in its first slot; where it is, if there is no room."""
    problem, first = field.problem, int(field.problem.first[i])
    at_once = np.full_like(problem.cost[problem.group[i]], np.inf)
    at_once[:, first] = problem.cost[problem.group[i], :, first]
    before = field.lift(i)
    lane, start = field.best(i, at_once)
    lane, start = (lane, start) if lane != NOWHERE else before
    if lane != NOWHERE:
        field.put(i, lane, start)


@dataclass(frozen=True)
class Spot:
    """A site (by number) at a start slot, and when exactly that is, in seconds from now."""

    site: int
    slot: int
    start_s: float


class Outcomes:
    """Decisions for the jobs of one problem."""

    def __init__(self, of: Columns, solution: Solution, lanes: list[int], starts: list[int]) -> None:
        self._of, self._solution = of, solution
        self._lanes, self._starts = lanes, starts
        self._most = solution.problem.capacity.max(axis=1, initial=0.0)
        self._names = {site.cluster.name: i for i, site in enumerate(of.board.sites)}
        self._patience: dict[tuple[object, ...], float] = {}

    def decision(self, i: int) -> Decision:
        """What becomes of job i."""
        of = self._of
        earliest, latest = of.windows[i]
        spot = self._spot(i)
        if spot is None or (latest <= earliest and self._starts[i] > of.grid.slot(earliest)):
            return self._held(i, spot)
        waits = spot.start_s > 0
        reason = wording.chosen(self._comparison(i, spot), of.snapshot.now)
        return self._made(i, Verdict.DELAY if waits else Verdict.PLACE, reason, spot)

    def undecided(self, job: WaitingJob, shape: Shape, reason: str = "") -> Decision:
        """REFUSE when no cluster will ever do, or for `reason`; else HOLD."""
        sites = self._of.board.sites
        barred = {s.cluster.name: o for s, o in zip(sites, shape.obstacles, strict=True) if o is not None}
        never = len(barred) == len(sites) > 0 and all(o.final for o in barred.values())
        reasons = {name: o.reason for name, o in barred.items()}
        verdict = Verdict.REFUSE if reason or never else Verdict.HOLD
        said = reason or (wording.refused(reasons) if never else wording.held(reasons))
        candidates = tuple(
            self._barred(site, o.reason if o else reason) for site, o in zip(sites, shape.obstacles, strict=True)
        )
        return self._decision(job, verdict, said, None, candidates)

    # parts ---------------------------------------------------------------------------------------

    def _spot(self, i: int) -> Spot | None:
        if self._lanes[i] == NOWHERE:
            return None
        earliest, latest = self._of.windows[i]
        slot = self._starts[i]
        start = max(self._of.grid.time(slot), earliest)
        return Spot(self._of.lanes[self._lanes[i]].site, slot, start if latest <= earliest else min(start, latest))

    def _held(self, i: int, spot: Spot | None) -> Decision:
        job, shape = self._of.jobs[i], self._of.shapes[i]
        reasons = {
            site.cluster.name: barred.reason if barred else full(site.room, job.spec.resources)
            for site, barred in zip(self._of.board.sites, shape.obstacles, strict=True)
        }
        said = wording.held(reasons)
        if spot is not None:
            name, when = self._of.board.sites[spot.site].cluster.name, wording.at(self._of.snapshot.now, spot.start_s)
            said += f"; {name} is expected to have room at {when}"
        return self._decision(job, Verdict.HOLD, said, None, tuple(self._candidates(i, None)))

    def _made(self, i: int, verdict: Verdict, reason: str, spot: Spot) -> Decision:
        return self._decision(self._of.jobs[i], verdict, reason, spot, tuple(self._candidates(i, spot)))

    def _decision(
        self, job: WaitingJob, verdict: Verdict, reason: str, spot: Spot | None, candidates: tuple[Candidate, ...]
    ) -> Decision:
        now, mean_s = self._of.snapshot.now, job.belief.mean_duration_s
        grams = self._of.tables.booked_g(job, spot.site, spot.slot) if spot else None
        return Decision(
            job_id=job.job_id,
            verdict=verdict,
            decided_at=now,
            reason=reason,
            cluster=self._of.board.sites[spot.site].cluster.name if spot else None,
            start=now + timedelta(seconds=spot.start_s) if spot else None,
            candidates=candidates,
            expected_energy_kwh=job.belief.power_w * mean_s / 3.6e6,
            expected_co2e_g=grams,
            expected_duration_s=mean_s,
            expected_power_w=job.belief.power_w,
            estimate_source=job.belief.source,
            references=self._references(job, spot),
            policy=job.policy,
            next_look=self._look(job, verdict, spot),
        )

    def _references(self, job: WaitingJob, spot: Spot | None) -> tuple[tuple[str, float], ...]:
        """Expected grams of the reference choices, by the identical method; those that cannot be known are left out."""
        snapshot = self._of.snapshot
        sites = {
            "run-now-home": self._names.get(snapshot.home or ""),
            "best-fixed": self._names.get(snapshot.best_fixed or ""),
            "run-now-here": spot.site if spot else None,
        }
        earliest = self._of.grid.slot((job.earliest_start - snapshot.now).total_seconds())
        earliest = min(earliest, self._of.grid.starts - 1)
        booked = self._of.tables.booked_g
        known = {name: booked(job, site, earliest) for name, site in sites.items() if site is not None}
        return tuple((name, grams) for name, grams in known.items() if grams is not None)

    def _look(self, job: WaitingJob, verdict: Verdict, spot: Spot | None) -> datetime | None:
        """When this job should be looked at again."""
        now = self._of.snapshot.now
        if verdict is Verdict.DELAY and spot is not None:
            return now + timedelta(seconds=spot.start_s)
        if verdict is Verdict.HOLD:
            later = now + timedelta(seconds=LOOK_AGAIN_S)
            return min(later, job.earliest_start) if job.earliest_start > now else later
        return None

    def _candidates(self, i: int, spot: Spot | None) -> list[Candidate]:
        of, shape = self._of, self._of.shapes[i]
        out = []
        for number, site in enumerate(of.board.sites):
            barred = shape.obstacles[number]
            if barred is not None:
                out.append(self._barred(site, barred.reason))
            elif spot is not None and spot.site == number:
                out.append(self._open(i, spot))
            else:
                out.append(self._elsewhere(i, number))
        return out

    def _elsewhere(self, i: int, number: int) -> Candidate:
        """The best that a site would offer without the other jobs of this plan, or that it is full."""
        of, job = self._of, self._of.jobs[i]
        site, first = of.board.sites[number], of.earliest(i)
        last = first if of.hurries(i) else int(of.problem.last[i])
        if not of.shapes[i].room_now[number] and first == of.grid.now:
            first += 1
        if first > last or not self._room(i, number):
            return self._barred(site, full(site.room, job.spec.resources))
        slot = of.tables.cheapest(job, number, first, last)
        return self._open(i, Spot(number, slot, max(of.grid.time(slot), of.windows[i][0])))

    def _room(self, i: int, number: int) -> bool:
        """Whether any lane of the site ever has enough units."""
        of = self._of
        units = units_of(of.jobs[i]) - EPSILON
        return any(self._most[lane] >= units for lane in of.shapes[i].lanes if of.lanes[lane].site == number)

    def _barred(self, site: Site, reason: str) -> Candidate:
        return Candidate(site.cluster.name, site.cluster.zone, feasible=False, reason=reason, pue=site.pue)

    def _open(self, i: int, spot: Spot) -> Candidate:
        of, job, site = self._of, self._of.jobs[i], self._of.board.sites[spot.site]
        mean_s = job.belief.mean_duration_s
        start = of.snapshot.now + timedelta(seconds=spot.start_s)
        energy = job.belief.power_w * mean_s / 3.6e6
        grams = of.tables.booked_g(job, spot.site, spot.slot)
        later = spot.slot > of.earliest(i)
        return Candidate(
            cluster=site.cluster.name,
            zone=site.cluster.zone,
            feasible=True,
            reason=wording.offer(known=grams is not None, later=later, room=of.shapes[i].room_now[spot.site]),
            start=start,
            end=start + timedelta(seconds=mean_s),
            energy_kwh=energy,
            co2e_g=grams,
            now_co2e_g=of.tables.booked_g(job, spot.site, of.earliest(i)),
            intensity_g_per_kwh=grams / (energy * site.pue) if grams is not None and energy > 0 else None,
            pue=site.pue,
            grade=site.curve.worst_grade(spot.start_s, spot.start_s + mean_s) if site.curve is not None else None,
        )

    def _comparison(self, i: int, spot: Spot) -> wording.Comparison:
        of, job, sites = self._of, self._of.jobs[i], self._of.board.sites
        first = of.earliest(i)
        room = [n for n in range(len(sites)) if of.shapes[i].obstacles[n] is None and of.shapes[i].room_now[n]]
        now = {n: of.tables.booked_g(job, n, first) for n in room}
        return wording.Comparison(
            cluster=sites[spot.site].cluster.name,
            start_s=spot.start_s,
            asked_s=of.windows[i][0],
            grams=of.tables.booked_g(job, spot.site, spot.slot),
            at_once=min((grams for grams in now.values() if grams is not None), default=None),
            others={sites[n].cluster.name: g for n, g in now.items() if n != spot.site and g is not None},
            full=[
                s.cluster.name
                for n, s in enumerate(sites)
                if of.shapes[i].obstacles[n] is None and not of.shapes[i].room_now[n]
            ],
            room_now=bool(room),
            patience_gain=self._patience_gain(i, spot, room),
            least_gain=job.min_gain,
        )

    def _patience_gain(self, i: int, spot: Spot, room: list[int]) -> float:
        """Share of the expected CO2e that six hours of patience would have saved; 0 for a job that may wait anyway."""
        of, job = self._of, self._of.jobs[i]
        if not of.hurries(i) or of.board.sites[spot.site].curve is None:
            return 0.0
        key = (like(job.belief), spot.site, spot.slot, tuple(room))
        if key not in self._patience:
            starts = spot.start_s + np.linspace(0.0, PATIENCE_S, PATIENCE_LOOKS)
            durations, weights = np.array(job.belief.durations_s), np.array(job.belief.weights)
            offers = [
                site.pue * site.curve.booked_g(starts, durations, weights)
                for site in (of.board.sites[n] for n in {*room, spot.site})
                if site.curve is not None
            ]
            here = of.board.sites[spot.site]
            now = here.pue * here.curve.booked_g(starts[:1], durations, weights)[0] if here.curve is not None else 0.0
            self._patience[key] = 1.0 - float(np.min(offers)) / now if now > 0 else 0.0
        return self._patience[key]
