"""Turn what a cluster says of its jobs, and what the wrapper recorded there, into job states.

Ray is evidence, not truth: where both speak, the wrapper's record wins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import ClusterError, NotFound, StaleVersion
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobEvent, JobState, ending_event
from carbon_sched.domain.time import from_epoch, to_rfc3339
from carbon_sched.service.accept import record_job_end

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt
    from carbon_sched.ports import Clock, ClusterClient, RayJob, Store
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.journal import Journals
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

BUSY_S = 0.5
QUIET_S = 5.0
CLOCK_SKEW = timedelta(seconds=30)
RAY_FINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: the job event, a word for the attempt, who says so and what is missing."""

    event: JobEvent
    outcome: str
    reason: str
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    missing: tuple[str, ...] = ()


class Follow:
    """Polls every cluster that has open attempts of ours."""

    def __init__(self, store: Store, fleet: Fleet, journals: Journals, clock: Clock, signals: Signals) -> None:
        self._store, self._fleet, self._journals = store, fleet, journals
        self._clock, self._signals = clock, signals

    def step(self) -> float:
        """Look at every open, accepted attempt once; returns the seconds until the next look."""
        with self._store.transaction(write=False) as tx:
            attempts = [attempt for attempt in tx.attempts(open_only=True) if attempt.accepted]
        for name in dict.fromkeys(attempt.cluster for attempt in attempts):
            self._follow_cluster(name, [attempt for attempt in attempts if attempt.cluster == name])
        return BUSY_S if attempts else QUIET_S

    def _follow_cluster(self, name: str, attempts: list[Attempt]) -> None:
        try:
            cluster = self._fleet.get(name)
            client = self._fleet.client(cluster)
            known = {job.submission_id: job for job in client.jobs()}
            epoch = client.epoch().session_name if any(a.attempt_id not in known for a in attempts) else ""
        except NotFound:
            log.warning("cluster %s was removed while %d attempts are open there", name, len(attempts))
            return
        except ClusterError as error:
            log.warning("cluster cannot be followed cluster=%s: %s", name, error)
            self._fleet.mark_unusable(self._fleet.get(name), str(error))
            return
        for attempt in attempts:
            try:
                self._follow_attempt(cluster, client, attempt, known.get(attempt.attempt_id), epoch)
            except StaleVersion:
                log.info("follow result discarded attempt=%s: the row moved on", attempt.attempt_id)
            except ClusterError as error:
                log.warning("attempt cannot be followed attempt=%s: %s", attempt.attempt_id, error)

    def _follow_attempt(
        self, cluster: Cluster, client: ClusterClient, attempt: Attempt, ray_job: RayJob | None, epoch: str
    ) -> None:
        if ray_job is None:
            self._vanished(attempt, epoch)
            return
        if ray_job.status in RAY_FINAL:
            self._finish(attempt, self._ending(client, attempt, ray_job))
        elif ray_job.status == "RUNNING":
            self._running(client, attempt, ray_job)
        elif self._clock.now() > attempt.start_by + CLOCK_SKEW:
            # past its fence the wrapper runs no user code: another attempt may open though Ray cannot stop this one
            client.stop(attempt.attempt_id)
            reason = f"{cluster.name} did not start it within {cluster.start_grace_s:.0f} s (still pending there)"
            self._finish(attempt, Ending(JobEvent.EXPIRED, "expired", reason))

    # running -------------------------------------------------------------------------------------

    def _running(self, client: ClusterClient, attempt: Attempt, ray_job: RayJob) -> None:
        node = ray_job.driver_node_id or ""
        record = None if attempt.started_at else self._journals.record(client, attempt, node)
        started = _time(record.started) if record else None
        with self._store.transaction() as tx:
            attempt = tx.attempt(attempt.attempt_id)
            if node != attempt.node_id or (started and not attempt.started_at):
                tx.put_attempt(replace(attempt, node_id=node, started_at=attempt.started_at or started))
            job = tx.job(attempt.job_id)
            if job.state is not JobState.STARTING:
                return
            tx.move_job(job, JobEvent.STARTED, at=self._clock.now(), reason=f"running on {attempt.cluster}")
        self._signals.job_changed()

    # endings -------------------------------------------------------------------------------------

    def _ending(self, client: ClusterClient, attempt: Attempt, ray_job: RayJob) -> Ending:
        """Combine both witnesses; the wrapper's record wins where it exists."""
        record = self._journals.record(client, attempt, ray_job.driver_node_id or attempt.node_id)
        if record and record.fenced:
            return Ending(JobEvent.EXPIRED, "expired", f"{attempt.cluster} started it too late; nothing was run")
        started = _time(record.started) if record else None
        if record and record.ended is not None:
            exit_code = record.exit_code
            event = _event(ray_job.status, exit_code)
            reason = _reason(event, exit_code, ray_job)
            return Ending(event, event.value, reason, exit_code, started, _time(record.ended))
        missing = ["the wrapper left no final record: the end is taken from the last meter sample"]
        if not started:
            missing = ["the wrapper left no record: it did not run, or its journal could not be read"]
        event = _event(ray_job.status, ray_job.driver_exit_code)
        reason = _reason(event, ray_job.driver_exit_code, ray_job)
        return Ending(event, event.value, reason, ray_job.driver_exit_code, started, None, tuple(missing))

    def _vanished(self, attempt: Attempt, epoch: str) -> None:
        """The cluster answers but does not know the attempt any more."""
        reason = f"{attempt.cluster} no longer knows the job"
        if epoch != attempt.epoch:
            reason = f"{attempt.cluster} was restarted and forgot its jobs"
        self._finish(attempt, Ending(JobEvent.LOST, "lost", reason, missing=(reason,)))

    def _finish(self, attempt: Attempt, ending: Ending) -> None:
        now = self._clock.now()
        with self._store.transaction() as tx:
            attempt = tx.attempt(attempt.attempt_id)
            if not attempt.open:
                return
            attempt = tx.put_attempt(
                replace(
                    attempt,
                    outcome=ending.outcome,
                    reason=ending.reason,
                    exit_code=ending.exit_code,
                    started_at=ending.started_at or attempt.started_at,
                    ended_at=ending.ended_at,
                    collected=ending.event is JobEvent.EXPIRED,
                )
            )
            job = tx.job(attempt.job_id)
            event = ending_event(job.state, ending.event)
            job = tx.move_job(job, event, at=now, reason=ending.reason, exit_code=ending.exit_code)
            tx.append_fact(_ended(attempt, ending, now))
            if job.state.final:
                record_job_end(tx, job)
        log.info("attempt ended attempt=%s outcome=%s reason=%s", attempt.attempt_id, ending.outcome, ending.reason)
        self._signals.collect.set()
        self._signals.decide.set()
        self._signals.job_changed()


