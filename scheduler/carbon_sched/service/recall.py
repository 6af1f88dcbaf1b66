"""What a person or the service takes back from clusters: lost jobs that are resolved, attempts that are recalled."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import Conflict
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobEvent, JobState
from carbon_sched.service.accept import record_job_end

if TYPE_CHECKING:
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.ports import Clock, Store, Transaction
    from carbon_sched.service.signals import Signals


class Resolution(str, Enum):
    """What a person says became of a lost job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    REQUEUE = "requeue"
    """It does not run, and is to be run again."""


_EVENTS = {
    Resolution.SUCCEEDED: JobEvent.SUCCEEDED,
    Resolution.FAILED: JobEvent.FAILED,
    Resolution.STOPPED: JobEvent.STOPPED,
    Resolution.REQUEUE: JobEvent.WITHDRAWN,
}


class Recall:
    """Works on the database alone; the loops do the rest."""

    def __init__(self, store: Store, clock: Clock, signals: Signals) -> None:
        self._store, self._clock, self._signals = store, clock, signals

    def resolve(self, job_id: str, resolution: Resolution, *, by: str, note: str) -> Job:
        """Settle a lost job by a person's word, which goes to the ledger. Conflict for a job that is not lost."""
        with self._store.transaction() as tx:
            job = tx.job(job_id)
            if job.state is not JobState.LOST:
                raise Conflict(f"job {job_id} is {job.state.value}; only of a lost one a person must say what became")
            now, requeue = self._clock.now(), resolution is Resolution.REQUEUE
            reason = f"resolved by a person: {note or 'no note'}"
            cause = Cause.REQUEUED if requeue else Cause.RESOLVED
            body = {"job": job_id, "resolution": resolution.value, "by": tx.pseudonym(by), "note": note}
            tx.append_fact(Fact(FactKind.JOB_RESOLVED, now, body))
            job = tx.move_job(job, _EVENTS[resolution], at=now, reason=reason, cause=cause)
            if not requeue:
                record_job_end(tx, job)
        self._signals.decide.set()
        self._signals.job_changed()
        return job

    def evict(self, cluster: str) -> list[str]:
        """Stop every job on a cluster so that it is queued again; the jobs' ids. One asked to stop stays stopped."""
        reason = f"{cluster} is drained"
        with self._store.transaction() as tx:
            there = [attempt for attempt in tx.attempts(open_only=True) if attempt.cluster == cluster]
            recalled = [attempt.job_id for attempt in there if recall(tx, attempt, Cause.EVICTED, reason)]
        self._signals.dispatch.set()
        self._signals.job_changed()
        return recalled


SAVED_CODES = frozenset({0, 143})
"""With these a job that was stopped says that it saved what it had; 143 is a death by SIGTERM, as Ray Train's is."""


def saved_its_state(exit_code: int | None) -> bool:
    """Whether a job that was suspended ended as one that saved its state; not one that was killed after its grace."""
    return exit_code in SAVED_CODES


def recall(tx: Transaction, attempt: Attempt, cause: Cause, reason: str) -> bool:
    """Have an attempt stopped for another one to follow; False where its job ends anyway, or it is recalled already."""
    job = tx.job(attempt.job_id)
    if attempt.recalled or job.state not in (JobState.DISPATCHING, JobState.STARTING, JobState.RUNNING):
        return False
    tx.put_attempt(replace(attempt, recalled=cause, reason=reason))
    tx.amend_job(job, not_before=job.not_before, reason=f"is being stopped, to be queued again: {reason}", cause=cause)
    tx.enqueue("stop", attempt.attempt_id, {})
    return True
