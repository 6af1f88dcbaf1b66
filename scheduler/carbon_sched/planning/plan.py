"""plan(snapshot, previous) -> Plan: for every waiting job where and when to start it, or why not yet, or why never."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache, cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.columns import Columns, build, columns, expected
from carbon_sched.planning.explaining import Explanations, Undecided
from carbon_sched.planning.options import Board
from carbon_sched.planning.outcome import Outcomes
from carbon_sched.planning.settling import settle
from carbon_sched.planning.solving import solve
from carbon_sched.planning.waiting import promised
from carbon_sched.planning.warm import WarmStart, leave, reuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.decision import Decision
    from carbon_sched.planning.snapshot import Snapshot, WaitingJob
    from carbon_sched.planning.waiting import Gate

    Floats = NDArray[np.float64]

DAY_S = 86_400.0
OVERDUE_S = DAY_S
SHARE_STEP = 0.1
"""Teams whose shares differ by less are planned together: what they gain jointly is worth more than the order."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What becomes of every waiting job, in the order of the snapshot, and when to look again at the latest.

    `outlines` say what is decided: where, when, at which expected grams, and in words only why a job is held or
    refused. `explained` says of single jobs why, with every cluster's offer.
    """

    outlines: tuple[Decision, ...]
    next_look: datetime
    state: WarmStart = field(default_factory=WarmStart)
    explanations: Explanations | None = None

    def explained(self, job_ids: Iterable[str]) -> tuple[Decision, ...]:
        """The whole decisions about some of the jobs; KeyError for one that the plan is not about."""
        return tuple(self._decision(job_id) for job_id in job_ids)

    @cached_property
    def decisions(self) -> tuple[Decision, ...]:
        """The whole decision about every job."""
        return self.explained(outline.job_id for outline in self.outlines)

    def _decision(self, job_id: str) -> Decision:
        if self.explanations is None:
            raise KeyError(job_id)
        return self.explanations.decision(job_id)


def plan(snapshot: Snapshot, previous: Plan | None = None) -> Plan:
    """Decide about every waiting job of a snapshot, all at once.

    Higher priorities, then smaller shares, then jobs that may not wait come first; among equals the expected CO2e of
    all together is what counts. The order of jobs and clusters in the snapshot does not matter. A `previous` plan saves
    time, and keeps jobs where they were; from any of them a plan of few jobs (`solving.MOST_COMPARED`) is within half a
    percent of a fresh one, and one of many keeps near (`make bench-plan-speed` prints how near).
    """
    jobs = sorted(snapshot.jobs, key=lambda job: job.job_id)
    of = columns(snapshot, Board.of(snapshot), jobs)
    reasons = (_hopeless(job, earliest, snapshot.now) for job, (earliest, _) in zip(jobs, of.windows, strict=True))
    lost = {job.job_id: reason for job, reason in zip(jobs, reasons, strict=True) if reason}
    return _solve(of, lost, previous.state if previous is not None else WarmStart())


def _hopeless(job: WaitingJob, earliest_s: float, now: datetime) -> str:
    """Why the deadline is lost even if the job started as early as it may, or nothing."""
    deadline, shortest = job.spec.flexibility.deadline, job.belief.durations_s[0]
    if deadline is None or earliest_s + shortest <= (deadline - now).total_seconds():
        return ""
    return wording.hopeless(deadline, shortest)


def _solve(of: Columns, lost: Mapping[str, str], state: WarmStart) -> Plan:
    able = [i for i, job in enumerate(of.jobs) if of.shapes[i].lanes and job.job_id not in lost]
    out = of.only(able)
    levels = _Levels.of(out.jobs, of.snapshot.now)
    build(out, [job.min_gain for job in out.jobs], [levels.level(job) for job in out.jobs])
    spared, gate = _spared(out, state)
    coming = expected(out, levels.level) if of.snapshot.expected else None
    solution = solve(out.problem, reuse(state, out), expected=coming, seed=of.snapshot.seed)
    outcomes = Outcomes(out, *settle(out, solution, spared))
    unable = {
        of.jobs[i].job_id: Undecided(of.jobs[i], of.shapes[i], lost.get(of.jobs[i].job_id, ""))
        for i in sorted(set(range(len(of.jobs))) - set(able))
    }
    decided = {job.job_id: outcomes.outline(i) for i, job in enumerate(out.jobs)}
    decided |= {name: outcomes.undecided(what.job, what.shape, what.lost) for name, what in unable.items()}
    waiting = frozenset(d.job_id for d in decided.values() if d.verdict is Verdict.DELAY)
    outlines = tuple(decided[job.job_id] for job in of.snapshot.jobs)
    return Plan(
        outlines,
        _next_look(of.snapshot, outlines),
        leave(out, solution, waiting, gate),
        Explanations(out, solution, outcomes, unable),
    )


@dataclass(frozen=True)
class _Levels:
    """Who comes first, whatever it costs the others: by priority, then by fair share in coarse steps.

    Before them all come those that have waited a day longer than they should: whoever is passed over again and again
    is not passed over for ever.
    """

    keys: tuple[tuple[bool, int, int], ...]
    now: datetime

    @staticmethod
    def of(jobs: Iterable[WaitingJob], now: datetime) -> _Levels:
        return _Levels(tuple(sorted({_turn(job, now) for job in jobs})), now)

    def level(self, job: WaitingJob) -> int:
        """The number of a job's level; of one that is not among the jobs, the last one before its own, or -1."""
        return bisect_right(self.keys, _turn(job, self.now)) - 1


