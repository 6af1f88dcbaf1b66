"""Where each job ends up once nodes are looked at one by one, and the decision that says so."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Candidate, Decision, Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.costs import J_PER_KWH, units_of
from carbon_sched.planning.hardware import embodied_g
from carbon_sched.planning.options import full
from carbon_sched.planning.placing import NOWHERE, Field, order

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.intensity import Grade
    from carbon_sched.planning.columns import Columns, Shape
    from carbon_sched.planning.costs import View
    from carbon_sched.planning.snapshot import WaitingJob
    from carbon_sched.planning.solving import Solution

PATIENCE_S = 6 * 3600.0
"""What a job without flexibility is told it could have saved, if it had been allowed to wait this long."""
LOOK_AGAIN_S = 60.0
PATIENCE_LOOKS = 73
EPSILON = 1e-6
NOTABLE_G_PER_KWH = 0.5
"""Held jobs are looked at again after this long, even if nothing was reported meanwhile."""


def settle(of: Columns, solution: Solution, spared: Sequence[int]) -> tuple[list[int], list[int]]:
    """Lane and start slot per job, after every job that is to start now has been laid on nodes.

    Lanes count units, not nodes: where the units lie scattered, the job takes its next best offer instead. Jobs that
    are `spared` the waiting start as early as they may, if there is room then.
    """
    problem, early = of.problem, set(spared)
    field = Field.filled(problem, solution.lane, solution.start)
    for i in order(problem)[np.argsort(problem.level[order(problem)], kind="stable")].tolist():
        offers = None
        if i in early:
            _bring_forward(field, i)
        while field.lane[i] != NOWHERE and field.start[i] == of.grid.now and of.windows[i][0] <= 0:
            nodes = of.site(int(field.lane[i])).room.assign(of.jobs[i].spec.resources)
            if nodes is not None:
                for node, need in nodes:
                    node.take(need)
                break
            offers = field.offers(i).copy() if offers is None else offers
            lane, start = field.lift(i)
            offers[lane, start - problem.first[i]] = np.inf
            lane, start = field.best(i, offers)
            if lane != NOWHERE:
                field.put(i, lane, start)
    return field.lane.tolist(), field.start.tolist()


def _bring_forward(field: Field, i: int) -> None:
    """Move a job to its cheapest offer in its first slot; where it is, if there is no room."""
    at_once = field.offers(i).copy()
    at_once[:, 1:] = np.inf
    before = field.lift(i)
    lane, start = field.best(i, at_once)
    lane, start = (lane, start) if lane != NOWHERE else before
    if lane != NOWHERE:
        field.put(i, lane, start)


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


@dataclass(frozen=True)
class _Row:
    """What every site would make of one job, by site number: as booked, at once and from each site's best start."""

    job: WaitingJob
    shape: Shape
    view: View
    earliest: int
    slot: list[int]
    grams: list[float | None]
    at_once: list[float | None]

    def expected(self, site: int | None) -> Expected:
        """The run on a site; on the hardware it was learnt on, and without anything beside it, where there is none."""
        belief = self.job.belief
        stretch, energy, overhead_kwh = 1.0, 1.0, 0.0
        if site is not None:
            stretch, energy, overhead_kwh = self.view.factors[site]
        run_kwh = belief.power_w * belief.mean_duration_s / J_PER_KWH * energy
        return Expected(belief.mean_duration_s * stretch, belief.power_w * energy / stretch, run_kwh + overhead_kwh)


