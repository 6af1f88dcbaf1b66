"""An organisation's own past as a scenario: its finished jobs as they were asked for and metered, clusters and grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.errors import Conflict, NotFound
from carbon_sched.domain.intensity import Kind
from carbon_sched.domain.job import FINAL_STATES
from carbon_sched.domain.units import UJ_PER_KWH
from carbon_sched.ledger.account import actual
from carbon_sched.ports import JobFilter
from carbon_sched.simulate.feed import forecasts
from carbon_sched.simulate.scenario import TRAILING_H, Scenario, unit_kw
from carbon_sched.simulate.setup import step_min
from carbon_sched.simulate.sizing import merged
from carbon_sched.simulate.traces import Jobs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.domain.job import Attempt, Job, JobSpec
    from carbon_sched.ports import Store
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.statements import Statements

    Floats = NDArray[np.float64]

HOUR = timedelta(hours=1)
UNIT = "GPU"
WINDOW = timedelta(days=28)
MOST_JOBS = 500
"""The newest of the window: what one core replays twice in half a minute."""


@dataclass(frozen=True)
class Ran:
    """A job that ran to its end: what was asked for, how long its last attempt took, and the IT energy of that."""

    spec: JobSpec
    submitted_at: datetime
    hours: float
    energy_kwh: float


def finished(store: Store, statements: Statements, now: datetime) -> tuple[list[Ran], int]:
    """Jobs submitted in the last 28 days that ran and were metered, oldest first; and how many others are over."""
    with store.transaction(write=False) as tx:
        jobs = tx.jobs(JobFilter(states=FINAL_STATES, since=now - WINDOW), limit=MOST_JOBS)
        last = [(job, attempts[-1]) for job in reversed(jobs) if (attempts := tx.attempts(job_id=job.job_id))]
    ran = [found for job, attempt in last if (found := _ran(statements, job, attempt)) is not None]
    return ran, len(jobs) - len(ran)


def _ran(statements: Statements, job: Job, attempt: Attempt) -> Ran | None:
    begin, end = attempt.started_at, attempt.ended_at
    if begin is None or end is None or end <= begin:
        return None
    try:
        energy_uj = actual(statements.attempt(attempt.attempt_id)).energy_uj
    except NotFound:
        return None
    hours = (end - begin) / HOUR
    return Ran(_bare(job.spec), job.submitted_at, hours, energy_uj / UJ_PER_KWH) if energy_uj > 0 else None


def _bare(spec: JobSpec) -> JobSpec:
    """Without what a replay does not do: what it ran, what it waited for, suspensions, and labels of single nodes."""
    return replace(
        spec,
        entrypoint="",
        runtime_env={},
        sealed_env="",
        secrets={},
        after=(),
        resources=replace(spec.resources, entrypoint_label_selector={}),
        flexibility=replace(spec.flexibility, interruptible=False),
    )


def scenario(ran: Sequence[Ran], clusters: Sequence[Cluster], outlooks: Outlooks, now: datetime) -> Scenario:
    """These jobs on these clusters as they are registered now, under the grid as it is known to have been.

    A job is late when it starts after what it declared itself allows (a longest delay, a deadline); one that declared
    nothing is late only if it never starts. The grid is that of every hour in which a job may come, the present one and
    the next (whole steps) with what is expected; what runs longer does so at the mean of the last 28 days. Raises
    Conflict where no cluster is registered, or no intensity was ever measured.
    """
    if not clusters:
        raise Conflict("no cluster is registered (`carbon-sched clusters add`), so there is nowhere to replay jobs")
    start = ran[0].submitted_at.replace(minute=0, second=0, microsecond=0)
    zero, hours = start - TRAILING_H * HOUR, TRAILING_H + int((now - start) // HOUR) + 2
    readings = {cluster.zone: outlooks.actual(cluster.zone, zero, zero + hours * HOUR, now) for cluster in clusters}
    if not any(reading.kind is Kind.MEASURED for known in readings.values() for reading in known):
        raise Conflict(f"no intensity was measured for {', '.join(readings)}: a backtest would see no cleaner hour")
    truth = {zone: _hourly(known, zero, hours) for zone, known in readings.items()}
    jobs = _jobs(ran, start)
    return Scenario(
        start=start,
        step_h=step_min(jobs) / 60,
        jobs=jobs,
        slack_h=np.array([_slack_h(one) for one in ran]),
        home=np.full(len(ran), next((i for i, cluster in enumerate(clusters) if cluster.home), 0)),
        clusters=tuple(merged(cluster, [one.spec.resources for one in ran]) for cluster in clusters),
        resource=UNIT,
        truth=truth,
        begin=TRAILING_H,
        forecast=forecasts("own", truth, list(truth), zero, TRAILING_H, 0),
        specs=tuple(one.spec for one in ran),
    )


def _jobs(ran: Sequence[Ran], start: datetime) -> Jobs:
    """On whole steps; units are what draws the power that was metered."""
    exact = np.array([(one.submitted_at - start) / HOUR for one in ran])
    hours = np.array([one.hours for one in ran])
    units = np.array([one.energy_kwh for one in ran]) / hours / unit_kw(UNIT)
    step_h = step_min(Jobs(exact, hours, units)) / 60
    return Jobs(np.ceil(exact / step_h - 1e-9) * step_h, hours, units, resource=UNIT)


def _slack_h(one: Ran) -> float:
    """Hours after its submission at which a job may start at the latest by what it declared; infinite for nothing."""
    declared = one.spec.flexibility
    delay_h = float("inf") if declared.max_delay_s is None else declared.max_delay_s / 3600
    if declared.deadline is None:
        return delay_h
    return min(delay_h, (declared.deadline - one.submitted_at) / HOUR - one.hours)


def _hourly(readings: Sequence[Reading], zero: datetime, hours: int) -> Floats:
    """`[hours]` g/kWh: the mean of what holds within each hour, by time."""
    sums, weights = np.zeros(hours), np.zeros(hours)
    for reading in readings:
        begin, end = (reading.start - zero) / HOUR, (reading.end - zero) / HOUR
        edges = np.clip(np.arange(int(begin), int(np.ceil(end)) + 1), begin, end)
        first, shares = int(begin), np.diff(edges)
        within = slice(first, min(first + len(shares), hours))
        sums[within] += shares[: hours - first] * reading.intensity_mg_per_kwh / 1000
        weights[within] += shares[: hours - first]
    out: Floats = sums / weights
    return out
