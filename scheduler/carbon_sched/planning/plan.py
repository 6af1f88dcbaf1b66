"""plan(snapshot, previous) -> Plan: for every waiting job where and when to start it, or why not yet, or why never."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Candidate, Decision, Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.options import FRESH_S, Board, Obstacle, Site, full, obstacle

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.planning.snapshot import Snapshot, WaitingJob

    Floats = NDArray[np.float64]

PATIENCE_S = 6 * 3600.0
"""What a job without flexibility is told it could have saved, if it had been allowed to wait this long."""
LOOK_AGAIN_S = 60.0
"""Held jobs are looked at again after this long, even if nothing was reported meanwhile."""
TIE = 1e-9
MOST_STARTS = 2000


@dataclass(frozen=True)
class WarmStart:
    """What the next plan may build on: the jobs that were already told to wait for a cleaner hour."""

    waiting: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Plan:
    """One decision per waiting job, in the order of the snapshot, and when to look again at the latest."""

    decisions: tuple[Decision, ...]
    next_look: datetime
    state: WarmStart = field(default_factory=WarmStart)


def plan(snapshot: Snapshot, previous: Plan | None = None) -> Plan:
    """Decide about every waiting job of a snapshot.

    Jobs are taken by priority, then fair share, then urgency; each one placed charges the room for those after it. The
    order of jobs and clusters in the snapshot does not matter.
    """
    board = Board.of(snapshot)
    patient = previous.state.waiting if previous is not None else frozenset()
    decided = {job.job_id: _decide(job, snapshot, board, patient) for job in sorted(snapshot.jobs, key=_turn)}
    decisions = tuple(decided[job.job_id] for job in snapshot.jobs)
    waiting = frozenset(d.job_id for d in decisions if d.verdict is Verdict.DELAY)
    return Plan(decisions, _next_look(snapshot, decisions), WarmStart(waiting))


def _turn(job: WaitingJob) -> tuple[float, float, datetime, datetime, str]:
    return -job.priority, job.share, job.latest_start, job.submitted_at, job.job_id


@dataclass(frozen=True)
class _Choice:
    """A site at a start (seconds from now) with the expected grams it is ranked by."""

    site: Site
    start: float
    cost: float
    at_once: bool


@dataclass(frozen=True)
class _Offer:
    """What one site can do for a job: its best start and, if there is room at the earliest moment, that one too."""

    site: Site
    best: _Choice | None = None
    at_once: _Choice | None = None
    obstacle: Obstacle | None = None


def _decide(job: WaitingJob, snapshot: Snapshot, board: Board, patient: frozenset[str]) -> Decision:
    window = _Window.of(job, snapshot.now)
    fresh = (snapshot.now - job.submitted_at).total_seconds() <= FRESH_S
    offers = [_offer(site, job, window, fresh=fresh) for site in board.sites]
    hopeless = window.hopeless(job)
    chosen = None if hopeless else _choose(offers, job, snapshot, patient=job.job_id in patient)
    if chosen is None:
        return _undecided(job, snapshot, board, offers, hopeless)
    waits = chosen.start > 0
    if not waits:
        for node, need in chosen.site.room.assign(job.spec.resources) or []:
            node.take(need)
    verdict = Verdict.DELAY if waits else Verdict.PLACE
    reason = wording.chosen(_comparison(job, offers, chosen, window), snapshot.now)
    return _decision(job, snapshot, board, offers, verdict, reason, chosen)


@dataclass(frozen=True)
class _Window:
    """When a job may start and must have ended, in seconds from now; `latest` equals `earliest` without flexibility."""

    earliest: float
    latest: float
    deadline: float | None

    @staticmethod
    def of(job: WaitingJob, now: datetime) -> _Window:
        earliest = max((job.earliest_start - now).total_seconds(), 0.0)
        latest = max((job.latest_start - now).total_seconds(), earliest)
        deadline = job.spec.flexibility.deadline
        return _Window(earliest, latest, None if deadline is None else (deadline - now).total_seconds())

    def hopeless(self, job: WaitingJob) -> str:
        """Why the deadline is lost even if the job started as early as it may, or nothing."""
        shortest = job.belief.durations_s[0]
        if self.deadline is None or self.earliest + shortest <= self.deadline:
            return ""
        return wording.hopeless(job.spec.flexibility.deadline, shortest)


def _offer(site: Site, job: WaitingJob, window: _Window, *, fresh: bool) -> _Offer:
    barred = obstacle(site, job, fresh=fresh)
    if barred is not None:
        return _Offer(site, obstacle=barred)
    ready = site.room.room_in_s(job.spec.resources)
    if ready is None or ready > window.latest:
        return _Offer(site, obstacle=Obstacle(full(site.room, job.spec.resources)))
    earliest = max(window.earliest, ready)
    if window.deadline is not None and earliest + job.belief.durations_s[0] > window.deadline:
        return _Offer(site, obstacle=Obstacle("there is room only too late for the deadline"))
    starts = _starts(site, job, earliest, window.latest)
    costs = _costs(site, job, starts)
    at_once = _Choice(site, earliest, float(costs[0]), at_once=True) if earliest == window.earliest else None
    index = int(np.argmax(costs <= costs.min() * (1 + TIE))) if np.isfinite(costs[0]) else 0
    best = _Choice(site, float(starts[index]), float(costs[index]), at_once=at_once is not None and index == 0)
    return _Offer(site, best, at_once)


def _starts(site: Site, job: WaitingJob, earliest: float, latest: float) -> Floats:
    """Every start at which the expected cost can have its minimum.

    The cost is piecewise linear in the start, with bends where the start or an end meets an edge of the outlook; so
    the minimum lies on a bend or at an end of the window. With very many bends only the edges themselves are tried.
    """
    ends = np.array([earliest, latest])
    if site.curve is None or latest <= earliest:
        return ends[:1]
    edges = site.curve.edges
    bends = (edges[:, None] - np.array([0.0, *job.belief.durations_s])[None, :]).ravel()
    if bends.size > MOST_STARTS:
        bends = edges
    inside = bends[(bends > earliest) & (bends < latest)]
    return np.unique(np.concatenate([ends, inside]))


def _costs(site: Site, job: WaitingJob, starts: Floats) -> Floats:
    """Expected grams that the placement moves, per start; infinite where nothing is known, so that it never wins."""
    if site.curve is None:
        return np.full(len(starts), np.inf)
    durations, weights = np.array(job.belief.durations_s), np.array(job.belief.weights)
    kilowatts = job.belief.moved_power_w / 1000.0 * site.pue
    return kilowatts * site.curve.ranked_g(starts, durations, weights)


def _choose(offers: list[_Offer], job: WaitingJob, snapshot: Snapshot, *, patient: bool) -> _Choice | None:
    """The cheapest start of all, unless running at once (or at home) is as good but for the required gain."""
    now = [offer.at_once for offer in offers if offer.at_once is not None]
    ever = [offer.best for offer in offers if offer.best is not None]
    if not ever:
        return None
    best = _cheapest(ever)
    if not now:
        return best
    at_once = _cheapest(now)
    home = next((choice for choice in now if choice.site.cluster.name == snapshot.home), None)
    if home is not None and not _worth(at_once, home, job.min_gain):
        at_once = home
    least = 0.0 if patient else job.min_gain
    return best if _worth(best, at_once, least) else at_once


def _cheapest(choices: Iterable[_Choice]) -> _Choice:
    """Least cost; among equals the earlier start, then the first of the board."""
    listed = list(choices)
    least = min(choice.cost for choice in listed)
    return min((c for c in listed if c.cost <= least * (1 + TIE)), key=lambda choice: choice.start)


def _worth(other: _Choice, base: _Choice, least: float) -> bool:
    """Whether `other` saves more than the share `least` of what `base` costs."""
    return base.cost - other.cost > max(least, TIE) * base.cost if np.isfinite(base.cost) else other.cost < base.cost


def _undecided(job: WaitingJob, snapshot: Snapshot, board: Board, offers: list[_Offer], hopeless: str) -> Decision:
    """HOLD, or REFUSE when time cannot help."""
    never = all(offer.obstacle is not None and offer.obstacle.final for offer in offers) and bool(offers)
    obstacles = {offer.site.cluster.name: offer.obstacle.reason for offer in offers if offer.obstacle is not None}
    if hopeless:
        return _decision(job, snapshot, board, offers, Verdict.REFUSE, hopeless, None)
    if never:
        return _decision(job, snapshot, board, offers, Verdict.REFUSE, wording.refused(obstacles), None)
    return _decision(job, snapshot, board, offers, Verdict.HOLD, wording.held(obstacles), None)


def _comparison(job: WaitingJob, offers: list[_Offer], chosen: _Choice, window: _Window) -> wording.Comparison:
    now = [offer.at_once for offer in offers if offer.at_once is not None]
    others = [c for c in now if c.site is not chosen.site and np.isfinite(c.cost)]
    return wording.Comparison(
        cluster=chosen.site.cluster.name,
        start_s=chosen.start,
        asked_s=window.earliest,
        grams=_grams(chosen, job),
        at_once=min((_grams(choice, job) for choice in now), default=None),
        others={choice.site.cluster.name: _grams(choice, job) for choice in others},
        full=[offer.site.cluster.name for offer in offers if offer.best is not None and offer.at_once is None],
        patience_gain=_patience(offers, job, chosen, window),
        least_gain=job.min_gain,
    )


def _patience(offers: list[_Offer], job: WaitingJob, chosen: _Choice, window: _Window) -> float:
    """Share of the expected CO2e that six hours of patience would have saved; 0 for a job that may wait anyway."""
    if window.latest > window.earliest or not np.isfinite(chosen.cost) or chosen.cost <= 0:
        return 0.0
    costs = [
        _costs(offer.site, job, _starts(offer.site, job, window.earliest, window.earliest + PATIENCE_S)).min()
        for offer in offers
        if offer.at_once is not None
    ]
    return 1.0 - float(min(costs)) / chosen.cost


def _grams(choice: _Choice, job: WaitingJob) -> float:
    """Expected grams as they will be booked: the job's whole power, the intensity as it is."""
    return _booked(choice.site, job, choice.start)


