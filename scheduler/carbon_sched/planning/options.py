"""Which clusters a job could use at all, and for each other one the reason in words a user can act on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from carbon_sched.domain.units import PPM
from carbon_sched.planning.curve import Curve
from carbon_sched.planning.hardware import gpu
from carbon_sched.planning.room import ClusterRoom

if TYPE_CHECKING:
    from carbon_sched.domain.cluster import Cluster, ClusterStatus
    from carbon_sched.domain.intensity import Comparability
    from carbon_sched.domain.job import JobSpec, Resources
    from carbon_sched.planning.snapshot import ClusterView, Snapshot, WaitingJob

DISTRUSTED_S = 86_400.0
"""A grid whose forecasts are not believed is taken at the mean of its next day."""
FRESH_S = 60.0
"""A job this young is refused when nothing alive could ever hold it; an older one waits, since nodes come and go."""


@dataclass
class Site:
    """A cluster with its capacity and its outlook as numbers; `curve` None: nothing comparable is known of its grid."""

    cluster: Cluster
    status: ClusterStatus | None
    room: ClusterRoom
    curve: Curve | None

    @property
    def pue(self) -> float:
        """Facility energy over IT energy."""
        return self.cluster.pue.ppm / PPM


@dataclass(frozen=True)
class Obstacle:
    """Why a job cannot use a cluster; `final` when no passing of time will change it."""

    reason: str
    final: bool = False


@dataclass
class Board:
    """All sites of a snapshot, home first and then by name, so that the order of input decides nothing."""

    sites: list[Site] = field(default_factory=list)

    @staticmethod
    def of(snapshot: Snapshot) -> Board:
        """Sites of a snapshot; outlooks that cannot be ranked with the others are left out of the ranking."""
        comparable = _common([view for view in snapshot.clusters if view.outlook.readings], snapshot.home)
        sites = [_site(view, snapshot, comparable) for view in snapshot.clusters]
        return Board(sorted(sites, key=lambda site: (site.cluster.name != snapshot.home, site.cluster.name)))

    def named(self, name: str | None) -> Site | None:
        """The site of a cluster, or None."""
        return next((site for site in self.sites if site.cluster.name == name), None)


def _common(views: list[ClusterView], home: str | None) -> Comparability | None:
    """Signal, basis and perimeter that values are ranked in: the most common among the clusters, home's when tied."""
    kinds = Counter(view.outlook.readings[0].comparability for view in views)
    at_home = {view.outlook.readings[0].comparability for view in views if view.cluster.name == home}
    ranked = sorted(kinds, key=lambda kind: (-kinds[kind], kind not in at_home, repr(kind)))
    return ranked[0] if ranked else None


def _site(view: ClusterView, snapshot: Snapshot, comparable: Comparability | None) -> Site:
    usable = bool(view.outlook.readings) and view.outlook.comparability == comparable
    curve = Curve.of(view.outlook, snapshot.now, view.steered) if usable else None
    if curve is not None and not view.trusted:
        curve = curve.flat(DISTRUSTED_S)
    return Site(view.cluster, view.status, ClusterRoom(view, snapshot.now), curve)


def obstacle(site: Site, job: WaitingJob, *, fresh: bool) -> Obstacle | None:
    """What keeps `job` from `site` whatever the hour, or None; `fresh`: the job has only just been submitted."""
    barred = _of_another_kind(site.cluster, job.spec) or _rule(site.cluster, job)
    return barred or _unreachable(site) or _shape(site, job.spec, fresh=fresh)


def _rule(cluster: Cluster, job: WaitingJob) -> Obstacle | None:
    if job.bound_to is not None and cluster.name != job.bound_to:
        return Obstacle(f"its saved state is on {job.bound_to}: it named no --storage that this cluster reaches too")
    if job.spec.clusters and cluster.name not in job.spec.clusters:
        return Obstacle(f"not allowed: the job names {', '.join(job.spec.clusters)} (--cluster)", final=True)
    if any(set(cluster.residency).isdisjoint(residency.tags) for residency in job.residency):
        asked = " and in ".join(f"{', '.join(one.tags)} ({one.rule})" for one in job.residency)
        tags = ", ".join(cluster.residency) or "no residency"
        return Obstacle(f"data must stay in {asked}; this cluster is tagged {tags}", final=True)
    if job.allowed is not None and cluster.name not in job.allowed:
        return Obstacle("not allowed by the policy (clusters.allowed)", final=True)
    if cluster.name in job.denied:
        return Obstacle("denied by the policy (clusters.denied)", final=True)
    return _too_dear(cluster, job) or (Obstacle("cordoned: takes no new jobs") if cluster.cordoned else None)


