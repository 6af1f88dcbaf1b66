"""Change what a job asks for after it was accepted: that it starts now, or how long it may take.

What was asked first and what it became stand in the ledger side by side, and each decision says which it knew.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import Conflict, InvalidInput, StaleVersion
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.records import Change
from carbon_sched.policy.matching import Selected
from carbon_sched.service.accept import require_start_allowed
from carbon_sched.service.spec import flexibility_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.job import Flexibility, Job, JobSpec
    from carbon_sched.ports import Clock, Store, Transaction
    from carbon_sched.service.policies import Policies
    from carbon_sched.service.signals import Signals
    from carbon_sched.wire import JobAmendment, JobRequest

FIELDS = ("now", "deadline", "max_delay_s")


class Amend:
    """Works on the database alone; the next plan knows what the job asks for now."""

    def __init__(self, store: Store, policies: Policies, clock: Clock, signals: Signals) -> None:
        self._store, self._policies, self._clock, self._signals = store, policies, clock, signals

    def amend(self, job_id: str, asked: JobAmendment, *, by: str) -> Job:
        """The job as it is asked for now; what is so already changes nothing.

        Raises InvalidInput for what cannot be kept or the policy does not allow, StaleVersion where somebody else
        amended the job since `asked` was written, Conflict for a job that ended, or is to start and left the queue.
        """
        if not any(field in asked for field in FIELDS):
            raise InvalidInput("amendment", "", "changes nothing", f"Give one of: {', '.join(FIELDS)}")
        with self._store.transaction() as tx:
            job, now = tx.job(job_id), self._clock.now()
            spec = _amended(job, asked, now)
            changes = _changes(job.spec, spec)
            if not changes:
                return job
            _require_open(job, spec, asked)
            policy = self._policies.in_force(tx).followed(spec)
            require_start_allowed(spec, policy, policy.settings(Selected.of(spec)))
            tx.append_fact(_fact(tx, job, changes, by, now))
            job = tx.amend_spec(job, spec, at=now, reason="; ".join(one.said for one in changes))
        self._signals.decide.set()
        self._signals.job_changed()
        return job


def _amended(job: Job, asked: JobAmendment, now: datetime) -> JobSpec:
    spec = job.spec
    start_now = asked.get("now", spec.start_now)
    if start_now and not spec.start_now:
        spec = replace(spec, flexibility=replace(spec.flexibility, earliest=None))
    if "deadline" in asked or "max_delay_s" in asked:
        spec = replace(spec, flexibility=_bounded(replace(job, spec=spec), asked, now))
    return replace(spec, start_now=start_now)


def _bounded(job: Job, asked: JobAmendment, now: datetime) -> Flexibility:
    """What is declared with another bound; of a job that waits the whole run must fit before its deadline."""
    was = job.spec.flexibility
    request: JobRequest = {
        "entrypoint": job.spec.entrypoint,
        "earliest": _time(was.earliest),
        "deadline": asked.get("deadline", _time(was.deadline)),
        "max_delay_s": asked.get("max_delay_s", None if "deadline" in asked else was.max_delay_s),
        "duration_s": job.spec.estimate.duration_s if job.state is JobState.QUEUED else None,
    }
    found = flexibility_of(request, now)
    return replace(was, deadline=found.deadline, max_delay_s=found.max_delay_s)


def _changes(before: JobSpec, after: JobSpec) -> list[Change]:
    was, now = before.flexibility, after.flexibility
    found = [
        Change("start now", _yes(before.start_now), _yes(after.start_now)),
        Change("earliest start", _time(was.earliest), _time(now.earliest)),
        Change("deadline", _time(was.deadline), _time(now.deadline)),
        Change("longest delay", _length(was.max_delay_s), _length(now.max_delay_s)),
    ]
    return [one for one in found if one.before != one.after]


def _require_open(job: Job, spec: JobSpec, asked: JobAmendment) -> None:
    """It may still be amended, and nobody else did."""
    if asked.get("amendments", job.amendments) != job.amendments:
        raise StaleVersion(f"job {job.job_id} was amended since; look at what it asks for now, and ask again")
    if job.state.final or job.state is JobState.STOPPING:
        raise Conflict(f"job {job.job_id} is {job.state.value}: nothing of it can be changed any more")
    if spec.start_now and not job.spec.start_now and job.state is not JobState.QUEUED:
        raise Conflict(f"job {job.job_id} is {job.state.value} already; only a waiting one can be started now")


def _fact(tx: Transaction, job: Job, changes: Sequence[Change], by: str, now: datetime) -> Fact:
    body = {"job": job.job_id, "by": tx.pseudonym(by), "changes": [asdict(one) for one in changes]}
    return Fact(FactKind.JOB_AMENDED, now, body)


def _yes(value: bool) -> str:  # noqa: FBT001 - what is put into words
    return "yes" if value else "no"


def _length(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:g} s"


def _time(at: datetime | None) -> str | None:
    return None if at is None else to_rfc3339(at)