def _turn(job: WaitingJob, now: datetime) -> tuple[bool, int, int]:
    overdue = (now - job.latest_start).total_seconds() > OVERDUE_S
    return not overdue, -job.priority, round(job.share / SHARE_STEP)


def _spared(of: Columns, state: WarmStart) -> tuple[list[int], Gate]:
    """Jobs that may wait but have too little to gain by it, and the gate with the new jobs noted."""
    problem, today = of.problem, int(of.snapshot.now.timestamp() // DAY_S)
    at_once = _at_once(of)
    gain = promised(at_once, problem.wishes)
    patient = np.isfinite(at_once) & ~problem.urgent
    spared, gate, gains = [], state.gate, gain.tolist()
    least_gain = cache(partial(gate.least_gain, today=today))
    new: dict[str, list[int]] = {}
    for i in np.flatnonzero(patient).tolist():
        job = of.jobs[i]
        key = _class(job)
        if job.job_id not in state.seen:
            new.setdefault(key, []).append(i)
        if job.job_id not in state.waiting and gains[i] <= least_gain(key, required=job.min_gain):
            spared.append(i)
    for key, which in new.items():
        gate = gate.noted(key, today, at_once[which], gain[which])
    return spared, gate


def _at_once(of: Columns) -> Floats:
    """`[J]` least grams of a start at the earliest moment, infinite where there is no room then."""
    problem = of.problem
    first = problem.cost[problem.group, :, problem.first].min(axis=1, initial=np.inf)
    out: Floats = first.astype(np.float64) * problem.units
    return out


def _class(job: WaitingJob) -> str:
    """Jobs that are promised alike: by phase, kind of hardware, and how long they may wait."""
    patience = (job.latest_start - job.earliest_start).total_seconds()
    hours = next((limit for limit in (1, 6, 24) if patience <= limit * 3600), 168)
    hardware = job.spec.resources.gpu_type or ("gpu" if job.spec.resources.gpus else "cpu")
    return f"{job.spec.phase.value}/{hardware}/{hours}h"


def _next_look(snapshot: Snapshot, decisions: Iterable[Decision]) -> datetime:
    """The earliest planned start or second look; while jobs wait, each new hour, since the outlook has moved on."""
    looks = [decision.next_look for decision in decisions if decision.next_look is not None]
    hour = snapshot.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return min([*looks, hour])
