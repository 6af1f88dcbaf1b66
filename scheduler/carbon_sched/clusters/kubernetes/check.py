"""What `clusters check` looks at on a Kubernetes cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carbon_sched.clusters.check import Finding, Level, on_demand_sinks
from carbon_sched.domain.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from carbon_sched.clusters.kubernetes.client import KubernetesCluster
    from carbon_sched.domain.cluster import Cluster


def check_kubernetes(client: KubernetesCluster, cluster: Cluster) -> list[Finding]:
    """Whether RayJobs can be followed there, whose they are, and how their energy comes home."""
    status = client.status()
    if status.problem is not None:
        return [Finding(Level.PROBLEM, "reachable", status.problem)]
    findings = [Finding(Level.OK, "reachable", f"RayJobs can be listed at {status.address}")]
    try:
        findings += _rayjobs(client)
        if cluster.kubernetes is not None and cluster.kubernetes.discover:
            ready = len(client.ray_clusters())
            findings.append(Finding(Level.OK, "RayClusters", f"{ready} that are ready carry our label"))
    except ClusterError as error:
        findings.append(Finding(Level.PROBLEM, "RayJobs", str(error)))
    return [*findings, *on_demand_sinks(cluster)]


def _rayjobs(client: KubernetesCluster) -> Iterator[Finding]:
    found = client.rayjobs()
    yield Finding(
        Level.OK, "RayJobs", f"{len(found)} carry our label, {sum(bool(one.attempt) for one in found)} admitted"
    )
    for namespace in sorted({one.namespace for one in found if one.kueue}):
        why = next(one.kueue for one in found if one.namespace == namespace and one.kueue)
        text = f"Kueue decides about RayJobs in namespace {namespace} ({why}): ours are left alone there"
        yield Finding(Level.WARNING, "Kueue", text)
