"""How large the clusters of a backtest are: as the file says, for a stated utilisation, or with room for everybody.

Nodes are not told apart: what a pool has is counted as a whole, for our planner and for everybody else. How bundles lie
on nodes would change a little of what fits, and nothing of what is clean.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from carbon_sched.domain.cluster import Pool
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.service.estimates import ACCELERATOR
from carbon_sched.simulate.scenario import units_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Resources


def sized(clusters: Sequence[Cluster], resource: str, wanted: float | None, room_for_all: float) -> tuple[Cluster, ...]:
    """Clusters with one pool of `resource` each.

    With `wanted` units in all, they are shared out as the file's pools are (clusters without pools count alike).
    Otherwise pools are taken as they are, and a cluster without any gets room for all jobs at once.
    """
    known = [units_of(cluster, resource) for cluster in clusters]
    if bare := [c.name for c, units in zip(clusters, known, strict=True) if c.pools and units <= 0]:
        problem = f"have no {resource} in their pools, which is what the jobs of this trace need"
        raise InvalidInput("clusters", ", ".join(bare), problem, f"Add {resource} to node_resources")
    if wanted is not None:
        usual = sum(known) / max(sum(units > 0 for units in known), 1) or 1.0
        weights = [units or usual for units in known]
        known = [max(round(wanted * weight / sum(weights)), 1) for weight in weights]
    return tuple(
        replace(cluster, pools=(Pool("all", {resource: units or room_for_all}, 1),))
        for cluster, units in zip(clusters, known, strict=True)
    )


def merged(cluster: Cluster, asked: Sequence[Resources]) -> Cluster:
    """With the nodes of each pool as one; one whose pools are not known gets room for all that is asked at once."""
    if not cluster.pools:
        return roomy(cluster, asked)
    pools = [_one_node(p.name, p.node_resources, p.max_nodes, p.gpu_type) for p in cluster.pools]
    return replace(cluster, pools=tuple(pools), cordoned=False)


def roomy(cluster: Cluster, asked: Sequence[Resources]) -> Cluster:
    """With a node for each type of GPU that is asked for, which holds everything at once."""
    totals: Counter[str] = Counter()
    for bundle in (bundle for resources in asked for bundle in resources.bundles):
        totals.update(bundle.as_resources())
    kinds = sorted({resources.gpu_type for resources in asked}, key=str)
    pools = [_one_node(f"all-{number}", totals, 1, kind) for number, kind in enumerate(kinds)]
    return replace(cluster, pools=tuple(pools), cordoned=False)


def _one_node(name: str, resources: Mapping[str, float], nodes: int, gpu_type: str | None) -> Pool:
    amounts = {resource: amount * nodes for resource, amount in resources.items()}
    kind = {f"{ACCELERATOR}{gpu_type}": float(nodes)} if gpu_type else {}
    return Pool(name, {**amounts, **kind}, 1, gpu_type)