def _booked(site: Site, job: WaitingJob, start: float) -> float:
    if site.curve is None:
        return float("nan")
    durations, weights = np.array(job.belief.durations_s), np.array(job.belief.weights)
    return job.belief.power_w / 1000.0 * site.pue * site.curve.booked_g(start, durations, weights)


def _decision(
    job: WaitingJob,
    snapshot: Snapshot,
    board: Board,
    offers: list[_Offer],
    verdict: Verdict,
    reason: str,
    chosen: _Choice | None,
) -> Decision:
    mean_s = job.belief.mean_duration_s
    known = chosen is not None and chosen.site.curve is not None
    return Decision(
        job_id=job.job_id,
        verdict=verdict,
        decided_at=snapshot.now,
        reason=reason,
        cluster=chosen.site.cluster.name if chosen else None,
        start=snapshot.now + timedelta(seconds=chosen.start) if chosen else None,
        candidates=tuple(_candidate(offer, job, snapshot, chosen) for offer in offers),
        expected_energy_kwh=job.belief.power_w * mean_s / 3.6e6,
        expected_co2e_g=_grams(chosen, job) if chosen and known else None,
        expected_duration_s=mean_s,
        expected_power_w=job.belief.power_w,
        estimate_source=job.belief.source,
        references=_references(job, snapshot, board, chosen),
        policy=job.policy,
        next_look=_look(job, snapshot, verdict, chosen),
    )


