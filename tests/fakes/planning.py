"""Short ways to write a snapshot: clusters on stepped outlooks, jobs with certain durations."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from carbon_sched.domain.cluster import Cluster, ClusterStatus, Node, Pue
from carbon_sched.domain.intensity import Basis, Grade, Kind, Outlook, Perimeter, Reading, Signal
from carbon_sched.domain.job import Bundle, Flexibility, JobSpec, Resources
from carbon_sched.planning.snapshot import Belief, ClusterView, Snapshot, WaitingJob

NOW = datetime(2026, 3, 10, 12, tzinfo=timezone.utc)


def outlook(*steps: float, step_s: float = 3600.0, start: datetime = NOW, zone: str = "DE", basis=Basis.LIFECYCLE):
    """Steps of g/kWh, each `step_s` long, from `start`."""

    def reading(i: int, grams: float) -> Reading:
        begin = start + timedelta(seconds=i * step_s)
        return Reading(
            zone,
            begin,
            begin + timedelta(seconds=step_s),
            round(grams * 1000),
            Signal.AVERAGE,
            basis,
            Perimeter.CONSUMPTION,
            Kind.FORECAST,
            Grade.OWN_FORECAST if i else Grade.LIVE,
            "test",
            start,
            start,
        )

    return Outlook(zone, tuple(reading(i, grams) for i, grams in enumerate(steps)))


def node(name: str = "n1", *, cpus: float = 8, gpus: float = 0, used: dict | None = None, kind: str | None = None):
    resources = {"CPU": cpus, "GPU": gpus, "memory": 64e9}
    if kind:
        resources[f"accelerator_type:{kind}"] = 1.0
    return Node(name, "10.0.0.1", is_head=False, resources=resources, used=used if used is not None else {})


def cluster(
    name: str,
    steps=(100.0,),
    *,
    nodes=None,
    pue: float = 1.0,
    problem=None,
    asked=True,
    step_s=3600.0,
    reservations=(),
    basis=Basis.LIFECYCLE,
    **fields,
) -> ClusterView:
    of = Cluster(name, f"Z-{name}", Pue(round(pue * 1e6), "2025", "test"), **fields)
    nodes = tuple(nodes) if nodes is not None else (node(),)
    status = ClusterStatus(name, NOW, nodes=nodes, problem=problem) if asked else None
    seen = outlook(*steps, step_s=step_s, zone=of.zone, basis=basis)
    return ClusterView(of, status, seen, tuple(reservations))


def job(
    name: str = "j",
    *,
    hours: float | tuple = 1.0,
    wait_h: float = 0.0,
    watts: float = 1000.0,
    cpus: float = 1.0,
    gpus: float = 0.0,
    bundles=None,
    placement=None,
    gpu_type=None,
    earliest_h: float = 0.0,
    deadline_h: float | None = None,
    clusters=(),
    **fields,
) -> WaitingJob:
    hours = hours if isinstance(hours, tuple) else (hours,)
    seconds = tuple(h * 3600.0 for h in hours)
    resources = {"bundles": bundles if bundles is not None else (Bundle(cpus=cpus, gpus=gpus),), "gpu_type": gpu_type}
    if placement is not None:
        resources["placement"] = placement
    deadline = None if deadline_h is None else NOW + timedelta(hours=deadline_h)
    spec = JobSpec(
        "python job.py",
        name,
        resources=Resources(**resources),
        flexibility=Flexibility(deadline=deadline),
        clusters=tuple(clusters),
    )
    earliest = NOW + timedelta(hours=earliest_h)
    return WaitingJob(
        **{
            "job_id": name,
            "spec": spec,
            "submitted_at": NOW,
            "earliest_start": earliest,
            "latest_start": earliest + timedelta(hours=wait_h),
            "belief": Belief(seconds, (1 / len(seconds),) * len(seconds), watts, watts, "test"),
            **fields,
        }
    )


def snapshot(clusters, jobs, *, home=None, best_fixed=None, now=NOW) -> Snapshot:
    return Snapshot(now, tuple(clusters), tuple(jobs), home=home, best_fixed=best_fixed)
