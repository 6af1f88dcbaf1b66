"""The Ray heads of RayJobs, each for as long as its cluster lives, reached through the API server's proxy."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from carbon_sched.clusters.kubernetes.manifest import FINAL, attempt_of, has_cluster
from carbon_sched.clusters.ray_client import RayClient
from carbon_sched.domain.errors import ClusterError, ClusterUnclear
from carbon_sched_runtime import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from carbon_sched.clusters.http import Endpoint
    from carbon_sched.ports import Clock, RayJob

    Json = dict[str, Any]

log = logging.getLogger(__name__)

ASK_AGAIN_S = 10.0
"""A head that did not answer is left alone for so long: one that starts, or is gone, must not hold up the others."""


@dataclass
class _Attempt:
    """What was learnt of an attempt from its head; `asked_at` is when it last did not answer."""

    job: RayJob | None = None
    asked_at: float = float("-inf")


class Heads:
    """Clients by service, and what they said; may be used from several threads at once."""

    def __init__(self, endpoint: Endpoint, clock: Clock) -> None:
        self._endpoint, self._clock = endpoint, clock
        self._lock = threading.Lock()
        self._clients: dict[str, RayClient] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._nodes: dict[str, str] = {}

    def address(self, namespace: str, service: str, port: str) -> str:
        """Where the API server lets us reach a service."""
        return f"{self._endpoint.address}/api/v1/namespaces/{namespace}/services/{service}:{port}/proxy"

    def of(self, rayjob: Json) -> RayClient | None:
        """The head of a RayJob's cluster; None while, and once, it has none."""
        address = self._address_of(rayjob)
        return self._client(address) if address else None

    def _address_of(self, rayjob: Json) -> str:
        if not has_cluster(rayjob, self._clock.now()):
            return ""
        host, _, port = rayjob["status"]["dashboardURL"].removeprefix("http://").partition(":")
        return self.address(rayjob["metadata"]["namespace"], host.partition(".")[0], port or "8265")

    def details(self, attempt: str, rayjob: Json, status: str) -> RayJob | None:
        """What Ray says of an attempt that runs or has ended: once while it runs, and once more at its end."""
        known = self._attempts.setdefault(attempt, _Attempt())
        settled = known.job is not None and (status == "RUNNING" or known.job.status in FINAL)
        waits = self._clock.monotonic() - known.asked_at < ASK_AGAIN_S
        if status not in ("RUNNING", *FINAL) or settled or waits or (head := self.of(rayjob)) is None:
            return known.job
        try:
            found = head.job(attempt)
        except ClusterError as error:
            log.info("head does not tell of its job cluster=%s attempt=%s: %s", self._endpoint.name, attempt, error)
            found = None
        if found is None or not found.driver_node_id:
            known.asked_at = self._clock.monotonic()
        else:
            self._nodes[found.driver_node_id] = head.name
        known.job = found or known.job
        return known.job

    def has_closed(self, attempt: str, rayjob: Json) -> bool:
        """Whether the wrapper's record says that the job has ended and all its energy is written."""
        known, head, name = self._attempts.get(attempt), self.of(rayjob), wire.record_name(attempt)
        node = known.job.driver_node_id if known and known.job else None
        if head is None or not node:
            return False
        try:
            if name not in head.list_files(node, name):
                return False
            record = wire.parse_record(head.read_file(node, name, limit=wire.RECORD_LIMIT), attempt)
        except ClusterError as error:
            log.info("record not read cluster=%s attempt=%s: %s", self._endpoint.name, attempt, error)
            return False
        return record.last("closed") is not None

    def with_node(self, node_id: str, rayjobs: Callable[[], list[Json]]) -> RayClient:
        """The head whose cluster a node belongs to; ClusterUnclear where none of those that answer knows it."""
        if node_id not in self._nodes:
            for rayjob in rayjobs():
                head = self.of(rayjob)
                for node in head.status().nodes if head else ():
                    self._nodes[node.node_id] = head.name if head else ""
        if node_id not in self._nodes:
            raise ClusterUnclear(f"cluster {self._endpoint.name!r}: no Ray cluster there has the node {node_id[:12]}")
        return self._client(self._nodes[node_id])

    def prune(self, rayjobs: list[Json]) -> None:
        """Forget all other attempts, and the heads that are gone."""
        attempts, there = {attempt_of(rayjob) for rayjob in rayjobs}, {self._address_of(rayjob) for rayjob in rayjobs}
        self._attempts = {name: known for name, known in self._attempts.items() if name in attempts}
        self._nodes = {node: address for node, address in self._nodes.items() if address in there}
        with self._lock:
            for address in self._clients.keys() - there:
                self._clients.pop(address).close()

    def close(self) -> None:
        """Drop open connections."""
        with self._lock:
            for client in self._clients.values():
                client.close()
            self._clients.clear()

    def _client(self, address: str) -> RayClient:
        with self._lock:
            if address not in self._clients:
                endpoint = replace(self._endpoint, address=address)
                self._clients[address] = RayClient(address, lambda: endpoint, self._clock)
            return self._clients[address]
