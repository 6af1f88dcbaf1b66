"""Accept a job exactly once: validate, store with its first fact, and wake the planner."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from itertools import compress
from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import Conflict, InvalidInput, NotFound
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Job, JobEvent, JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.policy.matching import Selected
from carbon_sched.policy.settings import Priority
from carbon_sched.ports import NewJob
from carbon_sched.service.runtime_env import stored_modules
from carbon_sched.service.spec import job_spec
from carbon_sched.service.together import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.job import JobSpec
    from carbon_sched.domain.kubernetes import RayJobObject
    from carbon_sched.policy.model import Policy
    from carbon_sched.policy.settings import Settings
    from carbon_sched.ports import Bundles, Clock, Ids, Store, Transaction, Vault
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.policies import Policies, PolicySet
    from carbon_sched.service.signals import Signals
    from carbon_sched.wire import JobRequest

ID_TRIES = 5


class Accept:
    """Takes requests in and stop requests; everything after that is the loops' work."""

    def __init__(
        self,
        store: Store,
        bundles: Bundles,
        fleet: Fleet,
        policies: Policies,
        vault: Vault,
        clock: Clock,
        ids: Ids,
        signals: Signals,
    ) -> None:
        self._store, self._bundles, self._fleet = store, bundles, fleet
        self._policies, self._vault = policies, vault
        self._together = Together(store, self._store_all)
        self._seen: _Rules | None = None
        self._clock, self._ids, self._signals = clock, ids, signals

    def submit(
        self,
        request: JobRequest,
        *,
        submitter: str,
        idempotency_key: str | None,
        ray_id: str | None = None,
        rayjob: RayJobObject | None = None,
    ) -> Job:
        """Store the job and return it; the same key with the same request returns the job stored first.

        `ray_id` is the submission id it answers to under Ray's protocol, if one was chosen; `rayjob` the object that
        the request's manifest was read from, if that is there already. Raises InvalidInput, or Conflict where the key
        was used for another request or the id for another job; nothing is stored then.
        """
        digest = self._vault.fingerprint(json.dumps(request, sort_keys=True))
        stored = None
        while stored is None:
            admitted = self._admitted(request, submitter, rayjob)
            admitted = replace(admitted, spec=self._sealed(admitted.spec, request))
            stored = self._stored(admitted, idempotency_key, digest, ray_id)
        self._signals.decide.set()
        self._signals.job_changed()
        return stored

    def _stored(self, admitted: _Admitted, key: str | None, digest: str, ray_id: str | None) -> Job | None:
        """The job; None where other rules are in force than it was admitted by."""
        spec, tries = admitted.spec, ID_TRIES
        while True:
            now = self._clock.now()
            reason = "accepted, not planned yet"
            job = Job(self._ids.job_id(now), spec, JobState.QUEUED, now, reason=reason, priority=admitted.priority)
            try:
                return self._together.run(_Accepted(NewJob(job, key, digest), ray_id, admitted.rules))
            except Conflict:
                # an id drawn twice is drawn anew; every other conflict is one again
                tries -= 1
                if tries == 0:
                    raise

    def spec(self, request: JobRequest, *, submitter: str) -> JobSpec:
        """The validated spec; InvalidInput also for clusters we do not have and bundles that were not uploaded."""
        return self._held_to(self._look(), request, submitter, None).spec

    def _admitted(self, request: JobRequest, submitter: str, rayjob: RayJobObject | None) -> _Admitted:
        """By the rules as last seen: the transaction that stores the job looks whether they still hold.

        So a submission asks the database nothing before its turn to write. Nobody is refused by rules seen earlier.
        """
        seen = self._seen
        if seen is not None:
            with suppress(InvalidInput):
                return self._held_to(seen, request, submitter, rayjob)
        return self._held_to(self._look(), request, submitter, rayjob)

    def _look(self) -> _Rules:
        """The rules now; registers the embedded default where there is no cluster."""
        with self._store.transaction(write=False) as tx:
            policies, (_, names) = self._policies.in_force(tx), tx.rules()
        names = names or tuple(cluster.name for cluster in self._fleet.ensure_any())
        self._seen = _Rules(policies, names)
        return self._seen

    def _held_to(self, rules: _Rules, request: JobRequest, submitter: str, rayjob: RayJobObject | None) -> _Admitted:
        spec = job_spec(request, submitter=submitter, now=self._clock.now())
        spec = replace(spec, rayjob=rayjob or spec.rayjob)
        policy = rules.policies.followed(spec)
        settings = policy.settings(Selected.of(spec))
        _require_allowed(request, spec, policy, settings)
        priority = _priority(request.get("priority"), policy, settings)
        self._require_known(spec)
        for name in spec.clusters:
            if name not in rules.clusters:
                known = ", ".join(sorted(rules.clusters))
                raise InvalidInput("cluster", name, "is not configured", f"Use one of: {known}")
        for name, ref in spec.secrets.items():  # read at dispatch; what is missing now is told now, not hours later
            self._vault.secret(name, ref)
        self._require_stored(spec)  # last: whoever hears of a missing bundle may upload it, and not for nothing
        return _Admitted(spec, priority, rules)

    def _require_known(self, spec: JobSpec) -> None:
        """The jobs that it is to start after."""
        if not spec.after:
            return
        with self._store.transaction(write=False) as tx:
            for dependency in spec.after:
                try:
                    tx.job(dependency.job_id)
                except NotFound as error:
                    remedy = "Give the id of a job, and :ok behind it if that must succeed"
                    raise InvalidInput("after", dependency, f"names no job: {error}", remedy) from None

    def _require_stored(self, spec: JobSpec) -> None:
        named = [("bundle_sha256", spec.bundle_sha256)] if spec.bundle_sha256 else []
        modules = [("runtime_env.py_modules", module.sha256) for module in stored_modules(spec)]
        for field, sha256 in (*named, *modules):
            if not self._bundles.has(sha256):
                raise InvalidInput(field, sha256, "is not stored here", "Upload it first with PUT /v1/bundles/SHA256")

    def _store_all(self, tx: Transaction, accepted: Sequence[_Accepted]) -> list[Job | None]:
        """Store those that keep the rules as they are now; None for others, which are to be admitted anew."""
        now = tx.rules()
        kept = [one.rules.mark == now for one in accepted]
        if not all(kept):
            self._seen = None
        stored = iter(_store(tx, list(compress(accepted, kept))))
        return [next(stored) if keeps else None for keeps in kept]

    def stop(self, job_id: str, why: str = "") -> Job:
        """Ask for a stop: a waiting job ends at once, one on a cluster is stopped there. Final jobs are left alone.

        `why` is told where it was not its user who asked.
        """
        with self._store.transaction() as tx:
            job = tx.job(job_id)
            if job.state.final or job.state is JobState.STOPPING:
                return job
            now = self._clock.now()
            if job.state is JobState.QUEUED:
                reason = why or "stopped before it started"
                job = tx.move_job(job, JobEvent.STOPPED, at=now, reason=reason, cause=Cause.STOP_ASKED)
                record_job_end(tx, job)
            else:
                job = tx.move_job(job, JobEvent.STOP_ASKED, at=now, reason=why or "stop asked", cause=Cause.STOP_ASKED)
                attempt = tx.attempts(job_id=job_id, open_only=True)[-1]
                tx.enqueue("stop", attempt.attempt_id, {})
        self._signals.dispatch.set()
        self._signals.decide.set()
        self._signals.job_changed()
        return job

    def _sealed(self, spec: JobSpec, request: JobRequest) -> JobSpec:
        """Environment variables often hold passwords: they are stored encrypted and nowhere else.

        So is the manifest of a RayJob to be made: its pods may have some too.
        """
        if spec.rayjob is not None and not spec.rayjob.uid:
            manifest = self._vault.seal(json.dumps(request["rayjob"]))
            spec = replace(spec, rayjob=replace(spec.rayjob, sealed_manifest=manifest))
        public = {key: value for key, value in spec.runtime_env.items() if key != "env_vars"}
        sealed = self._vault.seal(json.dumps(spec.runtime_env.get("env_vars", {})))
        return replace(spec, runtime_env=public, sealed_env=sealed)


