"""Whether a job's bundles fit on a cluster's nodes: now, on empty nodes, and once our own open attempts have ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.domain.job import Placement
from carbon_sched.planning.hardware import gpu

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster, Node, Pool
    from carbon_sched.domain.job import Bundle, Resources
    from carbon_sched.planning.snapshot import ClusterView, Reservation

    Amounts = dict[str, float]

EPSILON = 1e-9
ACCELERATOR = "accelerator_type:"


@dataclass
class NodeRoom:
    """One node: what it has, what is free of it, and what GPUs it carries (lower case, None without a name)."""

    total: Amounts
    free: Amounts
    gpu_type: str | None
    labels: Mapping[str, str]

    def holds(self, need: Mapping[str, float], *, empty: bool = False) -> bool:
        """Whether `need` fits into what is free (or into the empty node)."""
        room = self.total if empty else self.free
        return all(room.get(name, 0.0) >= amount - EPSILON for name, amount in need.items())

    def take(self, need: Mapping[str, float]) -> None:
        """Charge `need`; may go below zero for reservations that a changed cluster no longer has room for."""
        for name, amount in need.items():
            self.free[name] = self.free.get(name, 0.0) - amount


class ClusterRoom:
    """The nodes of one cluster with everything charged that is known to be taken."""

    def __init__(self, view: ClusterView, now: datetime) -> None:
        nodes = view.status.nodes if view.status is not None and view.status.usable else ()
        self.nodes = [_node(node) for node in nodes] + _nodes_on_demand(view.cluster, nodes)
        self.pools = view.cluster.pools
        self._releases = sorted(
            (
                ((r.expected_end - now).total_seconds(), _sum(r.bundles))
                for r in view.reservations
                if r.expected_end > now
            ),
            key=lambda release: release[0],
        )
        for reservation in view.reservations:
            if not reservation.visible:
                self._charge(reservation)

    def _charge(self, reservation: Reservation) -> None:
        for bundle in reservation.bundles:
            need = bundle.as_resources()
            node = next((node for node in self.nodes if node.holds(need)), self.nodes[0] if self.nodes else None)
            if node is not None:
                node.take(need)

    def fits_empty(self, resources: Resources) -> bool:
        """Whether the job fits on these nodes, or on the declared pools, when nothing else runs."""
        pools = [_empty(pool) for pool in self.pools for _ in range(min(pool.max_nodes, len(resources.bundles)))]
        return any(_assign(resources, nodes, empty=True) is not None for nodes in (self.nodes, pools) if nodes)

    def assign(self, resources: Resources) -> list[tuple[NodeRoom, Amounts]] | None:
        """Nodes for every bundle right now, or None when there is no room."""
        return _assign(resources, self.nodes, empty=False)

    def room_in_s(self, resources: Resources) -> float | None:
        """Seconds until enough of our own attempts are expected to have ended; 0 when there is room now, None: unknown.

        Sums over all nodes of the right kind: which node becomes free is not foreseen, only how much.
        """
        if self.assign(resources) is not None:
            return 0.0
        nodes = [node for node in self.nodes if _suits(node, resources)]
        need = _sum(resources.bundles)
        free = {name: sum(max(node.free.get(name, 0.0), 0.0) for node in nodes) for name in need}
        for seconds, freed in self._releases:
            for name in free:
                free[name] += freed.get(name, 0.0)
            if all(free[name] >= amount - EPSILON for name, amount in need.items()):
                return seconds
        return None

    def kinds(self) -> list[str]:
        """The kinds of capacity there are: `gpu` by type, `cpu`, and `any` for jobs that ask for neither."""
        gpus = sorted({_gpu_kind(node) for node in self.nodes if node.total.get("GPU", 0.0) > 0})
        return [*gpus, "cpu", "any"] if self.nodes else []

    def kinds_for(self, resources: Resources) -> list[str]:
        """The kinds of capacity a job can use here."""
        if resources.gpus > 0:
            suited = [node for node in self.nodes if node.total.get("GPU", 0.0) > 0 and _suits(node, resources)]
            return sorted({_gpu_kind(node) for node in suited})
        return ["cpu"] if resources.cpus > 0 else ["any"]

    def units(self, kind: str) -> float:
        """Free GPUs or CPUs of one kind; without limit for `any`."""
        if kind == "any":
            return float("inf")
        if kind == "cpu":
            return self.amount("CPU", free=True)
        return sum(max(n.free.get("GPU", 0.0), 0.0) for n in self.nodes if _gpu_kind(n) == kind)

    def releases(self, kind: str) -> list[tuple[float, float]]:
        """When our own open attempts are expected to give how many units of a kind back, in seconds from now.

        Which type of GPU an attempt holds is not recorded: it counts for the type there is most of.
        """
        if kind == "any":
            return []
        gpus = [other for other in self.kinds() if other.startswith("gpu")]
        most = max(gpus, key=lambda other: sum(_gpus(n) for n in self.nodes if _gpu_kind(n) == other), default="")
        name = "CPU" if kind == "cpu" else "GPU" if kind == most else ""
        return [(seconds, freed[name]) for seconds, freed in self._releases if freed.get(name, 0.0) > 0]

    def release_times(self) -> list[float]:
        """When our own open attempts are expected to end, in seconds from now, ascending."""
        return [seconds for seconds, _ in self._releases]

    def gpu_types(self) -> set[str]:
        """Names of the GPUs on these nodes and in the declared pools, lower case."""
        seen = {node.gpu_type for node in self.nodes} | {(pool.gpu_type or "").lower() for pool in self.pools}
        return {name for name in seen if name}

    def largest(self, resource: str) -> float:
        """The most of one resource on any one node."""
        amounts = [node.total.get(resource, 0.0) for node in self.nodes]
        amounts += [pool.node_resources.get(resource, 0.0) for pool in self.pools]
        return max(amounts, default=0.0)

    def amount(self, resource: str, *, free: bool) -> float:
        """Sum of one resource over all nodes."""
        return sum(max((node.free if free else node.total).get(resource, 0.0), 0.0) for node in self.nodes)


def _gpu_kind(node: NodeRoom) -> str:
    return f"gpu:{node.gpu_type}" if node.gpu_type else "gpu"


def _gpus(node: NodeRoom) -> float:
    return node.total.get("GPU", 0.0)


def _node(node: Node) -> NodeRoom:
    total = dict(node.resources)
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
    total = dict(pool.node_resources)
    return NodeRoom(total, dict(total), pool.gpu_type.lower() if pool.gpu_type else None, {})


def _sum(bundles: Sequence[Bundle]) -> Amounts:
    need: Amounts = {}
    for bundle in bundles:
        for name, amount in bundle.as_resources().items():
            need[name] = need.get(name, 0.0) + amount
    return need


def _suits(node: NodeRoom, resources: Resources) -> bool:
    kind = resources.gpu_type
    if kind is not None and resources.gpus > 0 and node.gpu_type != kind.lower():
        return False
    if resources.gpu_memory_gb > 0 and resources.gpus > 0 and not _remembers(node.gpu_type, resources.gpu_memory_gb):
        return False
    # Ray's selectors have operators of their own; only plain equality is checked here, the rest is left to Ray
    plain = {k: v for k, v in resources.entrypoint_label_selector.items() if not v.startswith(("!", "in(", "!in("))}
    return all(node.labels.get(key) == value for key, value in plain.items())


def _remembers(gpu_type: str | None, gigabytes: float) -> bool:
    """Whether each GPU of a type has this much memory; of one that is sold with several, the least counts."""
    known = gpu(gpu_type)
    return known is not None and known.memory_gb >= gigabytes


def _assign(resources: Resources, nodes: Sequence[NodeRoom], *, empty: bool) -> list[tuple[NodeRoom, Amounts]] | None:
    """A node for every bundle, largest bundles first; an empty list for a job that asks for nothing."""
    suited = [node for node in nodes if _suits(node, resources)]
    needs = sorted((bundle.as_resources() for bundle in resources.bundles), key=_size, reverse=True)
    needs = [need for need in needs if need]
    if not suited:
        return None
    if resources.placement is Placement.STRICT_PACK:
        whole = _sum(resources.bundles)
        able = [node for node in suited if node.holds(whole, empty=empty)]
        node = min(able, key=lambda n: _size(n.total if empty else n.free), default=None)
        return None if node is None else [(node, whole)]
    spread = resources.placement is Placement.SPREAD
    return _one_by_one(needs, suited, spread=spread, empty=empty)


def _one_by_one(
    needs: Sequence[Amounts], nodes: Sequence[NodeRoom], *, spread: bool, empty: bool
) -> list[tuple[NodeRoom, Amounts]] | None:
    """Fill the nodes with least to spare first (pack), or those with fewest of our bundles (spread, best effort)."""
    trial = {id(node): NodeRoom(node.total, dict(node.total if empty else node.free), None, {}) for node in nodes}
    taken = dict.fromkeys(trial, 0)
    chosen: list[tuple[NodeRoom, Amounts]] = []
    for need in needs:
        able = [node for node in nodes if trial[id(node)].holds(need)]
        if not able:
            return None
        if spread:
            emptiest = sorted(able, key=lambda n: _size(trial[id(n)].free), reverse=True)
            node = min(emptiest, key=lambda n: taken[id(n)])
        else:
            node = min(able, key=lambda n: (-taken[id(n)], _size(trial[id(n)].free)))
        trial[id(node)].take(need)
        taken[id(node)] += 1
        chosen.append((node, need))
    return chosen


def _size(amounts: Mapping[str, float]) -> tuple[float, float, float]:
    return amounts.get("GPU", 0.0), amounts.get("CPU", 0.0), amounts.get("memory", 0.0)