def _event(ray_status: str, exit_code: int | None) -> JobEvent:
    if ray_status == "STOPPED":
        return JobEvent.STOPPED
    if exit_code is None:
        return JobEvent.SUCCEEDED if ray_status == "SUCCEEDED" else JobEvent.FAILED
    return JobEvent.SUCCEEDED if exit_code == 0 else JobEvent.FAILED


def _reason(event: JobEvent, exit_code: int | None, ray_job: RayJob) -> str:
    if event is JobEvent.SUCCEEDED:
        return "finished"
    if event is JobEvent.STOPPED:
        return "stopped"
    if exit_code:
        return f"exited with code {exit_code}"
    first_line = ray_job.message.strip().splitlines()[0] if ray_job.message.strip() else "no message"
    return f"Ray says {ray_job.error_type or ray_job.status}: {first_line[:300]}"


def _time(epoch: float | None) -> datetime | None:
    return None if epoch is None else from_epoch(epoch)


def _ended(attempt: Attempt, ending: Ending, now: datetime) -> Fact:
    body = {
        "attempt": attempt.attempt_id,
        "job": attempt.job_id,
        "outcome": ending.outcome,
        "started_at": to_rfc3339(attempt.started_at) if attempt.started_at else None,
        "ended_at": to_rfc3339(attempt.ended_at) if attempt.ended_at else None,
        "exit_code": ending.exit_code,
        "reason": ending.reason,
        "missing": list(ending.missing),
    }
    return Fact(FactKind.ATTEMPT_ENDED, now, body)
