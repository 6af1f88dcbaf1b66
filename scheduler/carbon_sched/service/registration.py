"""A cluster as people declare it, over the API or in a file, checked and read into the domain's Cluster."""

from __future__ import annotations

import math
import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from carbon_sched.domain.address import require_address
from carbon_sched.domain.cluster import DEFAULT_PUE_PPM, DEFAULT_PUE_SOURCE, Cluster, LocalHead, Pool, Pue, SecretRef
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.kubernetes import Kubernetes
from carbon_sched.domain.units import pue_ppm
from carbon_sched.meter_keys import parse_meter_key
from carbon_sched.service.spec import secret_ref

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.wire import ClusterRequest, KubernetesRequest, PoolRequest

DAY_S = 86_400
KUBERNETES_GRACE_S = 1800.0
"""Nodes and images of a RayJob's own cluster may take long to come."""
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


def cluster_of(name: str, request: ClusterRequest, known_zone: Callable[[str], str]) -> Cluster:
    """The cluster that a request describes; InvalidInput naming the field, the value and the remedy.

    `known_zone` gives a zone's key for what people write, or raises InvalidInput.
    """
    address, local = request.get("address", ""), request.get("local")
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
        raise InvalidInput("name", name, "is not a cluster name", "Use letters, digits, - and _, at most 64")
    if bool(address) == (local is not None):
        raise InvalidInput("address", address, "must be given, or local, but not both", "Give exactly one of the two")
    if address:
        require_address(address)
    kubernetes = _kubernetes(request.get("kubernetes"))
    if kubernetes is not None:
        _require_kubernetes(address, request)
    return Cluster(
        name=name,
        zone=known_zone(request["zone"]),
        pue=_pue(request),
        address=address.rstrip("/"),
        local=LocalHead(local.get("cpus"), local.get("gpus")) if local is not None else None,
        token=_secret("token", request.get("token")),
        ca_file=request.get("ca_file"),
        headers={key: secret_ref(f"headers.{key}", value) for key, value in request.get("headers", {}).items()},
        allow_plain_http_token=request.get("allow_plain_http_token", False),
        residency=tuple(request.get("residency", [])),
        pools=tuple(_pool(pool) for pool in request.get("pools", [])),
        price_per_gpu_hour=request.get("price_per_gpu_hour"),
        start_grace_s=_grace(request.get("start_grace_s", KUBERNETES_GRACE_S if kubernetes else Cluster.start_grace_s)),
        home=request.get("home", False),
        push_to=_push_to(request.get("push_to", "")),
        journal_store=_journal_store(request.get("journal_store", "")),
        serve_address=_serve_address(request.get("serve_address", "")),
        meter_keys=tuple(str(parse_meter_key(text)) for text in request.get("meter_keys", [])),
        kubernetes=kubernetes,
    )


def _kubernetes(asked: KubernetesRequest | None) -> Kubernetes | None:
    if asked is None:
        return None
    namespaces, create_in = tuple(asked.get("namespaces", [])), tuple(asked.get("create_in", []))
    for field, names in (("namespaces", namespaces), ("create_in", create_in)):
        for name in names:
            if not NAMESPACE.fullmatch(name):
                raise InvalidInput(
                    f"kubernetes.{field}", name, "is not the name of a namespace", "Write it as kubectl does"
                )
    return Kubernetes(namespaces, create_in, discover=asked.get("discover", False))


def _require_kubernetes(address: str, request: ClusterRequest) -> None:
    if not address:
        remedy = "Give its API server's, such as https://kubernetes.default.svc, as `address`"
        raise InvalidInput("address", address, "is missing for a Kubernetes cluster", remedy)
    if not request.get("pools"):
        remedy = "List its nodes that RayJobs may use as `pools`: Kubernetes is not asked for them"
        raise InvalidInput("pools", [], "names no nodes", remedy)


def _push_to(address: str) -> str:
    if address and not address.startswith(("http://", "https://")):
        remedy = "Give this server's own address as the cluster's nodes reach it, https://HOST:PORT"
        raise InvalidInput("push_to", address, "is not an address to push to", remedy)
    return address.rstrip("/")


def _serve_address(address: str) -> str:
    try:
        if address:
            require_address(address)
    except InvalidInput as error:
        remedy = "Give http(s)://HOST:PORT as clients reach Ray Serve there"
        raise InvalidInput("serve_address", address, error.problem, remedy) from None
    return address.rstrip("/")


def _journal_store(location: str) -> str:
    """The folder of a `file:` location: nodes have the standard library alone, which speaks to no object store."""
    if not location:
        return ""
    scheme, _, path = location.partition(":")
    if scheme in OBJECT_STORES:
        remedy = (
            "Mount the bucket at one path on nodes and server (FUSE) and give file:PATH, or have them push: push_to"
        )
        reason = "is an object store, which nodes reach neither with a client nor with credentials of ours"
        raise InvalidInput("journal_store", location, reason, remedy)
    folder = PurePosixPath(path)
    if scheme != "file" or not folder.is_absolute() or ".." in folder.parts:
        remedy = "Give file:PATH, the absolute path at which nodes and server mount a shared folder"
        raise InvalidInput("journal_store", location, "is not a folder", remedy)
    return str(folder)


def _pool(request: PoolRequest) -> Pool:
    lifetime = request.get("node_lifetime", "always-on")
    if lifetime not in ("always-on", "on-demand"):
        raise InvalidInput("pools.node_lifetime", lifetime, "is not known", "Use always-on or on-demand")
    if request["max_nodes"] < 1:
        raise InvalidInput("pools.max_nodes", request["max_nodes"], "is not a number of nodes", "Give 1 or more")
    return Pool(
        request["name"],
        request["node_resources"],
        request["max_nodes"],
        request.get("gpu_type"),
        lifetime,
        _seconds("provisioning_s", request.get("provisioning_s", 0.0)),
        _seconds("idle_timeout_s", request.get("idle_timeout_s", Pool.idle_timeout_s)),
    )


def _seconds(key: str, value: float) -> float:
    if not (math.isfinite(value) and 0 <= value <= DAY_S):
        raise InvalidInput(f"pools.{key}", value, "is not a time", "Give 0 to 86400 seconds")
    return value


def _pue(request: ClusterRequest) -> Pue:
    value = request.get("pue")
    if value is None:
        return Pue(DEFAULT_PUE_PPM, "2025", DEFAULT_PUE_SOURCE)
    if not (math.isfinite(value) and 1.0 <= value <= 5.0):
        raise InvalidInput("pue", value, "is not a PUE", "Give facility energy / IT energy, between 1.0 and 5.0")
    return Pue(
        pue_ppm(value), request.get("pue_period", ""), request.get("pue_source", "") or "declared by the operator"
    )


def _grace(value: float) -> float:
    if not (math.isfinite(value) and 5 <= value <= DAY_S):
        raise InvalidInput("start_grace_s", value, "is not a start grace", "Give 5 to 86400 seconds")
    return value


def _secret(field: str, text: str | None) -> SecretRef | None:
    return None if text is None else secret_ref(field, text)
