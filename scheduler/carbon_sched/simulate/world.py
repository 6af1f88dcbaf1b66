"""A virtual clock and clusters that are pools of units: the ports that a backtest lets production decide through."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from carbon_sched.domain.cluster import Cluster, ClusterStatus, Epoch, Node
from carbon_sched.domain.errors import Internal
from carbon_sched.planning.room import ClusterRoom
from carbon_sched.planning.snapshot import ClusterView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from carbon_sched.domain.intensity import Outlook
    from carbon_sched.domain.job import Resources
    from carbon_sched.planning.nodes import Held
    from carbon_sched.ports import GpuPower, RayJob, RaySubmission, Served

EPOCH = Epoch("backtest", "backtest")


class VirtualClock:
    """Stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._start = self._now = start

    def now(self) -> datetime:
        """The virtual instant."""
        return self._now

    def monotonic(self) -> float:
        """Virtual seconds since the start."""
        return (self._now - self._start).total_seconds()

    def move_to(self, hours: float) -> None:
        """Set it to so many hours after the start."""
        self._now = self._start + timedelta(hours=hours)


class Machines:
    """One cluster's pools and what is taken of them; answers as a `ports.ClusterClient` of a healthy cluster."""

    def __init__(self, cluster: Cluster, clock: VirtualClock, outlook: Outlook) -> None:
        self._clock = clock
        self._cluster = cluster
        nodes = _nodes(cluster)
        view = ClusterView(cluster, ClusterStatus(cluster.name, clock.now(), nodes=nodes), outlook)
        self._room = ClusterRoom(view, clock.now())
        self._nodes = nodes

    def take(self, resources: Resources) -> Held | None:
        """Nodes for a job, which holds them from now on; None where there is no room."""
        held = self._room.assign(resources)
        self._room.nodes.take(held or [])
        return held

    def give_back(self, held: Held) -> None:
        """End what a job holds."""
        self._room.nodes.give_back(held)

    # ports.ClusterClient -------------------------------------------------------------------------

    def status(self) -> ClusterStatus:
        """Every pool, as one node, with what is in use there."""
        nodes = tuple(replace(node, used=self._used(number, node)) for number, node in enumerate(self._nodes))
        return ClusterStatus(self._cluster.name, self._clock.now(), epoch=EPOCH, nodes=nodes)

    def _used(self, number: int, node: Node) -> dict[str, float]:
        free = self._room.nodes.column
        return {name: amount - float(free(name, free=True)[number]) for name, amount in node.resources.items()}

    def epoch(self) -> Epoch:
        """Always the same."""
        return EPOCH

    def ensure_package(self, path: Path, name: str) -> str:
        """Nothing is sent in a backtest."""
        _never(path, name)

    def submit(self, submission: RaySubmission) -> None:
        """Nothing is sent in a backtest."""
        _never(submission)

    def job(self, submission_id: str) -> RayJob | None:
        """Nothing is asked in a backtest."""
        _never(submission_id)

    def jobs(self) -> list[RayJob]:
        """Nothing is asked in a backtest."""
        _never()

    def stop(self, submission_id: str) -> None:
        """Nothing is sent in a backtest."""
        _never(submission_id)

    def logs(self, submission_id: str) -> bytes | None:
        """Nothing is asked in a backtest."""
        _never(submission_id)

    def list_files(self, node_id: str, pattern: str) -> list[str]:
        """Nothing is asked in a backtest."""
        _never(node_id, pattern)

    def read_file(self, node_id: str, name: str, *, limit: int) -> bytes:
        """Nothing is asked in a backtest."""
        _never(node_id, name, limit)

    def clock_skew_s(self) -> float:
        """One clock for all."""
        return 0.0

    def waiting_for_room(self) -> set[str]:
        """Nothing is asked in a backtest."""
        _never()

    def served(self) -> Served:
        """Nothing is asked in a backtest."""
        _never()

    def serve(self, applications: Sequence[Mapping[str, Any]], *, host: str, port: int) -> None:
        """Nothing is sent in a backtest."""
        _never(applications, host, port)

    def gpu_power(self) -> list[GpuPower]:
        """Nothing is asked in a backtest."""
        _never()


class Fields:
    """All clusters, as `ports.Clusters`."""

    def __init__(self, machines: Mapping[str, Machines]) -> None:
        self._machines = machines

    def client(self, cluster: Cluster) -> Machines:
        """The machines of a cluster."""
        return self._machines[cluster.name]

    def forget(self, name: str) -> None:
        """Nothing is cached."""

    def stop_local(self, name: str) -> None:
        """Nothing is local."""


def _nodes(cluster: Cluster) -> tuple[Node, ...]:
    return tuple(Node(pool.name, "", is_head=False, resources=pool.node_resources, used={}) for pool in cluster.pools)


def _never(*_: object) -> NoReturn:
    raise Internal("a backtest asked a cluster for something that deciding does not need")
