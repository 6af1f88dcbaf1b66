"""RayClusters with our label become clusters of ours, with the zone and PUE that their annotations say.

What they do not say is their Kubernetes cluster's. One that is gone is forgotten once no job is open there.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from carbon_sched.domain.cluster import Pue
from carbon_sched.domain.errors import CarbonSchedError, ClusterError, Conflict, InvalidInput
from carbon_sched.domain.units import pue_ppm
from carbon_sched.options.rayjob import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.ports import FoundRayCluster, KubernetesClusters
    from carbon_sched.service.fleet import Fleet

log = logging.getLogger(__name__)

LOOK_S = 30.0
ZONE, PUE = f"{PREFIX}zone", f"{PREFIX}pue"


class Discovered:
    """One loop of the leader over the Kubernetes clusters that are to be looked through."""

    def __init__(self, fleet: Fleet, clusters: KubernetesClusters, known_zone: Callable[[str], str]) -> None:
        self._fleet, self._clusters, self._known_zone = fleet, clusters, known_zone

    def step(self) -> float:
        """Look once; returns the seconds until the next look."""
        for kubernetes in self._fleet.all():
            if kubernetes.kubernetes is None or not kubernetes.kubernetes.discover:
                continue
            try:
                found = self._clusters.kubernetes(kubernetes).ray_clusters()
            except ClusterError as error:
                log.warning("RayClusters not listed cluster=%s: %s", kubernetes.name, error)
                continue
            self._register(kubernetes, found)
            self._forget(kubernetes, {_name(kubernetes, one) for one in found})
        return LOOK_S

    def _register(self, kubernetes: Cluster, found: list[FoundRayCluster]) -> None:
        there = {cluster.name: cluster for cluster in self._fleet.all()}
        for one in found:
            before = there.get(_name(kubernetes, one))
            try:
                wanted = cluster_of(kubernetes, one, self._known_zone)
            except CarbonSchedError as error:
                log.warning("RayCluster not registered %s/%s: %s", one.namespace, one.name, error)
                continue
            if before is not None:
                wanted = replace(wanted, cordoned=before.cordoned)
            if wanted != before:
                self._fleet.put(wanted)
                log.info("RayCluster registered cluster=%s zone=%s", wanted.name, wanted.zone)

    def _forget(self, kubernetes: Cluster, there: set[str]) -> None:
        """Those that were found on this Kubernetes cluster, by their address, and are not there any more."""
        for cluster in self._fleet.all():
            if cluster.address.startswith(f"{kubernetes.address}/api/v1/namespaces/") and cluster.name not in there:
                try:
                    self._fleet.remove(cluster.name)
                except Conflict as error:
                    log.info("RayCluster is gone, and not forgotten yet cluster=%s: %s", cluster.name, error)


def cluster_of(kubernetes: Cluster, found: FoundRayCluster, known_zone: Callable[[str], str]) -> Cluster:
    """The cluster that a RayCluster is; InvalidInput for an annotation that cannot be meant."""
    zone, pue = found.annotations.get(ZONE), found.annotations.get(PUE)
    return replace(
        kubernetes,
        name=_name(kubernetes, found),
        address=found.address,
        zone=known_zone(zone) if zone else kubernetes.zone,
        pue=_pue(pue) if pue else kubernetes.pue,
        pools=(),
        start_grace_s=type(kubernetes).start_grace_s,
        home=False,
        cordoned=False,
        kubernetes=None,
    )


def _name(kubernetes: Cluster, found: FoundRayCluster) -> str:
    return f"{kubernetes.name}-{found.namespace}-{found.name}"[:64]


def _pue(text: str) -> Pue:
    try:
        return Pue(pue_ppm(float(text)), "", "annotation of the RayCluster")
    except ValueError:
        remedy = "Write facility energy / IT energy, between 1.0 and 5.0, in quotes"
        raise InvalidInput(f"annotation {PUE}", text, "is not a PUE", remedy) from None
