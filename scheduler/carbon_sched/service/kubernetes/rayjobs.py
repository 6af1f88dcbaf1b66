"""RayJobs that were created suspended become jobs of ours, once each; what their attempts leave is let go.

Everything between is what happens to every job: decided, dispatched (which admits it), followed, booked. A job of a
RayJob carries its UID as a name under Ray's protocol, which the database keeps unique: a controller that is killed at
any moment takes nothing up twice, and nothing is lost, since the RayJob itself is the request.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from carbon_sched.domain.errors import CarbonSchedError, ClusterError, InvalidInput, NotFound
from carbon_sched.domain.job import JobState
from carbon_sched.domain.kubernetes import RayJobObject
from carbon_sched.domain.time import UTC
from carbon_sched.options.rayjob import request_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.ports import Clock, FoundRayJob, KubernetesClient, KubernetesClusters, Store
    from carbon_sched.service.accept import Accept
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.lanes import Lanes

log = logging.getLogger(__name__)

LOOK_S = 1.0
UNUSED_S = 5.0
"""Without a Kubernetes cluster there is nothing to look at."""


class RayJobs:
    """One loop of the leader over the Kubernetes clusters, side by side."""

    def __init__(
        self, store: Store, fleet: Fleet, clusters: KubernetesClusters, accept: Accept, clock: Clock, lanes: Lanes
    ) -> None:
        self._store, self._fleet, self._clusters, self._accept = store, fleet, clusters, accept
        self._clock, self._lanes = clock, lanes
        self._jobs: dict[str, str] = {}
        self._told: dict[str, str] = {}

    def step(self) -> float:
        """Look once at every RayJob with our label; returns the seconds until the next look."""
        clusters = [cluster for cluster in self._fleet.all() if cluster.kubernetes is not None]
        self._lanes.run({cluster.name: self._looking(cluster) for cluster in clusters})
        return LOOK_S if clusters else UNUSED_S

    def _looking(self, cluster: Cluster) -> Callable[[], None]:
        def look() -> None:
            try:
                client = self._clusters.kubernetes(cluster)
                found = client.rayjobs()
            except ClusterError as error:
                log.warning("RayJobs not listed cluster=%s: %s", cluster.name, error)
                return
            for one in found:
                self._safely(cluster, client, one)
            self._withdraw_deleted(cluster, client, found)

        return look

    def _safely(self, cluster: Cluster, client: KubernetesClient, found: FoundRayJob) -> None:
        """Whatever goes wrong with one, the others go on."""
        try:
            self._see(cluster, client, found)
        except CarbonSchedError as error:
            where = f"{cluster.name}/{found.namespace}/{found.name}"
            log.warning("RayJob not seen to rayjob=%s code=%s: %s", where, error.code, error)
        except Exception:
            log.exception("RayJob met a bug rayjob=%s/%s/%s", cluster.name, found.namespace, found.name)

    def _see(self, cluster: Cluster, client: KubernetesClient, found: FoundRayJob) -> None:
        if found.attempt:
            self._let_go(client, found)
        elif (job_id := self._job_of(found)) is None:
            self._take_up(cluster, client, found)
        elif not found.suspended:
            self._accept.stop(job_id, f"{found.namespace}/{found.name} was started by somebody else")

    # taking up -----------------------------------------------------------------------------------

    def _take_up(self, cluster: Cluster, client: KubernetesClient, found: FoundRayJob) -> None:
        if found.ended:
            return
        if problem := _not_ours(found):
            self._tell(client, found, "NotManaged", problem)
            return
        rayjob = RayJobObject(found.namespace, found.name, found.uid)
        try:
            request = request_of(found.manifest, {}, self._clock.now(), UTC)
            request["clusters"] = [cluster.name]
            submitter = f"{cluster.name}/{found.namespace}"
            key = rayjob.ray_id
            job = self._accept.submit(request, submitter=submitter, idempotency_key=key, ray_id=key, rayjob=rayjob)
        except InvalidInput as error:
            self._tell(client, found, "Refused", str(error))
            return
        self._jobs[found.uid] = job.job_id
        log.info("RayJob taken up job=%s rayjob=%s/%s", job.job_id, found.namespace, found.name)
        client.tell(found, "TakenUp", f"it waits as job {job.job_id} of carbon-sched", warning=False)

    def _job_of(self, found: FoundRayJob) -> str | None:
        if found.uid not in self._jobs:
            with self._store.transaction(write=False) as tx:
                try:
                    self._jobs[found.uid] = tx.job_id_for_ray(RayJobObject("", "", found.uid).ray_id)
                except NotFound:
                    return None
        return self._jobs[found.uid]

    def _tell(self, client: KubernetesClient, found: FoundRayJob, reason: str, problem: str) -> None:
        """Say it once, where its user looks and in the log."""
        if self._told.get(found.uid) != problem:
            self._told[found.uid] = problem
            log.warning("RayJob not taken up rayjob=%s/%s: %s", found.namespace, found.name, problem)
            client.tell(found, reason, problem, warning=True)

    # letting go ----------------------------------------------------------------------------------

    def _let_go(self, client: KubernetesClient, found: FoundRayJob) -> None:
        """Once an attempt's energy is collected its cluster is not needed any more."""
        if not found.kept:
            return
        with self._store.transaction(write=False) as tx:
            try:
                attempt = tx.attempt(found.attempt)
            except NotFound:
                return  # of another server
        if _is_over(attempt):
            client.release(found)
            log.info("RayJob let go attempt=%s rayjob=%s/%s", attempt.attempt_id, found.namespace, found.name)

    def _withdraw_deleted(self, cluster: Cluster, client: KubernetesClient, found: Sequence[FoundRayJob]) -> None:
        """Stop jobs that wait for a RayJob which somebody deleted."""
        there = {one.uid for one in found}
        with self._store.transaction(write=False) as tx:
            waiting = [job for job in tx.live_jobs() if _waits_on(job, cluster)]
        for job in waiting:
            rayjob = job.spec.rayjob
            if rayjob is not None and rayjob.uid not in there and not client.exists(rayjob):
                self._accept.stop(job.job_id, f"its RayJob {rayjob.namespace}/{rayjob.name} was deleted")
        self._jobs = {uid: job_id for uid, job_id in self._jobs.items() if uid in there or not found}
        self._told = {uid: problem for uid, problem in self._told.items() if uid in there}


def _waits_on(job: Job, cluster: Cluster) -> bool:
    rayjob = job.spec.rayjob
    return (
        job.state is JobState.QUEUED and rayjob is not None and bool(rayjob.uid) and cluster.name in job.spec.clusters
    )


def _is_over(attempt: Attempt) -> bool:
    return not attempt.open and attempt.collected


def _not_ours(found: FoundRayJob) -> str:
    """Why a RayJob that asks for us cannot be held by us; empty where it can."""
    if found.kueue:
        return f"Kueue decides when it starts ({found.kueue}); carbon-sched leaves it alone"
    if found.job:
        return f"it was made for job {found.job} of another carbon-sched"
    if not found.suspended:
        return "it was not created suspended: write spec.suspend: true, and carbon-sched starts it"
    return ""
