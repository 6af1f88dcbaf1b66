"""plan(snapshot, previous) -> Plan: for every waiting job where and when to start it, or why not yet, or why never."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.planning import wording
from carbon_sched.planning.columns import Columns, build, columns, expected, window_of
from carbon_sched.planning.options import Board
from carbon_sched.planning.outcome import Outcomes, settle
from carbon_sched.planning.solving import solve
from carbon_sched.planning.waiting import promised
from carbon_sched.planning.warm import WarmStart, leave, reuse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.planning.snapshot import Snapshot, WaitingJob
    from carbon_sched.planning.waiting import Gate

    Floats = NDArray[np.float64]

DAY_S = 86_400.0
OVERDUE_S = DAY_S
SHARE_STEP = 0.1
"""Teams whose shares differ by less are planned together: what they gain jointly is worth more than the order."""
SAME_START_S = 1.0
SAME_GRAMS = 0.05
"""A decision whose place and time stand is repeated word for word until its CO2e has moved by more than this share."""


@dataclass(frozen=True)
class Plan:
    """One decision per waiting job, in the order of the snapshot, and when to look again at the latest."""

    decisions: tuple[Decision, ...]
    next_look: datetime
    state: WarmStart = field(default_factory=WarmStart)


def plan(snapshot: Snapshot, previous: Plan | None = None, *, brief: bool = False) -> Plan:
    """Decide about every waiting job of a snapshot, all at once.

    Higher priorities, then smaller shares, then jobs that may not wait come first; among equals the expected CO2e of
    all together is what counts. The order of jobs and clusters in the snapshot does not matter. A `previous` plan saves
    time, and keeps jobs and words where they were; from any of them a plan of few jobs (`solving.MOST_COMPARED`) is
    within half a percent of a fresh one, and one of many keeps near (`make bench-plan-speed` prints how near).

    A `brief` plan leaves out what explains a decision (candidates, numbers, words): for backtests, which decide alike
    and read none of it.
    """
    state = previous.state if previous is not None else WarmStart()
    jobs = sorted(snapshot.jobs, key=lambda job: job.job_id)
    of = columns(snapshot, Board.of(snapshot), jobs)
    lost = {job.job_id: reason for job in jobs if (reason := _hopeless(job, snapshot))}
    decided, state = _solve(of, lost, state, _still_asked(jobs, previous), brief=brief)
    decisions = tuple(_knowing(job, decided[job.job_id]) for job in snapshot.jobs)
    return Plan(decisions, _next_look(snapshot, decisions), state)


def _still_asked(jobs: Iterable[WaitingJob], previous: Plan | None) -> dict[str, Decision]:
    """The earlier decisions about jobs that ask for the same as they did then, by job id."""
    before = {decision.job_id: decision for decision in previous.decisions} if previous is not None else {}
    amended = {job.job_id: job.amendments for job in jobs if job.amendments}
    return {name: one for name, one in before.items() if one.amendments == amended.get(name, 0)}


def _knowing(job: WaitingJob, decision: Decision) -> Decision:
    """The decision with the number of amendments that it knew."""
    return decision if decision.amendments == job.amendments else replace(decision, amendments=job.amendments)


def _hopeless(job: WaitingJob, snapshot: Snapshot) -> str:
    """Why the deadline is lost even if the job started as early as it may, or nothing."""
    deadline, shortest = job.spec.flexibility.deadline, job.belief.durations_s[0]
    earliest, _ = window_of(job, snapshot)
    if deadline is None or earliest + shortest <= (deadline - snapshot.now).total_seconds():
        return ""
    return wording.hopeless(deadline, shortest)


def _solve(
    of: Columns, lost: Mapping[str, str], state: WarmStart, before: Mapping[str, Decision], *, brief: bool
) -> tuple[dict[str, Decision], WarmStart]:
    """Decisions by job id, and what to remember for the next plan."""
    able = [i for i, job in enumerate(of.jobs) if of.shapes[i].lanes and job.job_id not in lost]
    out = of.only(able)
    levels = _Levels.of(out.jobs, of.snapshot.now)
    build(out, [job.min_gain for job in out.jobs], [levels.level(job) for job in out.jobs])
    spared, gate = _spared(out, state)
    warm = reuse(state, out)
    coming = expected(out, levels.level) if of.snapshot.expected else None
    solution = solve(out.problem, warm, expected=coming, seed=of.snapshot.seed)
    outcomes = Outcomes(out, solution, *settle(out, solution, spared))
    decided = {}
    for i, job in enumerate(out.jobs):
        old, at = before.get(job.job_id), outcomes.start(i)
        if brief:
            decided[job.job_id] = old if old is not None and _same_place(old, at) else outcomes.brief(i)
        elif old is not None and warm is not None and warm.stands and _same_place(old, at):
            decided[job.job_id] = old
        else:
            now = outcomes.decision(i)
            decided[job.job_id] = _repeated(old, now) if old is not None and _stands(old, now, at) else now
    for i in sorted(set(range(len(of.jobs))) - set(able)):
        job = of.jobs[i]
        decided[job.job_id] = outcomes.undecided(job, of.shapes[i], lost.get(job.job_id, ""))
    waiting = frozenset(d.job_id for d in decided.values() if d.verdict is Verdict.DELAY)
    return decided, leave(out, solution, waiting, gate)


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
    spared, gate = [], state.gate
    new: dict[str, list[int]] = {}
    for i, job in enumerate(of.jobs):
        if of.hurries(i) or not np.isfinite(at_once[i]):
            continue
        key = _class(job)
        if job.job_id not in state.seen:
            new.setdefault(key, []).append(i)
        if job.job_id not in state.waiting and gain[i] <= state.gate.least_gain(key, today, job.min_gain):
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


def _same_place(old: Decision, at: tuple[str, datetime] | None) -> bool:
    """Whether a job that was told to wait still waits for the same start on the same cluster."""
    if old.verdict is not Verdict.DELAY or at is None or old.start is None or old.cluster != at[0]:
        return False
    return abs((old.start - at[1]).total_seconds()) <= SAME_START_S


def _stands(old: Decision, now: Decision, at: tuple[str, datetime] | None) -> bool:
    if now.verdict is not Verdict.DELAY or not _same_place(old, at):
        return False
    was, grams = old.expected_co2e_g, now.expected_co2e_g
    return was == grams or (was is not None and grams is not None and abs(grams - was) <= SAME_GRAMS * abs(was))


def _repeated(old: Decision, now: Decision) -> Decision:
    """The earlier words at the present start, so that nothing is announced twice."""
    return replace(old, start=now.start, next_look=now.next_look)


def _next_look(snapshot: Snapshot, decisions: Iterable[Decision]) -> datetime:
    """The earliest planned start or second look; while jobs wait, each new hour, since the outlook has moved on."""
    looks = [decision.next_look for decision in decisions if decision.next_look is not None]
    hour = snapshot.now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    return min([*looks, hour])
