"""What explains a decision: every cluster's best offer in numbers and words, and the reason for the choice.

Made for the decisions that somebody will read, one by one: of thousands of jobs few are told something new by a plan.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Candidate, Decision, Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.costs import units_of
from carbon_sched.planning.hardware import embodied_g
from carbon_sched.planning.options import full
from carbon_sched.planning.outcome import Expected, Outcomes, Spot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from carbon_sched.domain.intensity import Grade
    from carbon_sched.planning.columns import Columns, Shape
    from carbon_sched.planning.costs import View
    from carbon_sched.planning.snapshot import WaitingJob
    from carbon_sched.planning.solving import Solution

PATIENCE_S = 6 * 3600.0
"""What a job without flexibility is told it could have saved, if it had been allowed to wait this long."""
PATIENCE_LOOKS = 73
EPSILON = 1e-6
NOTABLE_G_PER_KWH = 0.5


@dataclass(frozen=True)
class Undecided:
    """A job that no cluster can take now: what is in its way, and why its deadline is lost, if it is."""

    job: WaitingJob
    shape: Shape
    lost: str


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

    def expected(self, site: int) -> Expected:
        """The run on a site."""
        return Expected.of(self.job.belief, self.view, site)


class Explanations:
    """The decisions of one plan with everything that explains them."""

    def __init__(self, of: Columns, solution: Solution, outcomes: Outcomes, undecided: Mapping[str, Undecided]) -> None:
        self._of, self._outcomes, self._undecided = of, outcomes, undecided
        self._sites, self._known = outcomes.sites, outcomes.known
        self._rows = {job.job_id: i for i, job in enumerate(of.jobs)}
        self._prices = solution.prices.values
        self._full, self._load = solution.full.tolist(), solution.load.tolist()
        self._most = solution.problem.capacity.max(axis=1, initial=0.0).tolist()
        self._numbers = {site.cluster.name: i for i, site in enumerate(self._sites)}
        self._patience: dict[tuple[object, ...], float] = {}
        self._grades: dict[tuple[int, int, int], Grade | None] = {}

    def decision(self, job_id: str) -> Decision:
        """What becomes of a job, and why; KeyError for one that the plan is not about."""
        if job_id in self._undecided:
            return self._explained_hold(self._undecided[job_id])
        i = self._rows[job_id]
        outline, spot = self._outcomes.outline(i), self._outcomes.spot(i)
        if spot is None or outline.verdict is Verdict.HOLD:
            return self._explained(outline, self._row(i, None), None, self._candidates(i, self._row(i, None), None))
        row, snapshot = self._row(i, spot), self._of.snapshot
        said = wording.chosen(self._comparison(i, row, spot), snapshot.now)
        reason = f"{said}; {snapshot.ranked_by}" if snapshot.ranked_by else said
        return replace(self._explained(outline, row, spot, self._candidates(i, row, spot)), reason=reason)

    # parts ---------------------------------------------------------------------------------------

    def _explained_hold(self, what: Undecided) -> Decision:
        outline = self._outcomes.undecided(what.job, what.shape, what.lost)
        candidates = [
            self._barred(n, barred.reason if barred is not None else what.lost)
            for n, barred in enumerate(what.shape.obstacles)
        ]
        earliest = (what.job.earliest_start - self._of.snapshot.now).total_seconds()
        slot = min(self._of.grid.slot(earliest), self._of.grid.starts - 1)
        view = self._of.costs.view(what.job, what.shape.lanes, what.shape.per_site)
        return self._explained(outline, self._priced(what.job, what.shape, view, slot, slot), None, candidates)

    def _explained(self, outline: Decision, row: _Row, spot: Spot | None, candidates: list[Candidate]) -> Decision:
        return replace(
            outline,
            candidates=tuple(candidates),
            estimate_source=self._source(row, spot),
            references=self._references(row, spot),
        )

    def _row(self, i: int, spot: Spot | None) -> _Row:
        """The chosen site is looked at on the chosen lane, every other one on the first that the job may use there."""
        of, earliest = self._of, self._of.earliest(i)
        last = earliest if of.hurries[i] else int(of.problem.last[i])
        view = self._outcomes.view(i, spot.lane if spot else None)
        return self._priced(of.jobs[i], of.shapes[i], view, earliest, last)

    def _priced(self, job: WaitingJob, shape: Shape, view: View, earliest: int, last: int) -> _Row:
        """Grams on every site: the whole power, the intensity as it is, PUE, and what comes beside the run."""
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
        return row.view.gram(row.job.belief, spot.site, spot.slot) if self._known[spot.site] else None

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
        may_wait = not self._of.hurries[i] and int(self._of.problem.last[i]) > row.earliest
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
            load=self._load[i] if may_wait and self._full[i] else None,
        )

    def _patience_gain(self, i: int, row: _Row, spot: Spot, room: list[int]) -> float:
        """Share of the expected CO2e that six hours of patience would have saved; 0 for a job that may wait anyway."""
        of, belief = self._of, row.job.belief
        here = self._sites[spot.site]
        if not of.hurries[i] or here.curve is None:
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
