"""Whether a job's bundles fit on a cluster's nodes: now, on empty nodes, and once our own open attempts have ended."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.nodes import NodeRoom, Nodes, summed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster, Node, Pool
    from carbon_sched.domain.job import Resources
    from carbon_sched.planning.nodes import Held
    from carbon_sched.planning.snapshot import ClusterView

ACCELERATOR = "accelerator_type:"


class ClusterRoom:
    """The nodes of one cluster with everything charged that is known to be taken."""

    def __init__(self, view: ClusterView, now: datetime) -> None:
        alive = view.status.nodes if view.status is not None and view.status.usable else ()
        self.nodes = Nodes([_node(node) for node in alive] + _nodes_on_demand(view.cluster, alive))
        self.pools = view.cluster.pools
        self._releases = sorted(
            (
                ((r.expected_end - now).total_seconds(), summed(r.bundles))
                for r in view.reservations
                if r.expected_end > now
            ),
            key=lambda release: release[0],
        )
        unseen = [r.bundles for r in view.reservations if not r.visible] if len(self.nodes) else []
        for need in (bundle.as_resources() for bundles in unseen for bundle in bundles):
            self.nodes.take([(self.nodes.first(need), need)])

    def fits_empty(self, resources: Resources) -> bool:
        """Whether the job fits on these nodes, or on the declared pools, when nothing else runs."""
        pools = [_empty(pool) for pool in self.pools for _ in range(min(pool.max_nodes, len(resources.bundles)))]
        return any(nodes.lay(resources, empty=True) is not None for nodes in (self.nodes, Nodes(pools)) if len(nodes))

    def assign(self, resources: Resources) -> Held | None:
        """Nodes for every bundle right now, or None when there is no room."""
        return self.nodes.lay(resources)

    @cached_property
    def _kinds(self) -> list[str]:
        types = ["", *sorted(self.nodes.gpu_types)]
        return [_gpu_kind(name) for name in types if self.nodes.of_type(name).any()]

    def kinds(self) -> list[str]:
        """The kinds of capacity there are: `gpu` by type, `cpu`, and `any` for jobs that ask for neither."""
        return [*self._kinds, "cpu", "any"] if len(self.nodes) else []

    def kinds_for(self, resources: Resources) -> list[str]:
        """The kinds of capacity a job can use here."""
        if resources.gpus > 0:
            suited = self.nodes.suited(resources)
            return [kind for kind in self._kinds if (suited & self.nodes.of_type(_type_of(kind))).any()]
        return ["cpu"] if resources.cpus > 0 else ["any"]

    def units(self, kind: str) -> float:
        """Free GPUs or CPUs of one kind; without limit for `any`."""
        if kind == "any":
            return float("inf")
        if kind == "cpu":
            return self.amount("CPU", free=True)
        free = self.nodes.column("GPU", free=True)[self.nodes.of_type(_type_of(kind))]
        return float(np.maximum(free, 0.0).sum())

    def releases(self, kind: str) -> list[tuple[float, float]]:
        """When our own open attempts are expected to give how many units of a kind back, in seconds from now.

        Which type of GPU an attempt holds is not recorded: it counts for the type there is most of.
        """
        if kind == "any":
            return []
        gpus = self.nodes.column("GPU", free=False)
        most = max(self._kinds, key=lambda other: gpus[self.nodes.of_type(_type_of(other))].sum(), default="")
        name = "CPU" if kind == "cpu" else "GPU" if kind == most else ""
        return [(seconds, freed[name]) for seconds, freed in self._releases if freed.get(name, 0.0) > 0]

    def release_times(self) -> list[float]:
        """When our own open attempts are expected to end, in seconds from now, ascending."""
        return [seconds for seconds, _ in self._releases]

    def gpu_types(self) -> set[str]:
        """Names of the GPUs on these nodes and in the declared pools, lower case."""
        return self.nodes.gpu_types | {pool.gpu_type.lower() for pool in self.pools if pool.gpu_type}

    def largest(self, resource: str) -> float:
        """The most of one resource on any one node."""
        most = float(self.nodes.column(resource, free=False).max(initial=0.0))
        return max([most, *(pool.node_resources.get(resource, 0.0) for pool in self.pools)])

    def amount(self, resource: str, *, free: bool) -> float:
        """Sum of one resource over all nodes."""
        return float(np.maximum(self.nodes.column(resource, free=free), 0.0).sum())


def _gpu_kind(gpu_type: str) -> str:
    return f"gpu:{gpu_type}" if gpu_type else "gpu"


def _type_of(kind: str) -> str:
    return kind.partition(":")[2]


def _node(node: Node) -> NodeRoom:
    total = node.resources
    # a node that does not say what is in use has nothing to offer: unknown is not free
    free = {} if node.used is None else {name: amount - node.used.get(name, 0.0) for name, amount in total.items()}
    named = next((name for name in total if name.startswith(ACCELERATOR)), "")
    return NodeRoom(total, free, named[len(ACCELERATOR) :].lower() or None, node.labels)


def _nodes_on_demand(cluster: Cluster, alive: Sequence[Node]) -> list[NodeRoom]:
    """Nodes that a submission would call into being: those of on-demand pools that do not exist yet."""
    rooms = []
    for pool in cluster.pools:
        if pool.node_lifetime == "on-demand":
            existing = sum(1 for node in alive if _of_pool(node, pool))
            rooms += [_empty(pool) for _ in range(max(pool.max_nodes - existing, 0))]
    return rooms


def _of_pool(node: Node, pool: Pool) -> bool:
    return all(node.resources.get(name, 0.0) == amount for name, amount in pool.node_resources.items())


def _empty(pool: Pool) -> NodeRoom:
    return NodeRoom(pool.node_resources, pool.node_resources, pool.gpu_type.lower() if pool.gpu_type else None, {})
