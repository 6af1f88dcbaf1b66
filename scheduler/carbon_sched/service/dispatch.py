"""Carry out committed intentions on clusters: submit an attempt, stop one.

After an unclear answer the cluster is asked; nothing is ever repeated blindly.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import (
    CarbonSchedError,
    ClusterError,
    ClusterRefused,
    InvalidInput,
    NotFound,
    StaleVersion,
)
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobEvent, JobState, ending_event
from carbon_sched.domain.time import to_epoch, to_rfc3339
from carbon_sched.ports import RaySubmission
from carbon_sched.service.accept import record_job_end
from carbon_sched.service.runtime_env import entrypoint_for, runtime_env_for

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt, Job, JobSpec
    from carbon_sched.ports import Bundles, Clock, ClusterClient, OutboxItem, Store, Transaction, Vault
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.runtime_env import RuntimePackage
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

KINDS = ("submit", "stop")
LEASE_S = 120.0
RETRY_S = 2.0
SILENCE = timedelta(minutes=10)
"""An attempt whose cluster gave no clear answer for this long past its fence is LOST, not expired."""


class Dispatch:
    """Works the outbox: one external action at a time, each fenced by its claim."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        bundles: Bundles,
        package: RuntimePackage,
        vault: Vault,
        clock: Clock,
        signals: Signals,
    ) -> None:
        self._store, self._fleet, self._bundles, self._package = store, fleet, bundles, package
        self._vault = vault
        self._clock, self._signals = clock, signals

    def step(self) -> float:
        """Do every due action once; returns the seconds until the next look."""
        with self._store.transaction() as tx:
            items = tx.claim_outbox(KINDS, limit=16, lease_s=LEASE_S)
        for item in items:
            self._do(item)
        return 0.0 if items else RETRY_S

    def _do(self, item: OutboxItem) -> None:
        with self._store.transaction(write=False) as tx:
            attempt = tx.attempt(item.key)
            job = tx.job(attempt.job_id)
        try:
            cluster = self._fleet.get(attempt.cluster)
            action = self._submit if item.kind == "submit" else self._stop
            action(item, cluster, attempt, job)
        except StaleVersion:
            log.info("outbox result discarded item=%s key=%s: the row moved on", item.kind, item.key)
        except NotFound as error:
            self._finish_failed(item, attempt, job, str(error))
        self._signals.job_changed()

    # submit --------------------------------------------------------------------------------------

    def _submit(self, item: OutboxItem, cluster: Cluster, attempt: Attempt, job: Job) -> None:
        if not attempt.open:
            self._drop(item)
            return
        try:
            client = self._fleet.client(cluster)
            if _may_be_posted(attempt) and client.job(attempt.attempt_id) is not None:
                self._accepted(item, attempt, job, attempt.epoch)
                return
            if job.state is JobState.STOPPING:
                self._stopped_before_posting(item, attempt, job)
                return
            submission = self._prepare(client, attempt, job.spec)
            epoch = client.epoch().session_name
        except InvalidInput as error:
            self._finish_failed(item, attempt, job, str(error))
            return
        except ClusterError as error:
            if _may_be_posted(attempt):
                self._unclear(item, cluster, attempt, job, error)
            elif isinstance(error, ClusterRefused):
                self._finish_failed(item, attempt, job, str(error))
            else:
                self._withdraw(item, cluster, attempt, job, error)
            return
        attempt, submission = self._fence(cluster, attempt, submission, epoch)
        self._post(client, item, cluster, attempt, job, submission)

    def _stopped_before_posting(self, item: OutboxItem, attempt: Attempt, job: Job) -> None:
        with self._store.transaction() as tx:
            if tx.finish_outbox(item):
                self._end(
                    tx, attempt, tx.job(job.job_id), JobEvent.STOPPED, "stopped", "stopped before it was submitted"
                )

    def _post(
        self,
        client: ClusterClient,
        item: OutboxItem,
        cluster: Cluster,
        attempt: Attempt,
        job: Job,
        submission: RaySubmission,
    ) -> None:
        """The one call that starts something; from here on silence is no proof that nothing happened."""
        try:
            client.submit(submission)
        except ClusterRefused as error:
            self._finish_failed(item, attempt, job, str(error))
        except ClusterError as error:
            self._unclear(item, cluster, attempt, job, error)
        else:
            self._accepted(item, attempt, job, attempt.epoch)

    def _prepare(self, client: ClusterClient, attempt: Attempt, spec: JobSpec) -> RaySubmission:
        uris: dict[str, str] = {}
        if spec.bundle_sha256:
            path = self._bundles.open(spec.bundle_sha256)
            uris["working_dir"] = client.ensure_package(path, f"_ray_pkg_{spec.bundle_sha256[:32]}.zip")
        uris["runtime"] = client.ensure_package(self._package.path, self._package.name)
        return RaySubmission(
            submission_id=attempt.attempt_id,
            entrypoint=entrypoint_for(spec),
            runtime_env=runtime_env_for(spec, attempt, uris, self._environment(spec)),
            metadata={**spec.metadata, "carbon-sched.job": attempt.job_id, "job_name": spec.name},
            entrypoint_num_cpus=spec.resources.entrypoint_cpus,
            entrypoint_num_gpus=spec.resources.entrypoint_gpus,
            entrypoint_memory=spec.resources.entrypoint_memory,
            entrypoint_resources=spec.resources.entrypoint_resources or None,
            entrypoint_label_selector=spec.resources.entrypoint_label_selector or None,
        )

    def _environment(self, spec: JobSpec) -> dict[str, str]:
        """The job's own variables, decrypted, and its secrets as they are at this moment; secrets win."""
        given: dict[str, str] = json.loads(self._vault.unseal(spec.sealed_env)) if spec.sealed_env else {}
        return given | {name: self._vault.secret(name, ref) for name, ref in spec.secrets.items()}

    def _fence(
        self, cluster: Cluster, attempt: Attempt, submission: RaySubmission, epoch: str
    ) -> tuple[Attempt, RaySubmission]:
        """Persist that a submission may be under way and until when it may start user code; tell the wrapper too."""
        start_by = self._clock.now() + timedelta(seconds=cluster.start_grace_s)
        with self._store.transaction() as tx:
            attempt = tx.put_attempt(replace(tx.attempt(attempt.attempt_id), start_by=start_by, epoch=epoch))
        env: dict[str, Any] = dict(submission.runtime_env)
        env["env_vars"] = {**env["env_vars"], "CARBON_SCHED_START_BY": f"{to_epoch(start_by):.3f}"}
        return attempt, replace(submission, runtime_env=env)

    def _accepted(self, item: OutboxItem, attempt: Attempt, job: Job, epoch: str) -> None:
        with self._store.transaction() as tx:
            if not tx.finish_outbox(item):
                return
            attempt = tx.attempt(attempt.attempt_id)
            tx.put_attempt(replace(attempt, accepted=True, epoch=epoch))
            job = tx.job(job.job_id)
            if job.state is JobState.DISPATCHING:
                tx.move_job(job, JobEvent.SUBMITTED, at=self._clock.now(), reason=f"submitted to {attempt.cluster}")
        self._signals.follow.set()

    def _unclear(self, item: OutboxItem, cluster: Cluster, attempt: Attempt, job: Job, error: ClusterError) -> None:
        """Keep the attempt open and ask again; past fence and patience it is lost, never repeated elsewhere."""
        self._fleet.mark_unusable(cluster, str(error))
        now = self._clock.now()
        if now < attempt.start_by + SILENCE:
            with self._store.transaction() as tx:
                tx.delay_outbox(item, seconds=RETRY_S)
            return
        with self._store.transaction() as tx:
            if tx.finish_outbox(item):
                reason = f"{cluster.name} gave no clear answer to the submission ({error}); it may have run there"
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.LOST, "lost", reason)

    def _withdraw(
        self, item: OutboxItem, cluster: Cluster, attempt: Attempt, job: Job, error: CarbonSchedError
    ) -> None:
        """Nothing was posted: close the attempt and let the planner choose again."""
        self._fleet.mark_unusable(cluster, str(error))
        with self._store.transaction() as tx:
            if tx.finish_outbox(item):
                reason = f"{cluster.name} could not be used: {error}"
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.WITHDRAWN, "withdrawn", reason)
        self._signals.decide.set()

    def _finish_failed(self, item: OutboxItem, attempt: Attempt, job: Job, reason: str) -> None:
        with self._store.transaction() as tx:
            if tx.finish_outbox(item) and item.kind == "submit":
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.FAILED, "refused", reason)

    def _end(self, tx: Transaction, attempt: Attempt, job: Job, event: JobEvent, outcome: str, reason: str) -> None:
        now = self._clock.now()
        attempt = tx.attempt(attempt.attempt_id)
        # nothing ran, or nothing can be read: either way there is no journal to collect
        tx.put_attempt(replace(attempt, outcome=outcome, reason=reason, collected=True))
        job = tx.move_job(job, ending_event(job.state, event), at=now, reason=reason)
        body: dict[str, object] = {
            "attempt": attempt.attempt_id,
            "job": job.job_id,
            "outcome": outcome,
            "started_at": None,
            "ended_at": to_rfc3339(now),
            "exit_code": None,
            "reason": reason,
            "missing": [],
        }
        tx.append_fact(Fact(FactKind.ATTEMPT_ENDED, now, body))
        if job.state.final:
            record_job_end(tx, job)

    # stop ----------------------------------------------------------------------------------------

    def _stop(self, item: OutboxItem, cluster: Cluster, attempt: Attempt, _job: Job) -> None:
        if not attempt.open:
            self._drop(item)
            return
        if attempt.accepted is None:
            # whether Ray has it is still being found out; stopping an id it does not know yet would stop nothing
            with self._store.transaction() as tx:
                tx.delay_outbox(item, seconds=1.0)
            return
        try:
            client = self._fleet.client(cluster)
            client.stop(attempt.attempt_id)
        except ClusterError as error:
            log.warning("stop not delivered attempt=%s: %s", attempt.attempt_id, error)
            with self._store.transaction() as tx:
                tx.delay_outbox(item, seconds=RETRY_S)
            return
        self._drop(item)
        self._signals.follow.set()

    def _drop(self, item: OutboxItem) -> None:
        with self._store.transaction() as tx:
            tx.finish_outbox(item)


def _may_be_posted(attempt: Attempt) -> bool:
    """The epoch is written just before the first POST; from then on silence is no proof that nothing happened."""
    return bool(attempt.epoch)
