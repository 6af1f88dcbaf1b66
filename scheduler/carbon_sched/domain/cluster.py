"""Ray clusters as we place jobs on them: address, zone, PUE, pools, and what was last seen there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from carbon_sched.domain.kubernetes import Kubernetes

DEFAULT_PUE_PPM = 1_540_000
DEFAULT_PUE_SOURCE = "Uptime Institute global survey 2025 (industry average), assumed"


@dataclass(frozen=True)
class Pue:
    """Power usage effectiveness: facility energy / IT energy over a stated period (ISO/IEC 30134-2)."""

    ppm: int
    period: str
    source: str

    def __post_init__(self) -> None:
        if not 1_000_000 <= self.ppm <= 5_000_000:
            message = f"PUE {self.ppm} ppm is outside 1.0 to 5.0"
            raise ValueError(message)


@dataclass(frozen=True)
class LocalHead:
    """A Ray head that this server starts and owns on its own machine."""

    cpus: int | None = None
    gpus: int | None = None


@dataclass(frozen=True)
class SecretRef:
    """Where a secret is read from at the moment of use; the secret itself is never stored."""

    file: str | None = None
    env: str | None = None

    def __str__(self) -> str:
        return f"file:{self.file}" if self.file else f"env:{self.env}"


@dataclass(frozen=True)
class Pool:
    """Nodes of one kind in a cluster, for GPU types and on-demand capacity.

    `node_resources` is one node's shape in Ray's resource names; `max_nodes` counts nodes that may exist. A node of an
    on-demand pool takes `provisioning_s` to come and goes after `idle_timeout_s` without work (Ray's own default).
    """

    name: str
    node_resources: Mapping[str, float]
    max_nodes: int
    gpu_type: str | None = None
    node_lifetime: str = "always-on"
    provisioning_s: float = 0.0
    idle_timeout_s: float = 300.0


@dataclass(frozen=True)
class Cluster:
    """One Ray cluster: where it is, what its electricity and building cost, how to reach it."""

    name: str
    zone: str
    pue: Pue
    address: str = ""
    local: LocalHead | None = None
    token: SecretRef | None = None
    ca_file: str | None = None
    headers: Mapping[str, SecretRef] = field(default_factory=dict)
    allow_plain_http_token: bool = False
    residency: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()
    price_per_gpu_hour: float | None = None
    start_grace_s: float = 300.0
    home: bool = False
    cordoned: bool = False
    push_to: str = ""
    """Our API's address as its nodes reach it: they push their energy journals there; empty where they cannot."""
    journal_store: str = ""
    """A folder that nodes and server mount at this path; nodes leave their energy journals there. Empty for none."""
    serve_address: str = ""
    """Where clients reach what Ray Serve answers there; empty: the dashboard's host, at Serve's own port."""
    meter_keys: tuple[str, ...] = ()
    """Public keys of its machine meters (`ed25519:BASE64`): what they sign is independent evidence."""
    kubernetes: Kubernetes | None = None
    """Of a Kubernetes cluster, where every job brings its Ray cluster along; None for a Ray cluster."""


@dataclass(frozen=True)
class Epoch:
    """Identity of one life of a cluster's control plane; when it changes, everything there must be asked about anew."""

    session_name: str
    cluster_id: str


@dataclass(frozen=True)
class Node:
    """One alive node: totals by Ray's own resource names (`CPU`, `GPU`, `memory` in bytes, `accelerator_type:H100`)."""

    node_id: str
    ip: str
    is_head: bool
    resources: Mapping[str, float]
    used: Mapping[str, float] | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterStatus:
    """What a cluster said when it was last asked; `problem` says why it could not be used, None when it can.

    `used` of a node is None when the cluster does not say: unknown is not free. `nominal` nodes are those that its
    pools declare: which nodes are there, and which have left, is then not known.
    """

    name: str
    checked_at: datetime
    address: str = ""
    epoch: Epoch | None = None
    ray_version: str = ""
    nodes: tuple[Node, ...] = ()
    problem: str | None = None
    nominal: bool = False

    @property
    def usable(self) -> bool:
        """Whether jobs can be sent there now."""
        return self.problem is None and bool(self.nodes)

    def lost(self, node_id: str) -> bool:
        """Whether the cluster answers, and without this node."""
        return self.usable and not self.nominal and all(node.node_id != node_id for node in self.nodes)

    def total(self, resource: str) -> float:
        """Sum of one resource over all nodes."""
        return sum(node.resources.get(resource, 0.0) for node in self.nodes)
