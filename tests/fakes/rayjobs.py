"""All that a RayJob needs to live: API server, operator, Ray heads, and our service."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from carbon_sched.clusters.registry import RayClusters
from carbon_sched.domain.cluster import Pool
from carbon_sched.domain.errors import ClusterError
from carbon_sched.domain.kubernetes import Kubernetes
from carbon_sched.domain.time import to_epoch
from carbon_sched.ports import JobFilter
from carbon_sched.service.kubernetes.rayjobs import RayJobs
from carbon_sched.service.spec import secret_ref
from carbon_sched_runtime import wire
from tests.fakes.fuse import FusedClusters
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.kube_apiserver import RealKubeApi
from tests.fakes.kuberay import KubeRay
from tests.fakes.ray_heads import RayHeads
from tests.fakes.world import InOrder, World, a_cluster

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from pathlib import Path

    from typing_extensions import Self

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import Attempt, Job
    from tests.fakes.fuse import Fuse
    from tests.fakes.kube_apiserver import KubeApiserver

Json = dict[str, Any]
RECONCILED_S = 3.0
"""KubeRay looks at each RayJob this often."""
POOL = Pool("spot", {"CPU": 4.0, "memory": 16e9}, 64, node_lifetime="on-demand", provisioning_s=60.0)


class Site:
    """One Kubernetes cluster: API server (a fake, unless `server` runs), operator, and the Ray heads that it runs."""

    def __init__(
        self,
        made: Cluster,
        now: Callable[[], datetime],
        folder: Path,
        server: KubeApiserver | None = None,
        *,
        faulty: bool = False,
    ) -> None:
        """`faulty` makes a real server fail; a fake one can always be made to."""
        self.now, self.heads = now, RayHeads()
        self.api: Any = RealKubeApi(server, self.heads, faulty=faulty) if server else FakeKubeApi(self.heads, folder)
        self.api.__enter__()
        self.operator = KubeRay(self.api.operator_at, self.heads, now, heads_at=self.api.heads_at, **self.api.session)
        token = secret_ref("token", self.api.token)
        self.cluster = replace(made, address=self.api.address, token=token, ca_file=self.api.ca_file)

    def close(self) -> None:
        self.api.__exit__()
        self.heads.close()

    # what the wrapper does, and Ray --------------------------------------------------------------

    def starts(self, attempt: str) -> None:
        self.heads.by_job[attempt].begin(attempt)
        self.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})

    def closes(
        self, attempt: str, *, start: datetime, exit_code: int = 0, energy_uj: int = 3_600_000_000, seq: int = 0
    ) -> None:
        """The user's code has ended, and all energy is written."""
        segment = World.made_segment(start, self.now(), {attempt: energy_uj}, seq)
        self.heads.by_job[attempt].put_file(str(segment.name), wire.format_segment(segment))
        ended = {"event": "ended", "exit_code": exit_code}
        self.record(attempt, ended, {"event": "closed", "exit_code": exit_code, "segments": 1})

    def finishes(self, attempt: str, *arguments: Any) -> None:
        """Ray says that it has ended."""
        self.heads.by_job[attempt].finish(attempt, *arguments)

    def record(self, attempt: str, *events: Json) -> None:
        at = round(to_epoch(self.now()) * 1e6)
        lines = "".join(json.dumps({"v": 1, "attempt": attempt, "t": at, **event}) + "\n" for event in events)
        path = self.heads.by_job[attempt].logs / wire.record_name(attempt)
        path.write_bytes((path.read_bytes() if path.exists() else b"") + lines.encode())


