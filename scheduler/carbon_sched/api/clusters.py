"""Routes for clusters."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response

from carbon_sched.api.access import Operator, Reader
from carbon_sched.api.context import Context, Ctx
from carbon_sched.api.views import cluster_view
from carbon_sched.service.registration import cluster_of
from carbon_sched.wire import ClusterCheck, ClusterRequest, ClusterView, DrainRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.domain.cluster import Cluster

router = APIRouter(prefix="/v1")


def _views(context: Context, clusters: Sequence[Cluster]) -> list[ClusterView]:
    now = context.clock.now()
    readings = context.outlooks.shown([cluster.zone for cluster in (*context.fleet.all(), *clusters)], now)
    with context.store.transaction(write=False) as tx:
        there = Counter(attempt.cluster for attempt in tx.attempts(open_only=True))
    return [
        cluster_view(cluster, context.fleet.status(cluster.name), readings[cluster.zone][0], there[cluster.name])
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
    context.fleet.put(replace(cluster_of(name, request, context.known_zone), cordoned=cordoned))
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
