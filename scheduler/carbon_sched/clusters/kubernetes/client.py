"""One Kubernetes cluster with KubeRay: the port `KubernetesClient`. An attempt is a RayJob with a cluster of its own.

Ray itself is reached through the API server's proxy, so that no dashboard needs an address outside Kubernetes.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from carbon_sched.clusters.http import Endpoint
from carbon_sched.clusters.kubernetes import manifest as rayjob_manifest
from carbon_sched.clusters.kubernetes.api import KubernetesApi, Moved
from carbon_sched.clusters.kubernetes.heads import Heads
from carbon_sched.clusters.kubernetes.manifest import ATTEMPT, FINAL, JOB, STOPPING, Runtime, attempt_of
from carbon_sched.clusters.kubernetes.mirror import Mirror
from carbon_sched.domain.cluster import ClusterStatus, Epoch, Node
from carbon_sched.domain.errors import ClusterBusy, ClusterError, ClusterRefused
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.options.rayjob import MANAGED, kueue_of
from carbon_sched.ports import FoundRayCluster, FoundRayJob, RayJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.kubernetes import RayJobObject
    from carbon_sched.ports import Clock, GpuPower, RaySubmission, Served

    Answer = TypeVar("Answer")
    Json = dict[str, Any]

log = logging.getLogger(__name__)

OURS = f"{MANAGED}=true"
TRIES = 5
"""Of a write that others were faster than; KubeRay writes a RayJob every few seconds."""
QUEUE_KNOWN_S = 60.0


class KubernetesCluster:
    """Implements `ports.KubernetesClient`; may be used from several threads at once."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        if cluster.kubernetes is None:
            message = f"{cluster.name} is no Kubernetes cluster"
            raise ValueError(message)
        self.name, self._cluster, self._where, self._clock = cluster.name, cluster, cluster.kubernetes, clock
        endpoint = Endpoint(
            cluster.name, cluster.address, cluster.token, cluster.ca_file,
            allow_plain_http_token=cluster.allow_plain_http_token,
        )  # fmt: skip
        self._api = KubernetesApi(endpoint)
        self._heads = Heads(endpoint, clock)
        namespaces = sorted({*self._where.namespaces, *self._where.create_in}) if self._where.namespaces else [""]
        self._mirrors = {name: Mirror(self._api, name, OURS, clock) for name in namespaces}
        self._lock = threading.Lock()
        self._packages: dict[str, Path] = {}
        self._queues: dict[str, tuple[float, bool]] = {}

    def close(self) -> None:
        """Drop open connections."""
        for mirror in self._mirrors.values():
            mirror.close()
        self._heads.close()

    # what the cluster is -------------------------------------------------------------------------

    def status(self) -> ClusterStatus:
        """Whether RayJobs can be listed now; the nodes are those of the pools that are always on.

        Kubernetes is not asked for nodes: that would take rights over all of it. What is in use is what we reserved.
        """
        seen = ClusterStatus(self.name, self._clock.now(), self._cluster.address, nominal=True)
        try:
            for namespace in self._mirrors:
                self._api.rayjobs(namespace, f"{OURS},{ATTEMPT}=none")
        except ClusterError as error:
            return replace(seen, problem=str(error))
        pools = [pool for pool in self._cluster.pools if pool.node_lifetime != "on-demand"]
        nodes = [Node("kubernetes", "", is_head=True, resources={}, used={})]
        nodes += [
            Node(
                f"{pool.name}-{number}",
                "",
                is_head=False,
                resources=_named(pool.node_resources, pool.gpu_type),
                used={},
            )
            for pool in pools
            for number in range(pool.max_nodes)
        ]
        return replace(seen, epoch=self.epoch(), nodes=tuple(nodes))

    def epoch(self) -> Epoch:
        """Always the same: objects outlive their API servers, and a RayJob that is gone was deleted."""
        return Epoch(f"kubernetes {self._cluster.address}", self._cluster.address)

    def clock_skew_s(self) -> float | None:
        """Not told: each RayJob has nodes of its own."""
        return None

    # jobs ----------------------------------------------------------------------------------------

    def ensure_package(self, path: Path, name: str) -> str:
        """Only our own package: it goes into a ConfigMap where its RayJob is, once that is known."""
        self._packages[name] = path
        return Runtime(_config_map(name), name).uri

    def submit(self, submission: RaySubmission) -> None:
        """Admit the attempt's RayJob, or make it. Conflicts with KubeRay's own writes are tried again."""
        rayjob = submission.rayjob
        if rayjob is None:
            raise ClusterRefused(f"cluster {self.name!r} takes RayJobs alone")
        runtime = self._runtime(rayjob.namespace, submission)
        if rayjob.uid:
            self._again(lambda: self._admit(rayjob, submission, runtime))
        else:
            self._make(submission, runtime)

    def _admit(self, rayjob: RayJobObject, submission: RaySubmission, runtime: Runtime | None) -> None:
        found = self._api.rayjob(rayjob.namespace, rayjob.name)
        if found is None or found["metadata"]["uid"] != rayjob.uid:
            raise ClusterRefused(f"cluster {self.name!r}: RayJob {rayjob.namespace}/{rayjob.name} was deleted")
        if _number(attempt_of(found)) >= _number(submission.submission_id):
            return  # it was admitted before; what became of it is another question
        if why := self._kueue(found):
            raise ClusterRefused(f"cluster {self.name!r}: Kueue decides about {rayjob.namespace}/{rayjob.name} ({why})")
        self._require_waiting(found)
        if rayjob_manifest.has_ended(found):  # which KubeRay never runs again: another one follows it
            self._make(replace(submission, manifest=rayjob_manifest.fresh(found)), runtime)
        else:
            self._keep(self._api.replace_rayjob(self._admitted(found, submission, runtime)))

    def _require_waiting(self, found: Json) -> None:
        """It must have come to rest: KubeRay gives it a Ray job's id when it first looks, and takes that back then."""
        named = f"cluster {self.name!r}: {found['metadata']['namespace']}/{found['metadata']['name']}"
        if rayjob_manifest.has_ended(found) or rayjob_manifest.is_waiting(found):
            return
        if not rayjob_manifest.is_suspended(found) and not attempt_of(found):
            raise ClusterRefused(f"{named} was started by somebody else")
        raise ClusterBusy(f"{named} is not suspended yet (KubeRay says {rayjob_manifest.deployment(found)})")

    def _make(self, submission: RaySubmission, runtime: Runtime | None) -> None:
        """A RayJob of its own for the attempt; one of its name is this very one, made before."""
        manifest: Json = {**submission.manifest, "metadata": dict(submission.manifest["metadata"])}
        manifest["metadata"]["namespace"] = submission.rayjob.namespace if submission.rayjob else ""
        manifest["metadata"]["name"] = made_name(str(manifest["metadata"]["name"]), submission.submission_id)
        made = self._admitted(manifest, submission, runtime)
        made["metadata"]["annotations"][MADE] = "true"
        try:
            self._keep(self._api.create_rayjob(made))
        except Moved:
            found = self._api.rayjob(made["metadata"]["namespace"], made["metadata"]["name"])
            if found is not None and attempt_of(found) != submission.submission_id:
                raise ClusterRefused(f"cluster {self.name!r}: there is a RayJob {made['metadata']['name']}") from None

    def _admitted(self, rayjob: Json, submission: RaySubmission, runtime: Runtime | None) -> Json:
        keep = not (self._cluster.push_to or self._cluster.journal_store)
        return rayjob_manifest.admitted(rayjob, submission, runtime, keep=keep)

    def _runtime(self, namespace: str, submission: RaySubmission) -> Runtime | None:
        """Our package where this RayJob's pods can mount it; None for a job that runs unwrapped."""
        uris = submission.runtime_env.get("py_modules") or ()
        for name, path in self._packages.items():
            runtime = Runtime(_config_map(name), name)
            if runtime.uri in uris:
                self._api.ensure_file(namespace, runtime.config_map, name, path.read_bytes())
                return runtime
        return None

    def job(self, submission_id: str) -> RayJob | None:
        """Asked now, not of what was seen before."""
        found = self._found(submission_id)
        return None if found is None else self._ray_job(found)

    def jobs(self) -> list[RayJob]:
        """One for every RayJob that an attempt of ours was admitted to."""
        found = [rayjob for rayjob in self._all() if attempt_of(rayjob)]
        self._heads.prune(found)
        return [self._ray_job(rayjob) for rayjob in found]

    def _ray_job(self, rayjob: Json) -> RayJob:
        """KubeRay's word, with what only Ray itself knows."""
        attempt, told = attempt_of(rayjob), rayjob_manifest.told(rayjob)
        known = self._heads.details(attempt, rayjob, told.status)
        status = "STOPPED" if self._is_over(attempt, rayjob, told.status) else told.status
        return RayJob(
            attempt,
            status,
            told.message or (known.message if known else ""),
            known.error_type if known and known.error_type else told.error_type,
            known.driver_node_id if known else None,
            known.driver_exit_code if known and status in FINAL else None,
        )

    def _is_over(self, attempt: str, rayjob: Json, status: str) -> bool:
        """Whether a job that was asked to stop has; its wrapper then stays while its energy is collected."""
        return (
            status == "RUNNING"
            and bool(rayjob_manifest.annotation(rayjob, STOPPING))
            and self._heads.has_closed(attempt, rayjob)
        )

    def stop(self, submission_id: str) -> None:
        """Ask Ray where it knows the job; where it does not yet, have KubeRay delete the cluster."""
        self._again(lambda: self._stop(submission_id))

    def _stop(self, submission_id: str) -> None:
        found = self._found(submission_id)
        if found is None or rayjob_manifest.is_suspended(found) or rayjob_manifest.has_ended(found):
            return
        head = self._heads.of(found)
        pending = rayjob_manifest.told(found).status == "PENDING"
        if head is None or (pending and head.job(submission_id) is None):
            self._let_go(found)
            return
        if not rayjob_manifest.annotation(found, STOPPING):
            noted = rayjob_manifest.being_stopped(found, to_rfc3339(self._clock.now()))
            self._keep(self._api.replace_rayjob(noted))
        head.stop(submission_id)

    def logs(self, submission_id: str) -> bytes | None:
        """From its own head, while that is there."""
        found = self._found(submission_id)
        head = self._heads.of(found) if found else None
        return head.logs(submission_id) if head else None

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        """From the cluster that the node belongs to."""
        return self._heads.with_node(node_id, self._all).list_files(node_id, pattern)

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        """From the cluster that the node belongs to."""
        return self._heads.with_node(node_id, self._all).read_file(node_id, name, limit=limit)

    def waiting_for_room(self) -> set[str]:
        """None: KubeRay starts a job once the nodes of its cluster are there."""
        return set()

    def served(self) -> Served:
        """Refused: a RayJob's cluster serves nothing that outlives it."""
        raise ClusterRefused(f"cluster {self.name!r} takes RayJobs alone, and no Serve applications")

    def serve(self, applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> None:
        """Refused likewise."""
        del applications, host, port
        self.served()

    def gpu_power(self) -> list[GpuPower]:
        """Of the clusters of all RayJobs that run."""
        running = [rayjob for rayjob in self._all() if rayjob_manifest.told(rayjob).status == "RUNNING"]
        heads = [head for rayjob in running if (head := self._heads.of(rayjob)) is not None]
        return [gpu for head in heads for gpu in head.gpu_power()]

    # RayJobs and RayClusters that are there ------------------------------------------------------

    def rayjobs(self) -> list[FoundRayJob]:
        """As the mirror has them."""
        return [self._found_rayjob(rayjob) for rayjob in self._all()]

    def exists(self, rayjob: RayJobObject) -> bool:
        """Asked now."""
        found = self._api.rayjob(rayjob.namespace, rayjob.name)
        return found is not None and found["metadata"]["uid"] == rayjob.uid

    def release(self, found: FoundRayJob) -> None:
        """As it is now; nothing for one that runs a later attempt."""
        self._again(lambda: self._release(found))

    def _release(self, found: FoundRayJob) -> None:
        now = self._api.rayjob(found.namespace, found.name)
        if now is not None and now["metadata"]["uid"] == found.uid and attempt_of(now) == found.attempt:
            self._let_go(now)

    def _let_go(self, rayjob: Json) -> None:
        metadata = rayjob["metadata"]
        if not rayjob_manifest.is_kept(rayjob):
            return
        if rayjob_manifest.has_ended(rayjob):
            self._keep(self._api.replace_rayjob(rayjob_manifest.released(rayjob)))
        elif rayjob_manifest.annotation(rayjob, MADE):
            self._api.delete_rayjob(metadata["namespace"], metadata["name"], metadata["uid"])
        else:
            self._keep(self._api.replace_rayjob(rayjob_manifest.suspended(rayjob)))

    def tell(self, found: FoundRayJob, reason: str, message: str, *, warning: bool) -> None:
        """An Event of it."""
        about = {"metadata": {"namespace": found.namespace, "name": found.name, "uid": found.uid}}
        self._api.tell(about, reason, message, warning=warning, at=self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ"))

    def ray_clusters(self) -> list[FoundRayCluster]:
        """Those that stand by themselves and are ready."""
        found = [one for namespace in self._mirrors for one in self._api.rayclusters(namespace, OURS)]
        return [
            FoundRayCluster(
                one["metadata"]["namespace"],
                one["metadata"]["name"],
                self._heads.address(one["metadata"]["namespace"], service, "8265"),
                dict(one["metadata"].get("annotations") or {}),
            )
            for one in found
            if (service := _service(one)) and not _owned_by_rayjob(one)
        ]

    # how -----------------------------------------------------------------------------------------

    def _all(self) -> list[Json]:
        return [rayjob for mirror in self._mirrors.values() for rayjob in mirror.all()]

    def _found(self, submission_id: str) -> Json | None:
        """The RayJob of an attempt, asked now."""
        for namespace in self._mirrors:
            for rayjob in self._api.rayjobs(namespace, f"{ATTEMPT}={submission_id}")[0]:
                self._keep(rayjob)
                return rayjob
        return None

    def _keep(self, written: Json) -> None:
        mirror = self._mirrors.get("") or self._mirrors.get(written["metadata"]["namespace"])
        if mirror is not None:
            mirror.keep(written)

    def _found_rayjob(self, rayjob: Json) -> FoundRayJob:
        metadata = rayjob["metadata"]
        return FoundRayJob(
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            rayjob,
            suspended=rayjob_manifest.is_suspended(rayjob),
            ended=rayjob_manifest.has_ended(rayjob),
            kept=rayjob_manifest.is_kept(rayjob),
            job=rayjob_manifest.annotation(rayjob, JOB),
            attempt=attempt_of(rayjob),
            kueue=self._kueue(rayjob),
        )

    def _kueue(self, rayjob: Json) -> str:
        """Why Kueue decides about a RayJob: it says so itself, or its namespace has a LocalQueue."""
        if why := kueue_of(rayjob):
            return why
        namespace = rayjob["metadata"]["namespace"]
        with self._lock:
            asked_at, served = self._queues.get(namespace, (float("-inf"), False))
        if self._clock.monotonic() - asked_at > QUEUE_KNOWN_S:
            served = self._api.has_local_queue(namespace)
            with self._lock:
                self._queues[namespace] = (self._clock.monotonic(), served)
        return f"namespace {namespace} has a LocalQueue" if served else ""

    def _again(self, write: Callable[[], None]) -> None:
        """Read and write anew while others are faster; the last failure is told."""
        for left in reversed(range(TRIES)):
            try:
                write()
            except Moved:
                if not left:
                    raise
            else:
                return


MADE = f"{MANAGED.partition('/')[0]}/made"
"""An annotation: we made the RayJob, and delete it when its attempt is stopped."""


def made_name(name: str, submission_id: str) -> str:
    """Of the RayJob of one attempt: KubeRay allows 47 characters, for it makes longer names of them."""
    return f"{name[: 46 - len(submission_id)].rstrip('-')}-{submission_id}"


def _number(attempt: str) -> int:
    number = attempt.rpartition("-a")[2]
    return int(number) if number.isdigit() else 0


def _named(resources: Any, gpu_type: str | None) -> dict[str, float]:
    return {**resources, **({f"accelerator_type:{gpu_type}": 1.0} if gpu_type else {})}


def _config_map(package: str) -> str:
    """A name that follows from the package's, which follows from its content."""
    return "carbon-sched-runtime-" + "".join(c for c in package.removesuffix(".zip") if c.isalnum())[-12:].lower()


def _service(raycluster: Json) -> str:
    status = raycluster.get("status") or {}
    return str((status.get("head") or {}).get("serviceName") or "") if status.get("state") == "ready" else ""


def _owned_by_rayjob(raycluster: Json) -> bool:
    return any(owner.get("kind") == "RayJob" for owner in raycluster["metadata"].get("ownerReferences") or ())
