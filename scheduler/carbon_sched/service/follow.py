"""Turn what a cluster says of its jobs, and what the wrapper recorded there, into job states.

Ray is evidence, not truth: where both speak, the wrapper's record wins. A lost attempt is looked for a while longer:
its cluster may come back and tell.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from carbon_sched.domain.cause import RETRIED, Cause
from carbon_sched.domain.errors import CarbonSchedError, ClusterError, NotFound, StaleVersion
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobEvent, JobState, ending_event
from carbon_sched.domain.time import from_epoch, to_rfc3339
from carbon_sched.ports import JobFilter
from carbon_sched.service.accept import record_job_end
from carbon_sched.service.faults import fault, supervisor_lost
from carbon_sched.service.recall import saved_its_state
from carbon_sched.service.shares import held

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.ports import Clock, ClusterClient, RayJob, Store, Transaction
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.journal import AttemptRecord, Journals
    from carbon_sched.service.lanes import Lanes
    from carbon_sched.service.policies import Policies
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

BUSY_S = 0.5
QUIET_S = 5.0
CLOCK_SKEW = timedelta(seconds=30)
SILENCE_S = 3600.0
"""A cluster that gave no clear answer for this long, while this server was awake and asked, has lost its jobs."""
FIND_EVERY_S = 30.0
FIND_WITHIN = timedelta(days=1)
"""Lost jobs are looked for this long after they were given up."""
LOST_LOOKED_FOR = 200
UNFINISHED = (JobEvent.FAILED, JobEvent.STOPPED)
RAY_FINAL = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


@dataclass(frozen=True)
class Ending:
    """How an attempt ended: the job event, a word for the attempt, who says so, where it ran and what is missing."""

    event: JobEvent
    outcome: str
    reason: str
    cause: Cause = Cause.NONE
    exit_code: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    missing: tuple[str, ...] = ()
    node_id: str = ""


@dataclass(frozen=True)
class _Seen:
    """What one cluster said of its jobs; `asked_at` is before the question, so that no answer is taken as newer."""

    asked_at: datetime
    jobs: Mapping[str, RayJob]
    epoch: str


class Follow:
    """Asks every cluster that has open attempts of ours, side by side."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        journals: Journals,
        policies: Policies,
        clock: Clock,
        signals: Signals,
        lanes: Lanes,
    ) -> None:
        self._store, self._fleet, self._journals, self._lanes = store, fleet, journals, lanes
        self._policies = policies
        self._clock, self._signals = clock, signals
        self._silent_since: dict[str, float] = {}
        self._find_at = float("-inf")

    def step(self) -> float:
        """Look at every open, accepted attempt once; returns the seconds until the next look."""
        with self._store.transaction(write=False) as tx:
            attempts = [attempt for attempt in tx.attempts(open_only=True) if attempt.accepted]
        lost = self._lost()
        lanes: dict[str, list[Attempt]] = {}
        for attempt in (*attempts, *lost):
            lanes.setdefault(attempt.cluster, []).append(attempt)
        self._lanes.run({name: partial(self._follow_cluster, name, lane) for name, lane in lanes.items()})
        return BUSY_S if attempts else QUIET_S

    def _lost(self) -> list[Attempt]:
        """Attempts given up not long ago, now and then: the newest of its job each, on a cluster that answers."""
        if self._clock.monotonic() < self._find_at:
            return []
        self._find_at = self._clock.monotonic() + FIND_EVERY_S
        since = self._clock.now() - FIND_WITHIN
        with self._store.transaction(write=False) as tx:
            jobs = tx.jobs(JobFilter(states=frozenset({JobState.LOST})), limit=LOST_LOOKED_FOR)
            recent = [job.job_id for job in jobs if job.finished_at is not None and job.finished_at > since]
            found = [tx.attempts(job_id=job_id)[-1] for job_id in recent]
        return [attempt for attempt in found if self._answers(attempt.cluster)]

    def _answers(self, name: str) -> bool:
        status = self._fleet.status(name)
        return status is not None and status.usable

    def _follow_cluster(self, name: str, attempts: list[Attempt]) -> None:
        try:
            cluster = self._fleet.get(name)
            client = self._fleet.client(cluster)
            seen = self._look(client, attempts)
        except NotFound:
            log.warning("cluster %s was removed while %d attempts are open there", name, len(attempts))
            return
        except ClusterError as error:
            log.warning("cluster cannot be followed cluster=%s: %s", name, error)
            self._fleet.mark_unusable(self._fleet.get(name), str(error))
            self._silent(name, attempts, error)
            return
        self._silent_since.pop(name, None)
        for attempt in attempts:
            self._follow_safely(cluster, client, attempt, seen)

    def _look(self, client: ClusterClient, attempts: list[Attempt]) -> _Seen:
        asked_at = self._clock.now()
        jobs = {job.submission_id: job for job in client.jobs()}
        for attempt in attempts:
            if attempt.attempt_id not in jobs and (job := client.job(attempt.attempt_id)) is not None:
                jobs[attempt.attempt_id] = job  # the list was older than its submission
        unknown = any(attempt.attempt_id not in jobs for attempt in attempts)
        return _Seen(asked_at, jobs, client.epoch().session_name if unknown else "")

    def _follow_safely(self, cluster: Cluster, client: ClusterClient, attempt: Attempt, seen: _Seen) -> None:
        """Whatever goes wrong with one attempt, the others go on."""
        try:
            self._follow_attempt(cluster, client, attempt, seen)
        except StaleVersion:
            log.info("follow result discarded attempt=%s: the row moved on", attempt.attempt_id)
        except CarbonSchedError as error:
            log.warning("attempt cannot be followed attempt=%s code=%s: %s", attempt.attempt_id, error.code, error)
        except Exception:
            log.exception("attempt met a bug attempt=%s", attempt.attempt_id)

    def _follow_attempt(self, cluster: Cluster, client: ClusterClient, attempt: Attempt, seen: _Seen) -> None:
        ray_job = seen.jobs.get(attempt.attempt_id)
        if ray_job is None:
            if attempt.open:
                self._vanished(cluster, attempt, seen.epoch)
        elif ray_job.status in RAY_FINAL:
            ending = self._ending(client, attempt, ray_job)
            self._finish(attempt, replace(ending, node_id=ray_job.driver_node_id or ""))
        elif ray_job.status == "RUNNING":
            self._running(client, attempt, ray_job)
        elif attempt.open and _past_fence(client, attempt, seen.asked_at):
            # past its fence the wrapper runs no user code: another attempt may open though Ray cannot stop this one
            client.stop(attempt.attempt_id)
            reason = f"{cluster.name} did not start it within {cluster.start_grace_s:.0f} s (still pending there)"
            self._finish(attempt, Ending(JobEvent.EXPIRED, "expired", reason, Cause.NOT_STARTED))

    def _silent(self, name: str, attempts: list[Attempt], error: ClusterError) -> None:
        now = self._clock.monotonic()
        silent_s = now - self._silent_since.setdefault(name, now)
        if silent_s < SILENCE_S:
            return
        reason = f"{name} has not answered for {silent_s / 60:.0f} minutes ({error})"
        for attempt in attempts:
            if attempt.open:
                self._finish(attempt, Ending(JobEvent.LOST, "lost", reason, Cause.SILENT, missing=(reason,)))

    # running -------------------------------------------------------------------------------------

    def _running(self, client: ClusterClient, attempt: Attempt, ray_job: RayJob) -> None:
        node = ray_job.driver_node_id or ""
        if node and self._gone(attempt.cluster, node):
            client.logs(attempt.attempt_id)  # a head that came back tells the end of its dead jobs only when woken
        record = None if attempt.started_at else self._record(client, attempt, node)
        started = _time(record.started) if record else None
        with self._store.transaction() as tx:
            attempt = tx.attempt(attempt.attempt_id)
            job = tx.job(attempt.job_id)
            if not _believable(attempt, job):
                return
            now = replace(
                attempt,
                node_id=node,
                started_at=attempt.started_at or started,
                accepted=True,
                outcome="",
                reason=attempt.reason if attempt.recalled else "",
                collected=False,
            )
            if now != attempt:
                tx.put_attempt(now)
            if job.state not in (JobState.STARTING, JobState.LOST):
                return
            tx.move_job(job, JobEvent.STARTED, at=self._clock.now(), reason=f"running on {attempt.cluster}")
        if job.spec.flexibility.interruptible:
            self._signals.decide.set()  # from now on it is decided about in every slot
        self._signals.job_changed()

    # endings -------------------------------------------------------------------------------------

    def _ending(self, client: ClusterClient, attempt: Attempt, ray_job: RayJob) -> Ending:
        """Combine both witnesses; the wrapper's record wins where it exists."""
        record = self._record(client, attempt, ray_job.driver_node_id or attempt.node_id)
        if record and record.fenced:
            reason = f"{attempt.cluster} started it too late; nothing was run"
            return Ending(JobEvent.EXPIRED, "expired", reason, Cause.NOT_STARTED)
        started = _time(record.started) if record else attempt.started_at
        if record and record.ended is not None:
            exit_code = record.exit_code
            event = _event(ray_job.status, exit_code)
            reason = _reason(event, exit_code, ray_job)
            return Ending(event, event.value, reason, _cause(event), exit_code, started, _time(record.ended))
        missing = ["the wrapper left no final record: the end is taken from the last meter sample"]
        if not started:
            missing = ["the wrapper left no record: it did not run, or its journal could not be read"]
        code = ray_job.driver_exit_code
        event = _event(ray_job.status, code)
        reason, cause = _reason(event, code, ray_job), _cause(event)
        if supervisor_lost(ray_job):
            nodes = client.status()
            reason, cause = fault(ray_job, attempt, nodes, started=started is not None)
        return Ending(event, event.value, reason, cause, code, started, None, tuple(missing))

    def _vanished(self, cluster: Cluster, attempt: Attempt, epoch: str) -> None:
        """The cluster answers but does not know the attempt any more. On Kubernetes somebody deleted its RayJob."""
        if cluster.kubernetes is not None:
            ending = Ending(JobEvent.STOPPED, "stopped", "its RayJob was deleted", Cause.STOP_ASKED)
            self._finish(attempt, replace(ending, missing=(ending.reason,)))
            return
        reason, cause = f"{attempt.cluster} no longer knows the job", Cause.FORGOTTEN
        if epoch != attempt.epoch:
            reason, cause = f"{attempt.cluster} was restarted and forgot its jobs", Cause.HEAD_RESTARTED
        self._finish(attempt, Ending(JobEvent.LOST, "lost", reason, cause, missing=(reason,)))

    def _record(self, client: ClusterClient, attempt: Attempt, node_id: str) -> AttemptRecord | None:
        """The wrapper's record; None also where it went with its node."""
        try:
            return self._journals.record(client, attempt, node_id)
        except ClusterError:
            if client.status().lost(node_id):
                return None
            raise

    def _gone(self, name: str, node_id: str) -> bool:
        """Whether the cluster, when last asked, answered without this node."""
        status = self._fleet.status(name)
        return status is not None and status.lost(node_id)

    def _retried(self, tx: Transaction, job: Job, attempt: Attempt, ending: Ending) -> Ending:
        """The same, or back to the queue: after a recall, and after a fault of which the policy allows another one."""
        if job.state not in (JobState.STARTING, JobState.RUNNING) or ending.event not in UNFINISHED:
            return ending
        cause = attempt.recalled or (ending.cause if ending.cause in RETRIED else Cause.NONE)
        if not cause:
            return ending
        faults = sum(1 for earlier in tx.attempts(job_id=job.job_id) if earlier.cause in RETRIED)
        retries = self._policies.in_force(tx).settings(job.spec).retries
        if cause in RETRIED and faults >= retries:
            return replace(ending, cause=cause, reason=f"{ending.reason}; the policy allows {retries} retries")
        reason = attempt.reason if attempt.recalled else ending.reason
        if cause is Cause.SUSPENDED and not saved_its_state(ending.exit_code):
            how = "it was killed" if ending.exit_code is None else f"exit code {ending.exit_code}"
            reason += f"; its state was not saved ({how}), so that it is not suspended again"
        return replace(ending, event=JobEvent.EXPIRED, cause=cause, reason=f"queued again: {reason}")

    def _finish(self, attempt: Attempt, ending: Ending) -> None:
        now = self._clock.now()
        with self._store.transaction() as tx:
            attempt = tx.attempt(attempt.attempt_id)
            job = tx.job(attempt.job_id)
            if not _believable(attempt, job):
                return
            if job.state is JobState.LOST and ending.event is JobEvent.EXPIRED:
                ending = replace(ending, event=JobEvent.FAILED)  # it was given up: only its user starts it again
            ending = self._retried(tx, job, attempt, ending)
            attempt = tx.put_attempt(
                replace(
                    attempt,
                    outcome=ending.outcome,
                    reason=ending.reason,
                    cause=ending.cause,
                    exit_code=ending.exit_code,
                    started_at=ending.started_at or attempt.started_at,
                    ended_at=ending.ended_at,
                    node_id=ending.node_id or attempt.node_id,
                    accepted=True,
                    collected=ending.outcome == "expired",
                )
            )
            event = ending_event(job.state, ending.event)
            job = tx.move_job(job, event, at=now, reason=ending.reason, cause=ending.cause, exit_code=ending.exit_code)
            tx.add_usage(held(job.spec, attempt, attempt.ended_at or now))
            tx.append_fact(_ended(attempt, ending, now))
            if job.state.final:
                record_job_end(tx, job)
        log.info("attempt ended attempt=%s outcome=%s reason=%s", attempt.attempt_id, ending.outcome, ending.reason)
        self._signals.collect.set()
        self._signals.decide.set()
        self._signals.job_changed()


def _cause(event: JobEvent) -> Cause:
    """Of an end that the job itself made, or its user."""
    return {JobEvent.FAILED: Cause.EXIT_CODE, JobEvent.STOPPED: Cause.STOP_ASKED}.get(event, Cause.NONE)


def _believable(attempt: Attempt, job: Job) -> bool:
    """Whether news of this attempt still count: it is open, or lost and its job's newest."""
    return attempt.open or (job.state is JobState.LOST and attempt.number == job.attempts and attempt.outcome == "lost")


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


def _past_fence(client: ClusterClient, attempt: Attempt, asked_at: datetime) -> bool:
    """By our clock and by the cluster's, by which the wrapper judges: either may have been set anew meanwhile."""
    fence = attempt.start_by + CLOCK_SKEW
    if asked_at <= fence:
        return False
    ahead_s = client.clock_skew_s()
    return ahead_s is None or asked_at + timedelta(seconds=ahead_s) > fence


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
        "cause": ending.cause.value,
        "missing": list(ending.missing),
    }
    return Fact(FactKind.ATTEMPT_ENDED, now, body)