def _candidate(offer: _Offer, job: WaitingJob, snapshot: Snapshot, chosen: _Choice | None) -> Candidate:
    site, best = offer.site, offer.best
    if chosen is not None and chosen.site is site:
        best = chosen
    name, zone, pue = site.cluster.name, site.cluster.zone, site.pue
    if best is None:
        return Candidate(name, zone, feasible=False, reason=offer.obstacle.reason if offer.obstacle else "", pue=pue)
    start, mean_s = snapshot.now + timedelta(seconds=best.start), job.belief.mean_duration_s
    end, energy = start + timedelta(seconds=mean_s), job.belief.power_w * mean_s / 3.6e6
    if site.curve is None:
        reason = "its grid intensity is not known, or not comparable with the others'"
        return Candidate(name, zone, feasible=True, reason=reason, start=start, end=end, energy_kwh=energy, pue=pue)
    grams, earliest = _booked(site, job, best.start), max((job.earliest_start - snapshot.now).total_seconds(), 0.0)
    return Candidate(
        name,
        zone,
        feasible=True,
        reason="" if best.at_once or best.start <= earliest else wording.later(offer.at_once is None),
        start=start,
        end=end,
        energy_kwh=energy,
        co2e_g=grams,
        now_co2e_g=_booked(site, job, earliest),
        intensity_g_per_kwh=grams / (energy * pue) if energy > 0 else None,
        pue=pue,
        grade=site.curve.worst_grade(best.start, best.start + mean_s),
    )


def _references(
    job: WaitingJob, snapshot: Snapshot, board: Board, chosen: _Choice | None
) -> tuple[tuple[str, float], ...]:
    """Expected grams of the reference choices, by the identical method; those that cannot be known are left out."""
    sites = {
        "run-now-home": board.named(snapshot.home),
        "best-fixed": board.named(snapshot.best_fixed),
        "run-now-here": chosen.site if chosen else None,
    }
    earliest = max((job.earliest_start - snapshot.now).total_seconds(), 0.0)
    return tuple(
        (name, _booked(site, job, earliest))
        for name, site in sites.items()
        if site is not None and site.curve is not None
    )


def _look(job: WaitingJob, snapshot: Snapshot, verdict: Verdict, chosen: _Choice | None) -> datetime | None:
    """When this job should be looked at again."""
    if verdict is Verdict.DELAY and chosen is not None:
        return snapshot.now + timedelta(seconds=chosen.start)
    if verdict is Verdict.HOLD:
        later = snapshot.now + timedelta(seconds=LOOK_AGAIN_S)
        return min(later, job.earliest_start) if job.earliest_start > snapshot.now else later
    return None


def _next_look(snapshot: Snapshot, decisions: Iterable[Decision]) -> datetime:
    """The earliest planned start or second look; while jobs wait, each new hour, since the outlook has moved on."""
    looks = [decision.next_look for decision in decisions if decision.next_look is not None]
    hour = snapshot.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return min([*looks, hour])
