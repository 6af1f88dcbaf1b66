"""An in-memory Ray cluster behind `ports.ClusterClient`, for tests of the service: scriptable to be away or to lie."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.cluster import Cluster, ClusterStatus, Epoch, Node
from carbon_sched.domain.errors import ClusterError, ClusterRefused, ClusterUnclear, ClusterUnreachable
from carbon_sched.ports import Clock, GpuPower, RayJob, RaySubmission, Served, ServedApp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NODE = "node-1"


@dataclass
class FakeCluster:
    """One cluster. `failures` maps a method name to errors raised by its next calls, before or after its effect."""

    name: str
    clock: Clock
    resources: dict[str, float] = field(default_factory=lambda: {"CPU": 4.0})
    used: dict[str, float] | None = field(default_factory=dict)
    clock_ahead_s: float | None = 0.0
    session: str = "session-1"
    node: str = NODE
    mute: bool = False  # it tells of jobs, and not of nodes
    up: bool = True
    known: dict[str, RayJob] = field(default_factory=dict)
    submissions: list[RaySubmission] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    reads: list[str] = field(default_factory=list)
    gpus: list[GpuPower] = field(default_factory=list)
    waiting: set[str] = field(default_factory=set)
    packages: set[str] = field(default_factory=set)
    apps: dict[str, ServedApp] = field(default_factory=dict)
    serving: bool = False
    put: list[list[str]] = field(default_factory=list)
    failures: dict[str, list[ClusterError]] = field(default_factory=dict)
    failures_after: dict[str, list[ClusterError]] = field(default_factory=dict)

    # what tests make happen ----------------------------------------------------------------------

    def run(self, submission_id: str) -> None:
        """Ray starts the job."""
        self.known[submission_id] = replace(self.known[submission_id], status="RUNNING", driver_node_id=NODE)

    def end(
        self,
        submission_id: str,
        status: str,
        exit_code: int | None,
        *,
        error_type: str | None = None,
        node: str | None = NODE,
    ) -> None:
        """Ray sees the job's end."""
        known = self.known[submission_id]
        job = replace(known, status=status, driver_node_id=node, driver_exit_code=exit_code, error_type=error_type)
        self.known[submission_id] = job

    def replace_node(self) -> None:
        """The node is preempted and another one comes; Ray gives up the jobs that ran there."""
        self.node = "node-2"
        for submission_id, job in self.known.items():
            if job.status == "RUNNING":
                lost = replace(job, status="FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED", message="it died")
                self.known[submission_id] = lost

    def restart(self, session: str) -> None:
        """The head is replaced and forgets everything."""
        self.session, self.known, self.files = session, {}, {}

    # ports.ClusterClient -------------------------------------------------------------------------

    def status(self) -> ClusterStatus:
        now = self.clock.now()
        if not self.up or self.mute:
            return ClusterStatus(self.name, now, problem="connection refused")
        node = Node(self.node, "127.0.0.1", is_head=True, resources=self.resources, used=self.used)
        return ClusterStatus(self.name, now, "http://fake", self.epoch(), "2.60.0", (node,))

    def epoch(self) -> Epoch:
        self._answer("epoch")
        return Epoch(self.session, "cluster-1")

    def clock_skew_s(self) -> float | None:
        self._answer("clock_skew_s")
        return self.clock_ahead_s

    def ensure_package(self, path: Path, name: str) -> str:
        self._answer("ensure_package")
        assert path.exists()
        self.packages.add(name)
        return f"gcs://{name}"

    def submit(self, submission: RaySubmission) -> None:
        self._answer("submit")
        self.submissions.append(submission)
        self.known.setdefault(submission.submission_id, RayJob(submission.submission_id, "PENDING"))
        self._answer("submit", after=True)

    def job(self, submission_id: str) -> RayJob | None:
        self._answer("job")
        return self.known.get(submission_id)

    def jobs(self) -> list[RayJob]:
        self._answer("jobs")
        return list(self.known.values())

    def stop(self, submission_id: str) -> None:
        self._answer("stop")
        self.stops.append(submission_id)

    def logs(self, submission_id: str) -> bytes | None:
        self._answer("logs")
        return self.files.get(f"job-driver-{submission_id}.log", b"")

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        self._answer("list_files")
        assert node_id == NODE
        if node_id != self.node:
            raise ClusterUnclear("no agent answers for this node")
        return sorted(name for name in self.files if fnmatch.fnmatchcase(name, pattern))

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        self._answer("read_file")
        assert node_id == NODE
        self.reads.append(name)
        if len(self.files[name]) > limit:
            raise ClusterRefused(f"file {name} is larger than {limit} bytes")
        return self.files[name]

    def waiting_for_room(self) -> set[str]:
        self._answer("waiting_for_room")
        return self.waiting

    def served(self) -> Served:
        self._answer("served")
        return Served(tuple(self.apps.values()), 8000 if self.serving else None, answers=self.serving)

    def serve(self, applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> None:
        self._answer("serve")
        self.serving = True
        put = {config["name"]: config for config in applications}
        self.put.append([config["name"] for config in applications])
        self.apps = {
            name: self.apps[name]
            if name in self.apps and self.apps[name].config == config
            else ServedApp(name, "DEPLOYING", config=config, nodes=(NODE,))
            for name, config in put.items()
        }

    def answer(self, name: str, status: str = "RUNNING") -> None:
        """Serve has made the app."""
        self.apps[name] = replace(self.apps[name], status=status)

    def gpu_power(self) -> list[GpuPower]:
        self._answer("gpu_power")
        return self.gpus

    def _answer(self, method: str, *, after: bool = False) -> None:
        if not self.up:
            raise ClusterUnreachable("connection refused")
        script = (self.failures_after if after else self.failures).get(method, [])
        if script:
            raise script.pop(0)


class FakeClusters:
    """`ports.Clusters` over fakes by name."""

    def __init__(self, *clusters: FakeCluster) -> None:
        self.by_name = {cluster.name: cluster for cluster in clusters}
        self.stopped_local: list[str] = []

    def client(self, cluster: Cluster) -> FakeCluster:
        return self.by_name[cluster.name]

    def forget(self, name: str) -> None:
        """Nothing is cached."""

    def stop_local(self, name: str) -> None:
        self.stopped_local.append(name)