def require_start_allowed(spec: JobSpec, policy: Policy, settings: Settings) -> None:
    """A job that asks to start at once must be allowed to by its policy."""
    if spec.start_now and not settings.start_now:
        remedy = "Leave it out, or ask who keeps the policy (flexibility.start_now)"
        raise InvalidInput("now", "true", f"is not allowed by the policy {policy.label}", remedy)


def _require_allowed(request: JobRequest, spec: JobSpec, policy: Policy, settings: Settings) -> None:
    """The policy must let the job do what it asks for beside being placed."""
    require_start_allowed(spec, policy, settings)
    for key in request.get("runtime_env", {}):
        if settings.runtime_env is not None and key not in settings.runtime_env:
            allowed = ", ".join(sorted(settings.runtime_env)) or "none"
            remedy = f"Leave it out; allowed are: {allowed} (runtime_env.allowed)"
            raise InvalidInput("runtime_env", key, f"is not allowed by the policy {policy.label}", remedy)


def _priority(asked: str | None, policy: Policy, settings: Settings) -> int:
    """The rank of the class that the policy gives, or of a lower one that was asked for."""
    given = settings.priority
    if asked is None:
        return given.rank
    known = [one.value for one in Priority]
    if asked not in known or Priority(asked).rank > given.rank:
        allowed = ", ".join(known[: given.rank + 2])
        problem = "is not a class" if asked not in known else f"is more than the policy {policy.label} gives"
        raise InvalidInput("priority", asked, problem, f"Use one of: {allowed}")
    return Priority(asked).rank


