"""Carry out committed intentions on clusters: submit an attempt, stop one.

After an unclear answer the cluster is asked; nothing is ever repeated blindly. Clusters are worked on side by side, the
actions for one of them one after another.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import (
    CarbonSchedError,
    ClusterBusy,
    ClusterError,
    ClusterRefused,
    InvalidInput,
    NotFound,
    StoreError,
)
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobEvent, JobState, ending_event
from carbon_sched.domain.time import to_epoch, to_rfc3339
from carbon_sched.ports import RaySubmission
from carbon_sched.service.accept import record_job_end
from carbon_sched.service.receive import push_token
from carbon_sched.service.runtime_env import entrypoint_for, package_name, runtime_env_for, stored_modules

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt, Job, JobSpec
    from carbon_sched.ports import Bundles, Clock, ClusterClient, OutboxItem, Store, Transaction, Vault
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.lanes import Lanes
    from carbon_sched.service.runtime_env import RuntimePackage
    from carbon_sched.service.signals import Signals
    from carbon_sched.service.variants import Offers

log = logging.getLogger(__name__)

KINDS = ("submit", "stop")
LEASE_S = 120.0
LONGEST_PAUSE_S = 60.0
RETRY_S = 2.0
CLOCK_SKEW = timedelta(seconds=30)
SILENCE = timedelta(minutes=10)
"""An attempt whose cluster gave no clear answer for this long past its fence is LOST, not expired."""
LEAST_ASKING_S = 60.0
"""But it was asked for at least this long by this process, awake: not only once after a sleep or a restart."""


class Dispatch:
    """Works the outbox: one external action at a time and cluster, each fenced by its claim."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        bundles: Bundles,
        package: RuntimePackage,
        vault: Vault,
        clock: Clock,
        signals: Signals,
        lanes: Lanes,
        offers: Offers,
    ) -> None:
        self._store, self._fleet, self._bundles, self._package = store, fleet, bundles, package
        self._offers = offers
        self._vault, self._lanes = vault, lanes
        self._clock, self._signals = clock, signals
        self._unreturned: list[OutboxItem] = []
        self._unclear_since: dict[str, float] = {}
        self._ending = False

    @staticmethod
    def begin_term(tx: Transaction) -> None:
        """Void the claims of whoever led before; the first thing of a leader's term."""
        tx.release_outbox(KINDS)

    def take_over(self) -> None:
        """Void our own claims: for the only server of a database, when its wall clock was moved."""
        with self._store.transaction() as tx:
            tx.release_outbox(KINDS)

    def step(self) -> float:
        """Do every due action once; returns the seconds until the next look."""
        self._return()
        with self._store.transaction() as tx:
            items = tx.claim_outbox(KINDS, limit=16, lease_s=LEASE_S)
            lanes: dict[str, list[OutboxItem]] = {}
            for item in items:
                lanes.setdefault(tx.attempt(item.key).cluster, []).append(item)
        passed_over = self._lanes.run({name: partial(self._do_all, lane) for name, lane in lanes.items()})
        for name in passed_over:
            self._unreturned += lanes[name]
        return 0.0 if len(passed_over) < len(lanes) else RETRY_S

    def _return(self) -> None:
        """Give back actions that could not be done, so that they come again before their lease ends."""
        items = self._unreturned[:]
        if not items:
            return
        with self._store.transaction() as tx:
            for item in items:
                tx.delay_outbox(item, seconds=min(LONGEST_PAUSE_S, RETRY_S * 2.0 ** min(item.tries, 10)))
        del self._unreturned[: len(items)]

    def drain(self, timeout_s: float) -> list[str]:
        """Finish what is under way, begin nothing more, and give the rest back; the clusters that were not done."""
        self._ending = True
        late = self._lanes.drain(timeout_s)
        self._return()
        return late

    def _do_all(self, items: list[OutboxItem]) -> None:
        for item in items:
            if self._ending:
                self._unreturned.append(item)
            else:
                self._do(item)

    def _do(self, item: OutboxItem) -> None:
        """One action. Whatever goes wrong with it, the others go on."""
        try:
            with self._store.transaction(write=False) as tx:
                attempt = tx.attempt(item.key)
                job = tx.job(attempt.job_id)
            try:
                cluster = self._fleet.get(attempt.cluster)
                action = self._submit if item.kind == "submit" else self._stop
                action(item, cluster, attempt, job)
            except NotFound as error:
                self._finish_failed(item, attempt, job, str(error))
        except CarbonSchedError as error:
            log.warning("action put off kind=%s key=%s code=%s: %s", item.kind, item.key, error.code, error)
            self._unreturned.append(item)
        except Exception as error:
            log.exception("action met a bug kind=%s key=%s", item.kind, item.key)
            self._give_up(item, error)
        self._signals.job_changed()

    def _give_up(self, item: OutboxItem, error: Exception) -> None:
        """After a bug: fail what was surely never posted; what may have been is asked about again."""
        with self._store.transaction(write=False) as tx:
            attempt = tx.attempt(item.key)
            job = tx.job(attempt.job_id)
        if item.kind == "submit" and attempt.open and not _may_be_posted(attempt):
            reason = f"a bug in carbon-sched ({type(error).__name__}: {error}); the server's log has the details"
            self._finish_failed(item, attempt, job, reason)
        else:
            self._unreturned.append(item)

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
            if _may_be_posted(attempt) and client.epoch().session_name != attempt.epoch:
                self._forgotten(item, cluster, attempt, job)
                return
            if job.state is JobState.STOPPING:
                self._stop_before_posting(item, attempt, job)
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

    def _stop_before_posting(self, item: OutboxItem, attempt: Attempt, job: Job) -> None:
        """Nothing was posted, or nothing arrived: then wait until it could run nothing any more if it still did."""
        with self._store.transaction() as tx:
            if _may_be_posted(attempt) and self._clock.now() <= attempt.start_by + CLOCK_SKEW:
                tx.delay_outbox(item, seconds=RETRY_S)
            elif tx.finish_outbox(item):
                reason = "stopped before it was submitted"
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.STOPPED, "stopped", reason, Cause.STOP_ASKED)

    def _forgotten(self, item: OutboxItem, cluster: Cluster, attempt: Attempt, job: Job) -> None:
        """The head that may have got the submission is no more: nobody can say whether it ran."""
        with self._store.transaction() as tx:
            if tx.finish_outbox(item):
                reason = f"{cluster.name} was restarted while the job was submitted to it; it may have run there"
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.LOST, "lost", reason, Cause.HEAD_RESTARTED)

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
        except ClusterBusy:
            self._later(item, attempt)
        except ClusterError as error:
            self._unclear(item, cluster, attempt, job, error)
        else:
            self._accepted(item, attempt, job, attempt.epoch)

    def _later(self, item: OutboxItem, attempt: Attempt) -> None:
        """Nothing was posted, as if it had never been tried."""
        with self._store.transaction() as tx:
            if tx.delay_outbox(item, seconds=RETRY_S):
                tx.put_attempt(replace(tx.attempt(attempt.attempt_id), epoch=""))

    def _prepare(self, client: ClusterClient, attempt: Attempt, spec: JobSpec) -> RaySubmission:
        uris: dict[str, str] = {}
        if spec.bundle_sha256:
            path = self._bundles.open(spec.bundle_sha256)
            uris["working_dir"] = client.ensure_package(path, package_name(spec.bundle_sha256))
        for module in stored_modules(spec):
            uris[module.uri] = client.ensure_package(self._bundles.open(module.sha256), module.package)
        uris["runtime"] = client.ensure_package(self._package.path, self._package.name)
        told = self._sinks(attempt) | self._offers.environment(spec, attempt)
        return RaySubmission(
            submission_id=attempt.attempt_id,
            entrypoint=entrypoint_for(spec),
            runtime_env=runtime_env_for(spec, attempt, uris, self._environment(spec), told),
            metadata={**spec.metadata, "carbon-sched.job": attempt.job_id, "job_name": spec.name},
            entrypoint_num_cpus=spec.resources.entrypoint_cpus,
            entrypoint_num_gpus=spec.resources.entrypoint_gpus,
            entrypoint_memory=spec.resources.entrypoint_memory,
            entrypoint_resources=spec.resources.entrypoint_resources or None,
            entrypoint_label_selector=spec.resources.entrypoint_label_selector or None,
            rayjob=spec.rayjob,
            manifest=self._manifest(spec),
        )

    def _manifest(self, spec: JobSpec) -> dict[str, Any]:
        """Of the RayJob to be made, decrypted."""
        if spec.rayjob is None or not spec.rayjob.sealed_manifest:
            return {}
        return dict(json.loads(self._unsealed("rayjob", spec.rayjob.sealed_manifest)))

    def _unsealed(self, field: str, sealed: str) -> str:
        try:
            return self._vault.unseal(sealed)
        except StoreError as error:
            raise InvalidInput(field, "(encrypted)", f"cannot be read: {error}", "Submit the job again") from None

    def _sinks(self, attempt: Attempt) -> dict[str, str]:
        """Where the attempt's nodes deliver their energy journals (carbon_sched_runtime/sinks.py), and with what."""
        cluster, told = self._fleet.get(attempt.cluster), {}
        if cluster.push_to:
            token = push_token(self._vault, attempt.attempt_id)
            told = {"CARBON_SCHED_PUSH": cluster.push_to, "CARBON_SCHED_PUSH_TOKEN": token}
        if cluster.journal_store:
            told["CARBON_SCHED_STORE"] = cluster.journal_store
        return told

    def _environment(self, spec: JobSpec) -> dict[str, str]:
        """The job's own variables, decrypted, and its secrets as they are at this moment; secrets win."""
        given: dict[str, str] = json.loads(self._unsealed("env_vars", spec.sealed_env)) if spec.sealed_env else {}
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
        self._unclear_since.pop(attempt.attempt_id, None)
        self._signals.follow.set()

    def _unclear(self, item: OutboxItem, cluster: Cluster, attempt: Attempt, job: Job, error: ClusterError) -> None:
        """Keep the attempt open and ask again; past fence and patience it is lost, never repeated elsewhere."""
        self._fleet.mark_unusable(cluster, str(error))
        ticks = self._clock.monotonic()
        asking_s = ticks - self._unclear_since.setdefault(attempt.attempt_id, ticks)
        if self._clock.now() < attempt.start_by + SILENCE or asking_s < LEAST_ASKING_S:
            with self._store.transaction() as tx:
                tx.delay_outbox(item, seconds=RETRY_S)
            return
        with self._store.transaction() as tx:
            if tx.finish_outbox(item):
                reason = f"{cluster.name} gave no clear answer to the submission ({error}); it may have run there"
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.LOST, "lost", reason, Cause.SUBMISSION_UNCLEAR)

    def _withdraw(
        self, item: OutboxItem, cluster: Cluster, attempt: Attempt, job: Job, error: CarbonSchedError
    ) -> None:
        """Nothing was posted: close the attempt and let the planner choose again."""
        self._fleet.mark_unusable(cluster, str(error))
        with self._store.transaction() as tx:
            if tx.finish_outbox(item):
                reason = f"{cluster.name} could not be used: {error}"
                self._end(
                    tx, attempt, tx.job(job.job_id), JobEvent.WITHDRAWN, "withdrawn", reason, Cause.CLUSTER_UNUSABLE
                )
        self._signals.decide.set()

    def _finish_failed(self, item: OutboxItem, attempt: Attempt, job: Job, reason: str) -> None:
        with self._store.transaction() as tx:
            if tx.finish_outbox(item) and item.kind == "submit":
                cause = Cause.REFUSED_BY_CLUSTER
                self._end(tx, attempt, tx.job(job.job_id), JobEvent.FAILED, "refused", reason, cause)

    def _end(
        self,
        tx: Transaction,
        attempt: Attempt,
        job: Job,
        event: JobEvent,
        outcome: str,
        reason: str,
        cause: Cause,
    ) -> None:
        now = self._clock.now()
        attempt = tx.attempt(attempt.attempt_id)
        # nothing ran, or nothing can be read: either way there is no journal to collect
        tx.put_attempt(replace(attempt, outcome=outcome, reason=reason, cause=cause, collected=True))
        job = tx.move_job(job, ending_event(job.state, event), at=now, reason=reason, cause=cause)
        body: dict[str, object] = {
            "attempt": attempt.attempt_id,
            "job": job.job_id,
            "outcome": outcome,
            "started_at": None,
            "ended_at": to_rfc3339(now),
            "exit_code": None,
            "reason": reason,
            "cause": cause.value,
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