class Kube:
    """A world with Kubernetes clusters by name and zone, the first of which may be a real `server`.

    The first one's parts are its own. `turn` is one turn of everybody.
    """

    def __init__(
        self,
        folder: Path,
        grid: dict[str, list[tuple[float, float]]] | None = None,
        *,
        pool: Pool = POOL,
        zones: Mapping[str, str] | None = None,
        server: KubeApiserver | None = None,
        faulty: bool = False,
        **kubernetes: Any,
    ) -> None:
        self.folder, self.grid = folder, grid or {"DE": [(0, 100.0)]}
        made = [
            a_cluster(
                name,
                zone,
                pools=(pool,),
                home=name == "kube",
                start_grace_s=1800.0,
                kubernetes=Kubernetes(**kubernetes),
            )
            for name, zone in (zones or {"kube": "DE"}).items()
        ]
        self.sites = [
            Site(made[0], self.now, folder, server, faulty=faulty),
            *(Site(other, self.now, folder) for other in made[1:]),
        ]
        first = self.sites[0]
        self.api, self.heads, self.operator, self.cluster = first.api, first.heads, first.operator, first.cluster

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for site in self.sites:
            site.close()

    def begin(self, fuse: Fuse | None = None) -> None:
        """A server begins, after another one or as the first."""
        before = getattr(self, "world", None)
        self.adapters = RayClusters(self.folder, _Late(self))
        clusters = [site.cluster for site in self.sites]
        self.world = World(self.folder, clusters, self.grid, before=before, fuse=fuse, adapters=self.adapters)  # type: ignore[arg-type]
        clusters: Any = FusedClusters(self.adapters, fuse) if fuse else self.adapters  # type: ignore[arg-type]
        world = self.world
        self.controller = RayJobs(world.store, world.fleet, clusters, world.accept, world.clock, InOrder("rayjobs"))

    def end(self) -> None:
        """The server ends, or is killed."""
        for site in self.sites:
            self.adapters.forget(site.cluster.name)
        self.world.store.close()

    def now(self) -> datetime:
        """By the world's clock, for what is made before it."""
        return self.world.clock.now()

    def turn(self) -> None:
        """The operator, then the controller and every loop, with the news of what came before."""
        self.world.clock.pass_s(RECONCILED_S)
        for site in self.sites:
            site.operator.step()
        self.caught_up()
        self.controller.step()
        self.world.settle()

    def caught_up(self) -> None:
        """Wait until the watches have told what the servers know."""
        for site in self.sites:
            self._caught_up(site)

    def _caught_up(self, site: Site) -> None:
        client = self.adapters.kubernetes(site.cluster)
        deadline = time.monotonic() + 60
        while True:
            seen = None
            with contextlib.suppress(ClusterError):  # the watch is about to be begun anew
                seen = {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in client._all()}
            there = {one["metadata"]["uid"]: one["metadata"]["resourceVersion"] for one in site.api.of("rayjobs")
                     if (one["metadata"].get("labels") or {}).get("carbon-sched/managed") == "true"}  # fmt: skip
            if seen == there:
                return
            assert time.monotonic() < deadline, (seen, there)
            time.sleep(0.01)

    def submitted(self, name: str) -> Attempt:
        """The newest attempt of a RayJob, once its cluster is there and Ray has the job."""
        for _ in range(20):
            self.turn()
            tried = self.world.attempts(self.job(name))
            if tried and self.site(tried[-1]).heads.job(tried[-1].attempt_id):
                return tried[-1]
        raise AssertionError(self.job(name), self.object(name)["status"])

    def site(self, attempt: Attempt) -> Site:
        """Where an attempt is."""
        (found,) = [site for site in self.sites if site.cluster.name == attempt.cluster]
        return found

    def job(self, name: str) -> Job:
        """The job of a RayJob."""
        (found,) = [job for job in self.jobs() if job.spec.name == name]
        return found

    def jobs(self) -> list[Job]:
        with self.world.store.transaction(write=False) as tx:
            return tx.jobs(JobFilter(), limit=10_000)

    def object(self, name: str) -> Json:
        (found,) = [one for one in self.api.of("rayjobs") if one["metadata"]["name"] == name]
        return found

    # what the wrapper does, and Ray --------------------------------------------------------------

    def starts(self, attempt: Attempt) -> None:
        self.site(attempt).starts(attempt.attempt_id)

    def closes(self, attempt: Attempt, **more: Any) -> None:
        self.site(attempt).closes(attempt.attempt_id, **more)

    def finishes(self, attempt: Attempt, *arguments: Any) -> None:
        self.site(attempt).finishes(attempt.attempt_id, *arguments)


class _Late:
    """The world's clock, for adapters that are made before it."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def now(self) -> Any:
        return self._kube.world.clock.now()

    def monotonic(self) -> float:
        return float(self._kube.world.clock.monotonic())
