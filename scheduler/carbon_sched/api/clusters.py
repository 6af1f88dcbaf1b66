"""Routes for clusters."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from carbon_sched.api.access import Operator, Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.views import cluster_view
from carbon_sched.domain.address import require_address
from carbon_sched.domain.cluster import DEFAULT_PUE_PPM, DEFAULT_PUE_SOURCE, Cluster, LocalHead, Pool, Pue, SecretRef
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.units import pue_ppm
from carbon_sched.meter_keys import parse_meter_key
from carbon_sched.service.spec import secret_ref
from carbon_sched.wire import ClusterCheck, ClusterRequest, ClusterView, DrainRequest, PoolRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

router = APIRouter()
DAY_S = 86_400
OBJECT_STORES = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss")


def _views(context: Context, clusters: Sequence[Cluster]) -> list[ClusterView]:
    now = context.clock.now()
    outlooks = context.outlooks.of([cluster.zone for cluster in clusters], now, now + timedelta(hours=1))
    with context.store.transaction(write=False) as tx:
        there = Counter(attempt.cluster for attempt in tx.attempts(open_only=True))
    return [
        cluster_view(
            cluster, context.fleet.status(cluster.name), outlooks[cluster.zone].readings[0], there[cluster.name]
        )
        for cluster in clusters
    ]


@router.get("/clusters")
def list_clusters(context: Ctx, _caller: Reader) -> list[ClusterView]:
    """Every registered cluster with what it last said."""
    return _views(context, context.fleet.all())


@router.get("/clusters/{name}")
def show_cluster(name: str, context: Ctx, _caller: Reader) -> ClusterView:
    """One cluster."""
    return _views(context, [context.fleet.get(name)])[0]


@router.put("/clusters/{name}")
def put_cluster(name: str, request: ClusterRequest, context: Ctx, _caller: Operator) -> ClusterView:
    """Register or replace a cluster."""
    cordoned = any(cluster.cordoned for cluster in context.fleet.all() if cluster.name == name)
    context.fleet.put(replace(_cluster(name, request, context), cordoned=cordoned))
    return _views(context, [context.fleet.get(name)])[0]


@router.delete("/clusters/{name}", status_code=204)
def remove_cluster(name: str, context: Ctx, _caller: Operator) -> Response:
    """Forget a cluster; refused while jobs are open there."""
    context.fleet.remove(name)
    return Response(status_code=204)


@router.post("/clusters/{name}/cordon")
def cordon_cluster(name: str, context: Ctx, caller: Operator) -> ClusterView:
    """Give it no new jobs; those that are there go on."""
    context.fleet.cordon(name, cordoned=True)
    return show_cluster(name, context, caller)


@router.post("/clusters/{name}/uncordon")
def uncordon_cluster(name: str, context: Ctx, caller: Operator) -> ClusterView:
    """Give it jobs again."""
    context.fleet.cordon(name, cordoned=False)
    return show_cluster(name, context, caller)


@router.post("/clusters/{name}/drain", status_code=202)
def drain_cluster(name: str, request: DrainRequest, context: Ctx, caller: Operator) -> ClusterView:
    """Cordon it and, if asked to, have the jobs there stopped and queued again; it is empty once `jobs_open` is 0."""
    context.fleet.cordon(name, cordoned=True)
    if request.get("evict", False):
        context.recall.evict(name)
    return show_cluster(name, context, caller)


@router.post("/clusters/{name}/check")
def check_cluster(name: str, context: Ctx, _caller: Operator) -> ClusterCheck:
    """Call the cluster now and say in plain words what works and what does not."""
    return {"name": name, "findings": context.check_cluster(name)}


def _cluster(name: str, request: ClusterRequest, context: Context) -> Cluster:
    address, local = request.get("address", ""), request.get("local")
    if not name.replace("-", "").replace("_", "").isalnum() or len(name) > 64:
        raise InvalidInput("name", name, "is not a cluster name", "Use letters, digits, - and _, at most 64")
    if bool(address) == (local is not None):
        raise InvalidInput("address", address, "must be given, or local, but not both", "Give exactly one of the two")
    if address:
        require_address(address)
    return Cluster(
        name=name,
        zone=context.known_zone(request["zone"]),
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
        start_grace_s=_grace(request.get("start_grace_s", 300.0)),
        home=request.get("home", False),
        push_to=_push_to(request.get("push_to", "")),
        journal_store=_journal_store(request.get("journal_store", "")),
        meter_keys=tuple(str(parse_meter_key(text)) for text in request.get("meter_keys", [])),
    )


def _push_to(address: str) -> str:
    if address and not address.startswith(("http://", "https://")):
        remedy = "Give this server's own address as the cluster's nodes reach it, https://HOST:PORT"
        raise InvalidInput("push_to", address, "is not an address to push to", remedy)
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
