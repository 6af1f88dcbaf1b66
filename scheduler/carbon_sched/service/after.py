"""Jobs that wait for other jobs: held out of the plan until those have ended, and refused where that can not come."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.job import JobEvent, JobState
from carbon_sched.service.accept import record_job_end

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from carbon_sched.domain.job import Job
    from carbon_sched.ports import Transaction


def verdict(tx: Transaction, job: Job) -> tuple[Cause, str]:
    """AFTER with what it waits for, DEPENDENCY with why it can never start, or NONE when it may be planned.

    A lost job has not ended: it waits for the person who resolves it.
    """
    for dependency in job.spec.after:
        other = tx.job(dependency.job_id)
        if not other.state.final or other.state is JobState.LOST:
            return Cause.AFTER, f"waits for job {other.job_id} ({other.spec.name}), which is {other.state.value}"
        if dependency.ok and other.state is not JobState.SUCCEEDED:
            is_now = f"job {other.job_id} ({other.spec.name}) is {other.state.value}"
            return Cause.DEPENDENCY, f"{is_now}, and this job was to start after its success only"
    return Cause.NONE, ""


def block(tx: Transaction, jobs: Iterable[Job], at: datetime) -> None:
    """Say of each of these queued jobs what it waits for, or refuse it."""
    for job in jobs:
        cause, reason = verdict(tx, job)
        if cause is Cause.DEPENDENCY:
            record_job_end(tx, tx.move_job(job, JobEvent.REFUSED, at=at, reason=reason, cause=cause))
        elif cause is Cause.AFTER and reason != job.reason:
            tx.amend_job(job, reason=reason, cause=cause)
