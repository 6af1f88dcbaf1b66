"""What hardware an attempt keeps for itself, what its manufacture emitted, and which nodes come for it: `reserved`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carbon_sched.planning.costs import exists_for_jobs, idle_w, nodes_for
from carbon_sched.planning.hardware import LIFE_S, gpu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.cluster import Cluster, ClusterStatus, Node
    from carbon_sched.domain.job import JobSpec

ACCELERATOR = "accelerator_type:"
GPUS_PER_HOST = 8
"""Of a host whose shape nobody told."""
HOST_LOW_G, HOST_HIGH_G = 2_500_000, 5_854_000
HOST_SOURCE = (
    "2,500 kg: Luccioni et al. 2022; 5,854 kg: Boavizta's model of a server with 2 CPUs and 2 TB, without GPUs"
)
PPM = 1_000_000


def reserved(spec: JobSpec, cluster: Cluster, status: ClusterStatus | None) -> dict[str, Any]:
    """GPUs in thousandths, and each kind of hardware with how much of it and its footprint, as LEDGER.md lists them.

    A host's share is that of its GPUs, or of its CPUs for a job without any. What is not known has no part. Nodes of an
    on-demand pool are told with what each draws idle, in mW, estimated from what it is made of.
    """
    nodes = status.nodes if status is not None else ()
    gpus, cpus = spec.resources.gpus, sum(bundle.cpus for bundle in spec.resources.bundles)
    parts = []
    name = spec.resources.gpu_type or _only_type(cluster, nodes)
    found = gpu(name)
    if gpus and found is not None and found.embodied_kg is not None:
        low, high = (round(1000 * kg) for kg in found.embodied_kg)
        source = "lowest and highest published figure (planning/data/gpus.csv)"
        parts.append(_part(f"GPU {name}", gpus, low, high, source))
    whole = _most(nodes, "GPU") or GPUS_PER_HOST if gpus else _most(nodes, "CPU")
    if whole:
        parts.append(_part("host without GPUs", (gpus or cpus) / whole, HOST_LOW_G, HOST_HIGH_G, HOST_SOURCE))
    kept: dict[str, Any] = {"gpus_milli": round(1000 * gpus), "parts": [part for part in parts if part["share_ppm"]]}
    pool = exists_for_jobs(cluster, f"gpu:{name.lower()}" if gpus and name else "gpu" if gpus else "cpu")
    if pool is not None:
        kept["nodes"] = {"pool": pool.name, "count": nodes_for(pool, spec), "idle_mw": round(1000 * idle_w(pool))}
    return kept


def _part(hardware: str, share: float, low_g: int, high_g: int, source: str) -> dict[str, Any]:
    return {
        "hardware": hardware,
        "share_ppm": round(share * PPM),
        "low_g": low_g,
        "high_g": high_g,
        "life_s": int(LIFE_S),
        "source": source,
    }


def _only_type(cluster: Cluster, nodes: Sequence[Node]) -> str | None:
    """The GPU type of a cluster that has one only."""
    types = {pool.gpu_type for pool in cluster.pools if pool.gpu_type}
    types |= {
        name.removeprefix(ACCELERATOR) for node in nodes for name in node.resources if name.startswith(ACCELERATOR)
    }
    return types.pop() if len(types) == 1 else None


def _most(nodes: Sequence[Node], resource: str) -> float:
    return max((node.resources.get(resource, 0.0) for node in nodes), default=0.0)