@dataclass(frozen=True)
class _Rules:
    """What requests are held to: the policies in force, and the names of the clusters there are."""

    policies: PolicySet
    clusters: tuple[str, ...]

    @property
    def mark(self) -> tuple[int, tuple[str, ...]]:
        """What the database tells of them, as `Transaction.rules`."""
        return self.policies.version, self.clusters


@dataclass(frozen=True)
class _Admitted:
    """A validated spec, the rank of its priority, and the rules that it keeps."""

    spec: JobSpec
    priority: int
    rules: _Rules


@dataclass(frozen=True)
class _Accepted:
    """A job to be stored, the id it answers to under Ray's protocol if one was chosen, and what it was held to."""

    new: NewJob
    ray_id: str | None
    rules: _Rules


def _store(tx: Transaction, accepted: Sequence[_Accepted]) -> list[Job]:
    """Store the jobs, each with its first fact; those that were stored before are returned as they are."""
    stored = tx.add_jobs([one.new for one in accepted])
    fresh = [one for one, job in zip(accepted, stored, strict=True) if one.new.job.job_id == job.job_id]
    pseudonym = cache(tx.pseudonym)
    tx.append_facts([_fact(one.new, pseudonym(one.new.job.spec.submitter)) for one in fresh])
    for one in fresh:
        if one.ray_id is not None:
            tx.name_for_ray(one.new.job.job_id, one.ray_id)
    return stored


def _fact(new: NewJob, submitter: str) -> Fact:
    job, spec = new.job, new.job.spec
    body = {
        "job": job.job_id,
        "name": spec.name,
        "phase": spec.phase.value,
        "stage": spec.stage,
        "model": spec.model,
        "project": spec.project,
        "team": spec.team,
        "submitter": submitter,
        "submitted_at": to_rfc3339(job.submitted_at),
        "spec_sha256": new.request_sha256,
        "policy": spec.policy,
    }
    return Fact(FactKind.JOB_ACCEPTED, job.submitted_at, body)


def record_job_end(tx: Transaction, job: Job) -> None:
    """Append the fact that a job reached a final state."""
    if job.finished_at is None:
        message = f"job {job.job_id} is {job.state.value}, which is no end"
        raise ValueError(message)
    body = {
        "job": job.job_id,
        "state": job.state.value,
        "exit_code": job.exit_code,
        "reason": job.reason,
        "attempts": job.attempts,
    }
    tx.append_fact(Fact(FactKind.JOB_ENDED, job.finished_at, body))