class Outcomes:
    """Decisions for the jobs of one problem."""

    def __init__(self, of: Columns, solution: Solution, lanes: list[int], starts: list[int]) -> None:
        self._of, self._lanes, self._starts = of, lanes, starts
        self._sites = of.board.sites
        self._prices = solution.prices.values
        self._most = solution.problem.capacity.max(axis=1, initial=0.0).tolist()
        self._numbers = {site.cluster.name: i for i, site in enumerate(self._sites)}
        self._known = [site.curve is not None for site in self._sites]
        self._patience: dict[tuple[object, ...], float] = {}
        self._grades: dict[tuple[int, int, int], Grade | None] = {}

    def decision(self, i: int) -> Decision:
        """What becomes of job i."""
        spot, verdict = self._spot(i), self._verdict(i)
        row = self._row(i, spot)
        if spot is None or verdict is Verdict.HOLD:
            return self._held(i, row, spot)
        snapshot = self._of.snapshot
        said = wording.chosen(self._comparison(i, row, spot), snapshot.now)
        reason = f"{said}; {snapshot.ranked_by}" if snapshot.ranked_by else said
        return self._decision(row, verdict, reason, spot, self._candidates(i, row, spot))

    def brief(self, i: int) -> Decision:
        """The same without what explains it."""
        spot, verdict, job, now = self._spot(i), self._verdict(i), self._of.jobs[i], self._of.snapshot.now
        if spot is None or verdict is Verdict.HOLD:
            return Decision(job.job_id, verdict, now, "", next_look=self._look(job, verdict, None))
        name, start = self._sites[spot.site].cluster.name, now + timedelta(seconds=spot.start_s)
        return Decision(job.job_id, verdict, now, "", name, start, next_look=self._look(job, verdict, spot))

    def _verdict(self, i: int) -> Verdict:
        """A job without flexibility that would be late is held, not promised a start."""
        spot = self._spot(i)
        if spot is None or (self._of.hurries(i) and spot.slot > self._of.earliest(i)):
            return Verdict.HOLD
        return Verdict.DELAY if spot.start_s > 0 else Verdict.PLACE

    def start(self, i: int) -> tuple[str, datetime] | None:
        """Cluster and start of job i, if it is to start later; None for one that starts now, or has no place."""
        spot = self._spot(i)
        if spot is None or spot.start_s <= 0:
            return None
        return self._sites[spot.site].cluster.name, self._of.snapshot.now + timedelta(seconds=spot.start_s)

    def undecided(self, job: WaitingJob, shape: Shape, reason: str = "") -> Decision:
        """REFUSE when no cluster will ever do, or for `reason`; else HOLD."""
        named = [(site.cluster.name, o) for site, o in zip(self._sites, shape.obstacles, strict=True)]
        barred = {name: o.reason for name, o in named if o is not None}
        never = len(barred) == len(named) > 0 and all(o.final for _, o in named if o is not None)
        verdict = Verdict.REFUSE if reason or never else Verdict.HOLD
        said = reason or (wording.refused(barred) if never else wording.held(barred))
        candidates = [self._barred(n, barred.get(name, reason)) for n, (name, _) in enumerate(named)]
        earliest = (job.earliest_start - self._of.snapshot.now).total_seconds()
        slot = min(self._of.grid.slot(earliest), self._of.grid.starts - 1)
        return self._decision(self._priced(job, shape, shape.per_site, slot, slot), verdict, said, None, candidates)

    # parts ---------------------------------------------------------------------------------------

    def _spot(self, i: int) -> Spot | None:
        if self._lanes[i] == NOWHERE:
            return None
        earliest, latest = self._of.windows[i]
        slot = self._starts[i]
        start = max(self._of.grid.time(slot), earliest)
        lane = self._lanes[i]
        return Spot(lane, self._of.lanes[lane].site, slot, start if latest <= earliest else min(start, latest))

    def _row(self, i: int, spot: Spot | None) -> _Row:
        """The chosen site is looked at on the chosen lane, every other one on the first that the job may use there."""
        of, earliest, shape = self._of, self._of.earliest(i), self._of.shapes[i]
        last = earliest if of.hurries(i) else int(of.problem.last[i])
        lanes = shape.per_site
        if spot is not None and lanes[spot.site] != spot.lane:
            lanes = (*lanes[: spot.site], spot.lane, *lanes[spot.site + 1 :])
        return self._priced(of.jobs[i], shape, lanes, earliest, last)

    def _priced(
        self, job: WaitingJob, shape: Shape, per_site: tuple[int | None, ...], earliest: int, last: int
    ) -> _Row:
        """Grams on every site: the whole power, the intensity as it is, PUE, and what comes beside the run."""
        view = self._of.costs.view(job, shape.lanes, per_site)
        # without room now a site's best start is a later one
        busy = (
            np.array([not room for room in shape.room_now], dtype=np.bool_)
            & (earliest == self._of.grid.now)
            & (last > earliest)
        )
        window = view.ranked[:, earliest : last + 1]
        slot = earliest + np.where(
            busy, 1 + window[:, 1:].argmin(axis=1) if last > earliest else 0, window.argmin(axis=1)
        )
        grams = view.grams(job.belief, slot).tolist()
        at_once = view.grams(job.belief, np.full(len(slot), earliest)).tolist()
        return _Row(
            job,
            shape,
            view,
            earliest,
            slot.tolist(),
            [value if known else None for value, known in zip(grams, self._known, strict=True)],
            [value if known else None for value, known in zip(at_once, self._known, strict=True)],
        )

    def _at(self, row: _Row, spot: Spot) -> float | None:
        """Grams of a job at a spot of its own."""
        if not self._known[spot.site]:
            return None
        return float(row.view.grams(row.job.belief, np.full(len(self._sites), spot.slot))[spot.site])

    def _held(self, i: int, row: _Row, spot: Spot | None) -> Decision:
        reasons = {
            site.cluster.name: barred.reason if barred else full(site.room, row.job.spec.resources)
            for site, barred in zip(self._sites, row.shape.obstacles, strict=True)
        }
        said = wording.held(reasons)
        if spot is not None:
            name, when = self._sites[spot.site].cluster.name, wording.at(self._of.snapshot.now, spot.start_s)
            said += f"; {name} is expected to have room at {when}"
        return self._decision(row, Verdict.HOLD, said, None, self._candidates(i, row, None))

    def _decision(
        self, row: _Row, verdict: Verdict, reason: str, spot: Spot | None, candidates: Sequence[Candidate]
    ) -> Decision:
        now, job, expected = self._of.snapshot.now, row.job, row.expected(spot.site if spot else None)
        return Decision(
            job_id=job.job_id,
            verdict=verdict,
            decided_at=now,
            reason=reason,
            cluster=self._sites[spot.site].cluster.name if spot else None,
            start=now + timedelta(seconds=spot.start_s) if spot else None,
            candidates=tuple(candidates),
            expected_energy_kwh=expected.energy_kwh,
            expected_co2e_g=self._at(row, spot) if spot else None,
            expected_duration_s=expected.duration_s,
            expected_power_w=expected.power_w,
            estimate_source=self._source(row, spot),
            references=self._references(row, spot),
            policy=job.policy,
            next_look=self._look(job, verdict, spot),
        )

    def _source(self, row: _Row, spot: Spot | None) -> str:
        """Where the estimate comes from; on other hardware than it was learnt on, that it was converted."""
        source, shape = row.job.belief.source, row.shape
        crossed = self._of.costs.ratio(row.job, shape.lanes, spot.lane) if spot else None
        if spot is None or crossed is None or not crossed.error:
            return source
        here = (self._of.lanes[spot.lane].gpu_type or "an unknown GPU").upper()
        return f"{source}; converted to {here} by datasheet ratios, estimated (+/-{crossed.error:.0%})"

    def _references(self, row: _Row, spot: Spot | None) -> tuple[tuple[str, float], ...]:
        """Expected grams of the reference choices, by the identical method; those that cannot be known are left out."""
        snapshot = self._of.snapshot
        sites = {
            "run-now-home": self._numbers.get(row.job.home or snapshot.home or ""),
            "best-fixed": self._numbers.get(snapshot.best_fixed or ""),
            "run-now-here": spot.site if spot else None,
        }
        known = {name: row.at_once[site] for name, site in sites.items() if site is not None}
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

    def _candidates(self, i: int, row: _Row, spot: Spot | None) -> list[Candidate]:
        """One per site: where the job goes, what another would offer without the other jobs, or why it is out."""
        of, out = self._of, []
        room = self._rooms(i)
        for n, barred in enumerate(row.shape.obstacles):
            if barred is not None:
                out.append(self._barred(n, barred.reason))
            elif spot is not None and spot.site == n:
                out.append(self._open(row, spot, self._at(row, spot)))
            elif not room[n] or (not row.shape.room_now[n] and row.slot[n] == of.grid.now):
                out.append(self._barred(n, full(self._sites[n].room, row.job.spec.resources)))
            else:
                start_s = max(of.grid.time(row.slot[n]), of.windows[i][0])
                out.append(self._open(row, Spot(row.shape.per_site[n] or 0, n, row.slot[n], start_s), row.grams[n]))
        return out

    def _rooms(self, i: int) -> list[bool]:
        """Whether any lane of each site ever has enough units for job i."""
        units, out = units_of(self._of.jobs[i]) - EPSILON, [False] * len(self._sites)
        for lane in self._of.shapes[i].lanes:
            out[self._of.lanes[lane].site] |= self._most[lane] >= units
        return out

    def _barred(self, n: int, reason: str) -> Candidate:
        site = self._sites[n]
        return Candidate(site.cluster.name, site.cluster.zone, feasible=False, reason=reason, pue=site.pue)

    def _open(self, row: _Row, spot: Spot, grams: float | None) -> Candidate:
        site = self._sites[spot.site]
        start = self._of.snapshot.now + timedelta(seconds=spot.start_s)
        later, expected = spot.slot > row.earliest, row.expected(spot.site)
        energy_kwh = expected.energy_kwh
        offer = wording.offer(known=grams is not None, later=later, room=row.shape.room_now[spot.site])
        room = self._room_price(row.job, spot)
        return Candidate(
            cluster=site.cluster.name,
            zone=site.cluster.zone,
            feasible=True,
            reason="; ".join(
                part for part in (offer, wording.full_hour(room, row.job.spec.resources.gpus > 0)) if part
            ),
            start=start,
            end=start + timedelta(seconds=expected.duration_s),
            energy_kwh=energy_kwh,
            co2e_g=grams,
            now_co2e_g=row.at_once[spot.site],
            room_g_per_kwh=room,
            intensity_g_per_kwh=None if grams is None or energy_kwh <= 0 else grams / (energy_kwh * site.pue),
            pue=site.pue,
            grade=self._grade(spot, expected.duration_s),
            overhead_g=float(row.view.overhead_g[spot.site, spot.slot]),
            transfer_g=float(row.view.transfer_g[spot.site, spot.slot]),
            embodied_g=embodied_g(self._of.lanes[spot.lane].gpu_type, row.job.spec.resources.gpus, expected.duration_s),
        )

    def _room_price(self, job: WaitingJob, spot: Spot) -> float | None:
        """What the room at a spot is worth to all jobs, per kWh that this one moves there; None with room to spare.

        It compares with the grid's intensity: so much dirtier could the hour be before another one is better.
        """
        per_unit_h = float(self._prices[spot.lane, spot.slot // self._of.grid.coarse])
        kilowatts = job.belief.moved_power_w / 1000.0 * self._sites[spot.site].pue
        price = per_unit_h * units_of(job) / kilowatts if kilowatts > 0 else 0.0
        return price if price >= NOTABLE_G_PER_KWH else None

    def _grade(self, spot: Spot, mean_s: float) -> Grade | None:
        """The lowest quality of the values that a run was scored with."""
        length = self._of.grid.length(mean_s)
        key = (spot.site, spot.slot, length)
        if key not in self._grades:
            curve, start = self._sites[spot.site].curve, self._of.grid.time(spot.slot)
            self._grades[key] = None if curve is None else curve.worst_grade(start, start + mean_s)
        return self._grades[key]

    def _comparison(self, i: int, row: _Row, spot: Spot) -> wording.Comparison:
        sites = self._sites
        able = [n for n, barred in enumerate(row.shape.obstacles) if barred is None]
        room = [n for n in able if row.shape.room_now[n]]
        now = {n: grams for n in room if (grams := row.at_once[n]) is not None}
        return wording.Comparison(
            cluster=sites[spot.site].cluster.name,
            start_s=spot.start_s,
            asked_s=self._of.windows[i][0],
            grams=self._at(row, spot),
            at_once=min(now.values(), default=None),
            others={sites[n].cluster.name: grams for n, grams in now.items() if n != spot.site},
            full=[sites[n].cluster.name for n in able if not row.shape.room_now[n]],
            room_now=bool(room),
            patience_gain=self._patience_gain(i, row, spot, room),
            least_gain=row.job.min_gain,
        )

    def _patience_gain(self, i: int, row: _Row, spot: Spot, room: list[int]) -> float:
        """Share of the expected CO2e that six hours of patience would have saved; 0 for a job that may wait anyway."""
        of, belief = self._of, row.job.belief
        here = self._sites[spot.site]
        if not of.hurries(i) or here.curve is None:
            return 0.0
        key = (id(of.costs.table(belief)), spot.site, spot.slot, tuple(room))
        if key not in self._patience:
            starts = spot.start_s + np.linspace(0.0, PATIENCE_S, PATIENCE_LOOKS)
            times, weights = (np.array(values) for values in belief.moments)
            offers = [
                site.pue * site.curve.booked_g(starts, times, weights)
                for site in (self._sites[n] for n in {*room, spot.site})
                if site.curve is not None
            ]
            now = here.pue * float(here.curve.booked_g(starts[:1], times, weights)[0])
            self._patience[key] = 1.0 - float(np.min(offers)) / now if now > 0 else 0.0
        return self._patience[key]