def _of_another_kind(cluster: Cluster, spec: JobSpec) -> Obstacle | None:
    """RayJobs bring their Ray cluster along, to Kubernetes; everything else goes to Ray clusters that are there."""
    if spec.rayjob is None:
        return Obstacle("takes RayJobs alone: it is a Kubernetes cluster", final=True) if cluster.kubernetes else None
    if cluster.kubernetes is None:
        return Obstacle("takes no RayJobs: it is a Ray cluster", final=True)
    if not spec.rayjob.uid and spec.rayjob.namespace not in cluster.kubernetes.create_in:
        return Obstacle(f"no RayJobs may be made there in namespace {spec.rayjob.namespace} (create_in)", final=True)
    return None


def _too_dear(cluster: Cluster, job: WaitingJob) -> Obstacle | None:
    """A cap is kept by what a cluster is known to cost; prices are per GPU hour, so jobs without GPUs have none."""
    cap, price = job.max_price_per_gpu_hour, cluster.price_per_gpu_hour
    if cap is None or job.spec.resources.gpus <= 0:
        return None
    if price is None:
        return Obstacle(f"its price is not known, and the policy's cap is {cap:g} per GPU hour", final=True)
    return (
        Obstacle(f"costs {price:g} per GPU hour, above the policy's cap of {cap:g}", final=True)
        if price > cap
        else None
    )


def _unreachable(site: Site) -> Obstacle | None:
    if site.status is None:
        return Obstacle("unreachable: it has not answered yet")
    if not site.status.usable:
        return Obstacle(f"unreachable: {site.status.problem or 'it reports no nodes'}")
    return None


def _shape(site: Site, spec: JobSpec, *, fresh: bool) -> Obstacle | None:
    """Whether the job fits on the cluster when it is empty."""
    if site.room.fits_empty(spec.resources):
        return None
    known_for_good = bool(site.cluster.pools) or fresh
    return Obstacle(_misfit(site.room, spec.resources), final=known_for_good)


def _misfit(room: ClusterRoom, resources: Resources) -> str:
    kind = resources.gpu_type
    if kind is not None and resources.gpus > 0 and kind.lower() not in room.gpu_types():
        there = ", ".join(sorted(name.upper() for name in room.gpu_types())) or "no GPU of a known type"
        return f"no {kind} GPU: it has {there}"
    if resources.gpu_memory_gb > 0 and resources.gpus > 0 and not room.kinds_for(resources):
        there = (
            ", ".join(f"{name.upper()} {_memory(name)}" for name in sorted(room.gpu_types())) or "GPUs of no known type"
        )
        return f"no GPU with {resources.gpu_memory_gb:g} GB of memory: it has {there}"
    for bundle in resources.bundles:
        for name, amount in bundle.as_resources().items():
            most = room.largest(name)
            if amount > most:
                return f"never fits: needs {amount:g} {name} on one node, the largest has {most:g}"
    asked = Counter[str]()
    for bundle in resources.bundles:
        asked.update(bundle.as_resources())
    short = next((name for name, amount in asked.items() if amount > room.amount(name, free=False)), None)
    if short is not None:
        return f"never fits: needs {asked[short]:g} {short}, the cluster has {room.amount(short, free=False):g}"
    return f"never fits: {len(resources.bundles)} bundles cannot be laid on its nodes ({resources.placement.value})"


def _memory(name: str) -> str:
    known = gpu(name)
    return f"({known.memory_gb:g} GB)" if known else "(memory unknown)"


def full(room: ClusterRoom, resources: Resources) -> str:
    """Why there is no room right now, with what is asked for and what is free."""
    asked = Counter[str]()
    for bundle in resources.bundles:
        asked.update(bundle.as_resources())
    parts = []
    for name in sorted(asked, key=lambda name: (name != "GPU", name)):
        free, total = room.amount(name, free=True), room.amount(name, free=False)
        if asked[name] > free:
            parts.append(f"{asked[name]:g} {name} asked, {free:g} of {total:g} free")
    return "full right now: " + (" and ".join(parts) or "what is free does not lie on nodes as the job needs it")
